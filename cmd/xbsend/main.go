// Command xbsend makes a hot physical backup of a running server and writes it
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
	"github.com/xbstream/xbstream/internal/backup"
	"github.com/xbstream/xbstream/internal/cli"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/outlet"
	"github.com/xbstream/xbstream/redotail"
	"github.com/xbstream/xbstream/server"
)

// version is set by the build; without it, it is the version being worked on.
var version = "0.9.0-dev"

// usage is the help in front of the list of flags. Its lines fit 80 columns.
const usage = `Usage: xbsend [flags] > ARCHIVE

Backs up a running MariaDB or MySQL server without stopping writes to it, and
writes one archive to standard output. xbstream restores it.

Examples:

  Copy a server to another machine, ready to start there:
    xbsend | ssh standby xbstream -x --prepare -C /var/lib/mysql
  Check connection, privileges and paths, and copy nothing:
    xbsend --dry-run
  Store a compressed backup in a bucket. If the backup fails, --exec kills the
  uploader. In a pipe, the uploader would store the incomplete backup:
    xbsend --compress --exec 'aws s3 cp - s3://backups/monday.xb'
  The same with a pipe: upload under another name, move it after success:
    set -o pipefail; xbsend | aws s3 cp - s3://backups/new &&
      aws s3 mv s3://backups/new s3://backups/monday.xb
  Encrypt to a public key; only its private key can open the archive:
    xbsend --compress -r age1... > monday.xb
  Back up one database and the accounts:
    xbsend --databases='mysql shop' > shop.xb

Connection, as with the mariadb and mysql clients; option files are read too:
  -h, --host HOST    -P, --port N    -S, --socket FILE    -u, --user USER
  -p, --password[=PASSWORD] (without a value, xbsend asks for it)
  --protocol tcp|socket    --connect-timeout SECONDS (default 10)
  --ssl  --ssl-ca FILE  --ssl-cert FILE  --ssl-key FILE
  --ssl-verify-server-cert  --ssl-mode MODE
  --server-public-key-path FILE  --get-server-public-key
  --defaults-file FILE  --defaults-extra-file FILE  --no-defaults
  --defaults-group GROUP  --defaults-group-suffix SUFFIX

If xbsend sees the server's files at another path (container, chroot):
  --datadir DIR  --innodb-data-home-dir DIR  --innodb-undo-directory DIR
  --innodb-log-group-home-dir DIR  --aria-log-dir-path DIR

Flags:
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

// run makes one backup, reports what went wrong, and returns the exit code.
func run(ctx context.Context, args []string, s streams) int {
	var f flags
	err := f.parse(args, s)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprint(s.out, help(f.set))
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
		f.out.Report("xbsend", s.err, withoutTable(err))
	}
	if e, ok := errors.AsType[*outlet.ConsumerError](err); ok && context.Cause(ctx) == nil {
		return e.Code()
	}
	if _, ok := errors.AsType[*server.Error](err); ok && context.Cause(ctx) == nil && !cli.MachineFailed(err) {
		return cli.ExitServer
	}
	return cli.Code(err, []cli.Case{
		{Err: redotail.ErrOverrun, Code: cli.ExitRedoLost},
		{Err: redotail.ErrSpoolFull, Code: cli.ExitRedoLost},
		{Err: redotail.ErrDamaged, Code: cli.ExitRedoLost},
		{Err: redotail.ErrStuck, Code: cli.ExitRedoLost},
		{Err: innodb.ErrUnsupportedLog, Code: cli.ExitServer},
		{Err: chunker.ErrDamagedPage, Code: cli.ExitPage},
	})
}

// help is the text of --help.
func help(f *pflag.FlagSet) string { return usage + cli.FlagUsages(f) + "\n" + cli.CodeHelp + "\n" }

func start(ctx context.Context, f *flags, s streams) error {
	if !f.dryRun && f.exec == "" && term.IsTerminal(int(s.out.Fd())) {
		return cli.Usagef("the archive goes to standard output, which is a terminal: redirect it to a file or a pipe")
	}
	said := cli.NewMessages(s.err)
	defer said.Close(time.Second)
	err := backUp(ctx, f, s, f.out.Logger("xbsend", said))
	if _, ok := errors.AsType[*backup.NamesError](err); ok {
		return &cli.UsageError{Err: err}
	}
	return err
}
