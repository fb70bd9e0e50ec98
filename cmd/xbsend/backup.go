package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/chunker"
	chunkmaria "github.com/xbstream/xbstream/chunker/mariadb"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/cli"
	"github.com/xbstream/xbstream/redotail"
	"github.com/xbstream/xbstream/server"
	servermaria "github.com/xbstream/xbstream/server/mariadb"
)

// backup is one run of xbsend. This file is its story, from top to bottom.
type backup struct {
	f   *flags
	s   streams
	log *slog.Logger

	started time.Time
	server  server.Server
	layout  server.Layout
	bar     *cli.Progress
	hook    hook
	stages  []format.Stage // locks that were not granted before the backup began
	// saidLeftOut has the paths that warnLeftOut was told of.
	saidLeftOut sync.Map

	files  chunker.Discoverer
	copy   *chunker.Copier
	redo   redotail.Log
	tail   *redotail.Tailer
	out    *format.Writer
	seal   io.Closer   // of the encryption around it; nil without
	left   *meter      // counts what leaves
	gather *cli.Gather // in front of the pipe
	// digest is the file for the digest of the archive, nil without.
	digest *digestFile
	// unmatched are the names of a partial backup that match nothing.
	unmatched unmatched
	// settled are the copies that stand for the tablespaces, once that is known.
	settled []chunker.Result
}

func (b *backup) run(ctx context.Context) error {
	b.started = time.Now()
	if err := b.connect(ctx); err != nil {
		return err
	}
	defer b.server.Close()
	if b.f.dryRun {
		return b.plan(ctx)
	}
	// Redo is followed from a checkpoint that is older than the first page
	// read. That order is what makes the copy recoverable: whatever happens
	// to a page after it was read is in the redo that was taken since.
	log, err := b.openRedo(ctx)
	if err != nil {
		return err
	}
	defer log.Close()
	b.redo = log
	b.tail = redotail.New(log, redotail.Options{
		SpoolDir: b.f.spoolDir, SpoolLimit: int64(b.f.spoolLimit), Log: b.log, FlushWait: b.flushWait(),
	})
	defer b.tail.Close()
	if b.f.digestFile != "" {
		if b.digest, err = createDigest(b.f.digestFile); err != nil {
			return err
		}
		defer b.digest.discard()
	}
	return b.stream(ctx, log.Start())
}

// connect asks the server for its layout and refuses what cannot be backed up,
// before anything is copied.
func (b *backup) connect(ctx context.Context) (err error) {
	b.server, err = server.Open(ctx, b.f.server, b.log, servermaria.Dialect{})
	if err != nil {
		return err
	}
	if err := b.learn(ctx); err != nil {
		b.server.Close()
		return err
	}
	return nil
}

