package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// objects are the lines of standard error, each of which must be an object.
func objects(t *testing.T, log string) (list []map[string]any) {
	t.Helper()
	for line := range strings.Lines(log) {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		list = append(list, o)
	}
	return list
}

// measured is a number with its unit in one text.
var measured = regexp.MustCompile(`^[0-9.]+ ?([KMGT]?i?B|ns|µs|ms|s|m|h)(/s)?$`)

// E2: with json, every line is an object, and what is a number is one, with its
// unit in the key; the last object of the progress has the outcome.
func TestMessagesInJSON(t *testing.T) {
	servers, err := scriptServers()
	check(t, err)
	xbsend, xbstream := binaries(t)
	dir := t.TempDir()
	var archive, log bytes.Buffer
	send := exec.Command(xbsend, "--no-defaults", "-uroot", "-S"+servers.usual.Socket(), "--progress=json", "--log-format=json")
	send.Stdout, send.Stderr = &archive, &log
	check(t, send.Run())
	receive := exec.Command(xbstream, "-x", "--prepare", "-C", dir+"/copy", "--progress=json", "--log-format=json")
	receive.Stdin, receive.Stderr = &archive, &log
	check(t, receive.Run())
	found := map[string]int{}
	for _, o := range objects(t, log.String()) {
		for key, value := range o {
			if text, ok := value.(string); ok && measured.MatchString(text) {
				t.Errorf("%s is text: %q", key, text)
			}
			if _, ok := value.(float64); ok {
				found[key]++
			}
		}
		if how, ok := o["outcome"]; ok {
			found["outcome "+how.(string)]++
		}
	}
	for key, want := range map[string]int{
		"bytes": 2, "bytes_total": 2, "seconds": 2, "bytes_per_second": 2, "stalled_seconds": 2, "outcome done": 2,
		"data_bytes": 2, "redo_bytes": 2, "took_seconds": 2, "locked_seconds": 1,
	} {
		if found[key] < want {
			t.Errorf("%s: %d numbers, want %d or more, in\n%s", key, found[key], want, &log)
		}
	}
	if found["outcome done"] != 2 {
		t.Errorf("%d objects say done", found["outcome done"])
	}
}

// E2: a backup that was ended by a signal does not say that it is done.
func TestProgressOfABackupThatWasInterrupted(t *testing.T) {
	servers, err := scriptServers()
	check(t, err)
	xbsend, _ := binaries(t)
	out, in := hangingPipe(t)
	var log bytes.Buffer
	// The test itself may have been started to ignore it.
	cmd := exec.Command("env", "--default-signal=TERM", xbsend, "--no-defaults", "-uroot", "-S"+servers.usual.Socket(), "--progress=json", "--log-format=json")
	cmd.Stdout, cmd.Stderr = in, &log
	check(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	// It is in the middle when the archive has begun.
	_, err = io.ReadFull(out, make([]byte, 4<<10))
	check(t, err)
	check(t, cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-ended:
		if got := exitCode(t, err); got != 128+int(syscall.SIGTERM) {
			t.Errorf("exit code %d", got)
		}
	case <-time.After(killWait):
		cmd.Process.Kill()
		t.Fatal("it hangs")
	}
	how := ""
	for _, o := range objects(t, log.String()) {
		if _, ok := o["bytes"]; ok {
			how, _ = o["outcome"].(string)
		}
	}
	if how != "interrupted" {
		t.Errorf("outcome %q in\n%s", how, &log)
	}
}

// E1: a terminal shows each message on a line of its own, whatever is drawn.
func TestMessagesAndBarOnATerminal(t *testing.T) {
	servers, err := scriptServers()
	check(t, err)
	xbsend, _ := binaries(t)
	if _, err := exec.LookPath("script"); err != nil {
		t.Fatal(err)
	}
	screen := t.TempDir() + "/screen"
	cmd := exec.Command("script", "-qec", xbsend+" --no-defaults -uroot -S"+servers.usual.Socket()+" --progress=bar --rate=20M >/dev/null", screen)
	check(t, cmd.Run())
	text, err := os.ReadFile(screen)
	check(t, err)
	for line := range strings.Lines(string(text)) {
		if i := strings.Index(line, "xbsend: "); i > 0 && !strings.HasSuffix(line[:i], "\x1b[K") && !strings.HasSuffix(line[:i], "\r") {
			t.Errorf("not on a line of its own: %q", line)
		}
	}
	if !strings.Contains(string(text), "data files") || !strings.Contains(string(text), "\x1b[Kxbsend: backup complete") {
		t.Errorf("%q", text)
	}
}
