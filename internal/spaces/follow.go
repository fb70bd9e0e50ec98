package spaces

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
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

// followListed brings the files of a manifest under the names they end with:
// those that redo deletes are removed, those it renames are renamed. It returns
// the entries that are left, under their last paths. What redo makes and no file
// has, followCreated adds when all files have found their tablespace.
//
// It can be interrupted anywhere and run again: a file is only touched when it
// is the one that the entry is about.
func (tr *Tree) followListed(files []format.File, histories Histories) ([]format.File, error) {
	names := indexUnwritten(files, histories)
	kept := make([]format.File, 0, len(files))
	for _, f := range files {
		if tr.removedUnfinished(&f) {
			tr.edits.remove(f.Path)
			continue
		}
		if f.Kind != format.KindTablespace || f.Space == nil || tr.Recovered {
			kept = append(kept, f)
			continue
		}
		id := f.Space.ID
		if f.Space.Rebuild && id == 0 {
			id = names.find(f.Path)
		}
		stays, err := tr.followOne(&f, id, histories[id])
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
func (tr *Tree) followOne(f *format.File, id format.SpaceID, h *History) (stays bool, err error) {
	final, renamed := h.FinalPath()
	switch {
	case h.Gone() && (f.Space.Rebuild || filename.Internal(f.Path)):
		tr.Changes.Deleted = append(tr.Changes.Deleted, f.Path)
		tr.edits.remove(f.Path)
		return false, tr.removeOwn(f, id)
	case !renamed || h.Gone() || final == f.Path:
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
		err = tr.moveAside(f.Path, final, endMoved)
	}
	tr.edits.rename(f.Path, final)
	f.Path = final
	return true, err
}

// removeOwn removes the file of an entry unless it is another tablespace's by
// now: an earlier run may have come that far.
func (tr *Tree) removeOwn(f *format.File, id format.SpaceID) error {
	if f.Space.Rebuild {
		id = 0 // as long as page 0 is not written, it is this one
	}
	own, err := tr.isOf(f.Path, id)
	if err != nil || !own {
		return err
	}
	return tr.removeLinked(f.Path)
}

// removeLinked removes a file and what links to it.
func (tr *Tree) removeLinked(rel string) error {
	if err := tr.remove(rel); err != nil {
		return err
	}
	if _, linked := tr.Links[rel]; !linked {
		return nil
	}
	delete(tr.Links, rel)
	return tr.remove(innodb.LinkName(rel))
}

// removedUnfinished says that RemoveUnfinished removed the file of an entry before it
// was interrupted.
func (tr *Tree) removedUnfinished(f *format.File) bool {
	return tr.Recovered && f.Kind == format.KindTablespace && filename.Unfinished(f.Path) && !tr.exists(f.Path)
}

// RemoveUnfinished removes the files of the tables that an ALTER was making when
// the backup ended, and returns their paths. UpdateManifest has to follow. When all
// redo is applied and the log is replaced, nothing else knows of them but InnoDB's
// dictionary.
//
// A server drops these tables when it starts on a backup for the first time, and
// never again. It cannot drop one that a transaction still locks which it is about
// to roll back, as that of an ALTER with ALGORITHM=COPY, LOCK=NONE (MariaDB 11.8:
// "cannot drop …: Lock wait timeout"). A transaction does not get back the lock of
// a table without a file.
func (tr *Tree) RemoveUnfinished() (removed []string, err error) {
	for id, t := range tr.Spaces {
		name := t.Files[0].Path
		if id == 0 || !filename.Unfinished(name) {
			continue
		}
		if err := tr.removeLinked(name); err != nil {
			return removed, err
		}
		tr.edits.remove(name)
		delete(tr.Spaces, id)
		removed = append(removed, name)
	}
	slices.Sort(removed)
	return removed, nil
}

// isOf says whether page 0 of a file is that of a tablespace; id 0 means that it
// is not written. A file that is not there is nobody's.
func (tr *Tree) isOf(rel string, id format.SpaceID) (bool, error) {
	got, err := tr.SpaceID(rel)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && got == id, err
}

// followCreated adds the tablespaces that redo creates and of which there is no
// file: redo has all their pages. In a partial backup those of an ALTER are not
// made: whether its table was asked for, nobody noted.
func (tr *Tree) followCreated(m *format.Manifest, histories Histories) error {
	if tr.Recovered {
		return nil
	}
	partial := m.Partial || m.Backup.Filter != nil
	taken := make(map[string]*Tablespace, len(tr.Spaces))
	for _, t := range tr.Spaces {
		taken[t.Files[0].Path] = t
	}
	for id, h := range histories {
		name, ok := h.FinalPath()
		switch {
		case !h.Created || h.Gone() || tr.Spaces[id] != nil || tr.LeftOut[id] != "":
			continue
		case !ok:
			return fmt.Errorf("space %v: name %q in redo: %w", id, h.Name, backupdir.ErrDamaged)
		case partial && filename.Internal(name):
			tr.LeftOut[id] = name
			continue
		case partial:
			continue // applying says that it is missing
		case taken[name] != nil:
			return fmt.Errorf("%s: redo gives space %v the same name: %w", taken[name], id, backupdir.ErrDamaged)
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
func (tr *Tree) create(id format.SpaceID, name string) (*Tablespace, error) {
	tr.edits.created = append(tr.edits.created, id)
	p, err := tr.readFirstPage(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case p.written && p.id != id:
		return nil, fmt.Errorf("%s: space %v, redo says %v: %w", name, p.id, id, backupdir.ErrDamaged)
	case p.written:
		tr.claim(name, p)
		return tr.Spaces[id], nil
	}
	return tr.fresh(id, name)
}

// FollowForServer brings the files of a manifest to where a server's recovery
// needs them: those that redo deletes are gone, and of those that redo makes there
// is an empty one, which a server fills; without it, a server would not start
// (MariaDB log0recv.cc, recv_validate_tablespace). The manifest's files, in m and in
// the directory, are then those that are there. Errors wrap backupdir.ErrDamaged
// where redo or a file makes no sense.
func (tr *Tree) FollowForServer(m *format.Manifest, histories Histories) (err error) {
	if m.Files, err = tr.followListed(m.Files, histories); err != nil {
		return err
	}
	index := indexUnwritten(m.Files, histories)
	for i := range m.Files {
		switch f := &m.Files[i]; {
		case f.Kind == format.KindLeftOut:
			tr.leaveOut(f, index)
		case f.Kind != format.KindTablespace:
		case f.Space.Rebuild:
			id := index.find(f.Path)
			tr.Spaces[id] = &Tablespace{ID: id, Files: []File{{Path: f.Path}}}
		default:
			tr.Spaces[f.Space.ID] = &Tablespace{ID: f.Space.ID, Files: []File{{Path: f.Path}}}
		}
	}
	if err := tr.followCreated(m, histories); err != nil {
		return err
	}
	for _, id := range tr.edits.created {
		rel := tr.Spaces[id].Files[0].Path
		f, err := os.OpenFile(tr.Path(rel), os.O_CREATE|os.O_WRONLY, 0o660)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		m.Files = append(m.Files, format.File{Path: rel, Kind: format.KindTablespace, Space: &format.Space{ID: id, Rebuild: true}})
	}
	return errors.Join(tr.UpdateManifest(m), tr.SyncNames())
}
