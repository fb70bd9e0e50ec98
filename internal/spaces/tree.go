package spaces

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
	"github.com/xbstream/xbstream/internal/innodb"
)

// Tree is a directory's tablespaces by id. It is made empty, and filled by
// SettleManifest where there is a manifest; by ClaimSystem, SettleMarkers and
// SettleFound, in this order, where there is none.
type Tree struct {
	// PageSize is the source's innodb_page_size, in bytes.
	PageSize int
	// ParseFlags reads the flags of a tablespace; NewTree sets that of MariaDB.
	ParseFlags func(flags uint32) (innodb.PageFormat, error)
	// Spaces are the tablespaces found, the system tablespace under id 0.
	Spaces map[format.SpaceID]*Tablespace
	// LeftOut are the paths of tablespaces that the manifest says were left
	// out of the backup.
	LeftOut map[format.SpaceID]string
	// Links are the absolute paths of files that lie elsewhere, by their path in
	// the directory.
	Links map[string]string
	// Recovered says that an earlier run got as far as replacing the log: what
	// redo said of files was followed then, and no redo is left to follow.
	Recovered bool
	// Changes are the changes made so far, also those before an error.
	Changes Changes
	// BeforeChange, if a test sets it, is called before a name changes. Its error
	// ends the work there, where a killed run would stop.
	BeforeChange func() error

	dir string
	// unclaimed are files whose page 0 says nothing, by path.
	unclaimed map[string]int64
	// changed are the directories in which names came or went.
	changed map[string]bool
	// edits are what redo changes about the files of the manifest.
	edits edits
	// freshSystem says that the system tablespace had no page 0 when it was
	// copied, because the server had just made it: it comes from redo alone.
	freshSystem bool
}

// Changes are what became of files of tablespaces. Paths are relative and slash
// separated.
type Changes struct {
	Deleted []string // dropped during the backup
	Renamed []string // "old -> new", renamed during the backup
}

// NewTree returns the tree of dir, without any tablespace. The page size is in
// bytes.
func NewTree(dir string, pageSize int) *Tree {
	return &Tree{PageSize: pageSize, ParseFlags: innodb.ParseFlags, Spaces: map[format.SpaceID]*Tablespace{}, LeftOut: map[format.SpaceID]string{},
		dir: dir, unclaimed: map[string]int64{}, changed: map[string]bool{}}
}

// Path returns where the file with a relative, slash separated path is.
func (tr *Tree) Path(rel string) string {
	if to, ok := tr.Links[rel]; ok {
		return to
	}
	return filepath.Join(tr.dir, filepath.FromSlash(rel))
}

// claim makes the file that of its tablespace.
func (tr *Tree) claim(rel string, p firstPage) (other *Tablespace) {
	if !p.written {
		tr.unclaimed[rel] = p.size
		return nil
	}
	if other = tr.Spaces[p.id]; other != nil {
		return other
	}
	tr.Spaces[p.id] = &Tablespace{ID: p.id, Pages: p.pages, Known: true, Files: []File{{Path: rel, Size: p.size}}}
	return nil
}

// ClaimSystem makes the named files the system tablespace. Only the first has
// a header; pages are counted across all. Errors wrap backupdir.ErrIncomplete if a
// file is not there, and backupdir.ErrDamaged if the first is of something else.
func (tr *Tree) ClaimSystem(names []string) error {
	t := &Tablespace{}
	next := format.PageNo(0)
	for i, name := range names {
		if i == 0 {
			p, err := tr.readFirstPage(name)
			if err != nil {
				return err
			}
			if p.id != 0 || !p.written && !tr.freshSystem {
				return fmt.Errorf("%s: not the first file of a system tablespace: %w", name, backupdir.ErrDamaged)
			}
			t.Pages, t.Known, t.Fresh = p.pages, p.written, !p.written
		}
		st, err := os.Stat(tr.Path(name))
		if err != nil {
			return missing(err)
		}
		t.Files = append(t.Files, File{Path: name, First: next, Size: st.Size()})
		next += format.PageNo(st.Size() / int64(tr.PageSize)) // it is never compressed
	}
	tr.Spaces[0] = t
	return nil
}

// missing makes a file that is not there an incomplete backup.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", err, backupdir.ErrIncomplete)
	}
	return err
}

// fresh adds a tablespace that comes from redo alone, under the given path. What
// a file of that name has may be of another tablespace that had it before.
func (tr *Tree) fresh(id format.SpaceID, rel string) (*Tablespace, error) {
	if err := os.MkdirAll(filepath.Dir(tr.Path(rel)), 0o700); err != nil {
		return nil, err
	}
	if err := empty(tr.Path(rel)); err != nil {
		return nil, err
	}
	delete(tr.unclaimed, rel)
	t := &Tablespace{ID: id, Fresh: true, Files: []File{{Path: rel}}}
	tr.Spaces[id] = t
	return t, nil
}

// empty makes a file, if it is there, one of zeros. Its size stays: the server
// makes files larger than it uses.
func empty(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		err = f.Truncate(st.Size())
	}
	return errors.Join(err, f.Close())
}
