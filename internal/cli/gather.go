package cli

import (
	"sync"
	"time"
)

const (
	// smallWrite is what is worth a copy instead of a system call of its own,
	// which also wakes up the process at the other end.
	smallWrite = 16 << 10
	// gatherSize is what small writes may come to before they leave.
	gatherSize = 64 << 10
	// gatherTime is how long they may wait for a larger write.
	gatherTime = 50 * time.Millisecond
)

// Gather puts small writes in front of the next large one. An archive of many
// small tables consists of headers and pieces of a few hundred bytes. A write that
// fails after its Write returned is reported by the next Write, or by Flush, which
// must end a successful use.
type Gather struct {
	p     *Pipe
	late  *time.Timer
	mu    sync.Mutex
	small []byte
	err   error // sticks
}

// NewGather returns a writer to p.
func NewGather(p *Pipe) *Gather {
	g := &Gather{p: p, small: make([]byte, 0, gatherSize)}
	g.late = time.AfterFunc(gatherTime, func() { _ = g.Flush() }) // the error sticks
	return g
}

// Write implements io.Writer. It does not keep b.
func (g *Gather) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return 0, g.err
	}
	if len(b) > smallWrite || len(g.small)+len(b) > gatherSize {
		before := len(g.small)
		n, err := g.write(b)
		return max(n-before, 0), err
	}
	if len(g.small) == 0 {
		g.late.Reset(gatherTime)
	}
	g.small = append(g.small, b...)
	return len(b), nil
}

// Flush writes what waits.
func (g *Gather) Flush() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil && len(g.small) > 0 {
		_, _ = g.write(nil) // the error sticks
	}
	return g.err
}

// write writes what waits, and b. The lock is held.
func (g *Gather) write(b []byte) (n int, err error) {
	n, g.err = g.p.writePieces(g.small, b)
	g.small = g.small[:0]
	return n, g.err
}

// Close drops what waits. It waits for no write, and leaves the Pipe open.
func (g *Gather) Close() error {
	g.late.Stop()
	return nil
}
