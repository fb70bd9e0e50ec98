package redotail_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xbstream/xbstream/format"
	ondisk "github.com/xbstream/xbstream/internal/mariadb/redo"
	mariadb "github.com/xbstream/xbstream/internal/mariadb/tail"
	"github.com/xbstream/xbstream/redotail"
)

const first = 50000

// logFile is a log that does not wrap, with mini-transactions of 50 bytes
// after the 16 of its FILE_CHECKPOINT.
type logFile struct {
	t    *testing.T
	dir  string
	file *os.File
	lsn  format.LSN
	data []byte // all redo
}

func newLogFile(t *testing.T) *logFile {
	t.Helper()
	f := &logFile{t: t, dir: t.TempDir(), lsn: first + 16}
	b := ondisk.MinimalLog(first, "MariaDB 10.11.19")
	f.data = b[ondisk.StartOffset:]
	var err error
	if f.file, err = os.Create(filepath.Join(f.dir, "ib_logfile0")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.file.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := f.file.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := f.file.Truncate(8 << 20); err != nil {
		t.Fatal(err)
	}
	return f
}

// write appends n mini-transactions.
func (f *logFile) write(n int) {
	f.t.Helper()
	rec := ondisk.AppendRecord(nil, byte(ondisk.Write), append([]byte{9, 4, 60}, make([]byte, 40)...))
	all := bytes.Repeat(ondisk.AppendMTR(nil, rec, 1), n)
	if _, err := f.file.WriteAt(all, ondisk.StartOffset+int64(f.lsn-first)); err != nil {
		f.t.Fatal(err)
	}
	f.lsn += format.LSN(len(all))
	f.data = append(f.data, all...)
}

func (f *logFile) tailer(opt redotail.Options) *redotail.Tailer {
	f.t.Helper()
	l, err := mariadb.Open(f.t.Context(), f.dir)
	if err != nil {
		f.t.Fatal(err)
	}
	l.Written(math.MaxUint64) // this log is written between reads, never during one
	t := redotail.New(l, opt)
	f.t.Cleanup(func() {
		if err := errors.Join(t.Close(), l.Close()); err != nil {
			f.t.Error(err)
		}
	})
	return t
}

func drain(t *testing.T, tl *redotail.Tailer) []byte {
	t.Helper()
	var all []byte
	for {
		p, err := tl.Next(t.Context())
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if p.LSN != first+format.LSN(len(all)) {
			t.Fatalf("piece at %v, want %v", p.LSN, first+len(all))
		}
		all = append(all, p.Data...)
	}
}

// Nothing is read while the tail is paused, so that it can end where the server was
// at that moment.
func TestPause(t *testing.T) {
	f := newLogFile(t)
	f.write(10)
	tl := f.tailer(redotail.Options{})
	ran := make(chan error, 1)
	go func() { ran <- tl.Run(t.Context()) }()
	for tl.Position() < f.lsn {
		time.Sleep(time.Millisecond)
	}
	resume := tl.Pause()
	end := f.lsn
	f.write(100)
	time.Sleep(30 * time.Millisecond)
	if at := tl.Position(); at != end {
		t.Errorf("it reads up to %v while it is paused at %v", at, end)
	}
	tl.StopAt(end)
	resume()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if at, ok := tl.EndLSN(); !ok || at != end {
		t.Errorf("redo ends at %v, want %v", at, end)
	}
}

func TestStopsAtTheFirstBoundaryNotBelow(t *testing.T) {
	size := format.LSN(1 + 43 + 1 + 1 + 4)
	for _, c := range []struct{ at, end format.LSN }{
		{0, first + 16},
		{first, first + 16}, // recovery needs the FILE_CHECKPOINT
		{first + 16, first + 16},
		{first + 17, first + 16 + size},
		{first + 16 + size, first + 16 + size},
		{first + 16 + size + 1, first + 16 + 2*size},
		{first + 16 + 99*size + 1, first + 16 + 100*size},
		{first + 16 + 100*size, first + 16 + 100*size},
	} {
		f := newLogFile(t)
		f.write(100)
		if f.lsn != first+16+100*size {
			t.Fatalf("a mini-transaction is not of %v bytes", size)
		}
		tl := f.tailer(redotail.Options{})
		if _, ok := tl.EndLSN(); ok {
			t.Fatal("an end before the start")
		}
		tl.StopAt(c.at)
		if err := tl.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if end, ok := tl.EndLSN(); !ok || end != c.end || tl.Position() != c.end {
			t.Errorf("stop at %v: ends at %v, want %v", c.at, end, c.end)
		}
		if got := drain(t, tl); !bytes.Equal(got, f.data[:c.end-first]) {
			t.Errorf("stop at %v: %d bytes, want %d", c.at, len(got), c.end-first)
		}
	}
}

func TestStopAtWhatWasReadAlready(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newLogFile(t)
		f.write(100)
		tl := f.tailer(redotail.Options{})
		done := make(chan error, 1)
		go func() { done <- tl.Run(t.Context()) }()
		synctest.Wait() // until it sleeps at the tip
		tl.StopAt(first + 100)
		f.write(1)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if end, _ := tl.EndLSN(); end < f.lsn-50 || end > f.lsn {
			t.Errorf("ends at %v, log at %v", end, f.lsn)
		}
	})
}

