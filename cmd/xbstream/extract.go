package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/user"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"os"

	"github.com/xbstream/xbstream/extract"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/cli"
	"github.com/xbstream/xbstream/internal/families"
	"github.com/xbstream/xbstream/prepare"
)

const extractHelp = `Usage: xbstream extract [flags] [ARCHIVE]
       xbstream -x [flags] < ARCHIVE

Restores the files of an archive to a directory. xbstream moves the files into
place only after the whole archive has arrived and, with --prepare, is
recovered.

Examples:

  Restore a backup, so that a server can start from it directly:
    xbstream -x --prepare -C /var/lib/mysql --chown mysql:mysql monday.xb
  Restore an encrypted backup from a bucket:
    aws s3 cp s3://backups/monday.xb - | xbstream -x --prepare -i key.txt -C new
  Restore one table for ALTER TABLE ... IMPORT TABLESPACE:
    xbstream -x --only shop.orders --prepare --export -C one monday.xb
`

type extractFlags struct {
	opt     extract.Options
	chown   string
	only    []string
	mapping []string
	// selected is what only asks for, nil without.
	selected     *selection
	allowMissing bool

	prepare bool
	how     prepareFlags
}

func (c *command) extract(ctx context.Context, args []string) error {
	var x extractFlags
	f := pflag.NewFlagSet("extract", pflag.ContinueOnError)
	f.StringVarP(&x.opt.Dir, "directory", "C", ".", "restore to `DIR`, which must be empty or not exist")
	c.keys.register(f)
	f.BoolVar(&x.prepare, "prepare", false, "recover the backup, so that a server can start from it directly")
	f.VarP((*cli.Count)(&x.opt.Parallel), "parallel", "j", "number of workers (default: one per core)")
	f.StringVar(&x.chown, "chown", "", "give the files to `USER:GROUP` (default: if root runs xbstream, the owner of DIR)")
	f.StringArrayVar(&x.only, "only", nil, "restore only files that match `GLOB`: a path, db.table or database; repeatable")
	f.BoolVar(&x.allowMissing, "allow-missing", false, "if a GLOB of --only matches nothing, print a warning, not an error")
	f.StringArrayVar(&x.mapping, "tablespace-mapping", nil, "restore InnoDB tables with a DATA DIRECTORY below OLD to NEW, not into DIR: `OLD=NEW`; repeatable")
	f.BoolVar(&x.opt.IntoNonEmpty, "into-non-empty", false, "accept a DIR, or NEW, that contains other files, if none has a name that the backup needs")
	f.BoolVar(&x.opt.RemovePartial, "remove-partial", false, "first remove what a killed extraction left in DIR, or in a NEW")
	c.registerIncomplete(f)
	c.registerIdle(f)
	x.how.register(f)
	if err := c.parse(f, extractHelp, args); err != nil {
		return err
	}
	x.opt.Parallel = cli.Workers(x.opt.Parallel)
	var err error
	if x.opt.Owner, err = parseOwner(x.chown); err != nil {
		return err
	}
	if len(x.only) > 0 {
		if x.selected, err = newSelection(x.only); err != nil {
			return err
		}
		x.opt.Only = x.selected.match
	}
	x.opt.RedoHead = func(b *format.Backup) ([]byte, error) {
		f, err := families.Named(b.Server.Dialect)
		if err != nil {
			return nil, err
		}
		return f.RedoHead(b)
	}
	if x.opt.Mappings, err = parseMappings(x.mapping); err != nil {
		return err
	}
	if err := x.check(); err != nil {
		return err
	}
	return c.runExtract(ctx, x, f.Args())
}

// check finds out early what would fail late.
func (x *extractFlags) check() error {
	switch mapped := len(x.mapping) > 0; {
	case x.how.export && !x.prepare:
		return cli.Usagef("--export needs --prepare")
	case x.how.export && mapped:
		return cli.Usagef("--export cannot be combined with --tablespace-mapping")
	case x.prepare && x.how.server != "" && mapped:
		return cli.Usagef("--with-server cannot recover tables with a DATA DIRECTORY: do not combine it with --tablespace-mapping")
	}
	return x.how.check()
}

