package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

// This file is what the tests of faults share: one fault is put into
// "xbsend | xbstream -x --prepare", and whatever comes of it, nothing may be left
// behind and nothing may look whole that is not.

// longFaults says that each fault is to be tried often (make faults).
func longFaults() bool { return os.Getenv("XB_FAULTS") != "" }

// times is how often something is tried: few times in make test.
func times(few, many int) int {
	if longFaults() {
		return many
	}
	return few
}

// Exit codes, as the manual pages have them.
const (
	exitDone       = 0
	exitDamaged    = 3
	exitNoKey      = 4
	exitServer     = 5
	exitRedoLost   = 6
	exitIO         = 8
	exitTarget     = 9
	exitPrepare    = 10
	exitTerminated = 128 + int(syscall.SIGTERM)
)

// killWait bounds a pipeline with a fault in it.
const killWait = 3 * time.Minute

// tally counts what came of each kind of fault.
var tally struct {
	sync.Mutex
	outcomes map[string]map[string]int
}

func count(kind, outcome string) {
	tally.Lock()
	defer tally.Unlock()
	if tally.outcomes == nil {
		tally.outcomes = map[string]map[string]int{}
	}
	if tally.outcomes[kind] == nil {
		tally.outcomes[kind] = map[string]int{}
	}
	tally.outcomes[kind][outcome]++
}

// printTally prints a line for each kind of fault and outcome.
func printTally(w io.Writer) {
	total := 0
	for _, kind := range slices.Sorted(maps.Keys(tally.outcomes)) {
		for _, outcome := range slices.Sorted(maps.Keys(tally.outcomes[kind])) {
			n := tally.outcomes[kind][outcome]
			total += n
			fmt.Fprintf(w, "tally: %-45s %4d × %s\n", kind, n, outcome)
		}
	}
	fmt.Fprintf(w, "tally: %d faults\n", total)
}

// faultSource is a server under load that backups are taken of.
type faultSource struct {
	t       *testing.T // the whole test
	options servertest.Options
	load    servertest.LoadOptions
	server  *servertest.Server
	writers *servertest.Load
	spare   string // an undisturbed archive, once one was needed
}

// backupUser is the account of xbsend, so that its sessions can be told.
const backupUser = "backup"

func newFaultSource(t *testing.T, options servertest.Options, load servertest.LoadOptions) *faultSource {
	t.Helper()
	s := &faultSource{t: t, options: options, load: load}
	s.start()
	return s
}

func (s *faultSource) start() {
	ctx := s.t.Context()
	s.server = servertest.New(s.t, s.options)
	privileges := "RELOAD, PROCESS, BINLOG MONITOR"
	if s.server.Release().MySQL() {
		privileges = "BACKUP_ADMIN, PROCESS, RELOAD, LOCK TABLES, SELECT"
	}
	check(s.t, s.server.Exec(ctx, "CREATE USER "+backupUser+"@localhost", "GRANT "+privileges+" ON *.* TO "+backupUser+"@localhost"))
	check(s.t, s.server.CreateSchema(ctx, s.load))
	writers, err := s.server.StartLoad(ctx, s.load)
	check(s.t, err)
	s.writers = writers
	s.t.Cleanup(func() { // before the server's own
		if _, err := writers.Stop(); err != nil && writers == s.writers {
			s.t.Errorf("a backup disturbed the writers: %v", err)
		}
	})
}

// renew replaces a server that was killed. Its writers ended with errors of
// their own, which say nothing.
func (s *faultSource) renew() {
	s.writers.Stop()
	check(s.t, s.server.Close())
	s.start()
}

// sender is the command line of xbsend.
func (s *faultSource) sender(args ...string) []string {
	return append([]string{"--no-defaults", "--user=" + backupUser, "--socket=" + s.server.Socket(), "-j2"}, args...)
}

// archive is a backup in a file; one serves the whole test.
func (s *faultSource) archive(t *testing.T) string {
	t.Helper()
	if s.spare != "" {
		return s.spare
	}
	name := filepath.Join(s.t.TempDir(), "spare.xb")
	sendTo(t, name, s.server)
	s.spare = name
	return name
}

