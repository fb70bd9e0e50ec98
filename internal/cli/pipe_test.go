//go:build unix

package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wait bounds what must end by itself.
const wait = time.Minute

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// soon fails the test unless f ends.
func soon(t *testing.T, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(wait):
		t.Fatal("it hangs")
		return nil
	}
}

func input(t *testing.T, ctx context.Context, f *os.File, opt PipeOptions) *Pipe {
	t.Helper()
	p := OpenInput(ctx, f, opt)
	t.Cleanup(func() { p.Close() })
	return p
}

func output(t *testing.T, ctx context.Context, f *os.File, opt PipeOptions) *Pipe {
	t.Helper()
	p, err := OpenOutput(ctx, f, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// idle is long enough for what is there to be read, or taken, before, also on a
// machine that has no time.
const idle = time.Second

// big is more than any pipe holds.
var big = make([]byte, 4<<20)

func TestIdleInput(t *testing.T) {
	r, w := pipe(t)
	p := input(t, t.Context(), r, PipeOptions{Idle: idle})
	if _, err := w.WriteString("abc"); err != nil {
		t.Fatal(err)
	}
	var got []byte
	err := soon(t, func() (err error) { got, err = io.ReadAll(p); return err })
	if timeout := (*IdleError)(nil); string(got) != "abc" || !errors.As(err, &timeout) || timeout.Output || timeout.For != idle {
		t.Fatalf("read %q, then %v", got, err)
	}
	if Code(err, nil) != ExitIO || !strings.Contains(err.Error(), "nothing has arrived for 1s") {
		t.Errorf("exit code %d for %q", Code(err, nil), err)
	}
}

func TestIdleOutput(t *testing.T) {
	_, w := pipe(t)
	p := output(t, t.Context(), w, PipeOptions{Idle: idle})
	n := 0
	err := soon(t, func() (err error) { n, err = p.Write(big); return err })
	if timeout := (*IdleError)(nil); !errors.As(err, &timeout) || !timeout.Output {
		t.Fatal(err)
	}
	if n == 0 || n == len(big) {
		t.Errorf("%d bytes written to a pipe that nobody reads", n)
	}
	if Code(err, nil) != ExitIO || !strings.Contains(err.Error(), "taken nothing for 1s") {
		t.Errorf("exit code %d for %q", Code(err, nil), err)
	}
}

func TestPipeEndsWithItsContext(t *testing.T) {
	reason := errors.New("enough")
	for name, transfer := range map[string]func(*testing.T, context.Context) error{
		"input": func(t *testing.T, ctx context.Context) error {
			r, _ := pipe(t)
			_, err := input(t, ctx, r, PipeOptions{}).Read(make([]byte, 1))
			return err
		},
		"output": func(t *testing.T, ctx context.Context) error {
			_, w := pipe(t)
			_, err := output(t, ctx, w, PipeOptions{}).Write(big)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(10*time.Millisecond, func() { cancel(reason) })
			if err := soon(t, func() error { return transfer(t, ctx) }); err != reason {
				t.Error(err)
			}
		})
	}
}

func TestNobodyReads(t *testing.T) {
	r, w := pipe(t)
	p := output(t, t.Context(), w, PipeOptions{})
	r.Close()
	_, err := p.Write([]byte("x"))
	if !errors.Is(err, syscall.EPIPE) || !strings.HasPrefix(err.Error(), "the receiving side ended, see its message") {
		t.Error(err)
	}
	if Code(err, nil) != ExitIO {
		t.Errorf("exit code %d", Code(err, nil))
	}
}

// What goes in comes out, through a pipe and through a file, and others find
// the pipe as it was.
func TestPipeCarriesAll(t *testing.T) {
	sent := make([]byte, 3<<20+17)
	rand.Read(sent)
	r, w := pipe(t)
	before, err := unix.FcntlInt(w.Fd(), unix.F_GETFL, 0)
	if err != nil {
		t.Fatal(err)
	}
	out, in := output(t, t.Context(), w, PipeOptions{Idle: wait}), input(t, t.Context(), r, PipeOptions{Idle: wait})
	go func() {
		for rest := sent; len(rest) > 0; {
			n, err := out.Write(rest[:min(len(rest), 700_000)])
			if err != nil {
				t.Error(err)
				break
			}
			rest = rest[n:]
		}
		out.Close()
		if after, err := unix.FcntlInt(w.Fd(), unix.F_GETFL, 0); err != nil || after != before {
			t.Errorf("flags of the pipe are %#x, were %#x (%v)", after, before, err)
		}
		w.Close()
	}()
	var got []byte
	if err := soon(t, func() (err error) { got, err = io.ReadAll(in); return err }); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes, %v", len(got), len(sent), err)
	}

	f, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := output(t, t.Context(), f, PipeOptions{}).Write(sent); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if got, err = io.ReadAll(input(t, t.Context(), f, PipeOptions{})); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes from a file, %v", len(got), len(sent), err)
	}
}

// Only an unbroken stall counts; it is said once, and said to be over.
func TestStallIsNoticed(t *testing.T) {
	var log strings.Builder
	p := newPipe(t.Context(), nil, PipeOptions{Idle: time.Minute, Log: (&Output{}).Logger("test", &log)})
	look := func(want time.Duration) {
		t.Helper()
		if p.look(20*time.Second, true); p.Stalled() != want {
			t.Fatalf("stalled for %v, want %v", p.Stalled(), want)
		}
	}
	look(0) // nothing is written
	p.transfer(func([]byte) (int, error) {
		look(0) // it has just begun
		look(20 * time.Second)
		p.moved()
		look(0)
		look(20 * time.Second)
		look(40 * time.Second)
		if !strings.Contains(log.String(), "stalls: the receiving side has taken nothing for 40s") {
			t.Errorf("log: %q", &log)
		}
		said := log.Len()
		if p.ctx.Err() != nil {
			t.Error("ended too early")
		}
		look(60 * time.Second)
		if log.Len() != said {
			t.Errorf("said twice: %q", &log)
		}
		if timeout := (*IdleError)(nil); !errors.As(context.Cause(p.ctx), &timeout) {
			t.Error("not ended")
		}
		return 0, nil
	}, nil)
	look(0)
	if !strings.Contains(log.String(), "standard output goes on") {
		t.Errorf("log: %q", &log)
	}
}

// screen is what was written; a bar writes from a goroutine of its own.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func TestProgressShowsAStall(t *testing.T) {
	pipe := newPipe(t.Context(), nil, PipeOptions{})
	p := newProgress(new(Output), time.Now())
	p.Stage("data files", 0)
	p.Watch(pipe)
	for mode, want := range map[string]string{"plain": "stalled for 7s", "json": `"stalled_seconds":7`, "bar": "stalled for 7s"} {
		for _, stalled := range []time.Duration{0, 7 * time.Second} {
			var out screen
			pipe.stalled.Store(int64(stalled))
			draw, _ := p.printer(mode, &out)
			draw(time.Now(), "")
			if text := out.String(); text == "" || strings.Contains(text, want) != (stalled > 0) {
				t.Errorf("%s, stalled for %v: %q", mode, stalled, text)
			}
		}
	}
}
