package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

// D2: the archive goes to the command, and nowhere else.
func TestExec(t *testing.T) {
	servers, err := scriptServers()
	check(t, err)
	dir := t.TempDir()
	archive := filepath.Join(dir, "archive.xb")
	toStdout, said, code := xbsendOf(t, "--no-defaults", "-uroot", "-S"+servers.usual.Socket(),
		"--exec", "cat > '"+archive+"'; yes | head -n 1 > /dev/null; echo told; : token=geheim")
	if code != 0 || len(toStdout) > 0 || !strings.Contains(said, "told\n") || strings.Contains(said, "roken pipe") {
		t.Errorf("exit code %d, %d bytes to standard output\n%s", code, len(toStdout), said)
	}
	receive(t, "verify", archive)
	if info := receive(t, "info", "--json", archive); strings.Contains(info, "geheim") || !strings.Contains(info, "--exec") {
		t.Errorf("the manifest says %s", info)
	}
	if _, said, code = xbsendOf(t, "--no-defaults", "--exec= "); code != 2 {
		t.Errorf("no command: exit code %d\n%s", code, said)
	}
}

// D2: the backup ends at once with a command that ends, and its status is ours.
func TestExecEndsEarly(t *testing.T) {
	servers, err := scriptServers()
	check(t, err)
	for _, c := range []struct {
		command string
		code    int
		says    string
	}{
		{"head -c 1000000 > /dev/null; exit 3", 3, "exit status 3"},
		{"head -c 1000000 > /dev/null; kill -9 $$", 137, "signal: killed"},
		{"head -c 1000000 > /dev/null", exitIO, "ended before the backup did (exit status 0)"},
		{"no-such-command-anywhere", 127, "exit status 127"},
		{"cat > /dev/null; exit 7", 7, "failed after it had the whole archive (exit status 7)"},
	} {
		_, said, code := xbsendOf(t, "--no-defaults", "-uroot", "-S"+servers.usual.Socket(), "--exec", c.command)
		if code != c.code || !strings.Contains(lastLine(said), "the command of --exec") || !strings.Contains(said, c.says) {
			t.Errorf("%s: exit code %d\n%s", c.command, code, said)
		}
		check(t, unlocked(servers.usual))
	}
}

// uploaders take the end of their input, or a signal, for the end of the object.
// Each writes its process id to pid and what it has to part, and moves that to
// final.
var uploaders = map[string]string{
	"completes at the end of its input": `echo $$ > pid; cat > part && mv part final`,
	"ignores signals":                   `trap '' TERM INT HUP; echo $$ > pid; cat > part; mv part final`,
	"completes on a signal":             `trap 'mv part final; exit 0' TERM INT HUP; echo $$ > pid; exec 4<&0; cat <&4 > part & wait`,
	"is a pipeline":                     `echo $$ > pid; cat | { cat > part; mv part final; }`,
}

// D2: a backup that fails, or is killed, leaves no object that looks complete,
// whatever the uploader makes of the end of its input.
func TestExecLeavesNoObject(t *testing.T) {
	servers, err := scriptServers()
	check(t, err)
	for _, how := range []struct {
		name   string
		code   int
		hook   string // at the last event before the manifest
		args   []string
		signal syscall.Signal
	}{
		{name: "failing", code: 1, hook: "exit 1"},
		{name: "SIGTERM", code: 143, hook: "exec sleep 600", signal: syscall.SIGTERM},
		{name: "SIGKILL", code: -1, hook: "exec sleep 600", signal: syscall.SIGKILL},
	} {
		for name, script := range uploaders {
			t.Run(how.name+", uploader "+name, func(t *testing.T) {
				dir := t.TempDir()
				hook := filepath.Join(dir, "hook")
				check(t, os.WriteFile(hook, fmt.Appendf(nil, "[ \"$1\" = end-lsn ] || exit 0\necho $$ > '%s/reached.new'; mv '%s/reached.new' '%s/reached'\n%s\n", dir, dir, dir, how.hook), 0o600))
				t.Setenv("XB_TEST_HOOK", "sh "+hook)
				t.Setenv("XB_TEST_HOOK_TABLES", "none")
				code, said := backupTo(t, servers.usual, dir, script, how.signal)
				if code != how.code {
					t.Errorf("exit code %d, want %d\n%s", code, how.code, said)
				}
				// Of a killed xbsend another process does it, a moment later.
				limit := time.Now().Add(killWait)
				pid := pidIn(t, filepath.Join(dir, "pid"))
				for syscall.Kill(pid, 0) == nil {
					if time.Now().After(limit) {
						t.Fatalf("the uploader, process %d, lives", pid)
					}
					time.Sleep(10 * time.Millisecond)
				}
				if _, err := os.Stat(filepath.Join(dir, "part")); err != nil {
					t.Errorf("the uploader got nothing: %v", err)
				}
				if _, err := os.Stat(filepath.Join(dir, "final")); !os.IsNotExist(err) {
					t.Errorf("there is an object: %v", err)
				}
				if how.signal != 0 { // the hook still sleeps
					check(t, syscall.Kill(pidIn(t, filepath.Join(dir, "reached")), syscall.SIGKILL))
				}
				check(t, unlocked(servers.usual))
			})
		}
	}
}

