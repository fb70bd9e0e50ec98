package spaces

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
)

// SettleManifest finds the tablespaces of a directory with a manifest. Files
// bear the names they had when the sender looked last; redo knows what happened
// to them from there to the backup's end. m.Files are then those that are left of
// them, under their last paths. So many files as parallel says are read at once.
// Errors wrap those of backupdir.
func (tr *Tree) SettleManifest(m *format.Manifest, histories Histories, parallel int) error {
	var err error
	if m.Files, err = tr.followListed(m.Files, histories); err != nil {
		return err
	}
	byPath := make(map[string]*format.File)
	index := indexUnwritten(m.Files, histories)
	var system []format.File
	var names []string
	for i, f := range m.Files {
		switch {
		case f.Kind == format.KindLeftOut:
			tr.leaveOut(&m.Files[i], index)
		case f.Kind == format.KindSystem:
			system = append(system, f)
		case f.Kind == format.KindTablespace || f.Kind == format.KindUndo:
			names = append(names, f.Path)
			byPath[f.Path] = &m.Files[i]
		}
	}
	if len(system) == 0 && m.Partial {
		return fmt.Errorf("%s: no InnoDB file was extracted, there is nothing to prepare", format.ManifestName)
	}
	if len(system) == 0 {
		return fmt.Errorf("%s: no system tablespace: %w", format.ManifestName, backupdir.ErrIncomplete)
	}
	slices.SortFunc(system, func(a, b format.File) int { return cmp.Compare(firstPageOf(a), firstPageOf(b)) })
	tr.freshSystem = system[0].Space != nil && system[0].Space.Rebuild
	if err := tr.ClaimSystem(pathsOf(system)); err != nil {
		return err
	}
	for i, f := range tr.Spaces[0].Files {
		if err := tr.checkSize(&system[i], f.Size, histories[0]); err != nil {
			return err
		}
	}
	if err := tr.checkListed(system); err != nil {
		return err
	}
	var undo undoFiles
	err = tr.readFirstPages(parallel, names, func(rel string, p firstPage) error {
		if byPath[rel].Kind == format.KindUndo {
			known := undo.note(rel, p)
			if !p.written && !known {
				return fmt.Errorf("%s: page 0 was never written: %w", rel, backupdir.ErrIncomplete)
			}
			if !p.written {
				return nil
			}
		}
		return tr.claimListed(byPath[rel], p, histories, index)
	})
	if err != nil {
		return err
	}
	if err := errors.Join(undo.claimUnwritten(tr), tr.checkLeftOut()); err != nil {
		return err
	}
	return tr.followCreated(m, histories)
}

// leaveOut takes note of a tablespace that is not there because nobody asked
// for it.
func (tr *Tree) leaveOut(f *format.File, index nameIndex) {
	id := f.Space.ID
	if f.Space.Rebuild {
		id = index.find(f.Path)
	}
	if id != 0 {
		tr.LeftOut[id] = f.Path
	}
}

func (tr *Tree) checkLeftOut() error {
	for id, path := range tr.LeftOut {
		if t := tr.Spaces[id]; t != nil {
			return fmt.Errorf("%s: %s, and %s was left out: %w", format.ManifestName, t, path, backupdir.ErrDamaged)
		}
	}
	return nil
}

func (tr *Tree) checkListed(system []format.File) error {
	for i := range system {
		if system[i].Space == nil || system[i].Space.ID != 0 {
			return fmt.Errorf("%s: %s is not of space 0: %w", format.ManifestName, system[i].Path, backupdir.ErrDamaged)
		}
		if system[i].Space.FirstPage != tr.Spaces[0].Files[i].First {
			return fmt.Errorf("%s: starts at page %v, the manifest says %v: %w", system[i].Path, tr.Spaces[0].Files[i].First, system[i].Space.FirstPage, backupdir.ErrDamaged)
		}
		if system[i].Space.Encrypted {
			return fmt.Errorf("%s (space 0): %w", system[i].Path, backupdir.ErrEncrypted)
		}
	}
	return nil
}

func firstPageOf(f format.File) format.PageNo {
	if f.Space == nil {
		return 0
	}
	return f.Space.FirstPage
}

func pathsOf(files []format.File) []string {
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.Path
	}
	return names
}

// claimListed checks one file against its entry in the manifest.
func (tr *Tree) claimListed(f *format.File, p firstPage, histories Histories, index nameIndex) error {
	if f.Space == nil {
		return fmt.Errorf("%s: %s has no tablespace of %s: %w", format.ManifestName, f.Kind, f.Path, backupdir.ErrDamaged)
	}
	if f.Space.Encrypted {
		return fmt.Errorf("%s (space %v): %w", f.Path, f.Space.ID, backupdir.ErrEncrypted)
	}
	if !p.written {
		id := f.Space.ID
		if id == 0 {
			id = index.find(f.Path)
		}
		if h := histories[id]; h == nil || !h.Created {
			return fmt.Errorf("%s (space %v): page 0 was never written and redo does not create it: %w", f.Path, id, backupdir.ErrIncomplete)
		}
		_, err := tr.fresh(id, f.Path)
		return err
	}
	if p.id != f.Space.ID && !(f.Space.Rebuild && f.Space.ID == 0) {
		return fmt.Errorf("%s: space %v, the manifest says %v: %w", f.Path, p.id, f.Space.ID, backupdir.ErrDamaged)
	}
	if err := tr.checkSize(f, p.size, histories[p.id]); err != nil {
		return err
	}
	if other := tr.claim(f.Path, p); other != nil {
		return fmt.Errorf("space %v in two files, %s and %s: %w", p.id, other.Files[0].Path, f.Path, backupdir.ErrDamaged)
	}
	return nil
}

// checkSize compares a file with its entry. It may be longer: an interrupted
// run has let it grow. It may be shorter where redo shrinks it, or has, and where
// an interrupted run had begun to make all of it from redo.
func (tr *Tree) checkSize(f *format.File, size int64, h *History) error {
	if size >= f.Size || tr.Recovered || f.Space.Rebuild || h != nil && len(h.Trims) > 0 {
		return nil
	}
	return fmt.Errorf("%s: %d bytes, the manifest says %d: %w", f.Path, size, f.Size, backupdir.ErrIncomplete)
}
