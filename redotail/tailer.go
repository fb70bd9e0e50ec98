package redotail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/xbstream/xbstream/format"
)

// Defaults of Options.
const (
	DefaultMemoryLimit = 32 << 20
	DefaultSpoolLimit  = 8 << 30
	DefaultFlushWait   = 30 * time.Second
)

// Options of a Tailer; the zero value works.
type Options struct {
	// SpoolDir is where redo waits that memory does not hold; the default is
	// the system's directory for temporary files.
	SpoolDir string
	// MemoryLimit and SpoolLimit bound, in bytes, what waits in memory and in
	// the spool file. 0 means the default; a negative SpoolLimit means that
	// no file may be used.
	MemoryLimit int64
	SpoolLimit  int64
	// FlushWait is how long the log may stand still before the LSN asked for
	// with StopAt; the default is 30 seconds.
	FlushWait time.Duration
	// Log receives a line when redo starts to wait on disk, and a warning when
	// the server has almost come around to what was not read.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.SpoolDir == "" {
		o.SpoolDir = os.TempDir()
	}
	if o.MemoryLimit == 0 {
		o.MemoryLimit = DefaultMemoryLimit
	}
	if o.SpoolLimit == 0 {
		o.SpoolLimit = DefaultSpoolLimit
	}
	if o.FlushWait == 0 {
		o.FlushWait = DefaultFlushWait
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// How long the tailer sleeps at the tip: short after news, longer each time
// there is none. At 10 ms even a server that writes 400 MB/s gets no further
// than 4 MB, the smallest log there is.
const (
	napMin = time.Millisecond
	napMax = 10 * time.Millisecond
)

// Tailer reads a Log to its end and hands the pieces on. Run and Next are for
// one goroutine each; the other methods for any.
type Tailer struct {
	log   Log
	opt   Options
	spool *spool
	// wanted wakes a sleeping Run when StopAt was called.
	wanted chan struct{}
	// onDisk is when redo began to wait on disk, zero while none does; told says
	// that the log has it.
	onDisk time.Time
	told   bool

	// reading is held while the log is read, and by Pause.
	reading sync.Mutex

	mu         sync.Mutex
	position   format.LSN
	checkpoint format.LSN
	capacity   int64      // of the log
	stopAt     format.LSN // 0: not asked yet
	endLSN     format.LSN // 0: not reached yet
	files      fileChanges
	lag        lag
}

// New returns a Tailer that has not read anything yet. The Log stays the
// caller's to close, after Run has returned.
func New(log Log, opt Options) *Tailer {
	opt = opt.withDefaults()
	start := log.Start().CheckpointLSN
	return &Tailer{
		log:        log,
		opt:        opt,
		spool:      newSpool(opt.SpoolDir, opt.MemoryLimit, opt.SpoolLimit),
		wanted:     make(chan struct{}, 1),
		position:   start,
		checkpoint: log.Checkpoint(),
		capacity:   log.Capacity(),
		files:      fileChanges{},
	}
}

// Run reads the log until the end asked for with StopAt, or until it fails;
// then Next fails with the same error. It never waits for Next.
func (t *Tailer) Run(ctx context.Context) error {
	err := t.run(ctx)
	t.spool.finish(err)
	return err
}

func (t *Tailer) run(ctx context.Context) error {
	nap := napMin
	moved := time.Now()
	waiting := false // whether StopAt was seen
	for {
		moves, err := t.step(ctx)
		if err != nil && !errors.Is(err, ErrTip) {
			return err
		}
		if moves {
			nap, moved = napMin, time.Now()
		}
		wanted, done := t.reachedEnd()
		if done {
			return nil
		}
		if err == nil {
			continue
		}
		if wanted != 0 && !waiting {
			// Before that nobody expected the log to move.
			waiting, moved = true, time.Now()
		}
		if waiting && time.Since(moved) >= t.opt.FlushWait {
			return &StuckError{Reached: t.Position(), Wanted: wanted}
		}
		if err := t.nap(ctx, nap); err != nil {
			return err
		}
		nap = min(nap*2, napMax)
	}
}

// step reads a piece and keeps it. The error is ErrTip where there is none.
func (t *Tailer) step(ctx context.Context) (moves bool, err error) {
	t.reading.Lock()
	defer t.reading.Unlock()
	p, err := t.log.Read(ctx)
	switch {
	case errors.Is(err, ErrTip):
		t.note(Piece{})
		return false, err
	case err != nil:
		return false, err
	}
	return true, t.keep(t.cut(p))
}

// Pause keeps Run from reading until resume is called, once. A caller who then asks
// the server for its LSN, while transactions may commit, and gives that to StopAt
// before resume, gets redo that ends there and not later.
func (t *Tailer) Pause() (resume func()) {
	t.reading.Lock()
	return t.reading.Unlock
}

// cut shortens the piece that reaches the end.
func (t *Tailer) cut(p Piece) Piece {
	wanted, ok := t.target()
	if !ok || wanted > p.End() {
		return p
	}
	return t.log.Cut(p, max(wanted, p.LSN))
}

// target returns the LSN to stop at. It is not below the end of the redo
// without which recovery does not find its start.
func (t *Tailer) target() (format.LSN, bool) {
	t.mu.Lock()
	wanted := t.stopAt
	t.mu.Unlock()
	start, ok := t.log.StartComplete()
	return max(wanted, start), ok && wanted != 0
}

// keep spools a piece. It is empty when StopAt came late and asked for less
// than was read.
func (t *Tailer) keep(p Piece) error {
	if len(p.Data) == 0 {
		return nil
	}
	if err := t.spool.put(p); err != nil {
		return fmt.Errorf("keep redo at LSN %v: %w", p.LSN, err)
	}
	t.note(p)
	t.tellOfDisk(p.LSN)
	return nil
}

// slowAfter is how long redo waits on disk before the log has it: at the start a
// long log is read faster than any pipe takes it.
const slowAfter = 10 * time.Second

// tellOfDisk says once that the receiver is slow.
func (t *Tailer) tellOfDisk(at format.LSN) {
	switch _, onDisk, _ := t.spool.held(); {
	case onDisk == 0:
		t.onDisk = time.Time{}
	case t.onDisk.IsZero():
		t.onDisk = time.Now()
	case !t.told && time.Since(t.onDisk) > slowAfter:
		t.told = true
		t.opt.Log.Info("the receiver is slow: redo waits on disk", "lsn", at, "dir", t.opt.SpoolDir)
	}
}

// note takes account of a piece that was kept, empty at the tip.
func (t *Tailer) note(p Piece) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.checkpoint, t.capacity = t.log.Checkpoint(), t.log.Capacity()
	if len(p.Data) == 0 {
		return
	}
	t.position = p.End()
	for _, f := range p.Files {
		if f.LSN < t.position {
			t.files.add(f)
		}
	}
}

