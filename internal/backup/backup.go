package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/pause"
	"github.com/xbstream/xbstream/redotail"
	"github.com/xbstream/xbstream/server"
)

// Source is a live server, with what reads its files.
type Source interface {
	server.Server
	// Files finds the server's files.
	Files(chunker.Layout) chunker.Discoverer
	// ParseFlags reads the flags of a tablespace.
	ParseFlags(flags uint32) (innodb.PageFormat, error)
	// OpenRedo opens the redo log in dir at its newest checkpoint.
	OpenRedo(ctx context.Context, dir string) (redotail.Log, error)
}

// Outlet is where an archive goes. It is given up by Close unless it was
// completed.
type Outlet interface {
	io.WriteCloser
	// Progress is asked for once, when the copy begins.
	Progress() Progress
	// Complete is called when the whole archive was written.
	Complete(ctx context.Context) error
}

// Progress is told how far a backup has come.
type Progress interface {
	// Stage begins a part of about so many bytes.
	Stage(name string, total int64)
	Add(bytes int64)
}

// Options say what to back up, and how.
type Options struct {
	Log *slog.Logger
	// Open opens the outlet when the source was checked. The backup ends with the
	// error that fail gets.
	Open func(ctx context.Context, fail func(error)) (Outlet, error)
	// Event, if set, is called between two steps, with the name of the step that
	// follows or was done, and the table for the copy of one file. An error ends
	// the backup.
	Event func(ctx context.Context, name, table string) error

	// Paths replace those of the server.
	Paths Paths

	// Filter says which tables are wanted, nil for all; Asked is what the
	// manifest says of it.
	Filter *chunker.Filter
	Asked  *format.Filter
	// AllowMissing makes names of the filter that match nothing a warning.
	AllowMissing bool

	// SlaveInfo and GaleraInfo record the position of a replica and of a node.
	SlaveInfo, GaleraInfo bool
	// Pause stops the SQL threads of a replica during the locks; PauseTimeout
	// bounds the wait for a moment without temporary tables.
	Pause        bool
	PauseTimeout time.Duration

	// LockTimeout is the source's budget for a lock; after it was not granted,
	// locks are tried again LockRetries times.
	LockTimeout time.Duration
	LockRetries int64

	// SpoolDir and SpoolLimit are those of redotail.Options.
	SpoolDir   string
	SpoolLimit int64
	// Parallel and Rate are those of chunker.Copier, Compress that of the format.
	Parallel int
	Rate     int64
	Compress format.Level

	// Tool and Command are for the manifest: the program and its command line.
	Tool, Command string
}

// Summary says what a backup has done.
type Summary struct {
	format.Totals
	Took     time.Duration
	Manifest *format.Manifest
}

// run is one backup. This file is its story, from top to bottom.
type run struct {
	Options
	source Source
	// planning says that nothing will be copied.
	planning bool

	started  time.Time
	layout   server.Layout
	progress Progress
	retries  int64          // of locks that are left
	stages   []format.Stage // locks that were not granted before the backup began
	// saidLeftOut has the paths that warnLeftOut was told of.
	saidLeftOut sync.Map

	files chunker.Discoverer
	copy  *chunker.Copier
	redo  redotail.Log
	hold  server.RedoHold // nil where the server has none
	letGo func()          // ends the hold
	tail  *redotail.Tailer
	out   *format.Writer
	// unmatched are the names of a partial backup that match nothing.
	unmatched unmatched
	// settled are the copies that stand for the tablespaces, once that is known.
	settled []chunker.Result
}

func newRun(source Source, o Options) *run {
	return &run{Options: o, source: source, started: time.Now(), retries: o.LockRetries}
}

// Run takes a backup of the source. Its errors are those of the rooms it uses,
// and *NamesError.
func Run(ctx context.Context, source Source, o Options) (_ *Summary, err error) {
	b := newRun(source, o)
	if err := b.learn(ctx); err != nil {
		return nil, err
	}
	// Redo is followed from a checkpoint that is older than the first page
	// read. That order is what makes the copy recoverable: whatever happens
	// to a page after it was read is in the redo that was taken since.
	// A server that can be asked to keep it is asked before that.
	if b.hold, err = b.source.HoldRedo(ctx); err != nil {
		return nil, err
	}
	if b.hold != nil {
		defer b.hold.Close()
	}
	log, err := b.openRedo(ctx)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	b.redo = log
	b.tail = redotail.New(log, redotail.Options{
		SpoolDir: b.SpoolDir, SpoolLimit: b.SpoolLimit, Log: b.Log, FlushWait: b.flushWait(),
	})
	defer b.tail.Close()
	return b.stream(ctx, log.Start())
}

