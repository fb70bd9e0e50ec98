package chunker

import (
	"errors"
	"sync"
)

// schedule deals out files and ranges of open files to workers. Ranges come
// first: all workers then read along one file, the disk sees one stream, and no
// more files are open than twice the number of workers.
type schedule struct {
	mu      sync.Mutex
	changed sync.Cond
	files   []File              // not yet taken
	opening int                 // taken, but not yet opened
	ready   []*space            // opened, with ranges not yet taken
	live    map[*space]struct{} // opened, not yet closed
	stopped bool
}

func newSchedule(files []File) *schedule {
	q := &schedule{files: files, live: make(map[*space]struct{})}
	q.changed.L = &q.mu
	return q
}

// take returns a file to open, or a range of an open file by its offset, or
// neither when there is no more to do. It waits while another worker opens a
// file, whose ranges may need hands.
func (q *schedule) take() (*File, *space, int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.stopped {
		switch {
		case len(q.ready) > 0:
			s, off := q.takeRange()
			return nil, s, off
		case len(q.files) > 0:
			f := &q.files[0]
			q.files = q.files[1:]
			q.opening++
			return f, nil, 0
		case q.opening == 0:
			return nil, nil, 0
		}
		q.changed.Wait()
	}
	return nil, nil, 0
}

func (q *schedule) takeRange() (*space, int64) {
	s := q.ready[0]
	off := s.next
	s.next += rangeSize
	if s.next >= s.size {
		q.ready = q.ready[1:]
	}
	return s, off
}

// opened ends what take began with a file; s is nil if there is nothing to
// copy.
func (q *schedule) opened(s *space) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.opening--
	if s != nil {
		q.ready = append(q.ready, s)
		q.live[s] = struct{}{}
	}
	q.changed.Broadcast()
}

// finished forgets a file that is closed by its last worker.
func (q *schedule) finished(s *space) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.live, s)
}

// stop lets take return nothing from now on.
func (q *schedule) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	q.changed.Broadcast()
}

// closeAll closes the files a failed copy left open, once no worker runs.
func (q *schedule) closeAll() error {
	var errs []error
	for s := range q.live {
		errs = append(errs, s.src.Close())
	}
	return errors.Join(errs...)
}
