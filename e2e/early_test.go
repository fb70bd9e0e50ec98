package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/internal/servertest"
)

// A backup recovered while it arrives is, byte for byte, the one that is
// extracted first and recovered then.
func TestRedoIsGatheredWhileItArrives(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "storm.xb")
	archiveOfStorm(t, archive)
	dir := func(name string) string { return filepath.Join(t.TempDir(), name) }

	want := dir("want")
	receive(t, "-x", "-C", want, archive)
	if log := receive(t, "prepare", "-v", want); strings.Contains(log, "while it arrived") {
		t.Errorf("nothing arrives here: %s", log)
	} else if !strings.Contains(log, "skipped redo of tablespaces that are not in the backup (tablespaces ") { // F2
		t.Errorf("nothing is said of what went in the storm: %s", log)
	}
	for _, args := range [][]string{nil, {"-j1"}, {"-j8", "--memory=8M"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			got := dir("got")
			log := receive(t, append([]string{"-x", "--prepare", "-v", "-C", got, archive}, args...)...)
			if !strings.Contains(log, "redo was gathered while it arrived") {
				t.Errorf("the redo was not gathered while it arrived:\n%s", log)
			}
			if out, err := exec.CommandContext(t.Context(), "diff", "-r", want, got).CombinedOutput(); err != nil {
				t.Errorf("the trees differ: %v\n%.2000s", err, out)
			}
		})
	}
}

// archiveOfStorm takes a backup into a file while everything changes.
func archiveOfStorm(t *testing.T, name string) {
	t.Helper()
	ctx := t.Context()
	source := servertest.New(t, servertest.Options{LogFileSize: 256 << 20})
	options := servertest.LoadOptions{BulkBytes: 24 << 20}
	check(t, source.CreateSchema(ctx, options))
	load, err := source.StartLoad(ctx, options)
	check(t, err)
	ddl, err := source.StartStorm(ctx, 1)
	check(t, err)
	check(t, ddl.Await(ctx, 100))
	sendTo(t, name, source, "--rate=20M")
	check(t, ddl.Stop())
	_, err = load.Stop()
	check(t, err)
}

// sendTo takes a backup into a file and returns what xbsend said.
func sendTo(t *testing.T, name string, source *servertest.Server, args ...string) string {
	t.Helper()
	xbsend, _ := binaries(t)
	f, err := os.Create(name)
	check(t, err)
	defer f.Close()
	var log strings.Builder
	send := exec.CommandContext(t.Context(), xbsend, append([]string{"--no-defaults", "--user=root", "--socket=" + source.Socket()}, args...)...)
	send.Stdout, send.Stderr = f, &log
	if err := send.Run(); err != nil {
		t.Fatalf("xbsend: %v\n%s", err, &log)
	}
	t.Log(log.String())
	return log.String()
}

// receive runs xbstream and returns what it said.
func receive(t *testing.T, args ...string) string {
	t.Helper()
	_, xbstream := binaries(t)
	out, err := exec.CommandContext(t.Context(), xbstream, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("xbstream %s: %v\n%s", args, err, out)
	}
	return string(out)
}
