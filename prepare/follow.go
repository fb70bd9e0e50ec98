package prepare

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/filename"
)

// This file brings the files of a backup to where redo says they end.
//
// BLOCK_DDL keeps users from changing tables, but an ALTER that runs already
// goes on with files of its own (#sql-alter-…, FTS_…), and drops them when it is
// killed or fails. So the sender's last look at the directory, which made the
// manifest, is older than the end LSN. A server that recovers follows the file
// records of its log, whatever lies in its directory, and so does this. Of a table
// that a user made FILE_DELETE may be redo's last word though its file is there:
// DISCARD TABLESPACE wrote it, and IMPORT TABLESPACE writes nothing.

// gone says that redo deletes the tablespace and does not mention it again.
func (h *history) gone() bool { return h != nil && h.deleted != 0 && !h.alive }

// followListed brings the files of a manifest under the names they end with:
// those that redo deletes are removed, those it renames are renamed. It returns
// the entries that are left, under their last paths. What redo makes and no file
// has, followCreated adds when all files have found their tablespace.
//
// It can be interrupted anywhere and run again: a file is only touched when it
// is the one that the entry is about.
func (tr *tree) followListed(files []format.File, spaces map[format.SpaceID]*history, rep *Report) ([]format.File, error) {
	names := indexUnwritten(files, spaces)
	kept := make([]format.File, 0, len(files))
	for _, f := range files {
		if f.Kind != format.KindTablespace || f.Space == nil || tr.recovered {
			kept = append(kept, f)
			continue
		}
		id := f.Space.ID
		if f.Space.Rebuild && id == 0 {
			id = names.find(f.Path)
		}
		stays, err := tr.followOne(&f, id, spaces[id], rep)
		if err != nil {
			return nil, err
		}
		if stays {
			kept = append(kept, f)
		}
	}
	return kept, tr.finishMoves(endMoved)
}

// followOne does it for one entry.
func (tr *tree) followOne(f *format.File, id format.SpaceID, h *history, rep *Report) (stays bool, err error) {
	final, renamed := finalName(h)
	switch {
	case h.gone() && (f.Space.Rebuild || filename.Internal(f.Path)):
		rep.Deleted = append(rep.Deleted, f.Path)
		tr.edits.remove(f.Path)
		return false, tr.removeOwn(f, id)
	case !renamed || h.gone() || final == f.Path:
		return true, nil
	case f.Space.Rebuild:
		// The file has nothing that redo does not have: it is made again
		// under its last name.
		tr.edits.remove(f.Path)
		return false, tr.removeOwn(f, id)
	}
	own, err := tr.isOf(f.Path, id)
	if err != nil {
		return false, err
	}
	if own {
		err = tr.moveAside(f.Path, final, endMoved, rep)
	}
	tr.edits.rename(f.Path, final)
	f.Path = final
	return true, err
}

// removeOwn removes the file of an entry unless it is another tablespace's by
// now: an earlier run may have come that far.
func (tr *tree) removeOwn(f *format.File, id format.SpaceID) error {
	if f.Space.Rebuild {
		id = 0 // as long as page 0 is not written, it is this one
	}
	own, err := tr.isOf(f.Path, id)
	if err != nil || !own {
		return err
	}
	if err := tr.remove(f.Path); err != nil {
		return err
	}
	if _, linked := tr.links[f.Path]; !linked {
		return nil
	}
	delete(tr.links, f.Path)
	return tr.remove(innodb.LinkName(f.Path))
}

// isOf says whether page 0 of a file is that of a tablespace; id 0 means that it
// is not written. A file that is not there is nobody's.
func (tr *tree) isOf(rel string, id format.SpaceID) (bool, error) {
	got, err := tr.spaceID(rel)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && got == id, err
}

// followCreated adds the tablespaces that redo creates and of which there is no
// file: redo has all their pages. In a partial backup those of an ALTER are not
// made: whether its table was asked for, nobody noted.
func (tr *tree) followCreated(m *format.Manifest, spaces map[format.SpaceID]*history) error {
	if tr.recovered {
		return nil
	}
	partial := m.Partial || m.Backup.Filter != nil
	taken := make(map[string]*tablespace, len(tr.spaces))
	for _, t := range tr.spaces {
		taken[t.files[0].path] = t
	}
	for id, h := range spaces {
		name, ok := finalName(h)
		switch {
		case !h.created || h.gone() || tr.spaces[id] != nil || tr.leftOut[id] != "":
			continue
		case !ok:
			return fmt.Errorf("space %v: name %q in redo: %w", id, h.name, ErrDamaged)
		case partial && filename.Internal(name):
			tr.leftOut[id] = name
			continue
		case partial:
			continue // applying says that it is missing
		case taken[name] != nil:
			return fmt.Errorf("%s: redo gives space %v the same name: %w", taken[name], id, ErrDamaged)
		}
		t, err := tr.create(id, name)
		if err != nil {
			return err
		}
		taken[name] = t
	}
	return nil
}

// create makes room for a tablespace of which the manifest has no file. There is
// one when an earlier run was interrupted.
func (tr *tree) create(id format.SpaceID, name string) (*tablespace, error) {
	tr.edits.created = append(tr.edits.created, id)
	p, err := tr.readFirstPage(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case p.written && p.id != id:
		return nil, fmt.Errorf("%s: space %v, redo says %v: %w", name, p.id, id, ErrDamaged)
	case p.written:
		tr.claim(name, p)
		return tr.spaces[id], nil
	}
	return tr.fresh(id, name)
}

// nameIndex finds tablespaces by the names that redo gives them.
type nameIndex struct {
	last map[string]format.SpaceID // of those that are there at the end
	ever map[string]format.SpaceID // the newest that had the name
}

