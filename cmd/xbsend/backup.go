package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backup"
	"github.com/xbstream/xbstream/internal/cli"
	"github.com/xbstream/xbstream/internal/families"
	"github.com/xbstream/xbstream/internal/family"
	"github.com/xbstream/xbstream/internal/outlet"
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
	to := &shown{f: f, s: s}
	o.Open = func(ctx context.Context, fail func(error)) (_ backup.Outlet, err error) {
		to.Outlet, err = outlet.Open(ctx, f.outlet(s, log), fail)
		return to, err
	}
	sum, err := backup.Run(ctx, source, o)
	if err == nil {
		saySummary(log, sum, to.Outlet)
	}
	if to.bar != nil {
		to.bar.Stop(ctx, err)
	}
	return err
}

// outlet is what the flags say of the archive's way out.
func (f *flags) outlet(s streams, log *slog.Logger) outlet.Options {
	return outlet.Options{
		Out: s.out, Err: s.err, Exec: f.exec, Idle: time.Duration(f.idleTimeout),
		DigestFile: f.digestFile, Recipients: f.recipients, Log: log,
	}
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

// shown is an outlet whose progress is shown.
type shown struct {
	*outlet.Outlet
	f   *flags
	s   streams
	bar *cli.Progress
}

// Progress starts the display.
func (o *shown) Progress() backup.Progress {
	o.bar = o.f.out.StartProgress(o.s.err)
	o.bar.Watch(o.Pipe())
	return o.bar
}

func saySummary(log *slog.Logger, sum *backup.Summary, to *outlet.Outlet) {
	b := sum.Manifest.Backup
	attrs := []any{"data", cli.Bytes(sum.DataBytes), "redo", cli.Bytes(sum.RedoBytes),
		"took", sum.Took, "locked", time.Duration(b.LockSeconds * float64(time.Second)),
		"end_lsn", b.Redo.EndLSN}
	attrs = append(attrs, "archive_bytes", to.Bytes())
	if d := to.Digest(); d != "" {
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
