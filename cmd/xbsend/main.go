// Command xbsend takes a hot physical backup of a running server and writes it
// to standard output as one archive.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/internal/cli"
	ondisk "github.com/xbstream/xbstream/internal/innodb/mariadb"
	"github.com/xbstream/xbstream/redotail"
	"github.com/xbstream/xbstream/server"
)

// version is set by the build.
var version = "devel"

const usage = `Usage: xbsend [flags] > ARCHIVE

Takes a hot physical backup of a running MariaDB server and writes it to
standard output as one archive, which xbstream turns into a data directory.

  xbsend | ssh standby xbstream -x --prepare -C /var/lib/mysql
  xbsend -u backup --exec 'aws s3 cp - s3://backups/monday.xb'
  xbsend -r age1… > monday.xb
  xbsend --databases='mysql shop' > shop.xb
  xbsend --dry-run

An uploader at the other end of a pipe stores what it got as if it were whole
when the backup fails: use --exec, which kills the uploader then, or
  set -o pipefail; xbsend | aws s3 cp - s3://backups/new &&
  aws s3 mv s3://backups/new s3://backups/monday.xb

To connect, as with mariadb: -h/--host -P/--port -S/--socket -u/--user
  -p/--password (alone: asks; safer: option file, MYSQL_PWD) --protocol
  --connect-timeout --ssl --ssl-ca --ssl-cert --ssl-key --ssl-verify-server-cert
  --server-public-key-path --get-server-public-key
  --defaults-file --defaults-extra-file --defaults-group
  --defaults-group-suffix --no-defaults
Where this process sees the server's directories under other names: --datadir
  --innodb-data-home-dir --innodb-undo-directory --innodb-log-group-home-dir
  --aria-log-dir-path

`

// streams are the process's standard files; tests pass their own.
type streams struct {
	in, out, err *os.File
}

// signalPatience is how long xbsend may take to release its locks after a signal:
// each step of that is bounded, and takes less than a second where the server
// answers.
const signalPatience = 15 * time.Second

func main() {
	args := arguments()
	cli.Main("xbsend", func(ctx context.Context) int {
		cli.EndWithin(ctx, signalPatience, "xbsend", os.Stderr)
		return run(ctx, args, streams{os.Stdin, os.Stdout, os.Stderr})
	})
}

// run takes one backup, says what went wrong, and returns the exit code.
func run(ctx context.Context, args []string, s streams) int {
	var f flags
	err := f.parse(args, s)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprint(s.out, usage+cli.FlagUsages(f.set)+"\n"+cli.CodeHelp+"\n")
		return cli.ExitDone
	case err == nil && f.version:
		fmt.Fprintln(s.out, "xbsend", version)
		return cli.ExitDone
	case err == nil:
		err = start(ctx, &f, s)
	}
	if err != nil {
		// A signal is the reason of whatever else failed because of it.
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		f.out.Report("xbsend", s.err, err)
	}
	if e, ok := errors.AsType[*consumerError](err); ok && context.Cause(ctx) == nil {
		return e.code()
	}
	if _, ok := errors.AsType[*server.Error](err); ok && context.Cause(ctx) == nil && !cli.MachineFailed(err) {
		return cli.ExitServer
	}
	return cli.Code(err, []cli.Case{
		{Err: redotail.ErrOverrun, Code: cli.ExitRedoLost},
		{Err: redotail.ErrSpoolFull, Code: cli.ExitRedoLost},
		{Err: redotail.ErrDamaged, Code: cli.ExitRedoLost},
		{Err: redotail.ErrStuck, Code: cli.ExitRedoLost},
		{Err: ondisk.ErrUnsupported, Code: cli.ExitServer},
		{Err: chunker.ErrDamagedPage, Code: cli.ExitPage},
	})
}

func start(ctx context.Context, f *flags, s streams) error {
	if !f.dryRun && f.exec == "" && term.IsTerminal(int(s.out.Fd())) {
		return cli.Usagef("the archive goes to standard output, which is a terminal: redirect it to a file or a pipe")
	}
	said := cli.NewMessages(s.err)
	defer said.Close(time.Second)
	b := &backup{f: f, s: s, log: f.out.Logger("xbsend", said)}
	return b.run(ctx)
}
