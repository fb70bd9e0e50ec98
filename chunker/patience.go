package chunker

import (
	"context"
	"sync"
	"time"

	"github.com/xbstream/xbstream/internal/pause"
)

// How often a torn page is read, and how long torn pages may hold up the copy
// of one file: a file that we wrongly think bad as a whole must not cost ten
// seconds a page. Usually a page is whole within milliseconds; but the kernel may
// let the server wait for a busy disk in the middle of it, or not run it at all.
const (
	pageTries    = 107 // ten seconds
	fileWaits    = 30 * time.Second
	longestPause = 100 * time.Millisecond
)

// patience is what a file has left of fileWaits.
type patience struct {
	mu   sync.Mutex
	used time.Duration
}

// wait pauses before the next try to read a page, the longer the more tries
// there were; false says there shall be no other.
func (p *patience) wait(ctx context.Context, tries int) bool {
	idle := min(time.Millisecond<<min(tries-1, 7), longestPause)
	if tries >= pageTries || !p.take(idle) {
		return false
	}
	return pause.For(ctx, idle) == nil
}

func (p *patience) take(d time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used += d
	return p.used <= fileWaits
}
