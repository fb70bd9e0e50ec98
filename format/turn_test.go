package format

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// gate lets writes pass when it is opened.
type gate struct {
	io.Writer
	open <-chan struct{}
}

func (g gate) Write(p []byte) (int, error) {
	<-g.open
	return g.Writer.Write(p)
}

// P5: redo that waits for the archive goes before all data that waits, however
// long the data has.
func TestRedoGoesBeforeData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		w, err := newWriter(&out, ArchiveID{1}, WriterOptions{})
		check(t, err)
		no, err := w.BeginFile(File{Path: "f", Kind: KindFile})
		check(t, err)
		open := make(chan struct{})
		w.w = gate{&out, open}

		const pieces = 8
		var writers sync.WaitGroup
		start := func(write func() error) {
			writers.Go(func() {
				if err := write(); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait() // until it waits for its turn
		}
		for i := range int64(pieces) { // the first of them has the lock
			start(func() error { return w.WriteHole(no, i*4096, 4096) })
		}
		start(func() error { return w.WriteRedo(1000, []byte("redo")) })
		start(func() error { return w.WriteHole(no, pieces*4096, 4096) })
		close(open)
		writers.Wait()
		check(t, w.EndFile(no, (pieces+1)*4096))
		_, err = w.Close(&Manifest{Tool: "test 1", Files: []File{{No: no, Path: "f", Kind: KindFile, Size: (pieces + 1) * 4096}}})
		check(t, err)

		frames, err := readAll(&out)
		check(t, err)
		var order []string
		for _, f := range frames {
			order = append(order, strings.Fields(f)[0])
		}
		if got := fmt.Sprint(order[:4]); got != "[FILE HOLE REDO HOLE]" {
			t.Errorf("the archive begins with %v: %q", got, frames)
		}
	})
}

// More redo than the pipe carries does not keep data out.
func TestRedoLeavesAShareToData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTurn()
		l.Lock()
		var order strings.Builder
		var all sync.WaitGroup
		wait := func(name string, lock func()) {
			all.Go(func() {
				lock()
				order.WriteString(name)
				l.Unlock()
			})
			synctest.Wait() // until it waits for its turn
		}
		for range 3 {
			wait("d", l.Lock)
		}
		for range 12 {
			wait("r", func() { l.LockFirst(ChunkSize) })
		}
		l.Unlock()
		all.Wait()
		if order.String() != "rrrrdrrrrdrrrrd" {
			t.Errorf("the order is %q", &order)
		}
	})
}

// Nobody waits for ever, and nobody has the lock besides another.
func TestTurnIsALock(t *testing.T) {
	l, n := newTurn(), 0
	var all sync.WaitGroup
	for i := range 8 {
		lock := l.Lock
		if i < 2 {
			lock = func() { l.LockFirst(ChunkSize) }
		}
		all.Go(func() {
			for range 5000 {
				lock()
				n++
				l.Unlock()
			}
		})
	}
	all.Wait()
	if n != 8*5000 {
		t.Errorf("%d turns", n)
	}
}
