package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

// repeats is how often the main test runs each of its rows: XB_REPEAT, or once.
func repeats(t *testing.T) int {
	s := os.Getenv("XB_REPEAT")
	if s == "" {
		return 1
	}
	n, err := strconv.Atoi(s)
	check(t, err)
	return n
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// P1, the test that matters: a server with every kind of table, writers that
// never stop, a pipe between the two commands; the copy follows the source from
// the recorded GTID, and in the end holds the same.
func TestRestoredCopyFollowsSource(t *testing.T) {
	for _, row := range []struct {
		name    string
		log     int64 // MiB
		workers int
		prepare []string
		long    bool // runs with XB_REPEAT only
	}{
		{"8 MiB log, 1 worker", 8, 1, nil, false},
		{"8 MiB log, 8 workers", 8, 8, nil, true},
		{"96 MiB log, 1 worker", 96, 1, nil, true},
		{"96 MiB log, 8 workers", 96, 8, nil, false},
		{"96 MiB log, prepared by the server", 96, 2, []string{"--with-server"}, false},
	} {
		if row.long && os.Getenv("XB_REPEAT") == "" {
			continue
		}
		for _, r := range servertest.Releases(t) {
			for n := range repeats(t) {
				t.Run(fmt.Sprintf("%s/%s/%d", row.name, r, n), func(t *testing.T) {
					prepare := slices.Clone(row.prepare)
					if len(prepare) > 0 && r != servertest.MariaDB1011 {
						prepare[0] += "=" + r.Command("mariadbd")
					}
					followSource(t, r, row.log<<20, row.workers, prepare, uint64(n))
				})
			}
		}
	}
}

func followSource(t *testing.T, release servertest.Release, logSize int64, workers int, prepare []string, seed uint64) {
	ctx := t.Context()
	source := servertest.New(t, servertest.Options{Release: release, LogFileSize: logSize, LogBin: true, TCP: true})
	options := servertest.LoadOptions{Seed: seed, BulkBytes: 24 << 20}
	check(t, source.CreateSchema(ctx, options))
	load, err := source.StartLoad(ctx, options)
	check(t, err)
	check(t, load.Await(ctx, 1000)) // so that the backup meets dirty pages and open transactions

	dir := filepath.Join(t.TempDir(), "copy")
	j := "-j" + strconv.Itoa(workers)
	pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + source.Socket(), j},
		append([]string{"xbstream", "-x", "--prepare", "-C", dir, j}, prepare...))
	mustNotHold(t, dir, ".xbstream-partial-")

	gtid, err := servertest.RecordedGTID(dir)
	check(t, err)
	copied := startCopyOn(t, release, dir)
	check(t, copied.AttachReplica(ctx, source, gtid))
	check(t, load.Await(ctx, 500)) // the load goes on while the copy follows
	counts, err := load.Stop()
	check(t, err)
	compareCopy(t, source, copied, "")
	t.Logf("%d operations, %d rollbacks", counts.Total(), counts.Rollbacks)
}

// noRepair keeps a server from repairing tables on its own.
func noRepair(r servertest.Release) []string {
	if r.MySQL() {
		return []string{"--myisam-recover-options=OFF"}
	}
	return []string{"--myisam-recover-options=OFF", "--aria-recover-options=OFF"}
}

// startCopy starts a server on a restored directory and checks its tables
// before anything else touches them: a table that was copied in use must be
// seen.
func startCopy(t *testing.T, dir string, args ...string) *servertest.Server {
	t.Helper()
	return startCopyOn(t, servertest.Usual(), dir, args...)
}

// startCopyOn is startCopy with a server of another release.
func startCopyOn(t *testing.T, r servertest.Release, dir string, args ...string) *servertest.Server {
	t.Helper()
	copied := servertest.NewOn(t, dir, servertest.Options{Release: r, ServerID: 2, Args: append(args, noRepair(r)...)})
	noComplaints(t, copied)
	return copied
}

func noComplaints(t *testing.T, s *servertest.Server) (tables int) {
	t.Helper()
	tables, complaints, err := s.CheckTables(t.Context())
	check(t, err)
	for _, c := range complaints {
		t.Error(c)
	}
	return tables
}

// compareCopy waits until the copy has caught up and compares everything.
// Differences that begin with except, if it is not empty, are let pass.
func compareCopy(t *testing.T, source, copied *servertest.Server, except string) {
	t.Helper()
	ctx := t.Context()
	check(t, source.StopEvents(ctx))
	check(t, copied.WaitCaughtUp(ctx, source))
	c, err := servertest.Compare(ctx, source, copied)
	check(t, err)
	for _, d := range c.Differences {
		if except == "" || !strings.HasPrefix(d, except) {
			t.Error(d)
		}
	}
	if c.Tables < 40 || c.Rows < 5000 {
		t.Errorf("only %d tables and %d rows compared", c.Tables, c.Rows)
	}
	t.Logf("%d tables, %d rows equal; CHECK TABLE of %d tables", c.Tables, c.Rows, noComplaints(t, copied))
}

// pipelineTimeout bounds a pipeline. None takes more than seconds but where tests do
// much in the middle of it.
const pipelineTimeout = 10 * time.Minute

// pipeline runs "sender | receiver", fails the test unless both succeed, and
// returns what they said.
func pipeline(t *testing.T, sender, receiver []string) (sent, received string) {
	t.Helper()
	sent, received, err := tryPipeline(t, sender, receiver)
	check(t, err)
	t.Logf("%s%s", sent, received)
	return sent, received
}

// tryPipeline runs "sender | receiver" and returns what they said. If one of them
// fails, the error says it too.
func tryPipeline(t *testing.T, sender, receiver []string) (sent, received string, err error) {
	t.Helper()
	xbsend, xbstream := binaries(t)
	path := map[string]string{"xbsend": xbsend, "xbstream": xbstream}
	ctx, cancel := context.WithTimeout(t.Context(), pipelineTimeout)
	defer cancel()
	var logs [2]strings.Builder
	send := exec.CommandContext(ctx, path[sender[0]], sender[1:]...)
	receive := exec.CommandContext(ctx, path[receiver[0]], receiver[1:]...)
	send.Stderr, receive.Stderr = &logs[0], &logs[1]
	if !slices.ContainsFunc(receiver, func(a string) bool { return strings.HasPrefix(a, "--with-server") }) {
		// The receiving side must need no server: it finds none.
		receive.Env = []string{"PATH=/nonexistent"}
	}
	r, w, err := os.Pipe()
	check(t, err)
	send.Stdout, receive.Stdin = w, r
	err1, err2 := send.Start(), receive.Start()
	w.Close()
	r.Close()
	check(t, err1)
	check(t, err2)
	err1, err2 = send.Wait(), receive.Wait()
	if err1 != nil || err2 != nil {
		err = fmt.Errorf("%s: %v\n%s%s: %v\n%s", sender[0], err1, &logs[0], receiver[0], err2, &logs[1])
	}
	return logs[0].String(), logs[1].String(), err
}

// mustNotHold fails the test if dir holds a name that begins with prefix.
func mustNotHold(t *testing.T, dir, prefix string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			t.Errorf("%s holds %s", dir, e.Name())
		}
	}
}
