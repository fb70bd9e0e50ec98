package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xbstream/xbstream/internal/servertest"
)

// C1: a signal ends xbsend also where it waits for what never comes.
func TestSignalEndsEveryWait(t *testing.T) {
	xbsend, _ := binaries(t)
	fifo := filepath.Join(t.TempDir(), "my.cnf")
	check(t, unix.Mkfifo(fifo, 0o644))
	cmd := exec.Command(xbsend, "--defaults-file="+fifo)
	cmd.Stdout, cmd.Stderr = new(bytes.Buffer), new(bytes.Buffer)
	check(t, cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	// It has begun to read when the FIFO can be opened for writing.
	for {
		fd, err := unix.Open(fifo, unix.O_WRONLY|unix.O_NONBLOCK, 0)
		if err == nil {
			defer unix.Close(fd)
			break
		}
		if !errors.Is(err, unix.ENXIO) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	check(t, cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-done:
	case <-time.After(time.Minute):
		check(t, cmd.Process.Kill())
		t.Fatal("it still waits")
	}
	if code := cmd.ProcessState.ExitCode(); code != exitTerminated {
		t.Errorf("ended with %d: %v\n%s", code, cmd.ProcessState, cmd.Stderr)
	}
}

// Standard error is a full pipe that nobody reads: the backup is taken all the
// same, and no lock is held longer.
func TestStandardErrorNobodyReads(t *testing.T) {
	source, _ := newDatabase(t)
	xbsend, xbstream := binaries(t)
	r, w, err := os.Pipe()
	check(t, err)
	defer r.Close()
	defer w.Close()
	fd := int(w.Fd()) // which makes it blocking
	check(t, unix.SetNonblock(fd, true))
	for err == nil {
		_, err = unix.Write(fd, make([]byte, 4096))
	}
	for err = nil; err == nil; {
		_, err = unix.Write(fd, make([]byte, 1))
	}
	check(t, unix.SetNonblock(fd, false))
	archive, err := os.Create(filepath.Join(t.TempDir(), "archive"))
	check(t, err)
	defer archive.Close()
	cmd := exec.Command(xbsend, "-v", "--no-defaults", "--user=root", "--socket="+source.Socket())
	cmd.Stdout, cmd.Stderr = archive, w
	check(t, cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		check(t, err)
	case <-time.After(time.Minute):
		check(t, cmd.Process.Kill())
		t.Fatal("it waits for a reader")
	}
	check(t, noSession(source))
	if out, err := exec.Command(xbstream, "verify", archive.Name()).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// C6: an option file that is not read is named, also when the backup fails
// because of it.
func TestIgnoredOptionFilesAreNamed(t *testing.T) {
	source := servertest.New(t, servertest.Options{})
	xbsend, _ := binaries(t)
	dir := t.TempDir()
	open, main := filepath.Join(dir, "open.cnf"), filepath.Join(dir, "main.cnf")
	check(t, os.WriteFile(open, []byte("[client]\nuser=nobody\n"), 0o644))
	check(t, os.Chmod(open, 0o666))
	check(t, os.WriteFile(main, []byte("!include "+open+"\n!include "+dir+"/none.cnf\n[client]\nuser=root\nsocket="+source.Socket()+"\n"), 0o644))
	for _, args := range [][]string{{"--defaults-file=" + open}, {"--defaults-file=" + main}, {"--defaults-file=" + main, "--quiet"}, {"--defaults-file=" + main, "--log-format=json"}} {
		out, err := exec.Command(xbsend, append(args, "--dry-run", "--socket="+source.Socket(), "--user=root")...).CombinedOutput()
		if err != nil {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
		quiet := len(args) > 1 && args[1] == "--quiet"
		if strings.Contains(string(out), open) == quiet || strings.Contains(string(out), "none.cnf") != (len(args[0]) == len("--defaults-file="+main) && args[0] == "--defaults-file="+main && !quiet) {
			t.Errorf("%q:\n%s", args, out)
		}
	}
}
