package spaces

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
	"github.com/xbstream/xbstream/internal/innodb/filename"
)

// SettleFound finds the tablespaces of a directory without a manifest, as
// mariabackup leaves it, and gives them the names redo says they end with.
// ClaimSystem and SettleMarkers come first. So many files as parallel says are read
// at once. Errors wrap those of backupdir.
func (tr *Tree) SettleFound(histories Histories, parallel int) error {
	if err := tr.claimUndo(); err != nil {
		return err
	}
	names, err := tr.Glob("*.ibd")
	if err != nil {
		return err
	}
	moved, err := tr.Glob("*.ibd" + endMoved)
	if err != nil {
		return err
	}
	names = append(names, moved...)
	var twins []twin
	err = tr.readFirstPages(parallel, names, func(rel string, p firstPage) error {
		if other := tr.claim(rel, p); other != nil {
			twins = append(twins, twin{other, rel, p})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, w := range twins {
		if err := tr.settleTwin(w, histories[w.space.ID]); err != nil {
			return err
		}
	}
	if err := tr.settleDeleted(histories); err != nil {
		return err
	}
	if err := tr.settleUnclaimed(histories); err != nil {
		return err
	}
	if err := tr.settleRenamed(histories); err != nil {
		return err
	}
	return tr.settleCreated(histories)
}

// twin is a second file with the id of a tablespace: a table that was renamed
// while it was copied.
type twin struct {
	space *Tablespace
	rel   string
	p     firstPage
}

// settleTwin keeps the file with the final name. Either will do: redo makes
// them equal.
func (tr *Tree) settleTwin(w twin, h *History) error {
	drop := w.rel
	if final, ok := h.FinalPath(); ok && final == w.rel {
		drop = w.space.Files[0].Path
		w.space.Files[0] = File{Path: w.rel, Size: w.p.size}
	}
	return tr.remove(drop)
}

// settleDeleted removes the files of dropped tables. A table whose .frm exists
// was imported under the id it had (DISCARD logs FILE_DELETE, IMPORT nothing),
// unless another tablespace has the name now.
func (tr *Tree) settleDeleted(histories Histories) error {
	taken := map[string]bool{}
	for _, h := range histories {
		if name, ok := h.FinalPath(); ok && h.Alive {
			taken[name] = true
		}
	}
	for id, h := range histories {
		t := tr.Spaces[id]
		if t == nil || !h.Gone() {
			continue
		}
		if name, ok := localName(h.Name); ok && !taken[name] && tr.hasDefinition(name) {
			continue
		}
		if err := tr.remove(t.Files[0].Path); err != nil {
			return err
		}
		tr.Changes.Deleted = append(tr.Changes.Deleted, t.Files[0].Path)
		delete(tr.Spaces, id)
	}
	return nil
}

// settleUnclaimed removes files without a page 0 whose tablespace was dropped.
func (tr *Tree) settleUnclaimed(histories Histories) error {
	index := newNameIndex(histories, func(id format.SpaceID) bool { return tr.Spaces[id] != nil })
	for _, rel := range slices.Sorted(maps.Keys(tr.unclaimed)) {
		if !histories[index.find(rel)].Gone() {
			continue
		}
		if err := tr.remove(rel); err != nil {
			return err
		}
		delete(tr.unclaimed, rel)
		tr.Changes.Deleted = append(tr.Changes.Deleted, rel)
	}
	return nil
}

// hasDefinition says whether a table's .frm exists; those of partitions belong
// to the table before the #P#.
func (tr *Tree) hasDefinition(rel string) bool {
	base := strings.TrimSuffix(strings.TrimSuffix(rel, endMoved), ".ibd")
	table, _ := filename.CutPartition(base)
	return !strings.Contains(table, "/#sql") && tr.exists(table+".frm")
}

func (tr *Tree) settleRenamed(histories Histories) error {
	for id, h := range histories {
		t := tr.Spaces[id]
		final, ok := h.FinalPath()
		if t == nil || !ok || t.Files[0].Path == final {
			continue
		}
		if strings.HasSuffix(t.Files[0].Path, endMoved) {
			continue // an interrupted run got so far
		}
		if err := tr.moveAside(t.Files[0].Path, final, endMoved); err != nil {
			return err
		}
		t.Files[0].Path = final
	}
	for _, t := range tr.Spaces {
		t.Files[0].Path = strings.TrimSuffix(t.Files[0].Path, endMoved)
	}
	return tr.finishMoves(endMoved)
}

// settleCreated makes room for tablespaces that only redo knows. One that has
// only a mention is missing; applying tells whether that matters.
func (tr *Tree) settleCreated(histories Histories) error {
	for id, h := range histories {
		if tr.Spaces[id] != nil || !h.Created || h.Gone() {
			continue
		}
		name, ok := localName(h.Name)
		if !ok {
			return fmt.Errorf("space %v: name %q in redo: %w", id, h.Name, backupdir.ErrDamaged)
		}
		if _, err := tr.fresh(id, name); err != nil {
			return err
		}
	}
	return nil
}