// trial is one "xbsend | xbstream -x --prepare" with a fault in it.
type trial struct {
	kind     string         // of the fault, for the tally
	sender   []string       // further arguments
	receiver []string       // further arguments, after -x --prepare
	env      []string       // further environment of xbsend
	wrap     [2]string      // shell command in front of xbsend and of xbstream
	tmp      string         // TMPDIR of both; empty: a new one
	dir      string         // target; empty: one that does not exist
	between  pipe           // nil: a pipe of the kernel's
	fault    func(*attempt) // makes it happen while both run
	longer   time.Duration
}

// pipe carries an archive from one command to the other. sent is closed when
// xbsend has ended.
type pipe func(sent <-chan struct{}, to io.Writer, from io.Reader) error

// attempt is a trial under way.
type attempt struct {
	t             *testing.T
	src           *faultSource
	trial         trial
	dir, tmp      string
	send, receive *exec.Cmd
	logs          [2]strings.Builder
}

// end is how and when a process ended.
type end struct {
	code  int // -1 after SIGKILL
	after time.Duration
}

// outcome is what came of a trial.
type outcome struct {
	*attempt
	sent, received end
}

// try runs the trial and says what came of it.
func (s *faultSource) try(t *testing.T, tr trial) *outcome {
	t.Helper()
	r := &attempt{t: t, src: s, trial: tr, dir: tr.dir, tmp: tr.tmp}
	if r.dir == "" {
		r.dir = filepath.Join(t.TempDir(), "copy")
	}
	if r.tmp == "" {
		r.tmp = t.TempDir()
	}
	ctx, cancel := context.WithTimeout(t.Context(), killWait+tr.longer)
	defer cancel()
	began := time.Now()
	sent, carried := r.start(ctx)
	if tr.fault != nil {
		tr.fault(r)
	}
	o := &outcome{attempt: r}
	o.sent = end{exitCode(t, r.send.Wait()), time.Since(began)}
	close(sent)
	o.received = end{exitCode(t, r.receive.Wait()), time.Since(began)}
	check(t, <-carried)
	t.Logf("xbsend %d, xbstream %d\n%s%s", o.sent.code, o.received.code, &r.logs[0], &r.logs[1])
	if ctx.Err() != nil {
		t.Fatalf("the pipeline did not end in %v", killWait+tr.longer)
	}
	return o
}

// start starts both commands and what is between them.
func (r *attempt) start(ctx context.Context) (sent chan struct{}, carried chan error) {
	r.t.Helper()
	xbsend, xbstream := binaries(r.t)
	r.send = command(ctx, r.trial.wrap[0], xbsend, append(r.src.sender(), r.trial.sender...))
	r.receive = command(ctx, r.trial.wrap[1], xbstream, append([]string{"-x", "--prepare", "-C", r.dir, "-j2"}, r.trial.receiver...))
	for i, c := range []*exec.Cmd{r.send, r.receive} {
		c.Stderr = &r.logs[i]
		c.Env = append(os.Environ(), "TMPDIR="+r.tmp)
		// A process that hangs says where.
		c.Cancel = func() error { return c.Process.Signal(syscall.SIGQUIT) }
		// Children of a killed sender may hold its standard error.
		c.WaitDelay = 10 * time.Second
	}
	r.send.Env = append(r.send.Env, r.trial.env...)
	sent, carried = make(chan struct{}), make(chan error, 1)
	in, out := r.pipe()
	var to, from *os.File
	if r.trial.between != nil {
		from, to = in, nil
		in, to = r.pipe()
	}
	r.send.Stdout, r.receive.Stdin = out, in
	err := errors.Join(r.send.Start(), r.receive.Start())
	out.Close()
	in.Close()
	check(r.t, err)
	go func() {
		defer close(carried)
		if r.trial.between == nil {
			return
		}
		err := r.trial.between(sent, to, from)
		to.Close()
		from.Close()
		if !errors.Is(err, syscall.EPIPE) { // that the receiver ended is seen elsewhere
			carried <- err
		}
	}()
	return sent, carried
}

