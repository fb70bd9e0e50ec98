package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/xbstream/xbstream/internal/servertest"
)

// twoServers starts two servers on copies of one new directory: their LSNs are
// equal or near, whatever else the test then does.
func twoServers(t *testing.T, options servertest.Options) (a, b *servertest.Server) {
	t.Helper()
	options.TCP = true
	a, b = servertest.New(t, options), servertest.New(t, options)
	for _, s := range []*servertest.Server{a, b} {
		check(t, s.Exec(t.Context(), "CREATE USER backup@`127.0.0.1`", "GRANT RELOAD, PROCESS, BINLOG MONITOR ON *.* TO backup@`127.0.0.1`", "CREATE DATABASE d"))
	}
	return a, b
}

// bySocket, byTCP and byFile are ways to name a server, and the directory of
// another one, to xbsend.
func bySocket(_ *testing.T, s *servertest.Server, datadir string) []string {
	return []string{"--no-defaults", "--user=root", "--socket=" + s.Socket(), "--datadir=" + datadir}
}

func byTCP(_ *testing.T, s *servertest.Server, datadir string) []string {
	return []string{"--no-defaults", "--user=backup", "--host=127.0.0.1", "--port=" + strconv.Itoa(s.Port()), "--datadir=" + datadir}
}

func byFile(t *testing.T, s *servertest.Server, datadir string) []string {
	name := filepath.Join(t.TempDir(), "my.cnf")
	check(t, os.WriteFile(name, []byte("[client]\nuser=root\nsocket="+s.Socket()+"\n[xbsend]\ndatadir="+datadir+"\n"), 0o600))
	return []string{"--defaults-file=" + name}
}

// xbsendOf runs xbsend and returns the archive, what it said and its exit code.
func xbsendOf(t *testing.T, args ...string) (archive []byte, said string, code int) {
	t.Helper()
	xbsend, _ := binaries(t)
	var out bytes.Buffer
	var log strings.Builder
	cmd := exec.CommandContext(t.Context(), xbsend, args...)
	cmd.Stdout, cmd.Stderr = &out, &log
	code = exitCode(t, cmd.Run())
	return out.Bytes(), log.String(), code
}

// mustRefuseForeign runs xbsend, which must send nothing and say why.
func mustRefuseForeign(t *testing.T, datadir string, args ...string) {
	t.Helper()
	archive, said, code := xbsendOf(t, args...)
	if code != exitServer || len(archive) > 0 {
		t.Errorf("%s: exit code %d, want %d, and %d bytes of an archive, want none\n%s", args, code, exitServer, len(archive), said)
	}
	for _, want := range []string{datadir + " is not the data directory of this server", "--datadir", "container"} {
		if !strings.Contains(lastLine(said), want) {
			t.Errorf("%s: it does not say %q: %s", args, want, said)
		}
	}
}

// G3, P1: no server is backed up from the directory of another, in whatever order
// their LSNs are and however the two are named.
func TestDirectoryOfAnotherServer(t *testing.T) {
	t.Parallel()
	a, b := twoServers(t, servertest.Options{})
	run := func(t *testing.T, ways ...func(*testing.T, *servertest.Server, string) []string) {
		for _, way := range ways {
			for _, pair := range [][2]*servertest.Server{{a, b}, {b, a}} {
				mustRefuseForeign(t, pair[1].Datadir(), way(t, pair[0], pair[1].Datadir())...)
			}
		}
	}
	t.Run("equal LSNs", func(t *testing.T) { run(t, bySocket, byTCP, byFile) })
	check(t, b.Exec(t.Context(), "CREATE TABLE d.much AS SELECT seq, REPEAT('x', 500) b FROM d.seq_1_to_20000"))
	t.Run("one far ahead", func(t *testing.T) { run(t, bySocket, byTCP) })
	t.Run("dry run", func(t *testing.T) {
		run(t, func(t *testing.T, s *servertest.Server, dir string) []string {
			return append(bySocket(t, s, dir), "--dry-run")
		})
	})
	// Their own are accepted, at once and one after the other: each START leaves
	// its trace a moment after the last.
	for range 3 {
		for _, s := range []*servertest.Server{a, b} {
			for _, args := range [][]string{append(bySocket(t, s, s.Datadir()), "--dry-run"), append(byTCP(t, s, s.Datadir()), "--dry-run"), bySocket(t, s, s.Datadir())} {
				if _, said, code := xbsendOf(t, args...); code != exitDone {
					t.Errorf("%s: exit code %d\n%s", args, code, said)
				}
			}
		}
	}
}