func (c *command) runExtract(ctx context.Context, x extractFlags, args []string) (err error) {
	// The key is looked for, and perhaps asked for, before the target is
	// touched, but not for a target that is no good.
	if err := extract.CheckTarget(x.opt); err != nil {
		return err
	}
	log := c.out.Logger("xbstream", c.s.err)
	if x.selected != nil {
		x.opt.Chosen = func() error { return x.checkOnly(func(msg string) { log.Warn(msg) }) }
	}
	open, in, err := c.frames(ctx, args, &x)
	if err != nil {
		return err
	}
	defer in.Close()
	p := c.out.StartProgress(c.s.err)
	defer func() { p.Stop(ctx, err) }()
	p.Watch(c.pipe)
	p.Stage("extract", 0)
	start := time.Now()
	var prepared prepare.Report
	x.opt.Log, x.opt.Progress = log, p.Add
	if x.prepare {
		x.how.parallel, x.how.staged = x.opt.Parallel, true
		if x.how.server == "" {
			x.how.feed = prepare.NewFeed(ctx, x.how.options(log))
			defer x.how.feed.Close()
			x.opt.Redo = x.how.feed.Follow
		}
		x.opt.Prepare = func(ctx context.Context, dir string) error {
			// What extraction held is not needed any more, and counts
			// beside --memory until it is given back.
			debug.FreeOSMemory()
			var err error
			prepared, err = x.how.run(ctx, dir, log, p)
			if err != nil { // of the staging directory, which is about to go
				err = &worded{strings.TrimPrefix(err.Error(), "prepare "+dir+": "), err}
			}
			return err
		}
	}
	rep, err := extract.Extract(ctx, open, x.opt)
	if errors.Is(err, format.ErrDamaged) || errors.Is(err, format.ErrNotArchive) {
		return fmt.Errorf("%w; nothing was restored", err)
	}
	if err != nil {
		return err
	}
	logExtracted(log, x, rep, prepared, time.Since(start))
	return nil
}

func logExtracted(log *slog.Logger, x extractFlags, rep *extract.Report, prepared prepare.Report, took time.Duration) {
	for _, m := range rep.Mapped {
		log.Info(fmt.Sprintf("restored %d tablespaces from %s to %s", m.Files, m.Old, m.New))
	}
	if rep.Moved > 0 {
		log.Info(fmt.Sprintf("restored %d files from outside the data directory into %s", rep.Moved, x.opt.Dir))
	}
	msg := "extracted"
	if x.prepare {
		msg = "extracted and prepared"
	}
	attrs := []any{"files", rep.Files, "data", cli.Bytes(rep.Totals.DataBytes), "took", took}
	if b := rep.Manifest.Backup; b != nil {
		attrs = append(attrs, "redo", cli.Bytes(rep.Totals.RedoBytes), "end_lsn", b.Redo.EndLSN)
	}
	log.Info(msg+" into "+x.opt.Dir+ownedByRoot(rep, x.opt.Dir), appendRolledBack(attrs, prepared)...)
}

// ownedByRoot says, of a backup, that its files belong to root: a server that runs
// as another user, as all do by default, cannot open them.
func ownedByRoot(rep *extract.Report, dir string) string {
	if rep.Manifest.Backup == nil || rep.Owner == nil || rep.Owner.UID != 0 {
		return ""
	}
	return fmt.Sprintf("; the files belong to root, and a server that runs as mysql cannot start from them: chown -R mysql: %s (next time --chown mysql:)", dir)
}

// parseOwner reads USER:GROUP, names or numbers; without :GROUP the group is
// the user's own.
func parseOwner(s string) (*extract.Owner, error) {
	if s == "" {
		return nil, nil
	}
	name, group, _ := strings.Cut(s, ":")
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			if _, nerr := strconv.Atoi(name); nerr != nil || group == "" {
				return nil, cli.Usagef("--chown %q: no such user", s)
			}
			u = &user.User{Uid: name}
		}
	}
	gid := u.Gid
	if group != "" {
		gid = group
		if g, err := user.LookupGroup(group); err == nil {
			gid = g.Gid
		}
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gidNum, err2 := strconv.Atoi(gid)
	if err1 != nil || err2 != nil {
		return nil, cli.Usagef("--chown %q: no such user or group", s)
	}
	return &extract.Owner{UID: uid, GID: gidNum}, nil
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
