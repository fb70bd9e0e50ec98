package cli

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Pipe is standard input or standard output with an archive in it. At its other
// end is a process that may stop without a word, or a connection that died.
// A read or write of a pipe or a socket ends when its context ends, and when
// not a byte has moved for PipeOptions.Idle. Of other files it is only said
// that they stall.
type Pipe struct {
	opt    PipeOptions
	file   *os.File
	write  func([][]byte) (int, error) // all of several pieces, in order
	read   func([]byte) (int, error)
	ctx    context.Context
	cancel context.CancelCauseFunc
	undo   func()
	watch  sync.WaitGroup

	busy    atomic.Bool   // a read or write is going on
	ended   atomic.Bool   // a read or write has failed, as at the end of the input
	steps   atomic.Uint64 // counts reads, writes, and their parts
	stalled atomic.Int64  // nanoseconds for which nothing moved, although wanted

	// Of the watching goroutine.
	seen   uint64
	warned bool
}

// PipeOptions of OpenInput and OpenOutput.
type PipeOptions struct {
	// Idle is how long the other end may give or take nothing before that is
	// an IdleError; 0 means for ever.
	Idle time.Duration
	// Log receives a warning when nothing has moved for a while, and a line
	// when it goes on; nil is silent.
	Log *slog.Logger
}

// stallWarning is after how long a stall is worth a warning.
const stallWarning = 30 * time.Second

// stallTick is how often is looked for a stall.
const stallTick = time.Second

// IdleError says that the process at the other end of a pipe did nothing for
// too long.
type IdleError struct {
	// Output says that it did not read; else it did not write.
	Output bool
	// For is how long.
	For time.Duration
}

func (e *IdleError) Error() string {
	if e.Output {
		return fmt.Sprintf("standard output: the receiving side has taken nothing for %v (--idle-timeout): it hangs, or the connection to it is dead", e.For)
	}
	return fmt.Sprintf("standard input: nothing has arrived for %v (--idle-timeout): the sending side hangs, or the connection to it is dead", e.For)
}

// OpenInput prepares standard input, or what stands for it, for reading.
func OpenInput(ctx context.Context, in *os.File, opt PipeOptions) *Pipe {
	p := newPipe(ctx, in, opt)
	p.read = p.reader()
	p.start(false)
	return p
}

// OpenOutput prepares standard output for writing.
func OpenOutput(ctx context.Context, out *os.File, opt PipeOptions) (*Pipe, error) {
	p := newPipe(ctx, out, opt)
	var err error
	if p.write, p.undo, err = p.writer(); err != nil {
		p.cancel(nil)
		return nil, fmt.Errorf("standard output: %w", err)
	}
	p.start(true)
	return p, nil
}

func newPipe(ctx context.Context, f *os.File, opt PipeOptions) *Pipe {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	p := &Pipe{opt: opt, file: f, undo: func() {}}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	return p
}

// Read implements io.Reader.
func (p *Pipe) Read(b []byte) (int, error) { return p.transfer(p.read, b) }

// Write implements io.Writer.
func (p *Pipe) Write(b []byte) (int, error) { return p.writePieces(b) }

// writePieces writes pieces as one.
func (p *Pipe) writePieces(pieces ...[]byte) (int, error) {
	return p.transfer(func([]byte) (int, error) { return p.write(pieces) }, nil)
}

// writeFile writes pieces to what is neither pipe nor socket.
func (p *Pipe) writeFile(pieces [][]byte) (n int, err error) {
	for _, b := range pieces {
		m, err := p.file.Write(b)
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (p *Pipe) transfer(f func([]byte) (int, error), b []byte) (int, error) {
	p.steps.Add(1)
	p.busy.Store(true)
	defer p.busy.Store(false)
	n, err := f(b)
	if err != nil {
		p.ended.Store(true)
	}
	return n, err
}

// fed says that another program may still write into a pipe that is read.
func (p *Pipe) fed() bool {
	if p == nil || p.read == nil || p.ended.Load() {
		return false
	}
	pipe, err := isPipe(p.file)
	return err == nil && pipe
}

// isPipe says whether another process is at the other end.
func isPipe(f *os.File) (bool, error) {
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	return st.Mode()&(os.ModeNamedPipe|os.ModeSocket) != 0, nil
}

// moved says that a read or write goes on.
func (p *Pipe) moved() { p.steps.Add(1) }

// Stalled returns for how long nothing has moved, although it was wanted. A nil
// Pipe never stalls.
func (p *Pipe) Stalled() time.Duration {
	if p == nil {
		return 0
	}
	return time.Duration(p.stalled.Load())
}

// Close leaves the file as it was found, open.
func (p *Pipe) Close() error {
	p.cancel(os.ErrClosed)
	p.watch.Wait()
	p.undo()
	return nil
}

func (p *Pipe) start(output bool) {
	every := stallTick
	if p.opt.Idle > 0 {
		every = max(min(every, p.opt.Idle/8), time.Millisecond)
	}
	p.watch.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		last := time.Now()
		for {
			select {
			case <-p.ctx.Done():
				return
			case now := <-tick.C:
				// A process that was stopped itself, or a machine that slept,
				// must not take that for a stall of the other side.
				p.look(min(now.Sub(last), 2*every), output)
				last = now
			}
		}
	})
}

// look notices whether anything has moved since the last look, passed ago.
func (p *Pipe) look(passed time.Duration, output bool) {
	steps := p.steps.Load()
	if !p.busy.Load() || steps != p.seen {
		p.seen = steps
		if p.warned {
			p.warned = false
			p.opt.Log.Info(where(output)+" goes on", "after", p.Stalled().Round(time.Second))
		}
		p.stalled.Store(0)
		return
	}
	stalled := time.Duration(p.stalled.Add(int64(passed)))
	if stalled >= stallWarning && !p.warned {
		p.warned = true
		p.opt.Log.Warn(stallText(output, stalled.Round(time.Second)))
	}
	if p.opt.Idle > 0 && stalled >= p.opt.Idle {
		p.cancel(&IdleError{Output: output, For: p.opt.Idle})
	}
}

func where(output bool) string {
	if output {
		return "standard output"
	}
	return "standard input"
}

func stallText(output bool, d time.Duration) string {
	if output {
		return fmt.Sprintf("standard output stalls: the receiving side has taken nothing for %v", d)
	}
	return fmt.Sprintf("standard input stalls: nothing has arrived for %v", d)
}
