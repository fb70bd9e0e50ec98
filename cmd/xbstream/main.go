// Command xbstream reads archives of xbsend: it restores the files to a new
// directory and prepares them, so that a server can start from it directly.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/xbstream/xbstream/extract"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/cli"
	"github.com/xbstream/xbstream/prepare"
)

// version is set by the build; without it, it is the version being worked on.
var version = "0.9.0-dev"

// usage is the help of xbstream itself. Its lines fit 80 columns, as do those of
// the commands' help.
const usage = `Usage: xbstream COMMAND [flags] [ARCHIVE|DIR]

Restores and checks archives of xbsend, and streams of mariabackup and
XtraBackup, from a file or from standard input.

Commands:
  extract, -x   restore files into a directory; --prepare recovers them
  prepare DIR   recover an extracted backup in place (crash recovery)
  list, -t      list the files in an archive
  verify        check every byte of an archive, or every page of a directory
  create, -c    write an archive of ordinary files
  info          show server, LSN, binary log position, how to attach a replica

Examples:

  Copy a server to another machine, ready to start there:
    xbsend | ssh standby xbstream -x --prepare -C /var/lib/mysql
  Restore and recover a backup from a file:
    xbstream -x --prepare -C restored monday.xb
  Restore an encrypted backup with the private key in a file:
    xbstream -x --prepare -i key.txt -C restored sealed.xb
  Check a backup without restoring it:
    xbstream verify monday.xb
  Show the binary log position of a restored directory:
    xbstream info /var/lib/mysql

'xbstream COMMAND --help' lists the flags; --version prints the version.

` + cli.CodeHelp + "\n"

// streams are the process's standard files; tests pass their own.
type streams struct {
	in       *os.File
	out, err *os.File
}

func main() {
	cli.Main("xbstream", func(ctx context.Context) int {
		return run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr})
	})
}

// errHelp says that help was asked for and printed.
var errHelp = errors.New("help")

// run runs one command, reports what went wrong, and returns the exit code.
func run(ctx context.Context, args []string, s streams) int {
	c := &command{s: s}
	err := c.dispatch(ctx, args)
	if errors.Is(err, errHelp) {
		return cli.ExitDone
	}
	if err != nil {
		// A signal is the reason of whatever else failed because of it.
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		c.out.Report("xbstream", s.err, err)
	}
	return cli.Code(err, []cli.Case{
		{Err: format.ErrNoKey, Code: cli.ExitNoKey},
		{Err: extract.ErrTarget, Code: cli.ExitTarget},
		{Err: extract.ErrMapping, Code: cli.ExitUsage},
		{Err: extract.ErrPrepare, Code: cli.ExitPrepare},
		{Err: prepare.ErrNotBackup, Code: cli.ExitPrepare},
		{Err: errPrepare, Code: cli.ExitPrepare},
	})
}

// command is one invocation.
type command struct {
	s    streams
	out  cli.Output
	keys keys
	// incomplete accepts classic streams that end too early.
	incomplete bool
	// endOnly says that of the archive, a file, only the end was read.
	endOnly bool

	idle cli.Seconds // of the pipe that is read
	pipe *cli.Pipe   // nil until it is read
}

func (c *command) dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return cli.Usagef("no command given")
	}
	name, rest := spell(args)
	switch name {
	case "extract":
		return c.extract(ctx, rest)
	case "prepare":
		return c.prepare(ctx, rest)
	case "list":
		return c.list(ctx, rest)
	case "info":
		return c.info(ctx, rest)
	case "verify":
		return c.verify(ctx, rest)
	case "create":
		return c.create(ctx, rest)
	case "help", "--help", "-h":
		fmt.Fprint(c.s.out, usage)
		return errHelp
	case "--version":
		fmt.Fprintln(c.s.out, "xbstream", version)
		return errHelp
	}
	return unknownCommand(name)
}