// learn asks the server for its layout and refuses what cannot be backed up,
// before anything is copied.
func (b *run) learn(ctx context.Context) (err error) {
	if b.layout, err = b.source.Layout(ctx); err != nil {
		return err
	}
	b.Paths.override(&b.layout)
	if b.Filter != nil && b.layout.LowerCaseTableNames == 1 {
		b.Filter.LowerCase()
	}
	if err := b.source.Check(ctx, b.wanted(ctx)); err != nil {
		return err
	}
	if err := restorable(&b.layout); err != nil {
		return err
	}
	if err := b.readable(); err != nil {
		return err
	}
	if err := b.proveDataDir(ctx); err != nil {
		return err
	}
	if err := b.checkNames(ctx); err != nil {
		return err
	}
	if err := b.recoverable(ctx); err != nil {
		return err
	}
	return redotail.CheckSpoolDir(b.SpoolDir)
}

// wanted is what the server must allow for the backup, and judge.
func (b *run) wanted(ctx context.Context) server.Wanted {
	w := server.Wanted{Replication: b.SlaveInfo, Pause: b.Pause, NonTransactional: b.nonTransactional(ctx)}
	if b.Filter != nil {
		w.Table = func(t server.TableName) bool {
			return b.Filter.Table(chunker.Names{{Database: t.FileDatabase, Table: t.FileTable}, {Database: t.Database, Table: t.Table}})
		}
	}
	return w
}

// readable makes sure that this process can read what the server names.
func (b *run) readable() error {
	for _, dir := range []string{b.layout.DataDir, b.layout.InnoDB.LogDir, b.layout.InnoDB.UndoDir} {
		if _, err := os.ReadDir(dir); err != nil {
			return fmt.Errorf("the server's directory cannot be read by this process; run xbsend on the server's machine as a user who may read it: %w", err)
		}
	}
	return nil
}

// flushWait is how long the redo log may stand still before the LSN it must
// reach: with innodb_flush_log_at_trx_commit=0 the server writes it only now and
// then, whatever it is asked.
func (b *run) flushWait() time.Duration {
	return redotail.DefaultFlushWait + 2*b.layout.InnoDB.FlushLogTimeout
}

func (b *run) discoverer() chunker.Discoverer {
	l := roots(&b.layout)
	l.Filter, l.TableNames, l.OpenFiles = b.Filter, b.source.TableNames, b.source.OpenFiles
	l.LeftOut = b.warnLeftOut
	return b.source.Files(l)
}

// warnLeftOut says once of each file why it is not backed up.
func (b *run) warnLeftOut(path, why string) {
	if _, said := b.saidLeftOut.LoadOrStore(path, true); !said {
		b.Log.Warn(fmt.Sprintf("%q is left out: %s", path, why))
	}
}

// tell calls Event.
func (b *run) tell(ctx context.Context, event, table string) error {
	if b.Event == nil {
		return nil
	}
	return b.Event(ctx, event, table)
}

// around is Event for each file that is copied.
func (b *run) around(ctx context.Context, event string) func(chunker.File) error {
	if b.Event == nil {
		return nil
	}
	return func(f chunker.File) error {
		return b.Event(ctx, event, strings.TrimSuffix(f.Rel, path.Ext(f.Rel)))
	}
}