func (r *attempt) pipe() (in, out *os.File) {
	in, out, err := os.Pipe()
	check(r.t, err)
	return in, out
}

// command runs a program, below a shell command like "ulimit -n 64" if there is
// one.
func command(ctx context.Context, wrap, program string, args []string) *exec.Cmd {
	if wrap == "" {
		return exec.CommandContext(ctx, program, args...)
	}
	return exec.CommandContext(ctx, "sh", append([]string{"-c", wrap + ` && exec "$0" "$@"`, program}, args...)...)
}

// exitCode is -1 for a process that a signal ended.
func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit == nil {
		return 0
	}
	return exit.ExitCode()
}

// count adds the outcome to the tally.
func (o *outcome) count() {
	what := fmt.Sprintf("xbsend %d, xbstream %d", o.sent.code, o.received.code)
	switch {
	case o.t.Failed():
		what += ", WRONG"
	case o.received.code == exitDone:
		what += ", copy whole"
	default:
		what += ", nothing left"
	}
	count(o.trial.kind, what)
}

// mustSucceed checks a backup that the fault should not have kept from success.
func (o *outcome) mustSucceed() {
	o.t.Helper()
	defer o.count()
	if o.sent.code != exitDone || o.received.code != exitDone {
		o.t.Errorf("exit codes %d and %d", o.sent.code, o.received.code)
		return
	}
	o.mustBeFree()
	o.mustBeWhole()
}

// verdict is how a command must end: with one of some exit codes, and a cause in
// its last line.
type verdict struct {
	why   string
	codes []int
}

func says(why string, codes ...int) verdict { return verdict{why, codes} }

// The usual verdicts of one side after the other has ended.
var (
	receiverEnded = says("the receiving side ended", exitIO)
	senderEnded   = says("archive damaged or incomplete", exitDamaged)
)

// mustFail checks a backup that the fault must have ended.
func (o *outcome) mustFail(sent, received verdict) {
	o.t.Helper()
	defer o.count()
	o.mustEnd("xbsend", o.sent.code, o.logs[0].String(), sent)
	o.mustEnd("xbstream", o.received.code, o.logs[1].String(), received)
	o.mustBeFree()
	o.mustNotLookWhole(false)
}

func (o *outcome) mustEnd(program string, code int, log string, want verdict) {
	o.t.Helper()
	if !slices.Contains(want.codes, code) {
		o.t.Errorf("%s ended with %d, want %d", program, code, want.codes)
	}
	if code == exitDone {
		return
	}
	if last := lastLine(log); !strings.HasPrefix(last, program+": error: ") || !strings.Contains(last, want.why) {
		o.t.Errorf("the last line of %s should be an error with %q: %s", program, want.why, last)
	}
}

// mustBeFree checks that nothing is left of the backup: no temporary file, no
// session and no lock on the server, if it still runs.
func (o *outcome) mustBeFree() {
	o.t.Helper()
	if left, err := os.ReadDir(o.tmp); err != nil || len(left) > 0 {
		o.t.Errorf("temporary files left: %v %v", left, err)
	}
	if o.src.server.Pid() != 0 {
		check(o.t, unlocked(o.src.server))
		check(o.t, noSession(o.src.server))
	}
}

// sessionsOf is the table of a server's sessions. That of information_schema cannot
// be read on MySQL while a statement with binary data runs.
func sessionsOf(s *servertest.Server) string {
	if s.Release().MySQL() {
		return "performance_schema.processlist"
	}
	return "information_schema.PROCESSLIST"
}

