package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/agekeys"
	"github.com/xbstream/xbstream/internal/backup"
	"github.com/xbstream/xbstream/internal/cli"
	"github.com/xbstream/xbstream/server"
	"github.com/xbstream/xbstream/server/optfile"
)

// flags are the command line and the option files together.
type flags struct {
	set     *pflag.FlagSet
	out     cli.Output
	version bool

	search optfile.Search
	group  string
	server server.Config

	paths       backup.Paths
	parallel    cli.Count
	compress    string
	rate        cli.Size
	spoolDir    string
	spoolLimit  cli.Size
	sealFor     sealFor
	lockTimeout cli.Seconds
	lockRetries uint32
	idleTimeout cli.Seconds
	exec        string
	digestFile  string
	dryRun      bool
	replica     replicaFlags
	partial     format.Filter // as given

	allowMissing bool

	recipients []age.Recipient
	filter     *chunker.Filter // of a partial backup, or nil

	command string // the command line, for the manifest
}

// replicaFlags ask for what only a replica or a node of a cluster has.
type replicaFlags struct {
	slaveInfo, galeraInfo bool
	safe                  bool
	safeTimeout           cli.Seconds
}

// sealFor names whom the archive is encrypted to.
type sealFor struct{ keys, files []string }

// connection flags have the names the servers' own clients use; the option
// files may hold them too.
var connection = []struct{ name, short string }{
	{"host", "h"}, {"port", "P"}, {"socket", "S"}, {"protocol", ""}, {"user", "u"}, {"password", "p"}, {"connect-timeout", ""},
	{"ssl", ""}, {"ssl-ca", ""}, {"ssl-cert", ""}, {"ssl-key", ""}, {"ssl-verify-server-cert", ""}, {"ssl-mode", ""},
	{"server-public-key-path", ""}, {"get-server-public-key", ""},
}

// defaultIdle is how long a receiving side may stand still. Those that are only
// busy take something now and then, a dead connection never will; a backup that
// waited for it all night would keep the next one from its locks.
const defaultIdle = 10 * time.Minute

// defaultSafeTimeout is how long to wait for a replica without temporary tables,
// as mariabackup does.
const defaultSafeTimeout = 300 * time.Second

// askPassword stands for -p without a value; no shell can pass it.
const askPassword = "\x00ask"

