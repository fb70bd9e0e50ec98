package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// P6: a receiving side that takes nothing any more, but does not end either,
// does not keep the backup and its locks for ever.
func TestReceiverThatHangs(t *testing.T) {
	servers, err := scriptServers()
	check(t, err)
	_, in := hangingPipe(t)
	code, log := bounded(t, nil, in, "xbsend", "--no-defaults", "-uroot", "-S"+servers.usual.Socket(), "--idle-timeout=300ms")
	if code != exitIO || !strings.Contains(lastLine(log), "the receiving side has taken nothing for 300ms") {
		t.Errorf("exit code %d\n%s", code, log)
	}
	check(t, unlocked(servers.usual))
}

// P3: a sending side that gives nothing any more leaves nothing behind it.
func TestSenderThatHangs(t *testing.T) {
	archive := smallArchive(t)
	for _, sent := range []int{0, 10, len(archive) / 2, len(archive) - 1} {
		for _, command := range []string{"extract", "list", "verify", "info"} {
			t.Run(fmt.Sprintf("%s after %d bytes", command, sent), func(t *testing.T) {
				out, in := hangingPipe(t)
				_, err := in.Write(archive[:sent])
				check(t, err)
				dir := filepath.Join(t.TempDir(), "copy")
				args := []string{command, "--idle-timeout=100ms"}
				if command == "extract" {
					args = append(args, "-C", dir)
				}
				code, log := bounded(t, out, nil, "xbstream", args...)
				if code != exitIO || !strings.Contains(lastLine(log), "nothing has arrived for 100ms") {
					t.Errorf("exit code %d\n%s", code, log)
				}
				if _, err := os.Lstat(dir); !os.IsNotExist(err) {
					t.Errorf("the target is there: %v", err)
				}
			})
		}
	}
}

// Whatever it waits for, a command ends when it is asked to.
func TestSignalWhileReading(t *testing.T) {
	archive := smallArchive(t)
	for _, command := range []string{"extract", "list", "verify", "info"} {
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
			t.Run(fmt.Sprintf("%s, %v", command, signal), func(t *testing.T) {
				out, in := hangingPipe(t)
				_, err := in.Write(archive[:len(archive)/2])
				check(t, err)
				_, xbstream := binaries(t)
				// The test itself may have been started to ignore some.
				cmd := exec.Command("env", "--default-signal=INT,TERM,HUP", xbstream, command, "--progress=json")
				cmd.Dir = t.TempDir()
				cmd.Stdin = out
				check(t, cmd.Start())
				ended := make(chan error, 1)
				go func() { ended <- cmd.Wait() }()
				// It has begun to read when the pipe is empty.
				drained(t, out)
				check(t, cmd.Process.Signal(signal))
				select {
				case err := <-ended:
					if got := exitCode(t, err); got != 128+int(signal) {
						t.Errorf("exit code %d", got)
					}
				case <-time.After(killWait):
					cmd.Process.Kill()
					t.Fatal("it hangs")
				}
				mustNotHold(t, cmd.Dir, "")
			})
		}
	}
}

// A command that was started to ignore a signal, as by nohup, goes on.
func TestIgnoredSignal(t *testing.T) {
	archive := smallArchive(t)
	_, xbstream := binaries(t)
	out, in := hangingPipe(t)
	_, err := in.Write(archive[:len(archive)/2])
	check(t, err)
	cmd := exec.Command("sh", "-c", `trap '' HUP; exec "$0" list`, xbstream)
	cmd.Stdin = out
	check(t, cmd.Start())
	drained(t, out)
	check(t, cmd.Process.Signal(syscall.SIGHUP))
	_, err = in.Write(archive[len(archive)/2:])
	check(t, err)
	check(t, in.Close())
	check(t, cmd.Wait())
}

// hangingPipe returns a pipe whose ends nobody else uses.
func hangingPipe(t *testing.T) (out, in *os.File) {
	t.Helper()
	out, in, err := os.Pipe()
	check(t, err)
	t.Cleanup(func() { out.Close(); in.Close() })
	return out, in
}

// smallArchive is an archive of ordinary files that a pipe can hold.
func smallArchive(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	for i := range 5 {
		check(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte(strings.Repeat(fmt.Sprint(i), 5000)), 0o600))
	}
	_, xbstream := binaries(t)
	archive, err := exec.Command(xbstream, "create", "-q", "-C", dir, ".").Output()
	check(t, err)
	return archive
}

// bounded runs a command, which must end by itself.
func bounded(t *testing.T, stdin, stdout *os.File, program string, args ...string) (code int, log string) {
	t.Helper()
	xbsend, _ := binaries(t)
	ctx, cancel := context.WithTimeout(t.Context(), killWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(filepath.Dir(xbsend), program), args...)
	cmd.Dir = t.TempDir()
	var text strings.Builder
	cmd.Stderr = &text
	if stdin != nil {
		cmd.Stdin = stdin
	}
	if stdout != nil {
		cmd.Stdout = stdout
	}
	code = exitCode(t, cmd.Run())
	if ctx.Err() != nil {
		t.Fatalf("it hangs\n%s", &text)
	}
	return code, text.String()
}

func lastLine(log string) string {
	lines := strings.Split(strings.TrimSuffix(log, "\n"), "\n")
	return lines[len(lines)-1]
}

// drained waits until nothing is left in a pipe.
func drained(t *testing.T, pipe *os.File) {
	t.Helper()
	for end := time.Now().Add(killWait); ; time.Sleep(time.Millisecond) {
		left, err := unix.IoctlGetInt(int(pipe.Fd()), unix.TIOCINQ)
		check(t, err)
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d bytes were not read", left)
		}
	}
}
