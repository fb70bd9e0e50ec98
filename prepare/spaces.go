package prepare

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
)

// tablespace is a tablespace of the directory.
type tablespace struct {
	id    format.SpaceID
	files []dataFile
	// pages is the form of its pages; known says that it is set. It is not
	// for one whose page 0 was never written, until redo tells.
	pages innodb.PageFormat
	known bool
	// fresh says that page 0 was not yet written when the file was copied,
	// or that there is no file: the tablespace comes from redo alone.
	fresh bool
	// log is what redo says of it; nil when redo has no file records of it.
	log *history
	// touched says that pages were or will be written.
	touched bool
}

// dataFile is one file of a tablespace; only the system tablespace has several.
type dataFile struct {
	path  string // relative, slash separated
	first format.PageNo
	size  int64
}

func (t *tablespace) String() string {
	return fmt.Sprintf("%s (space %v)", t.files[0].path, t.id)
}

// file returns the file that holds a page, and the page's offset in it.
func (t *tablespace) file(no format.PageNo) (i int, off int64) {
	for i = len(t.files) - 1; i > 0 && no < t.files[i].first; i-- {
	}
	return i, int64(no-t.files[i].first) * int64(t.pages.Physical)
}

// pagesAfter returns how many pages starting at no lie in the same file.
func (t *tablespace) pagesAfter(no format.PageNo) int64 {
	i, _ := t.file(no)
	if i+1 < len(t.files) {
		return int64(t.files[i+1].first - no)
	}
	return 1 << 32
}

// tree is the directory's tablespaces by id.
type tree struct {
	dir      string
	pageSize int // innodb_page_size
	spaces   map[format.SpaceID]*tablespace
	// unclaimed are files whose page 0 says nothing, by path.
	unclaimed map[string]int64
	// leftOut are the paths of tablespaces that the manifest says were left
	// out of the backup.
	leftOut map[format.SpaceID]string
	// changed are the directories in which names came or went.
	changed map[string]bool
	// interrupt, if a test sets it, fails where a killed run would stop: before
	// a name changes.
	interrupt func() error
	// links are the absolute paths of files that lie elsewhere.
	links map[string]string
	// edits are what redo changes about the files of the manifest.
	edits edits
	// freshSystem says that the system tablespace had no page 0 when it was
	// copied, because the server had just made it: it comes from redo alone.
	freshSystem bool
	// recovered says that an earlier run got as far as replacing the log.
	recovered bool
}

func newTree(dir string, pageSize int) *tree {
	return &tree{dir: dir, pageSize: pageSize, spaces: map[format.SpaceID]*tablespace{}, unclaimed: map[string]int64{}, leftOut: map[format.SpaceID]string{}, changed: map[string]bool{}}
}

func (tr *tree) path(rel string) string {
	if to, ok := tr.links[rel]; ok {
		return to
	}
	return filepath.Join(tr.dir, filepath.FromSlash(rel))
}

// firstPage is what page 0 of a file says.
type firstPage struct {
	size    int64
	written bool
	id      format.SpaceID
	pages   innodb.PageFormat
}