func (f *flags) register() {
	s := pflag.NewFlagSet("xbsend", pflag.ContinueOnError)
	s.SortFlags = false
	s.SetOutput(io.Discard)
	// Of these the usage text has the names, and the manual page the rest.
	s.StringVar(&f.search.File, "defaults-file", "", "")
	s.StringVar(&f.search.ExtraFile, "defaults-extra-file", "", "")
	s.StringVar(&f.group, "defaults-group", "", "")
	s.StringVar(&f.search.GroupSuffix, "defaults-group-suffix", "", "")
	s.BoolVar(&f.search.NoDefaults, "no-defaults", false, "")
	for _, c := range connection {
		s.VarPF(&connectionValue{}, c.name, c.short, "")
	}
	s.Lookup("password").NoOptDefVal = askPassword
	s.Lookup("ssl").NoOptDefVal = "1"
	s.Lookup("ssl-verify-server-cert").NoOptDefVal = "1"
	s.Lookup("get-server-public-key").NoOptDefVal = "1"
	s.StringVar(&f.paths.DataDir, "datadir", "", "")
	s.StringVar(&f.paths.DataHome, "innodb-data-home-dir", "", "")
	s.StringVar(&f.paths.UndoDir, "innodb-undo-directory", "", "")
	s.StringVar(&f.paths.LogDir, "innodb-log-group-home-dir", "", "")
	s.StringVar(&f.paths.AriaLogDir, "aria-log-dir-path", "", "")
	s.VisitAll(func(flag *pflag.Flag) { flag.Hidden = true })
	s.VarP(&f.parallel, "parallel", "j", "number of workers (default: one per core)")
	s.StringVar(&f.compress, "compress", "", "compress with zstd; `LEVEL` is fast, default, better or best (fast if left out)")
	s.Lookup("compress").NoOptDefVal = string(format.Plain)
	s.StringArrayVarP(&f.sealFor.keys, "recipient", "r", nil, "encrypt to this age or ssh public `KEY`; repeatable")
	s.StringArrayVarP(&f.sealFor.files, "recipients-file", "R", nil, "encrypt to the public keys in `FILE`; repeatable")
	registerFilter(s, &f.partial)
	s.BoolVar(&f.allowMissing, "allow-missing", false, "if a name matches no database or table, print a warning, not an error")
	s.Var(&f.rate, "rate", "read at most `SIZE` of data pages per second, as 50M; xbsend never slows down redo (default: no limit)")
	s.StringVar(&f.spoolDir, "spool-dir", "", "if the receiver is slow, buffer redo in `DIR` (default: TMPDIR, or /tmp)")
	s.Var(&f.spoolLimit, "spool-limit", "buffer at most `SIZE` of redo there (default 8 GiB)")
	f.lockTimeout = cli.Seconds(server.DefaultLockTimeout)
	s.Var(&f.lockTimeout, "lock-timeout", "give up if a lock is not granted within `TIME`: seconds, or as 5m")
	s.Uint32Var(&f.lockRetries, "lock-retries", 0, "if a lock times out, release all locks and retry, up to `N` times (default 0)")
	f.idleTimeout = cli.Seconds(defaultIdle)
	s.Var(&f.idleTimeout, "idle-timeout", "give up when the receiver has read nothing for `TIME`; 0 = never")
	s.StringVar(&f.exec, "exec", "", "run `COMMAND` with the shell and send the archive to it")
	s.StringVar(&f.digestFile, "digest-file", "", "write the archive's SHA-256 to `FILE`, as sha256sum does")
	s.BoolVar(&f.replica.slaveInfo, "slave-info", false, "on a replica: record its replication position")
	s.BoolVar(&f.replica.safe, "safe-slave-backup", false, "for statement-based replication and XA transactions: stop the SQL threads during the locks, while no temporary table is open")
	f.replica.safeTimeout = cli.Seconds(defaultSafeTimeout)
	s.Var(&f.replica.safeTimeout, "safe-slave-backup-timeout", "wait up to `TIME` until no temporary table is open")
	s.BoolVar(&f.replica.galeraInfo, "galera-info", false, "on a Galera node: record its position in the cluster")
	s.BoolVar(&f.dryRun, "dry-run", false, "check everything, print the plan, copy nothing")
	f.out.Flags(s)
	s.BoolVar(&f.version, "version", false, "print the version")
	f.set = s
}

// connectionValue keeps a connection flag as text: the same setter serves flags
// and option files.
type connectionValue struct{ text string }

func (v *connectionValue) Set(s string) error { v.text = s; return nil }
func (v *connectionValue) String() string     { return "" }
func (v *connectionValue) Type() string       { return "value" }

// parse reads the command line, then the option files it names; the command
// line wins.
func (f *flags) parse(args []string, s streams) error {
	f.register()
	f.command = f.commandLine(args)
	err := f.set.Parse(f.spellPassword(args))
	if errors.Is(err, pflag.ErrHelp) || err == nil && f.version {
		return err
	}
	if err != nil {
		return cli.Send.ParseError(err, f.set)
	}
	if f.set.NArg() > 0 {
		return f.unexpected(args)
	}
	if err := f.optionFiles(s); err != nil {
		return &cli.UsageError{Err: err}
	}
	if err := f.connectionFlags(s); err != nil {
		return err
	}
	if f.compress != "" {
		if _, err := format.ParseLevel(f.compress); err != nil {
			return &cli.UsageError{Err: err}
		}
	}
	if err := f.readRecipients(s); err != nil {
		return &cli.UsageError{Err: err}
	}
	if f.filter, err = readFilter(f.partial); err != nil {
		return &cli.UsageError{Err: err}
	}
	if f.set.Changed("exec") && strings.TrimSpace(f.exec) == "" {
		return cli.Usagef("--exec: no command given")
	}
	f.parallel = cli.Count(cli.Workers(int(f.parallel)))
	if f.lockTimeout == 0 {
		return cli.Usagef("--lock-timeout must be above 0")
	}
	f.server.LockTimeout = time.Duration(f.lockTimeout)
	return f.out.Check()
}

// readRecipients reads the public keys and tries them once, so that keys that
// cannot be used, or not together, are found before the server is bothered.
func (f *flags) readRecipients(s streams) (err error) {
	warn := func(msg string) { f.out.Logger("xbsend", s.err).Warn(msg) }
	f.recipients, err = agekeys.Recipients(f.sealFor.keys, f.sealFor.files, warn)
	if err == nil && len(f.recipients) > 0 {
		_, err = format.Encrypt(io.Discard, f.recipients...)
	}
	return err
}