// stream writes the archive: redo and files side by side, the manifest at the
// end, and the end frame only if nothing failed.
func (b *run) stream(ctx context.Context, redo format.Redo) (*Summary, error) {
	// The first part that fails ends the writes of the others too: a receiver
	// that stands still would keep them, and the reason, for as long.
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	to, err := b.Open(ctx, fail)
	if err != nil {
		return nil, err
	}
	defer to.Close()
	if b.out, err = format.NewWriter(to, format.WriterOptions{Dialect: b.layout.Dialect, Compress: b.Compress, Parallel: b.Parallel}); err != nil {
		return nil, err
	}
	b.Log.Info("backing up "+b.layout.DataDir, "server", b.layout.Version, "checkpoint_lsn", redo.CheckpointLSN)
	b.progress = to.Progress()
	b.files = b.discoverer()
	b.copy = &chunker.Copier{
		Sink: b.out, PageSize: b.layout.InnoDB.PageSize, ParseFlags: b.source.ParseFlags, Parallel: b.Parallel, Rate: b.Rate,
		Log: b.Log, Progress: b.progress.Add, Unused: b.unused,
		Before: b.around(ctx, "before-copy"), After: b.around(ctx, "after-copy"),
	}

	var m *format.Manifest
	g, gctx := errgroup.WithContext(ctx)
	part := func(run func() error) {
		g.Go(func() error {
			err := run()
			if err != nil {
				fail(err)
			}
			return err
		})
	}
	tailing, stop := context.WithCancel(gctx)
	part(func() error {
		defer stop()
		return b.tail.Run(gctx)
	})
	part(func() error { return b.tellWritten(tailing) })
	advancing, letGo := context.WithCancel(tailing)
	defer letGo()
	b.letGo = letGo
	part(func() error { return b.advanceHold(advancing) })
	part(func() error { return b.sendRedo(gctx, redo) })
	part(func() (err error) {
		if err = b.tell(gctx, "redo-started", ""); err == nil {
			m, err = b.copyAll(gctx)
		}
		return err
	})
	if g.Wait() != nil {
		err := context.Cause(ctx)
		b.out.Abort(err)
		return nil, err
	}
	return b.finish(ctx, m, redo, to)
}

// tellEvery is how often the tail hears how far the server is: often enough for a
// log that lasts for seconds, seldom enough that the server does not notice.
const tellEvery = time.Second

// tellWritten lets the tail know how far the server has written, so that it can
// warn when it falls behind. A server that does not answer is not its business:
// the locks are watched.
func (b *run) tellWritten(ctx context.Context) error {
	for {
		if at, err := b.source.Written(ctx); err == nil {
			b.tail.Written(at)
		}
		if pause.For(ctx, tellEvery) != nil {
			return nil
		}
	}
}

// advanceEvery is how often the server hears which redo it need not keep any more.
// A log of 8 MiB, the smallest there is, lasts that long at 16 MB a second.
const advanceEvery = 500 * time.Millisecond

// advanceHold lets the server overwrite what was read. The copy goes on without
// the hold, as it does with a server that has none.
func (b *run) advanceHold(ctx context.Context) error {
	if b.hold == nil {
		return nil
	}
	for last := format.LSN(0); ; {
		if at := b.tail.Position(); at != last {
			if err := b.hold.Advance(ctx, at); err != nil && ctx.Err() == nil {
				b.Log.Warn("the server no longer keeps redo for this backup: " + err.Error())
				return nil
			}
			last = at
		}
		if pause.For(ctx, advanceEvery) != nil {
			// All is read. The archive may take long to leave.
			return b.hold.Close()
		}
	}
}

// sendRedo passes the redo on as it comes, until the end LSN.
func (b *run) sendRedo(ctx context.Context, redo format.Redo) error {
	for {
		p, err := b.tail.Next(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		at, ok := redo.Position(p.LSN)
		if !ok {
			return fmt.Errorf("redo of the format %s cannot begin at LSN %v", redo.Format, p.LSN)
		}
		if err := b.out.WriteRedo(at, p.Data); err != nil {
			return err
		}
	}
}

// finish writes manifest and end frame.
func (b *run) finish(ctx context.Context, m *format.Manifest, redo format.Redo, to Outlet) (*Summary, error) {
	end, ok := b.tail.EndLSN()
	if !ok {
		return nil, errors.New("redo has no end")
	}
	redo.EndLSN, redo.LastCheckpointLSN = end, b.tail.Checkpoint()
	m.Backup.Redo = redo
	b.warnImported(end)
	m.Finished = time.Now()
	t, err := b.out.Close(m)
	if err == nil {
		err = to.Complete(ctx)
	}
	if err != nil {
		return nil, err
	}
	return &Summary{Totals: t, Took: time.Since(b.started), Manifest: m}, nil
}