// readFirstPage looks at page 0 of a file. A page that is zero or not whole is
// not an error: the file was made while it was copied.
func (tr *tree) readFirstPage(rel string) (p firstPage, err error) {
	f, err := os.Open(tr.path(rel))
	if err != nil {
		return p, missing(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return p, err
	}
	p.size = st.Size()
	page := make([]byte, tr.pageSize)
	n, err := f.ReadAt(page, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return p, err
	}
	if page = page[:n]; n < innodb.HeaderSize || innodb.IsZero(page[:innodb.HeaderSize]) {
		return p, nil
	}
	p.id = innodb.FSPSpaceID(page)
	if p.pages, err = innodb.ParseFlags(innodb.Flags(page)); err != nil {
		return p, fmt.Errorf("%s: %w: %w", rel, err, ErrDamaged)
	}
	if n < p.pages.Physical {
		return p, nil
	}
	p.written = true
	page = page[:p.pages.Physical]
	if err := p.pages.Verify(page, 0); err != nil {
		return p, fmt.Errorf("%s: %w: %w", rel, err, ErrDamaged)
	}
	if c, ok := p.pages.CryptData(page); ok && c.Encrypted() {
		return p, fmt.Errorf("%s (space %v): %w", rel, p.id, ErrEncrypted)
	}
	if p.pages.Logical != tr.pageSize {
		return p, fmt.Errorf("%s (space %v): page size %d in an instance of %d: %w", rel, p.id, p.pages.Logical, tr.pageSize, ErrDamaged)
	}
	return p, nil
}

// readFirstPages does it for many files at once, in no order.
func (tr *tree) readFirstPages(parallel int, files []string, found func(rel string, p firstPage) error) error {
	type answer struct {
		rel string
		p   firstPage
	}
	answers := make(chan answer, parallel)
	var g errgroup.Group
	g.SetLimit(parallel)
	failed := make(chan error, 1)
	go func() {
		defer close(answers)
		for _, rel := range files {
			g.Go(func() error {
				p, err := tr.readFirstPage(rel)
				if err == nil {
					answers <- answer{rel, p}
				}
				return err
			})
		}
		failed <- g.Wait()
	}()
	var err error
	for a := range answers {
		if err == nil {
			err = found(a.rel, a.p)
		}
	}
	return errors.Join(<-failed, err)
}

// claim makes the file that of its tablespace.
func (tr *tree) claim(rel string, p firstPage) (other *tablespace) {
	if !p.written {
		tr.unclaimed[rel] = p.size
		return nil
	}
	if other = tr.spaces[p.id]; other != nil {
		return other
	}
	tr.spaces[p.id] = &tablespace{id: p.id, pages: p.pages, known: true, files: []dataFile{{path: rel, size: p.size}}}
	return nil
}

// claimSystem makes the named files the system tablespace. Only the first has
// a header; pages are counted across all.
func (tr *tree) claimSystem(names []string) error {
	t := &tablespace{}
	next := format.PageNo(0)
	for i, name := range names {
		if i == 0 {
			p, err := tr.readFirstPage(name)
			if err != nil {
				return err
			}
			if p.id != 0 || !p.written && !tr.freshSystem {
				return fmt.Errorf("%s: not the first file of a system tablespace: %w", name, ErrDamaged)
			}
			t.pages, t.known, t.fresh = p.pages, p.written, !p.written
		}
		st, err := os.Stat(tr.path(name))
		if err != nil {
			return missing(err)
		}
		t.files = append(t.files, dataFile{path: name, first: next, size: st.Size()})
		next += format.PageNo(st.Size() / int64(tr.pageSize)) // it is never compressed
	}
	tr.spaces[0] = t
	return nil
}

// missing makes a file that is not there an incomplete backup.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", err, ErrIncomplete)
	}
	return err
}

// systemFiles returns the names of the files of the system tablespace, in order.
// The value was checked when the directory's state was read.
func systemFiles(dataFilePath string) []string {
	files, err := (&format.Server{DataFilePath: dataFilePath}).SystemFiles()
	if err != nil {
		return nil
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Path)
	}
	return names
}

// fresh adds a tablespace that comes from redo alone, under the given path. What
// a file of that name has may be of another tablespace that had it before.
func (tr *tree) fresh(id format.SpaceID, rel string) (*tablespace, error) {
	if err := os.MkdirAll(filepath.Dir(tr.path(rel)), 0o700); err != nil {
		return nil, err
	}
	if err := empty(tr.path(rel)); err != nil {
		return nil, err
	}
	delete(tr.unclaimed, rel)
	t := &tablespace{id: id, fresh: true, files: []dataFile{{path: rel}}}
	tr.spaces[id] = t
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

// localName turns a name of the log into one below the directory: database and
// file, whatever directory the source had them in. An absolute name is that of
// a table with a DATA DIRECTORY; its copy lies with the others.
func localName(name string) (string, bool) {
	name = strings.ReplaceAll(name, "\\", "/")
	file, db := path.Base(name), path.Base(path.Dir(name))
	local := db + "/" + file
	return local, strings.HasSuffix(file, ".ibd") && format.CheckPath(local) == nil
}

// leftover says whether a name is that of a table an ALTER was building or
// about to drop. It is no loss when such a file is missing.
func leftover(name string) bool { return strings.Contains(name, "/#sql") }