func TestStuckLogNamesBothLSNs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newLogFile(t)
		f.write(10)
		tl := f.tailer(redotail.Options{FlushWait: time.Minute})
		done := make(chan error, 1)
		go func() { done <- tl.Run(t.Context()) }()
		// Idle for long, but nobody waits: no error.
		time.Sleep(time.Hour)
		tl.StopAt(f.lsn + 120)
		// Each time something comes, the wait begins again.
		for range 2 {
			time.Sleep(50 * time.Second)
			f.write(1)
		}
		asked := time.Now()
		err := <-done
		var stuck *redotail.StuckError
		if !errors.As(err, &stuck) || stuck.Reached != f.lsn || stuck.Wanted != f.lsn+20 {
			t.Fatalf("%v, want to be stuck at %v", err, f.lsn)
		}
		if waited := time.Since(asked); waited < time.Minute || waited > time.Minute+time.Second {
			t.Errorf("waited %v", waited)
		}
		if _, err := tl.Next(t.Context()); !errors.Is(err, redotail.ErrStuck) {
			t.Errorf("consumer gets %v", err)
		}
	})
}

// The consumer asks for nothing until the reader has come to the end.
func TestReaderDoesNotWaitForItsConsumer(t *testing.T) {
	f := newLogFile(t)
	f.write(150000)
	tl := f.tailer(redotail.Options{SpoolDir: t.TempDir(), MemoryLimit: 100000})
	tl.StopAt(f.lsn)
	if err := tl.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, disk, peak := tl.Waiting(); disk < 4<<20 || peak < disk {
		t.Errorf("%d bytes on disk, peak %d", disk, peak)
	}
	if got := drain(t, tl); !bytes.Equal(got, f.data) {
		t.Fatalf("%d bytes, want %d", len(got), len(f.data))
	}
}

func TestFullSpoolFailsBothEnds(t *testing.T) {
	f := newLogFile(t)
	f.write(100000)
	tl := f.tailer(redotail.Options{SpoolDir: t.TempDir(), MemoryLimit: 1000, SpoolLimit: 1 << 20})
	if err := tl.Run(t.Context()); !errors.Is(err, redotail.ErrSpoolFull) {
		t.Fatal(err)
	}
	if _, err := tl.Next(t.Context()); !errors.Is(err, redotail.ErrSpoolFull) {
		t.Fatal(err)
	}
}

// P5: it is said, once each time, that redo may be lost before it is.
func TestFallingBehindIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newLogFile(t)
		var said bytes.Buffer
		tl := f.tailer(redotail.Options{Log: slog.New(slog.NewTextHandler(&said, nil))})
		const capacity = 8<<20 - ondisk.StartOffset
		look := func(written format.LSN, want string) {
			t.Helper()
			tl.Written(written)
			if line := said.String(); (line == "") != (want == "") || !strings.Contains(line, want) {
				t.Errorf("the server is at %v, the tail at %v: %q, want %q", written, tl.Position(), line, want)
			}
			said.Reset()
		}
		// At the start much may be unread, and nothing is lost by that.
		look(first+capacity*3/4, "")
		look(first+capacity*3/4, "")
		look(first+capacity*3/4+1, "level=WARN msg=\"the redo log is read too slowly")
		look(first+capacity*7/8, "")

		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- tl.Run(ctx) }()
		f.write(100)
		synctest.Wait() // until it sleeps at the tip
		look(f.lsn+capacity/4, "")
		look(f.lsn+capacity/4-1, "level=INFO msg=\"the redo log is read in time again")
		look(f.lsn+capacity/2, "")
		look(f.lsn+capacity/2+1, "unread_bytes=4188161 log_bytes=8376320")
		look(f.lsn-1, "in time again")
		tl.StopAt(f.lsn + 1)
		look(f.lsn+capacity, "") // the rest is not wanted
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestRunStopsWithItsContext(t *testing.T) {
	f := newLogFile(t)
	tl := f.tailer(redotail.Options{})
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- tl.Run(ctx) }()
	cause := errors.New("enough")
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) {
		t.Fatal(err)
	}
	if _, err := tl.Next(t.Context()); !errors.Is(err, cause) {
		t.Fatal(err)
	}
}
