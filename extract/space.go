package extract

import (
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/dustin/go-humanize"

	"github.com/xbstream/xbstream/format"
)

// checkSpace refuses an archive that will not fit on the target's file system,
// before much of it was written, and warns of one that may not. It is lenient
// where nobody can tell: when only a part is restored, or parts go elsewhere, on
// file systems that compress or share blocks, and by spareSpace.
func (t *target) checkSpace(e format.Estimate) error {
	if t.opt.Only != nil || len(t.opt.Mappings) > 0 {
		return nil
	}
	// Holes come back as holes, so no more is needed than the files take at the
	// source.
	free, known := freeSpace(t.opt.Dir)
	need := min(e.Size, e.Allocated)
	if !known || need <= free {
		return nil
	}
	dir, err := filepath.Abs(t.opt.Dir)
	if err != nil {
		dir = t.opt.Dir
	}
	text := fmt.Sprintf("%s has %s free, and the files of the backup take about %s at the source",
		dir, humanize.IBytes(uint64(free)), humanize.IBytes(uint64(need)))
	if need-spareSpace(need) <= free {
		t.opt.Log.Warn(text + ": it may not fit")
		return nil
	}
	return fmt.Errorf("%s: %w", text, syscall.ENOSPC)
}

// spareSpace is how much of need may turn out not to be needed: pages that the
// server has allocated and never written are holes in the copy.
func spareSpace(need int64) int64 { return need/5 + 64<<20 }
