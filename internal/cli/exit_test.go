package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// A failure of the machine is what the exit code says, whatever failed with it;
// other errors of files do not hide what was refused.
func TestExitCodes(t *testing.T) {
	refused, failed := errors.New("target refused"), errors.New("prepare failed")
	cases := []Case{{Err: refused, Code: ExitTarget}, {Err: failed, Code: ExitPrepare}}
	at := func(no syscall.Errno) error { return &fs.PathError{Op: "write", Path: "/srv/x", Err: no} }
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, ExitDone},
		{errors.New("something"), ExitOther},
		{at(syscall.EACCES), ExitIO},
		{fmt.Errorf("%w: %w", refused, at(syscall.EACCES)), ExitTarget},
		{fmt.Errorf("%w: %w", refused, at(syscall.EROFS)), ExitIO},
		{fmt.Errorf("%w: %w", refused, at(syscall.ENOSPC)), ExitIO},
		{fmt.Errorf("%w: %w", failed, at(syscall.ENOSPC)), ExitIO},
		{fmt.Errorf("%w: %w", failed, at(syscall.EDQUOT)), ExitIO},
		{fmt.Errorf("%w: %w", failed, at(syscall.EIO)), ExitIO},
		{fmt.Errorf("%w: %w", failed, at(syscall.EMFILE)), ExitIO},
		{fmt.Errorf("%w: %w", failed, at(syscall.ENFILE)), ExitIO},
		{fmt.Errorf("%w: %w", failed, at(syscall.ENOENT)), ExitPrepare},
		{fmt.Errorf("%w: a tablespace is missing", failed), ExitPrepare},
		{&UsageError{at(syscall.ENOENT)}, ExitUsage},
		{fmt.Errorf("stopped: %w", &SignalError{syscall.SIGHUP}), 129},
	} {
		if got := Code(tt.err, cases); got != tt.want {
			t.Errorf("%v: exit code %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestTooManyOpenFilesSaysWhatHelps(t *testing.T) {
	for no, want := range map[syscall.Errno]string{syscall.EMFILE: "ulimit -n", syscall.ENFILE: "fs.file-max"} {
		var log strings.Builder
		new(Output).Report("test", &log, &fs.PathError{Op: "open", Path: "/srv/x", Err: no})
		if !strings.HasPrefix(log.String(), "test: error: open /srv/x: ") || !strings.Contains(log.String(), want) {
			t.Errorf("%v: %q", no, &log)
		}
	}
}

// A panic releases what is held and is no exit code that means something else.
func TestPanic(t *testing.T) {
	var log strings.Builder
	released := false
	code := guarded("test", &log, func() int {
		defer func() { released = true }()
		panic("impossible")
	})
	if code != ExitOther || !released || !strings.Contains(log.String(), "\ntest: error: internal error: impossible; ") {
		t.Errorf("exit code %d, released %v\n%s", code, released, &log)
	}
}

// F5: a panic of another goroutine is no usage error. C, untried: no core file has
// the secrets of the process.
func TestPanicOfAnotherGoroutine(t *testing.T) {
	if os.Getenv("XB_CLI_PANIC") != "" {
		Main("test", func(context.Context) int {
			text, err := os.ReadFile("/proc/self/limits")
			fmt.Printf("%s%v\n", text, err)
			go func() { panic("impossible") }()
			select {}
		})
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestPanicOfAnotherGoroutine$")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "XB_CLI_PANIC=1")
	out, _ := cmd.CombinedOutput()
	st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !st.Signaled() || st.Signal() != syscall.SIGABRT || st.CoreDump() || !strings.Contains(string(out), "impossible") {
		t.Errorf("ended with %v\n%s", cmd.ProcessState, out)
	}
	if runtime.GOOS == "linux" && !regexp.MustCompile(`Max core file size +0 +0 `).Match(out) {
		t.Errorf("core files are not limited\n%s", out)
	}
}