func (b *backup) learn(ctx context.Context) (err error) {
	if b.layout, err = b.server.Layout(ctx); err != nil {
		return err
	}
	b.f.paths.override(&b.layout)
	if b.f.filter != nil && b.layout.LowerCaseTableNames == 1 {
		b.f.filter.LowerCase()
	}
	if err := b.server.Check(ctx, b.f.wanted()); err != nil {
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
	return redotail.CheckSpoolDir(b.f.spoolDir)
}

// readable makes sure that this process can read what the server names.
func (b *backup) readable() error {
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
func (b *backup) flushWait() time.Duration {
	return redotail.DefaultFlushWait + 2*b.layout.InnoDB.FlushLogTimeout
}

func (b *backup) discoverer() chunker.Discoverer {
	l := roots(&b.layout)
	l.Filter, l.TableNames = b.f.filter, b.server.TableNames
	l.LeftOut = b.warnLeftOut
	return chunkmaria.New(l)
}

// warnLeftOut says once of each file why it is not backed up.
func (b *backup) warnLeftOut(path, why string) {
	if _, said := b.saidLeftOut.LoadOrStore(path, true); !said {
		b.log.Warn(fmt.Sprintf("%q is left out: %s", path, why))
	}
}

// stream writes the archive: redo and files side by side, the manifest at the
// end, and the end frame only if nothing failed.
func (b *backup) stream(ctx context.Context, redo format.Redo) (err error) {
	// The first part that fails ends the writes of the others too: a receiver
	// that stands still would keep them, and the reason, for as long.
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	pipe, err := b.openOutlet(ctx, fail)
	if err != nil {
		return err
	}
	defer pipe.Close()
	b.gather = cli.NewGather(pipe.Pipe)
	defer b.gather.Close()
	b.left = newMeter(b.gather, b.digest != nil)
	defer b.left.Close()
	out, err := b.sealed(b.left)
	if err != nil {
		return err
	}
	if b.out, err = format.NewWriter(out, format.WriterOptions{Compress: format.Level(b.f.compress), Parallel: int(b.f.parallel)}); err != nil {
		return err
	}
	b.log.Info("backing up "+b.layout.DataDir, "server", b.layout.Version, "checkpoint_lsn", redo.CheckpointLSN)
	b.bar = b.f.out.StartProgress(b.s.err)
	defer func() { b.bar.Stop(ctx, err) }()
	b.bar.Watch(pipe.Pipe)
	b.hook = hookFromEnvironment()
	b.files = b.discoverer()
	b.copy = &chunker.Copier{
		Sink: b.out, PageSize: b.layout.InnoDB.PageSize, Parallel: int(b.f.parallel), Rate: int64(b.f.rate),
		Log: b.log, Progress: b.bar.Add, Before: b.hook.before, After: b.hook.after, Unused: b.unused,
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
	part(func() error { return b.sendRedo(gctx) })
	part(func() (err error) {
		if err = b.hook.run(gctx, "redo-started", ""); err == nil {
			m, err = b.copyAll(gctx)
		}
		return err
	})
	if g.Wait() != nil {
		err := context.Cause(ctx)
		b.out.Abort(err)
		return err
	}
	return b.finish(ctx, m, redo, pipe)
}

// sealed puts the encryption, if it is asked for, around the archive. It is
// closed by finish only: what a failed backup leaves has no end on the outside
// either.
func (b *backup) sealed(out io.Writer) (io.Writer, error) {
	if len(b.f.recipients) == 0 {
		return out, nil
	}
	w, err := format.Encrypt(out, b.f.recipients...)
	b.seal = w
	return w, err
}

// tellEvery is how often the tail hears how far the server is: often enough for a
// log that lasts for seconds, seldom enough that the server does not notice.
const tellEvery = time.Second

// tellWritten lets the tail know how far the server has written, so that it can
// warn when it falls behind. A server that does not answer is not its business:
// the locks are watched.
func (b *backup) tellWritten(ctx context.Context) error {
	for {
		if at, err := b.server.Written(ctx); err == nil {
			b.tail.Written(at)
		}
		if sleep(ctx, tellEvery) != nil {
			return nil
		}
	}
}

// sendRedo passes the redo on as it comes, until the end LSN.
func (b *backup) sendRedo(ctx context.Context) error {
	for {
		p, err := b.tail.Next(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := b.out.WriteRedo(p.LSN, p.Data); err != nil {
			return err
		}
	}
}

// finish writes manifest and end frame, and says what was done.
func (b *backup) finish(ctx context.Context, m *format.Manifest, redo format.Redo, to *outlet) error {
	end, ok := b.tail.EndLSN()
	if !ok {
		return errors.New("redo has no end")
	}
	redo.EndLSN, redo.LastCheckpointLSN = end, b.tail.Checkpoint()
	m.Backup.Redo = redo
	b.warnImported(end)
	m.Finished = time.Now()
	t, err := b.out.Close(m)
	if err == nil && b.seal != nil {
		err = b.seal.Close()
	}
	if err == nil {
		err = b.gather.Flush()
	}
	if err == nil {
		err = to.complete(ctx)
	}
	if err == nil && b.digest != nil {
		err = b.digest.publish(b.left.digest())
	}
	if err != nil {
		return err
	}
	attrs := []any{"data", cli.Bytes(t.DataBytes), "redo", cli.Bytes(t.RedoBytes),
		"took", time.Since(b.started), "locked", time.Duration(m.Backup.LockSeconds * float64(time.Second)),
		"end_lsn", end}
	attrs = append(attrs, "archive_bytes", b.left.bytes)
	if d := b.left.digest(); d != "" {
		attrs = append(attrs, "sha256", d)
	}
	if n := gaveUp(m.Backup.Stages); n > 0 {
		attrs = append(attrs, "lock_retries", n)
	}
	if p := m.Backup.Binlog; p != nil {
		attrs = append(attrs, "binlog", position(*p), "gtid", m.Backup.GTID)
	}
	b.log.Info("backup complete", attrs...)
	return nil
}

// gaveUp counts the locks that were not granted.
func gaveUp(stages []format.Stage) (n int) {
	for _, s := range stages {
		if s.GaveUp {
			n++
		}
	}
	return n
}

// position is a binary log position as a log attribute, in JSON an object.
type position format.BinlogPosition

func (p position) String() string { return fmt.Sprintf("%s:%d", p.File, p.Position) }
