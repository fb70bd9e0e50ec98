package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

// kills is how many runs are killed at a random moment.
const kills = 30

// killWait bounds the end of a pipeline that something was killed in.
const killWait = 90 * time.Second

// victim is who gets which signal.
type victim struct {
	who    string
	signal syscall.Signal
}

func (v victim) String() string { return fmt.Sprintf("%s of %s", v.signal, v.who) }

// victims take turns; the server's are fewer, because each costs a new server.
var victims = []victim{
	{"xbsend", syscall.SIGKILL}, {"xbstream", syscall.SIGKILL}, {"xbsend", syscall.SIGTERM}, {"xbstream", syscall.SIGTERM},
	{"xbsend", syscall.SIGKILL}, {"xbstream", syscall.SIGKILL}, {"server", syscall.SIGKILL},
	{"xbsend", syscall.SIGTERM}, {"xbstream", syscall.SIGKILL}, {"server", syscall.SIGTERM},
}

// P3, P6: whatever is killed, and whenever, the receiver never says that all is
// well unless it is, the target never looks like a data directory, and the
// server is free again.
func TestKilledAtRandomMoments(t *testing.T) {
	seed := killSeed(t)
	random := rand.New(rand.NewPCG(seed, 0))
	src := newKillSource(t, seed)
	src.run(t, victim{}, 0).mustBeWhole(t)
	whole := src.run(t, victim{}, 0)
	t.Logf("seed %d (XB_SEED repeats it); undisturbed in %v, the sender in %v", seed, whole.received.after, whole.sent.after)

	// A kill that comes when all is done kills nothing. It is no failure, but
	// a measure of how long a run takes now.
	mattered, late := map[string]int{}, 0
	for n := 0; n < kills+late; n++ {
		if late > kills {
			t.Fatalf("%d of %d kills came too late", late, n)
		}
		v := victims[(n-late)%len(victims)]
		span := whole.sent.after
		if v.who == "xbstream" {
			span = whole.received.after
		}
		at := time.Duration(random.Int64N(int64(span)))
		t.Run(fmt.Sprintf("%d %v after %v", n, v, at.Round(time.Millisecond)), func(t *testing.T) {
			r := src.run(t, v, at)
			r.check(t, v)
			if r.received.code == 0 {
				late, whole = late+1, r
			} else {
				mattered[v.who]++
			}
		})
	}
	t.Logf("kills that ended a backup: %v; that came too late: %d", mattered, late)
}

// P6: the sender dies while it holds each lock in turn.
func TestKilledUnderLocks(t *testing.T) {
	src := newKillSource(t, killSeed(t))
	for _, signal := range []string{"KILL", "TERM"} {
		for _, event := range []string{"stage-start", "stage-flush", "stage-block-ddl", "reconcile", "aria-logs-listed", "stage-block-commit", "end-lsn"} {
			t.Run(signal+" at "+event, func(t *testing.T) {
				marker := filepath.Join(t.TempDir(), "reached")
				// The hook's shell is a child of xbsend.
				t.Setenv("XB_TEST_HOOK", fmt.Sprintf(`at() { if [ "$1" = %s ]; then : > '%s'; kill -%s $PPID; fi; }; at`, event, marker, signal))
				r := src.run(t, victim{}, 0)
				if _, err := os.Stat(marker); err != nil {
					t.Fatal(err)
				}
				if r.sent.code == 0 || r.received.code == 0 {
					t.Errorf("exit codes %d and %d of a backup that was killed", r.sent.code, r.received.code)
				}
				r.check(t, victim{who: "xbsend"})
			})
		}
	}
}

func killSeed(t *testing.T) uint64 {
	s := os.Getenv("XB_SEED")
	if s == "" {
		return uint64(time.Now().UnixNano())
	}
	n, err := strconv.ParseUint(s, 10, 64)
	check(t, err)
	return n
}

// killSource is a server under load, renewed when it was killed.
type killSource struct {
	t      *testing.T // the whole test
	seed   uint64
	server *servertest.Server
	load   *servertest.Load
}

func newKillSource(t *testing.T, seed uint64) *killSource {
	k := &killSource{t: t, seed: seed}
	k.start()
	return k
}

