package cli

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// Messages passes messages on to a writer that may stand still: a pipe that
// nobody reads must not keep a backup, and with it the server's locks. What does
// not fit into its queue is lost, and counted.
type Messages struct {
	w     io.Writer
	queue chan []byte
	done  chan struct{}

	mu     sync.Mutex
	closed bool
	lost   int
}

// queued is how many messages may wait.
const queued = 1000

// NewMessages returns a Messages that writes to w.
func NewMessages(w io.Writer) *Messages {
	m := &Messages{w: w, queue: make(chan []byte, queued), done: make(chan struct{})}
	go func() {
		defer close(m.done)
		for b := range m.queue {
			_, _ = m.w.Write(b) // there is nobody to tell
		}
	}()
	return m
}

// Write takes one message. It neither waits nor fails.
func (m *Messages) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return len(p), nil
	}
	select {
	case m.queue <- append([]byte(nil), p...):
	default:
		m.lost++
	}
	return len(p), nil
}

// Close waits until all was written, or for the limit.
func (m *Messages) Close(limit time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	if m.lost > 0 {
		select {
		case m.queue <- fmt.Appendf(nil, "%d messages were lost because nobody read them\n", m.lost):
		default:
		}
	}
	m.closed = true
	close(m.queue)
	select {
	case <-m.done:
	case <-time.After(limit):
	}
}