func pidIn(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile(name)
	check(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	check(t, err)
	return pid
}

// backupTo runs xbsend --exec in dir and sends it a signal once the hook has
// written the file "reached" there.
func backupTo(t *testing.T, source *servertest.Server, dir, script string, signal syscall.Signal) (code int, said string) {
	t.Helper()
	xbsend, _ := binaries(t)
	var log strings.Builder
	// The test itself may have been started to ignore some signals.
	cmd := exec.Command("env", "--default-signal=INT,TERM,HUP", xbsend, "--no-defaults", "-uroot", "-S"+source.Socket(), "--exec", script)
	cmd.Dir, cmd.Stderr = dir, &log
	cmd.WaitDelay = time.Second // a hook may have its standard error
	check(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for limit := time.Now().Add(killWait); ; {
		select {
		case err := <-ended:
			return exitCode(t, err), log.String()
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(limit) {
			cmd.Process.Kill()
			<-ended
			t.Fatalf("it hangs\n%s", &log)
		}
		if _, err := os.Stat(filepath.Join(dir, "reached")); err == nil && signal != 0 {
			check(t, cmd.Process.Signal(signal))
			signal = 0
		}
	}
}

// D2, P6: an uploader that hangs, and ignores signals, does not keep the backup.
func TestExecHangs(t *testing.T) {
	servers, err := scriptServers()
	check(t, err)
	dir := t.TempDir()
	pid := filepath.Join(dir, "pid")
	_, said, code := xbsendOf(t, "--no-defaults", "-uroot", "-S"+servers.usual.Socket(), "--idle-timeout=300ms",
		"--exec", "trap '' TERM; echo $$ > '"+pid+"'; while :; do sleep 1; done")
	if code != exitIO || !strings.Contains(lastLine(said), "the receiving side has taken nothing for 300ms") {
		t.Errorf("exit code %d\n%s", code, said)
	}
	if err := syscall.Kill(pidIn(t, pid), 0); err != syscall.ESRCH {
		t.Errorf("the command lives: %v", err)
	}
	check(t, unlocked(servers.usual))
}

// D2: a command is not started for a backup that does not begin: it would store
// an empty object.
func TestExecIsNotStartedTooEarly(t *testing.T) {
	servers, err := scriptServers()
	check(t, err)
	for flag, want := range map[string]int{"--user=nobody-of-that-name": 5, "--datadir=/nonexistent": exitIO, "--dry-run": 0} {
		marker := filepath.Join(t.TempDir(), "started")
		_, said, code := xbsendOf(t, "--no-defaults", "-uroot", "-S"+servers.usual.Socket(), "--exec", "touch '"+marker+"'; cat > /dev/null", flag)
		if code != want {
			t.Errorf("%s: exit code %d, want %d\n%s", flag, code, want, said)
		}
		if _, err := os.Stat(marker); !os.IsNotExist(err) {
			t.Errorf("%s: the command was started", flag)
		}
	}
}