// reachedEnd says whether the end asked for is reached, and returns what was
// asked for, 0 if nothing.
func (t *Tailer) reachedEnd() (wanted format.LSN, done bool) {
	target, ok := t.target()
	t.mu.Lock()
	defer t.mu.Unlock()
	if !ok || t.position < target {
		return t.stopAt, false
	}
	t.endLSN = t.position
	return t.stopAt, true
}

// nap sleeps for a while, or until StopAt is called.
func (t *Tailer) nap(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.wanted:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// StopAt tells Run to end at the first boundary of a mini-transaction that is
// not below lsn and not below what was read already. Later calls have no
// effect.
func (t *Tailer) StopAt(lsn format.LSN) {
	t.mu.Lock()
	if t.stopAt == 0 {
		t.stopAt = max(lsn, 1)
	}
	t.mu.Unlock()
	select {
	case t.wanted <- struct{}{}:
	default:
	}
}

// Written passes on that the server has flushed its log up to lsn. The last few
// KiB of the log are read only when that is known: see Log. Called now and then,
// it also warns when the reader falls behind.
func (t *Tailer) Written(lsn format.LSN) {
	t.log.Written(lsn)
	t.tellOfLag(lsn)
	select {
	case t.wanted <- struct{}{}:
	default:
	}
}

// Next returns the next piece; the caller owns its Data. After the end it
// returns io.EOF, after a failure of Run that error, at once.
func (t *Tailer) Next(ctx context.Context) (Piece, error) { return t.spool.take(ctx) }

// EndLSN returns where the redo ends; ok is false until Run got there.
func (t *Tailer) EndLSN() (lsn format.LSN, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.endLSN, t.endLSN != 0
}

// Position returns the LSN up to which redo was read.
func (t *Tailer) Position() format.LSN {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.position
}

// Checkpoint returns the server's newest checkpoint LSN seen so far.
func (t *Tailer) Checkpoint() format.LSN {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.checkpoint
}

// Files returns what the redo up to Position says of tablespaces created,
// renamed, deleted and imported, in the order of each one's last record. It is
// empty for an encrypted log, which does not show names without its key.
func (t *Tailer) Files() []FileChange {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.files.list()
}

// Waiting returns how many bytes of redo wait for Next in memory and on disk,
// and the most that waited on disk.
func (t *Tailer) Waiting() (memory, disk, diskPeak int64) { return t.spool.held() }

// Close drops what still waits. Run and Next must have returned.
func (t *Tailer) Close() error { return t.spool.close() }