// G3: two jobs with each other's directory, started at the same moment, write
// ddl.log there for each other. Neither may take that for its own doing.
func TestDirectoriesMixedUpAtTheSameMoment(t *testing.T) {
	t.Parallel()
	a, b := twoServers(t, servertest.Options{})
	for range 5 {
		var both sync.WaitGroup
		both.Go(func() { mustRefuseForeign(t, b.Datadir(), bySocket(t, a, b.Datadir())...) })
		both.Go(func() { mustRefuseForeign(t, a.Datadir(), bySocket(t, b, a.Datadir())...) })
		both.Wait()
	}
}

// G3: a copy of the running server's directory is not its directory, and a link
// to that one is.
func TestCopyOfTheDirectoryAndLinkToIt(t *testing.T) {
	t.Parallel()
	a, _ := twoServers(t, servertest.Options{})
	dir := t.TempDir()
	copied, link := filepath.Join(dir, "copied"), filepath.Join(dir, "link")
	// Once with the ddl.log of an earlier backup, which is copied too.
	for range 2 {
		out, err := exec.CommandContext(t.Context(), "cp", "-a", a.Datadir(), copied).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		mustRefuseForeign(t, copied, bySocket(t, a, copied)...)
		check(t, os.RemoveAll(copied))
	}
	check(t, os.Symlink(a.Datadir(), link))
	if _, said, code := xbsendOf(t, bySocket(t, a, link)...); code != exitDone {
		t.Errorf("by a link: exit code %d\n%s", code, said)
	}
}

// G3: a server that does DDL all the time writes ddl.log all the time, too.
func TestDirectoryIsProvedWhileTablesComeAndGo(t *testing.T) {
	t.Parallel()
	a, _ := twoServers(t, servertest.Options{})
	done, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				stopped <- nil
				return
			default:
			}
			name := fmt.Sprintf("d.t%d", n%10)
			if err := a.Exec(t.Context(), "CREATE OR REPLACE TABLE "+name+" (a INT) ENGINE=MyISAM", "DROP TABLE "+name); err != nil {
				stopped <- err
				return
			}
		}
	}()
	for range 10 {
		if _, said, code := xbsendOf(t, append(bySocket(t, a, a.Datadir()), "--dry-run")...); code != exitDone {
			t.Errorf("exit code %d\n%s", code, said)
		}
	}
	close(done)
	check(t, <-stopped)
}

// G3: the redo log may lie elsewhere; it must be the server's as well.
func TestRedoLogOfAnotherServer(t *testing.T) {
	t.Parallel()
	a, b := twoServers(t, servertest.Options{})
	ahead := func(s *servertest.Server, rows int) {
		check(t, s.Exec(t.Context(), fmt.Sprintf("CREATE OR REPLACE TABLE d.much AS SELECT seq, REPEAT('x', 500) b FROM d.seq_1_to_%d", rows), writePages))
	}
	ahead(b, 2000)
	for _, row := range []string{"the log is ahead", "the log is behind"} {
		t.Run(row, func(t *testing.T) {
			for _, more := range [][]string{nil, {"--dry-run"}} {
				args := append(bySocket(t, a, a.Datadir()), append(more, "--innodb-log-group-home-dir="+b.Datadir())...)
				archive, said, code := xbsendOf(t, args...)
				if code != exitServer || len(archive) > 0 || !strings.Contains(lastLine(said), "the redo log in "+b.Datadir()+" is not the one of this server") {
					t.Errorf("%s: exit code %d and %d bytes\n%s", args, code, len(archive), said)
				}
			}
		})
		ahead(a, 20000)
	}
}