func (k *killSource) start() {
	k.server = servertest.New(k.t, servertest.Options{LogBin: true})
	o := servertest.LoadOptions{Seed: k.seed, Rate: 300, BulkBytes: 16 << 20}
	check(k.t, k.server.CreateSchema(k.t.Context(), o))
	load, err := k.server.StartLoad(k.t.Context(), o)
	check(k.t, err)
	k.load = load
	k.t.Cleanup(func() { // before the server's own
		if _, err := load.Stop(); err != nil && load == k.load {
			k.t.Errorf("a backup disturbed the writers: %v", err)
		}
	})
}

// renew replaces a server that was killed. Its writers ended with errors of
// their own, which say nothing.
func (k *killSource) renew() {
	k.load.Stop()
	check(k.t, k.server.Close())
	k.start()
}

// killed is what came of one run.
type killed struct {
	src            *killSource
	dir, tmp       string
	sent, received end
	logs           [2]strings.Builder
}

// end is how and when a process ended.
type end struct {
	code  int // -1 after SIGKILL
	after time.Duration
}

// run runs "xbsend | xbstream -x --prepare" and kills v in it after a while.
func (k *killSource) run(t *testing.T, v victim, after time.Duration) *killed {
	t.Helper()
	r := &killed{src: k, dir: filepath.Join(t.TempDir(), "copy"), tmp: t.TempDir()}
	ctx, cancel := context.WithTimeout(t.Context(), killWait)
	defer cancel()
	send, receive := r.start(t, ctx)
	began := time.Now()
	if v.who != "" {
		time.Sleep(after)
		switch v.who {
		case "xbsend":
			_ = send.Process.Signal(v.signal) // it may have ended
		case "xbstream":
			_ = receive.Process.Signal(v.signal)
		case "server":
			_ = syscall.Kill(k.server.Pid(), v.signal)
		}
	}
	r.sent = end{exitCode(t, send.Wait()), time.Since(began)}
	r.received = end{exitCode(t, receive.Wait()), time.Since(began)}
	t.Logf("xbsend %d, xbstream %d\n%s%s", r.sent.code, r.received.code, &r.logs[0], &r.logs[1])
	if ctx.Err() != nil {
		t.Fatalf("the pipeline did not end in %v", killWait)
	}
	return r
}

func (r *killed) start(t *testing.T, ctx context.Context) (send, receive *exec.Cmd) {
	t.Helper()
	xbsend, xbstream := binaries(t)
	send = exec.CommandContext(ctx, xbsend, "--no-defaults", "--user=root", "--socket="+r.src.server.Socket(), "-j2")
	receive = exec.CommandContext(ctx, xbstream, "-x", "--prepare", "-C", r.dir, "-j2")
	for i, c := range []*exec.Cmd{send, receive} {
		c.Stderr = &r.logs[i]
		c.Env = append(os.Environ(), "TMPDIR="+r.tmp)
		// Children of a killed sender may hold its standard error.
		c.WaitDelay = 10 * time.Second
	}
	in, out, err := os.Pipe()
	check(t, err)
	send.Stdout, receive.Stdin = out, in
	err1, err2 := send.Start(), receive.Start()
	out.Close()
	in.Close()
	check(t, err1)
	check(t, err2)
	return send, receive
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

// check is what must hold after any kill.
func (r *killed) check(t *testing.T, v victim) {
	t.Helper()
	if left, err := os.ReadDir(r.tmp); err != nil || len(left) > 0 {
		t.Errorf("temporary files left: %v %v", left, err)
	}
	if v.who == "server" {
		r.src.renew()
	} else {
		check(t, unlocked(r.src.server))
	}
	if r.received.code == 0 {
		r.mustBeWhole(t)
		return
	}
	if v.who != "xbstream" && r.received.code != exitDamaged {
		t.Errorf("xbstream ended with %d after the death of %s, want %d", r.received.code, v.who, exitDamaged)
	}
	if v.signal == syscall.SIGTERM && v.who == "xbstream" && r.received.code != exitTerminated {
		t.Errorf("xbstream ended with %d, want %d", r.received.code, exitTerminated)
	}
	if v.signal == syscall.SIGTERM && v.who == "xbsend" && r.sent.code != exitTerminated {
		t.Errorf("xbsend ended with %d, want %d", r.sent.code, exitTerminated)
	}
	if v.who == "server" && r.sent.code != exitServer {
		t.Errorf("xbsend ended with %d after the death of the server, want %d", r.sent.code, exitServer)
	}
	r.mustNotLookWhole(t, v)
}

// Exit codes, as the manual pages have them.
const (
	exitDamaged    = 3
	exitServer     = 5
	exitIO         = 8
	exitTarget     = 9
	exitPrepare    = 10
	exitTerminated = 128 + int(syscall.SIGTERM)
)

// mustNotLookWhole holds the target against what a server would take for a data
// directory.
func (r *killed) mustNotLookWhole(t *testing.T, v victim) {
	t.Helper()
	names := r.names(t)
	partial := slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, ".xbstream-partial-") })
	switch {
	case len(names) == 0: // nothing was begun, or all of it taken back
	case v.who != "xbstream" || v.signal != syscall.SIGKILL:
		t.Errorf("the target of an extraction that could clean up holds %q", names)
	case slices.Contains(names, "ibdata1"):
		// Killed between the last rename and the end of the process: then
		// it must be what it looks like.
		r.mustBeWhole(t)
	case !partial:
		t.Errorf("the target holds %q and does not say that it is unfinished", names)
	case len(names) == 1:
		r.rerun(t)
	default:
		// Killed among the renames: ibdata1 is not there yet, and the
		// staging directory says why.
		t.Logf("killed while publishing: %q", names)
	}
}