// unexpected refuses an argument that is no flag, and does not repeat what may be
// a password.
func (f *flags) unexpected(args []string) error {
	if v, ok := f.set.Lookup("password").Value.(*connectionValue); ok && v.text == askPassword {
		return cli.Usagef("unexpected argument: a password follows -p without a space, --password with =")
	}
	if hint := cli.BlankValue(args, f.set); hint != "" {
		return cli.Usagef("%s", hint)
	}
	return cli.Usagef("unexpected argument %q", f.set.Arg(0))
}

// ownGroup is the option group of this command.
const ownGroup = "xbsend"

func (f *flags) groups() []string {
	g := []string{"client", "client-server", "client-mariadb", "client-mysql", ownGroup}
	if f.group != "" {
		g = append(g, f.group)
	}
	return g
}

// optionFiles applies what the option files say. The groups of the clients hold
// options of many programs, so what this one does not know is left alone there;
// in its own group it is a mistake.
func (f *flags) optionFiles(s streams) error {
	res, err := f.search.Read(f.groups()...)
	for _, w := range res.Warnings {
		f.out.Logger("xbsend", s.err).Warn(w)
	}
	if err != nil {
		return err
	}
	for _, o := range res.Options {
		known, err := f.server.Set(o.Name, o.Value, o.HasValue)
		if !known && err == nil {
			known, err = f.ownOption(o)
		}
		if err != nil {
			return fmt.Errorf("%s, line %d: %w", o.File, o.Line, err)
		}
		if !known && !o.Loose && strings.HasPrefix(strings.ToLower(o.Group), ownGroup) {
			err := fmt.Errorf("%s, line %d: unknown option %q in group [%s]", o.File, o.Line, o.Name, o.Group)
			if advice := cli.Send.Advice(o.Name, f.set); advice != "" {
				err = fmt.Errorf("%w: %s", err, advice)
			}
			return err
		}
	}
	return nil
}

// ownOption sets a flag of xbsend from its own group.
func (f *flags) ownOption(o optfile.Option) (known bool, err error) {
	own := strings.HasPrefix(strings.ToLower(o.Group), ownGroup) || f.group != "" && strings.HasPrefix(o.Group, f.group)
	flag := f.set.Lookup(o.Name)
	if !own || flag == nil || strings.HasPrefix(o.Name, "defaults") {
		return false, nil
	}
	if flag.Changed { // the command line wins
		return true, nil
	}
	value := o.Value
	if !o.HasValue {
		value = flag.NoOptDefVal
	}
	if err := flag.Value.Set(value); err != nil {
		return true, fmt.Errorf("%s=%s: %w", o.Name, value, err)
	}
	return true, nil
}

// connectionFlags applies the connection flags of the command line, then asks
// for a password if that was wanted.
func (f *flags) connectionFlags(s streams) (err error) {
	ask := false
	f.set.Visit(func(flag *pflag.Flag) {
		v, ok := flag.Value.(*connectionValue)
		if !ok || err != nil {
			return
		}
		if flag.Name == "password" && v.text == askPassword {
			ask = true
			return
		}
		_, err = f.server.Set(flag.Name, v.text, true)
	})
	if err == nil {
		err = f.server.Environment(os.Getenv)
	}
	// As with the clients: a port on the command line means TCP, even to
	// localhost.
	if f.set.Changed("port") && !f.set.Changed("socket") && f.server.Protocol == "" {
		f.server.Protocol = "tcp"
	}
	if err != nil {
		return &cli.UsageError{Err: err}
	}
	if ask {
		return f.askPassword(s)
	}
	return nil
}

// askPassword reads the password from the terminal, or, when standard input is
// none, its first line.
func (f *flags) askPassword(s streams) error {
	var text []byte
	var err error
	if term.IsTerminal(int(s.in.Fd())) {
		fmt.Fprint(s.err, "Enter password: ")
		text, err = term.ReadPassword(int(s.in.Fd()))
		fmt.Fprintln(s.err)
	} else {
		text, err = bufio.NewReader(s.in).ReadBytes('\n')
		if err == io.EOF && len(text) > 0 {
			err = nil
		}
	}
	if err != nil {
		return cli.Usagef("no password given: %w", err)
	}
	f.server.Password = server.Secret(strings.TrimRight(string(text), "\r\n"))
	return nil
}