// newNameIndex leaves out tablespaces that are known by their files.
func newNameIndex(spaces map[format.SpaceID]*history, known func(format.SpaceID) bool) nameIndex {
	x := nameIndex{map[string]format.SpaceID{}, map[string]format.SpaceID{}}
	newest := func(m map[string]format.SpaceID, name string, id format.SpaceID) {
		if local, ok := localName(name); ok && id > m[local] {
			m[local] = id
		}
	}
	for id, h := range spaces {
		if known(id) {
			continue
		}
		if !h.gone() {
			newest(x.last, h.name, id)
		}
		newest(x.ever, h.name, id)
		for _, name := range h.former {
			newest(x.ever, name, id)
		}
	}
	return x
}

// indexUnwritten is the index for those files of a manifest that have no page 0.
func indexUnwritten(files []format.File, spaces map[format.SpaceID]*history) nameIndex {
	written := make(map[format.SpaceID]bool, len(files))
	for _, f := range files {
		if f.Space != nil && !f.Space.Rebuild {
			written[f.Space.ID] = true
		}
	}
	return newNameIndex(spaces, func(id format.SpaceID) bool { return written[id] })
}

// find returns the tablespace that a file without a page 0 is of: the one that
// has the name at the end, or else the newest one that had it. Ids only grow.
func (x nameIndex) find(rel string) format.SpaceID {
	if id := x.last[rel]; id != 0 {
		return id
	}
	return x.ever[rel]
}

// edits are what following redo changes about the files of the manifest.
type edits struct {
	removed map[string]bool
	renamed map[string]string
	created []format.SpaceID
}

func (e *edits) remove(rel string) {
	if e.removed == nil {
		e.removed = map[string]bool{}
	}
	e.removed[rel] = true
}

func (e *edits) rename(from, to string) {
	if e.renamed == nil {
		e.renamed = map[string]string{}
	}
	e.renamed[from] = to
}

func (e *edits) none() bool {
	return len(e.removed) == 0 && len(e.renamed) == 0 && len(e.created) == 0
}

// updateManifest lets the manifest name the files that the directory has now
// (SPEC.md §5.2). That is done before the log is replaced: without its redo
// nothing explains that a file is not there.
func (tr *tree) updateManifest(m *format.Manifest) error {
	if m == nil || tr.edits.none() {
		return nil
	}
	name := filepath.Join(tr.dir, backupdir.ManifestName)
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	return backupdir.ReplaceWith(name, func(out io.Writer) error {
		w := bufio.NewWriter(out)
		if err := tr.editManifest(w, in, m); err != nil {
			return err
		}
		return w.Flush()
	})
}

// followForServer is what a server's recovery needs of it: files that redo
// deletes are gone, and of those that redo makes there is an empty one, which a
// server fills; without it, a server would not start (MariaDB log0recv.cc,
// recv_validate_tablespace).
func (tr *tree) followForServer(m *format.Manifest, spaces map[format.SpaceID]*history, rep *Report) (err error) {
	if m.Files, err = tr.followListed(m.Files, spaces, rep); err != nil {
		return err
	}
	index := indexUnwritten(m.Files, spaces)
	for i := range m.Files {
		switch f := &m.Files[i]; {
		case f.Kind == format.KindLeftOut:
			tr.leaveOut(f, index)
		case f.Kind != format.KindTablespace:
		case f.Space.Rebuild:
			id := index.find(f.Path)
			tr.spaces[id] = &tablespace{id: id, files: []dataFile{{path: f.Path}}}
		default:
			tr.spaces[f.Space.ID] = &tablespace{id: f.Space.ID, files: []dataFile{{path: f.Path}}}
		}
	}
	if err := tr.followCreated(m, spaces); err != nil {
		return err
	}
	for _, id := range tr.edits.created {
		rel := tr.spaces[id].files[0].path
		f, err := os.OpenFile(tr.path(rel), os.O_CREATE|os.O_WRONLY, 0o660)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		m.Files = append(m.Files, format.File{Path: rel, Kind: format.KindTablespace, Space: &format.Space{ID: id, Rebuild: true}})
	}
	return errors.Join(tr.updateManifest(m), tr.syncChanged())
}

// editManifest copies a manifest, of which m is all but the files, with the edits.
func (tr *tree) editManifest(w io.Writer, in io.Reader, m *format.Manifest) error {
	enc, err := format.NewManifestEncoder(w, m)
	if err != nil {
		return err
	}
	e := &tr.edits
	var last format.FileNo
	_, err = format.DecodeManifest(in, func(f *format.File) error {
		last = max(last, f.No)
		if e.removed[f.Path] {
			return nil
		}
		if to, ok := e.renamed[f.Path]; ok {
			f.Path = to
		}
		return enc.Add(f)
	})
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(slices.Values(e.created)) {
		f, err := tr.createdEntry(id)
		if err != nil {
			return err
		}
		last++
		f.No = last
		if err := enc.Add(f); err != nil {
			return err
		}
	}
	return enc.Close()
}

// createdEntry describes a file that came from redo alone.
func (tr *tree) createdEntry(id format.SpaceID) (*format.File, error) {
	rel := tr.spaces[id].files[0].path
	p, err := tr.readFirstPage(rel)
	encrypted := errors.Is(err, ErrEncrypted)
	if err != nil && !encrypted {
		return nil, err
	}
	return &format.File{
		Path: rel, Kind: format.KindTablespace, Size: p.size, Mode: 0o660,
		Space: &format.Space{ID: id, PageSize: p.pages.Physical, Encrypted: encrypted, Rebuild: true},
	}, nil
}
