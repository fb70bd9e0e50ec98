package format

import "sync"

// turn is a lock with two queues: who asks for it with LockFirst gets it before
// all who wait in Lock.
type turn struct {
	mu     sync.Mutex
	first  *sync.Cond // of those in LockFirst
	rest   *sync.Cond // of those in Lock
	urgent int        // how many are in LockFirst
	taken  bool
}

func newTurn() *turn {
	t := new(turn)
	t.first, t.rest = sync.NewCond(&t.mu), sync.NewCond(&t.mu)
	return t
}

// Lock waits until the lock is free and nobody waits in LockFirst.
func (t *turn) Lock() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.taken || t.urgent > 0 {
		t.rest.Wait()
	}
	t.taken = true
}

// LockFirst waits until the lock is free.
func (t *turn) LockFirst() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.urgent++
	for t.taken {
		t.first.Wait()
	}
	t.urgent--
	t.taken = true
}

// Unlock passes the lock on.
func (t *turn) Unlock() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken = false
	if t.urgent > 0 {
		t.first.Signal()
	} else {
		t.rest.Signal()
	}
}
