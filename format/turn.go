package format

import "sync"

// maxAhead is how many bytes in a row go first while others wait. More redo than
// a pipe carries would otherwise keep all data out, and the backup from its end.
const maxAhead = 4 * ChunkSize

// turn is a lock with two queues: who asks for it with LockFirst gets it before
// all who wait in Lock, up to maxAhead bytes in a row.
type turn struct {
	mu      sync.Mutex
	first   *sync.Cond // of those in LockFirst
	rest    *sync.Cond // of those in Lock
	urgent  int        // how many are in LockFirst
	waiting int        // how many are in Lock
	ahead   int        // bytes that went first since one of Lock had its turn
	taken   bool
}

func newTurn() *turn {
	t := new(turn)
	t.first, t.rest = sync.NewCond(&t.mu), sync.NewCond(&t.mu)
	return t
}

// Lock waits until the lock is free and nobody goes first.
func (t *turn) Lock() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting++
	for t.taken || t.urgent > 0 && t.ahead < maxAhead {
		t.rest.Wait()
	}
	t.waiting--
	t.ahead = 0
	t.taken = true
}

// LockFirst waits until the lock is free, to write so many bytes.
func (t *turn) LockFirst(bytes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.urgent++
	for t.taken || t.waiting > 0 && t.ahead >= maxAhead {
		t.first.Wait()
	}
	t.urgent--
	t.ahead += bytes
	t.taken = true
}

// Unlock passes the lock on.
func (t *turn) Unlock() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken = false
	if t.urgent > 0 && (t.waiting == 0 || t.ahead < maxAhead) {
		t.first.Signal()
	} else {
		t.rest.Signal()
	}
}
