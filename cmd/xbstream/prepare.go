package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/cli"
	"github.com/xbstream/xbstream/internal/runserver"
	"github.com/xbstream/xbstream/prepare"
)

const prepareHelp = `Usage: xbstream prepare [flags] DIR

Recovers an extracted backup in place: applies the redo that was copied with the
data files. If it is killed, run it again. It also recovers directories that
mariabackup wrote.

Examples:

  Recover a backup that was extracted without --prepare:
    xbstream prepare restored
  Recover an encrypted backup with a server that can read its keys:
    xbstream prepare --with-server \
      --server-option=plugin-load-add=file_key_management \
      --server-option=file-key-management-filename=/etc/mysql/keys restored
`

// errPrepare is wrapped by every error of preparing.
var errPrepare = errors.New("prepare failed")

// prepareFlags choose how a backup is prepared.
type prepareFlags struct {
	server        string   // "" = without a server
	serverOptions []string // for that server
	notImported   bool
	export        bool
	memory        cli.Size
	verify        bool
	parallel      int
	staged        bool
	feed          *prepare.Feed // what followed the redo, or nil
}

// anyServer is the value of --with-server without one.
const anyServer = "mariadbd"

func (p *prepareFlags) register(f *pflag.FlagSet) {
	p.memory = prepare.DefaultMemory
	f.Var(&p.memory, "memory", "memory for redo during prepare")
	f.BoolVar(&p.verify, "verify", false, "after preparing, read and check every page again")
	f.StringVar(&p.server, "with-server", "", "let a server recover the copy, for encrypted tablespaces; `BINARY` is the server to start (mariadbd if left out)")
	f.Lookup("with-server").NoOptDefVal = anyServer
	f.BoolVar(&p.notImported, "nothing-imported", false, "with an encrypted redo log: prepare even if a table may have been imported during the backup; you know that none was")
	f.BoolVar(&p.export, "export", false, "also write the .cfg files for ALTER TABLE ... IMPORT TABLESPACE; starts a server (see --with-server)")
	f.StringArrayVar(&p.serverOptions, "server-option", nil, "start that server with `OPTION`, for example plugin-load-add=file_key_management; repeatable")
}

func (p *prepareFlags) options(log *slog.Logger) prepare.Options {
	return prepare.Options{Memory: int64(p.memory), Parallel: p.parallel, Verify: p.verify, Staged: p.staged, NothingImported: p.notImported, Log: log}
}

func (p *prepareFlags) run(ctx context.Context, dir string, log *slog.Logger, bar *cli.Progress) (prepare.Report, error) {
	opt := p.options(log)
	opt.Feed, opt.Progress = p.feed, bar.Set
	for _, o := range p.serverOptions {
		opt.ServerArgs = append(opt.ServerArgs, "--"+strings.TrimLeft(o, "-"))
	}
	rep, err := p.recover(ctx, dir, opt)
	if err == nil {
		logSettled(log, rep)
	}
	if err != nil || !p.export {
		return rep, err
	}
	n, err := prepare.Export(ctx, dir, p.binary(), opt)
	if err == nil {
		log.Info("exported for IMPORT TABLESPACE", "tables", n)
	}
	return rep, err
}

func (p *prepareFlags) recover(ctx context.Context, dir string, opt prepare.Options) (prepare.Report, error) {
	if p.server == "" {
		return prepare.Run(ctx, dir, opt)
	}
	return prepare.WithServer(ctx, dir, p.binary(), opt)
}

// binary is the server to start, "" for the one of this machine.
func (p *prepareFlags) binary() string {
	if p.server == anyServer {
		return ""
	}
	return p.server
}

// check finds out early what would fail late.
func (p *prepareFlags) check() error {
	if !p.export {
		return nil
	}
	if _, err := runserver.Find(p.binary(), "mariadbd", "mysqld"); err != nil {
		return fmt.Errorf("%w: --export starts a server on the copy, which rolls back uncommitted transactions; install one, or name it with --with-server=BINARY: %w", errPrepare, err)
	}
	return nil
}

func (c *command) prepare(ctx context.Context, args []string) (err error) {
	var p prepareFlags
	f := pflag.NewFlagSet("prepare", pflag.ContinueOnError)
	f.VarP((*cli.Count)(&p.parallel), "parallel", "j", "number of workers (default: one per core)")
	p.register(f)
	if err := c.parse(f, prepareHelp, args); err != nil {
		return err
	}
	if f.NArg() != 1 {
		return cli.Usagef("prepare takes one directory, got %d", f.NArg())
	}
	if err := p.check(); err != nil {
		return err
	}
	p.parallel = cli.Workers(p.parallel)
	log := c.out.Logger("xbstream", c.s.err)
	bar := c.out.StartProgress(c.s.err)
	defer func() { bar.Stop(ctx, err) }()
	start := time.Now()
	rep, err := p.run(ctx, f.Arg(0), log, bar)
	if err != nil {
		return failedPrepare(f.Arg(0), err)
	}
	if rep.AlreadyPrepared {
		log.Info(f.Arg(0)+" is already prepared", "end_lsn", rep.EndLSN)
		return nil
	}
	attrs := []any{"redo", cli.Bytes(rep.RedoBytes), "pages_written", rep.PagesWritten,
		"end_lsn", rep.EndLSN, "took", time.Since(start)}
	log.Info("prepared "+f.Arg(0), appendRolledBack(attrs, rep)...)
	return nil
}

// appendRolledBack adds how many transactions the source had prepared itself, if
// there were any: most servers have none.
func appendRolledBack(attrs []any, rep prepare.Report) []any {
	if rep.PreparedRolledBack == 0 {
		return attrs
	}
	return append(attrs, "prepared_rolled_back", rep.PreparedRolledBack)
}

// failedPrepare is the error of preparing dir. What came with the backup may be
// wrong, and then recovery has not begun: that is no failure of it.
func failedPrepare(dir string, err error) error {
	text := strings.TrimPrefix(err.Error(), "prepare "+dir+": ")
	if errors.Is(err, format.ErrDamaged) || errors.Is(err, format.ErrUnsupported) {
		return &worded{dir + ": " + text, err}
	}
	return &worded{fmt.Sprintf("%v: %s: %s", errPrepare, dir, text), errors.Join(errPrepare, err)}
}

// worded is an error in other words.
type worded struct {
	text string
	err  error
}

func (e *worded) Error() string { return e.text }
func (e *worded) Unwrap() error { return e.err }
