package spaces

import (
	"fmt"
	"os"
	"regexp"
	"strconv"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
)

var undoName = regexp.MustCompile(`^(?:.*/)?undo(\d{3})$`)

// undoFiles are the undo tablespaces while they are being found. Page 0 of one
// that was being made anew says nothing; ids follow the numbers in the names.
type undoFiles struct {
	offset    int // id minus number, as in those that have a page 0
	unwritten map[string]int
}

// note says whether the name tells the id.
func (u *undoFiles) note(rel string, p firstPage) bool {
	match := undoName.FindStringSubmatch(rel)
	if match == nil {
		return false
	}
	n, err := strconv.Atoi(match[1])
	switch {
	case err != nil:
		return false
	case p.written:
		u.offset = int(p.id) - n
	case u.unwritten == nil:
		u.unwritten = map[string]int{rel: n}
	default:
		u.unwritten[rel] = n
	}
	return true
}

func (u *undoFiles) claimUnwritten(tr *Tree) error {
	for rel, n := range u.unwritten {
		t, err := tr.fresh(format.SpaceID(n+u.offset), rel)
		if err != nil {
			return err
		}
		t.Pages, t.Known = tr.Spaces[0].Pages, tr.Spaces[0].Known // always alike
	}
	return nil
}

// claimUndo finds the undo tablespaces.
func (tr *Tree) claimUndo() error {
	entries, err := os.ReadDir(tr.dir)
	if err != nil {
		return err
	}
	var undo undoFiles
	for _, e := range entries {
		if !undoName.MatchString(e.Name()) {
			continue
		}
		p, err := tr.readFirstPage(e.Name())
		if err != nil {
			return err
		}
		undo.note(e.Name(), p)
		if !p.written {
			continue
		}
		if other := tr.claim(e.Name(), p); other != nil {
			return fmt.Errorf("space %v in two files, %s and %s: %w", p.id, other.Files[0].Path, e.Name(), backupdir.ErrDamaged)
		}
	}
	return undo.claimUnwritten(tr)
}
