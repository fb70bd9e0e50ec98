package main

import (
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// relay stands between xbsend and xbstream, or a file, as a network does: it may
// be slow, stand still, lose the rest, change a bit, or break.
type relay struct {
	rate    int64           // bytes a second; 0: as fast as it goes
	stalls  map[int64]pause // after so many bytes
	flip    int64           // changes a bit of this byte; -1: none
	cut     int64           // gives up to here on and says that this is the end; -1: all
	broken  int64           // closes both sides after so many bytes; -1: never
	trigger int64           // after so many bytes, or at the end, reached is closed

	passed  atomic.Int64 // bytes taken from the sender
	reached chan struct{}
	once    sync.Once
	done    chan struct{} // closed when nothing more will be passed on
}

// pause is how long a pipe stands still.
type pause time.Duration

const never = int64(-1)

func newRelay() *relay {
	return &relay{stalls: map[int64]pause{}, flip: never, cut: never, broken: never, reached: make(chan struct{}), done: make(chan struct{})}
}

func (l *relay) reach() { l.once.Do(func() { close(l.reached) }) }

// run passes on what comes from in until it ends or nobody takes it, and closes
// both.
func (l *relay) run(in *os.File, out io.WriteCloser) {
	defer close(l.done)
	defer l.reach()
	defer in.Close()
	defer out.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := in.Read(buf)
		if n > 0 && !l.pass(buf[:n], out) {
			return
		}
		if err != nil {
			return
		}
	}
}

// pass passes on one piece; it returns false when the pipe is broken.
func (l *relay) pass(b []byte, out io.WriteCloser) bool {
	from := l.passed.Load()
	to := from + int64(len(b))
	if at := l.flip - from; l.flip != never && at >= 0 && at < int64(len(b)) {
		b[at] ^= 1 << (l.flip % 8)
	}
	if l.cut != never && to > l.cut {
		if from <= l.cut {
			out.Write(b[:l.cut-from])
			out.Close()
		}
		b = nil // taken and lost
	}
	if _, err := out.Write(b); err != nil && b != nil {
		return false
	}
	l.passed.Store(to)
	l.wait(from, to)
	if to >= l.trigger {
		l.reach()
	}
	return l.broken == never || to < l.broken
}

func (l *relay) wait(from, to int64) {
	if l.rate > 0 {
		time.Sleep(time.Duration(to-from) * time.Second / time.Duration(l.rate))
	}
	for at, d := range l.stalls {
		if at >= from && at < to {
			time.Sleep(time.Duration(d))
		}
	}
}
