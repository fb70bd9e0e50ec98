package cli

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"
	"time"
)

// messageWait is how long a message waits for a standard error that nobody reads.
const messageWait = 5 * time.Second

var errUnread = errors.New("nobody reads standard error")

// messagesLost says that a message was not taken in time: others do not wait.
var messagesLost atomic.Bool

// patient writes messages. A full pipe that nobody reads must not keep a command
// from ending, or from giving locks back: after a while the message is lost.
type patient struct{ w io.Writer }

func (p patient) Write(b []byte) (int, error) {
	if messagesLost.Load() {
		return 0, errUnread
	}
	done := make(chan error, 1)
	go func(b []byte) {
		_, err := p.w.Write(b)
		done <- err
	}(bytes.Clone(b))
	late := time.NewTimer(messageWait)
	defer late.Stop()
	select {
	case err := <-done:
		return len(b), err
	case <-late.C:
		messagesLost.Store(true)
		return 0, errUnread
	}
}
