package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

// A process that is stopped and goes on, as in a terminal or by a cgroup's freezer,
// is no fault: whichever of the two it is, and whatever is locked, the copy is whole.
func TestFaultStopped(t *testing.T) {
	pause := 5 * time.Second
	if longFaults() {
		pause = 30 * time.Second
	}
	src := newFaultSource(t, servertest.Options{LogBin: true, LogFileSize: 256 << 20}, servertest.LoadOptions{BulkBytes: 32 << 20})
	for _, c := range []struct {
		name, event string
		process     func(*attempt) *exec.Cmd
	}{
		{"xbsend, stopped before the files", "tablespaces-listed", func(a *attempt) *exec.Cmd { return a.send }},
		{"xbsend, stopped under the locks", "stage-block-ddl", func(a *attempt) *exec.Cmd { return a.send }},
		{"xbstream, stopped", "tablespaces-listed", func(a *attempt) *exec.Cmd { return a.receive }},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range times(1, 5) {
				now := filepath.Join(t.TempDir(), "now")
				hook := fmt.Sprintf(`[ "$1" != %s ] || { touch %s; sleep 1; }; :`, c.event, now)
				o := src.try(t, trial{kind: c.name, env: []string{"XB_TEST_HOOK=" + hook, "XB_TEST_HOOK_TABLES=none"}, fault: func(a *attempt) {
					p := c.process(a).Process
					await(t, c.event, func() bool {
						_, err := os.Stat(now)
						return err == nil
					})
					check(t, p.Signal(syscall.SIGSTOP))
					time.Sleep(pause)
					check(t, p.Signal(syscall.SIGCONT))
				}})
				if o.received.after < pause {
					t.Errorf("done in %v: nothing was stopped", o.received.after)
				}
				o.mustSucceed()
			}
		})
	}
}
