package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backup"
	"github.com/xbstream/xbstream/internal/cli"
	"github.com/xbstream/xbstream/internal/families"
	"github.com/xbstream/xbstream/internal/family"
)

// backUp takes the backup that the flags ask for, and says what was done.
func backUp(ctx context.Context, f *flags, s streams, log *slog.Logger) error {
	source, err := family.Open(ctx, f.server, log, families.All)
	if err != nil {
		return err
	}
	defer source.Close()
	o := f.options(log)
	if f.dryRun {
		p, err := backup.Look(ctx, source, o)
		if err == nil {
			sayPlan(log, p)
		}
		return err
	}
	to := &destination{f: f, s: s, log: log}
	o.Open = to.open
	sum, err := backup.Run(ctx, source, o)
	if err == nil {
		saySummary(log, sum, to.left)
	}
	to.stopProgress(ctx, err)
	return err
}

// options are what the flags say of the backup.
func (f *flags) options(log *slog.Logger) backup.Options {
	o := backup.Options{
		Log: log, Event: hookFromEnvironment(),
		Paths:  f.paths,
		Filter: f.filter, AllowMissing: f.allowMissing,
		SlaveInfo: f.replica.slaveInfo, GaleraInfo: f.replica.galeraInfo,
		Pause: f.replica.safe, PauseTimeout: time.Duration(f.replica.safeTimeout),
		LockTimeout: time.Duration(f.lockTimeout), LockRetries: int64(f.lockRetries),
		SpoolDir: f.spoolDir, SpoolLimit: int64(f.spoolLimit),
		Parallel: int(f.parallel), Rate: int64(f.rate), Compress: format.Level(f.compress),
		Tool: "xbsend " + version, Command: f.command,
	}
	if f.filter != nil {
		o.Asked = &f.partial
	}
	return o
}

// destination is the way of the archive from the format's writer to the pipe.
type destination struct {
	f   *flags
	s   streams
	log *slog.Logger

	io.Writer // the encryption, or left
	seal      io.Closer
	left      *meter      // counts what leaves
	gather    *cli.Gather // in front of the pipe
	pipe      *outlet
	bar       *cli.Progress
	digest    *digestFile // nil without
}

func (d *destination) open(ctx context.Context, fail func(error)) (_ backup.Outlet, err error) {
	if d.f.digestFile != "" {
		if d.digest, err = createDigest(d.f.digestFile); err != nil {
			return nil, err
		}
	}
	if d.pipe, err = openOutlet(ctx, d.f, d.s, d.log, fail); err != nil {
		d.discardDigest()
		return nil, err
	}
	d.gather = cli.NewGather(d.pipe.Pipe)
	d.left = newMeter(d.gather, d.digest != nil)
	d.Writer = d.left
	if len(d.f.recipients) > 0 {
		// It is closed by Complete only: what a failed backup leaves has no
		// end on the outside either.
		w, err := format.Encrypt(d.left, d.f.recipients...)
		if err != nil {
			d.Close()
			return nil, err
		}
		d.Writer, d.seal = w, w
	}
	return d, nil
}

// Progress starts the progress display.
func (d *destination) Progress() backup.Progress {
	d.bar = d.f.out.StartProgress(d.s.err)
	d.bar.Watch(d.pipe.Pipe)
	return d.bar
}

func (d *destination) stopProgress(ctx context.Context, err error) {
	if d.bar != nil {
		d.bar.Stop(ctx, err)
	}
}

// Complete ends the archive on the outside.
func (d *destination) Complete(ctx context.Context) error {
	if d.seal != nil {
		if err := d.seal.Close(); err != nil {
			return err
		}
	}
	if err := d.gather.Flush(); err != nil {
		return err
	}
	if err := d.pipe.complete(ctx); err != nil {
		return err
	}
	if d.digest != nil {
		return d.digest.publish(d.left.digest())
	}
	return nil
}

// Close gives up what was not completed.
func (d *destination) Close() error {
	d.left.Close()
	d.gather.Close()
	d.discardDigest()
	return d.pipe.Close()
}

func (d *destination) discardDigest() {
	if d.digest != nil {
		d.digest.discard()
	}
}

func saySummary(log *slog.Logger, sum *backup.Summary, left *meter) {
	b := sum.Manifest.Backup
	attrs := []any{"data", cli.Bytes(sum.DataBytes), "redo", cli.Bytes(sum.RedoBytes),
		"took", sum.Took, "locked", time.Duration(b.LockSeconds * float64(time.Second)),
		"end_lsn", b.Redo.EndLSN}
	attrs = append(attrs, "archive_bytes", left.bytes)
	if d := left.digest(); d != "" {
		attrs = append(attrs, "sha256", d)
	}
	if n := gaveUp(b.Stages); n > 0 {
		attrs = append(attrs, "lock_retries", n)
	}
	if p := b.Binlog; p != nil {
		attrs = append(attrs, "binlog", position(*p), "gtid", b.GTID)
	}
	log.Info("backup complete", attrs...)
}

func sayPlan(log *slog.Logger, p *backup.Plan) {
	log.Info("server "+p.Layout.Version, "data_directory", p.Layout.DataDir)
	log.Info("InnoDB files, checked page by page", "files", p.InnoDB.Files, "data", cli.Bytes(p.InnoDB.Bytes))
	log.Info("other files", "files", p.Others.Files, "data", cli.Bytes(p.Others.Bytes))
	log.Info("redo in "+p.Layout.LogDir, "format", p.Redo.Format, "checkpoint_lsn", p.Redo.CheckpointLSN)
	if n := p.LeftOut; n > 0 {
		log.Info("InnoDB files are left out", "files", n)
	}
	log.Info("nothing was copied (--dry-run)")
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
