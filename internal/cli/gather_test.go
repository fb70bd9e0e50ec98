//go:build unix

package cli

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
)

// gather returns a Gather on a pipe and the pipe's other end.
func gather(t *testing.T) (*Gather, io.ReadCloser) {
	t.Helper()
	r, w := pipe(t)
	g := NewGather(output(t, t.Context(), w, PipeOptions{Idle: wait}))
	t.Cleanup(func() { g.Close() })
	return g, r
}

// Small and large writes arrive in order, whatever waits for whom.
func TestGatherKeepsTheOrder(t *testing.T) {
	var sent bytes.Buffer
	r := rand.New(rand.NewPCG(1, 2))
	g, end := gather(t)
	got := make(chan []byte)
	go func() {
		b, err := io.ReadAll(io.LimitReader(end, 40<<20))
		if err != nil {
			t.Error(err)
		}
		got <- b
	}()
	for sent.Len() < 40<<20 {
		b := make([]byte, 1+r.IntN([]int{100, smallWrite + 2, gatherSize, 1 << 20}[r.IntN(4)]))
		for i := range b {
			b[i] = byte(sent.Len() + i)
		}
		b = b[:min(len(b), 40<<20-sent.Len())]
		sent.Write(b)
		if n, err := g.Write(b); n != len(b) || err != nil {
			t.Fatal(n, err)
		}
		clear(b) // it is the caller's again
	}
	if err := g.Flush(); err != nil {
		t.Fatal(err)
	}
	if b := <-got; !bytes.Equal(b, sent.Bytes()) {
		t.Errorf("%d bytes, which are not the %d sent", len(b), sent.Len())
	}
}

// A3: small writes leave with the next large one, in one system call.
func TestGatherWritesOnce(t *testing.T) {
	g, end := gather(t)
	g.late.Stop()
	for range 10 {
		if _, err := g.Write([]byte("small")); err != nil {
			t.Fatal(err)
		}
		g.late.Stop()
	}
	before := g.p.steps.Load()
	if _, err := g.Write(make([]byte, smallWrite+1)); err != nil {
		t.Fatal(err)
	}
	// One step is the beginning of the write, one each part that was taken.
	if n := g.p.steps.Load() - before; n != 2 {
		t.Errorf("%d steps, want 2", n)
	}
	b := make([]byte, 50)
	if _, err := io.ReadFull(end, b); err != nil || string(b) != strings.Repeat("small", 10) {
		t.Errorf("%q (%v)", b, err)
	}
}

// What is written leaves by itself, too.
func TestGatherDoesNotKeepWhatIsWritten(t *testing.T) {
	g, end := gather(t)
	if _, err := g.Write([]byte("small")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if err := soon(t, func() error { _, err := io.ReadFull(end, b); return err }); err != nil || string(b) != "small" {
		t.Errorf("%q (%v)", b, err)
	}
}

// An error of bytes that were taken before is not lost.
func TestGatherReportsLateErrors(t *testing.T) {
	g, end := gather(t)
	end.Close()
	if n, err := g.Write([]byte("small")); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	if err := g.Flush(); !errors.Is(err, syscall.EPIPE) {
		t.Fatal(err)
	}
	for range 2 {
		if n, err := g.Write([]byte("more")); n != 0 || !errors.Is(err, syscall.EPIPE) {
			t.Error(n, err)
		}
		if err := g.Flush(); !errors.Is(err, syscall.EPIPE) {
			t.Error(err)
		}
	}
}
