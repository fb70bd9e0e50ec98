package spaces

import (
	"fmt"
	"os"
	"strings"

	"github.com/xbstream/xbstream/internal/backupdir"
)

// Endings of the files in which mariabackup says what DDL did to tables it had
// already copied, or not yet.
const (
	endNew = ".new" // complete copy of a table made or renamed meanwhile
	endDel = ".del" // the table was dropped
	endRen = ".ren" // holds the table's new name
)

// SettleMarkers does what mariabackup's marker files say: drops first, then
// renames, then new tables, so that every name is free when it is taken. Each
// marker goes last, and renames pass through names of their own, so that it
// can be interrupted anywhere.
func (tr *Tree) SettleMarkers() error {
	err := tr.Each("*"+endDel, func(rel string) error {
		table := strings.TrimSuffix(rel, endDel) + ".ibd"
		if err := tr.remove(table); err != nil {
			return err
		}
		tr.Changes.Deleted = append(tr.Changes.Deleted, table)
		return tr.remove(rel)
	})
	if err != nil {
		return err
	}
	if err := tr.Each("*"+endRen, tr.moveAsideAs); err != nil {
		return err
	}
	if err := tr.finishMoves(endMarked); err != nil {
		return err
	}
	return tr.Each("*"+endNew, func(rel string) error {
		return tr.rename(rel, strings.TrimSuffix(rel, endNew)+".ibd")
	})
}

// moveAsideAs takes the table of a .ren marker out of the way, under the name
// it will have.
func (tr *Tree) moveAsideAs(marker string) error {
	text, err := os.ReadFile(tr.Path(marker))
	if err != nil {
		return err
	}
	to := strings.TrimSpace(string(text))
	if !strings.HasSuffix(to, ".ibd") {
		to += ".ibd"
	}
	local, ok := localName(to)
	if !ok {
		return fmt.Errorf("%s: new name %q: %w", marker, to, backupdir.ErrDamaged)
	}
	from := strings.TrimSuffix(marker, endRen) + ".ibd"
	if tr.exists(from) {
		if err := tr.moveAside(from, local, endMarked); err != nil {
			return err
		}
	}
	return tr.remove(marker)
}