// names is what the target holds; it need not be there.
func (r *killed) names(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(r.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// rerun extracts into a target that a killed extraction left: refused as it is,
// and a success with the flag that the refusal names.
func (r *killed) rerun(t *testing.T) {
	t.Helper()
	_, xbstream := binaries(t)
	archive := filepath.Join(t.TempDir(), "again.xb")
	r.src.archive(t, archive)
	out, err := exec.Command(xbstream, "-x", "--prepare", "-C", r.dir, archive).CombinedOutput()
	if code := exitCode(t, err); code != exitTarget || !strings.Contains(string(out), "--remove-partial") {
		t.Errorf("a target with a leftover: exit code %d\n%s", code, out)
	}
	out, err = exec.Command(xbstream, "-x", "--prepare", "--remove-partial", "-C", r.dir, archive).CombinedOutput()
	if err != nil {
		t.Fatalf("extract with --remove-partial: %v\n%s", err, out)
	}
	mustNotHold(t, r.dir, ".xbstream-partial-")
	r.mustBeWhole(t)
}

// archive takes a backup into a file.
func (k *killSource) archive(t *testing.T, name string) {
	t.Helper()
	xbsend, _ := binaries(t)
	f, err := os.Create(name)
	check(t, err)
	defer f.Close()
	c := exec.Command(xbsend, "--no-defaults", "--user=root", "--socket="+k.server.Socket())
	var log strings.Builder
	c.Stdout, c.Stderr = f, &log
	if err := c.Run(); err != nil {
		t.Fatalf("xbsend: %v\n%s", err, &log)
	}
}

// mustBeWhole starts a server on the target.
func (r *killed) mustBeWhole(t *testing.T) {
	t.Helper()
	if names := r.names(t); slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, ".xbstream-partial-") }) {
		t.Errorf("a finished target holds a staging directory: %q", names)
	}
	b, err := os.ReadFile(filepath.Join(r.dir, "xtrabackup_checkpoints"))
	check(t, err)
	if !strings.Contains(string(b), "log-applied") {
		t.Errorf("the copy is not prepared:\n%s", b)
	}
	s, err := servertest.StartOn(t.Context(), r.dir, servertest.Options{})
	check(t, err)
	defer s.Close()
	checked, complaints, err := s.CheckTables(t.Context())
	check(t, err)
	if checked < 40 || len(complaints) > 0 {
		t.Errorf("%d tables checked: %q", checked, complaints)
	}
}
