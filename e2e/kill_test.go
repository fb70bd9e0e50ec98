package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

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

func newKillSource(t *testing.T, seed uint64) *faultSource {
	t.Helper()
	return newKillSourceOn(t, servertest.Usual(), seed)
}

func newKillSourceOn(t *testing.T, r servertest.Release, seed uint64) *faultSource {
	t.Helper()
	return newFaultSource(t, servertest.Options{Release: r, LogBin: true}, servertest.LoadOptions{Seed: seed, Rate: 300, BulkBytes: 16 << 20})
}

// P3, P6: whatever is killed, and whenever, the receiver never says that all is
// well unless it is, the target never looks like a data directory, and the
// server is free again.
func TestKilledAtRandomMoments(t *testing.T) {
	killAtRandom(t, servertest.Usual(), times(20, 200))
}

func killAtRandom(t *testing.T, r servertest.Release, kills int) {
	seed := killSeed(t)
	random := rand.New(rand.NewPCG(seed, 0))
	src := newKillSourceOn(t, r, seed)
	src.try(t, trial{kind: "none"}).mustSucceed()
	whole := src.try(t, trial{})
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
			o := src.try(t, trial{kind: v.String(), fault: func(r *attempt) { v.kill(r, at) }})
			o.mustBeKilled(v)
			if o.received.code == 0 {
				late, whole = late+1, o
			} else {
				mattered[v.who]++
			}
		})
	}
	t.Logf("kills that ended a backup: %v; that came too late: %d", mattered, late)
}

// kill sends the signal after a while; who gets it may have ended.
func (v victim) kill(r *attempt, after time.Duration) {
	time.Sleep(after)
	switch v.who {
	case "xbsend":
		_ = r.send.Process.Signal(v.signal)
	case "xbstream":
		_ = r.receive.Process.Signal(v.signal)
	case "server":
		_ = syscall.Kill(r.src.server.Pid(), v.signal)
	}
}

// lockEvents are the events of xbsend's test seam at which it holds locks.
var lockEvents = []string{"stage-start", "stage-flush", "stage-block-ddl", "reconcile", "aria-logs-listed", "stage-block-commit", "end-lsn"}

// P6: the sender dies while it holds each lock in turn.
func TestKilledUnderLocks(t *testing.T) {
	killUnderLocks(t, servertest.Usual(), lockEvents)
}

func killUnderLocks(t *testing.T, r servertest.Release, events []string) {
	src := newKillSourceOn(t, r, killSeed(t))
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		for _, event := range events {
			v := victim{"xbsend", signal}
			t.Run(fmt.Sprintf("%v at %s", v, event), func(t *testing.T) {
				marker := filepath.Join(t.TempDir(), "reached")
				// The hook's shell is a child of xbsend, which may be done
				// before it hears of SIGTERM: it is to wait, until it ends the
				// hook.
				wait := "exec sleep 60"
				if signal == syscall.SIGKILL {
					wait = ":"
				}
				hook := fmt.Sprintf(`at() { if [ "$1" = %s ]; then : > '%s'; kill -%d $PPID; %s; fi; }; at`, event, marker, signal, wait)
				o := src.try(t, trial{kind: v.String() + " under a lock", env: []string{"XB_TEST_HOOK=" + hook, "XB_TEST_HOOK_TABLES=none"}})
				if _, err := os.Stat(marker); err != nil {
					t.Fatal(err)
				}
				if o.sent.code == 0 || o.received.code == 0 {
					t.Errorf("exit codes %d and %d of a backup that was killed", o.sent.code, o.received.code)
				}
				o.mustBeKilled(v)
			})
		}
	}
}

// terminated says whether that is the end by SIGTERM; it kills a process that has
// not begun to run its own code yet.
func terminated(e end, log string) bool {
	return e.code == exitTerminated || e.code == -1 && log == ""
}

// mustBeKilled is what must hold after any kill, whether it came in time or not.
func (o *outcome) mustBeKilled(v victim) {
	t := o.t
	t.Helper()
	defer o.count()
	if v.who == "server" {
		o.src.renew()
	}
	o.mustBeFree()
	if o.received.code == 0 {
		o.mustBeWhole()
		return
	}
	if v.who != "xbstream" && o.received.code != exitDamaged {
		t.Errorf("xbstream ended with %d after the death of %s, want %d", o.received.code, v.who, exitDamaged)
	}
	if v.signal == syscall.SIGTERM && v.who == "xbstream" && !terminated(o.received, o.logs[1].String()) {
		t.Errorf("xbstream ended with %d, want %d", o.received.code, exitTerminated)
	}
	if v.signal == syscall.SIGTERM && v.who == "xbsend" && !terminated(o.sent, o.logs[0].String()) {
		t.Errorf("xbsend ended with %d, want %d", o.sent.code, exitTerminated)
	}
	if v.who == "server" && o.sent.code != exitServer {
		t.Errorf("xbsend ended with %d after the death of the server, want %d", o.sent.code, exitServer)
	}
	if v.who == "xbstream" && o.sent.code != exitDone && o.sent.code != exitIO {
		t.Errorf("xbsend ended with %d after the death of xbstream, want %d", o.sent.code, exitIO)
	}
	o.mustNotLookWhole(v == victim{"xbstream", syscall.SIGKILL})
}