// noSession waits until the server has seen the last session of xbsend end.
func noSession(s *servertest.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), lockWait)
	defer cancel()
	for {
		n, err := s.String(ctx, "SELECT COUNT(*) FROM "+sessionsOf(s)+" WHERE USER = '"+backupUser+"'")
		if err != nil {
			return fmt.Errorf("sessions of the backup: %w", err)
		}
		if n == "0" {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// mustNotLookWhole holds the target against what a server would take for a data
// directory. Only an extraction that was killed on the spot may leave something.
func (o *outcome) mustNotLookWhole(killed bool) {
	o.t.Helper()
	names := o.names()
	partial := slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, stagePrefix) })
	switch {
	case len(names) == 0: // nothing was begun, or all of it taken back
	case !killed:
		o.t.Errorf("the target of an extraction that could clean up holds %q", names)
	case slices.Contains(names, "ibdata1"):
		// Killed between the last rename and the end of the process: then
		// it must be what it looks like. The staging directory may be there,
		// but nothing for a server is in it any more.
		o.removeEmptyStaging()
		o.mustBeWhole()
	case !partial:
		o.t.Errorf("the target holds %q and does not say that it is unfinished", names)
	default:
		if len(names) > 1 {
			// Killed among the renames: ibdata1 is not there yet, and the
			// staging directory says why.
			o.t.Logf("killed while publishing: %q", names)
		}
		o.rerun()
	}
}

// removeEmptyStaging removes staging directories out of which all that a server
// needs was renamed. What else they hold was about to be removed.
func (o *outcome) removeEmptyStaging() {
	o.t.Helper()
	for _, n := range o.names() {
		if !strings.HasPrefix(n, stagePrefix) {
			continue
		}
		files, err := filepath.Glob(filepath.Join(o.dir, n, "tree", "*"))
		check(o.t, err)
		if len(files) > 0 {
			o.t.Errorf("ibdata1 is in its place, and %s is not", files[0])
		}
		check(o.t, os.RemoveAll(filepath.Join(o.dir, n)))
	}
}

// names is what the target holds; it need not be there.
func (o *outcome) names() []string {
	o.t.Helper()
	entries, err := os.ReadDir(o.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		o.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// rerun extracts into a target that a killed extraction left: refused as it is,
// and a success with the flag that the refusal names.
func (o *outcome) rerun() {
	o.t.Helper()
	_, xbstream := binaries(o.t)
	archive := o.src.archive(o.t)
	out, err := exec.Command(xbstream, "-x", "--prepare", "-C", o.dir, archive).CombinedOutput()
	if code := exitCode(o.t, err); code != exitTarget || !strings.Contains(string(out), "--remove-partial") {
		o.t.Errorf("a target with a leftover: exit code %d\n%s", code, out)
	}
	out, err = exec.Command(xbstream, "-x", "--prepare", "--remove-partial", "-C", o.dir, archive).CombinedOutput()
	if err != nil {
		o.t.Fatalf("extract with --remove-partial: %v\n%s", err, out)
	}
	o.mustBeWhole()
}

// mustBeWhole starts a server on the target.
func (o *outcome) mustBeWhole() {
	o.t.Helper()
	mustNotHold(o.t, o.dir, stagePrefix)
	b, err := os.ReadFile(filepath.Join(o.dir, "xtrabackup_checkpoints"))
	check(o.t, err)
	if !strings.Contains(string(b), "log-applied") {
		o.t.Errorf("the copy is not prepared:\n%s", b)
	}
	s, err := servertest.StartOn(o.t.Context(), o.dir, servertest.Options{Release: o.src.server.Release()})
	check(o.t, err)
	defer s.Close()
	checked, complaints, err := s.CheckTables(o.t.Context())
	check(o.t, err)
	if checked < 40 || len(complaints) > 0 {
		o.t.Errorf("%d tables checked: %q", checked, complaints)
	}
}

// killSeed is XB_SEED, to repeat a run with random moments.
func killSeed(t *testing.T) uint64 {
	s := os.Getenv("XB_SEED")
	if s == "" {
		return uint64(time.Now().UnixNano())
	}
	n, err := strconv.ParseUint(s, 10, 64)
	check(t, err)
	return n
}