// unknownCommand says which command was probably meant. A flag in its place is
// often one of the programs that xbstream replaces.
func unknownCommand(name string) error {
	if flag, ok := strings.CutPrefix(name, "--"); ok {
		flag, _, _ = strings.Cut(flag, "=")
		none := pflag.NewFlagSet("xbstream", pflag.ContinueOnError)
		if advice := cli.Stream.Advice(flag, none); advice != "" {
			return cli.Usagef("unknown flag --%s: %s", flag, advice)
		}
	}
	if strings.HasPrefix(name, "-") {
		return cli.Usagef("the command comes first, as in xbstream extract [flags]: got %q", name)
	}
	meant := cli.Nearest(name, []string{"extract", "prepare", "list", "info", "verify", "create", "help"})
	if name == "restore" {
		meant = "extract"
	}
	if meant != "" {
		return cli.Usagef("unknown command %q: did you mean %s?", name, meant)
	}
	return cli.Usagef("unknown command %q", name)
}

// spell turns the letters of tar, -x, -t and -c with others behind them, into the
// name of a command and its arguments.
func spell(args []string) (name string, rest []string) {
	a := args[0]
	for letter, name := range map[string]string{"-x": "extract", "-t": "list", "-c": "create"} {
		if more, ok := strings.CutPrefix(a, letter); ok {
			if more == "" {
				return name, args[1:]
			}
			return name, append([]string{"-" + more}, args[1:]...)
		}
	}
	return a, args[1:]
}

// parse parses the flags of a command; about is its help.
func (c *command) parse(f *pflag.FlagSet, about string, args []string) error {
	c.out.Flags(f)
	f.SortFlags = false
	f.SetOutput(io.Discard)
	f.Usage = func() { fmt.Fprintf(c.s.out, "%s\nFlags:\n%s", about, cli.FlagUsages(f)) }
	switch err := f.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		return errHelp
	case err != nil:
		return cli.Stream.ParseError(err, f)
	}
	if hint := cli.BlankValue(args, f); hint != "" {
		return cli.Usagef("%s", hint)
	}
	return c.out.Check()
}

// archive opens the archive a command reads, and decrypts it if need be.
func (c *command) archive(ctx context.Context, args []string) (io.ReadCloser, error) {
	in, err := c.input(ctx, args)
	if err != nil {
		return nil, err
	}
	r, err := c.unseal(ctx, in)
	if err != nil {
		in.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{r, in}, nil
}

// input opens what a command reads, to be read from front to end. Other
// processes may be waited for in good order.
func (c *command) input(ctx context.Context, args []string) (io.ReadCloser, error) {
	f, closer, err := c.source(args)
	if err != nil {
		return nil, err
	}
	c.pipe = cli.OpenInput(ctx, f, cli.PipeOptions{Idle: time.Duration(c.idle), Log: c.out.Logger("xbstream", c.s.err)})
	return pipeCloser{c.pipe, closer}, nil
}

// pipeCloser closes what the pipe reads as well.
type pipeCloser struct {
	*cli.Pipe
	file io.Closer
}

func (p pipeCloser) Close() error { return errors.Join(p.Pipe.Close(), p.file.Close()) }

// source is the file a command reads: its argument, or standard input, which
// the closer leaves open.
func (c *command) source(args []string) (*os.File, io.Closer, error) {
	switch len(args) {
	case 0:
		if isTerminal(c.s.in) {
			return nil, nil, cli.Usagef("an archive is expected on standard input, which is a terminal")
		}
		return c.s.in, io.NopCloser(nil), nil
	case 1:
		f, err := os.Open(args[0])
		return f, f, err
	}
	return nil, nil, cli.Usagef("one archive at a time: %q", args)
}

// registerIdle adds the flag of commands that read what others send.
func (c *command) registerIdle(f *pflag.FlagSet) {
	f.Var(&c.idle, "idle-timeout", "give up when the sender has written nothing for `TIME`: seconds, or as 10m (default: never)")
}
