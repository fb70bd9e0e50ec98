package e2e

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

// G9: files among the tables that are none of a table's: what looks like a
// tablespace and is none is left out by name, big other ones are told of.
func TestFilesThatNoTableUses(t *testing.T) {
	t.Parallel()
	source := servertest.New(t, servertest.Options{})
	check(t, source.Exec(t.Context(), "CREATE DATABASE d", "CREATE TABLE d.t"+rows+"ENGINE=InnoDB", "INSERT INTO d.t VALUES (1, 'x')", writePages))
	garbage := make([]byte, 300<<10)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(garbage)
	put := func(name string, b []byte) string {
		name = filepath.Join(source.Datadir(), "d", name)
		check(t, os.WriteFile(name, b, 0o660))
		return name
	}
	leftOut := []string{
		put("rnd.ibd", garbage),
		put("same.ibd", bytes.Repeat([]byte{0xAA}, 300<<10)), // both space ids are equal
		put("noise.ibd", []byte("hello")),
	}
	table, err := os.ReadFile(filepath.Join(source.Datadir(), "d", "t.ibd"))
	check(t, err)
	big := put("t.ibd.bak", append(table, make([]byte, 2<<20)...))
	small := put("notes.txt", []byte("hello"))
	dir := filepath.Join(t.TempDir(), "copy")
	said, _ := pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + source.Socket()}, []string{"xbstream", "-x", "--prepare", "-C", dir})
	for _, name := range leftOut {
		line := lineWith(said, name)
		if !strings.Contains(line, "warning") || !strings.Contains(line, "no table uses is left out") || strings.Contains(line, "empty") {
			t.Errorf("of %s it says %q", name, line)
		}
		if strings.Count(said, name) != 1 {
			t.Errorf("%s is named %d times", name, strings.Count(said, name))
		}
		if _, err := os.Stat(filepath.Join(dir, "d", filepath.Base(name))); !os.IsNotExist(err) {
			t.Errorf("%s is in the copy: %v", name, err)
		}
	}
	if line := lineWith(said, big); !strings.Contains(line, "includes files that no storage engine uses") || !strings.Contains(line, "2.1 MiB") {
		t.Errorf("of %s it says %q", big, line)
	}
	if strings.Contains(said, small) {
		t.Errorf("it names a small file:\n%s", said)
	}
	startCopy(t, dir)

	// A table that the dictionary knows is damaged, whatever its file holds.
	check(t, source.Stop())
	put("t.ibd", garbage)
	check(t, source.Restart(t.Context()))
	if _, said, code := xbsendOf(t, "--no-defaults", "--user=root", "--socket="+source.Socket()); code != 7 || !strings.Contains(lastLine(said), "t.ibd") {
		t.Errorf("exit code %d, want 7\n%s", code, said)
	}
}

func lineWith(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return ""
}

// G9: log tables are written all the time; the copy's are not called crashed.
func TestLogTablesAreWholeInTheCopy(t *testing.T) {
	t.Parallel()
	logs := []string{"--log-output=TABLE", "--general-log=1", "--slow-query-log=1", "--long-query-time=0"}
	source := servertest.New(t, servertest.Options{Args: logs})
	done, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-done:
				stopped <- nil
				return
			case <-time.After(time.Millisecond):
			}
			if err := source.Exec(t.Context(), "DO 'a statement to be logged'"); err != nil {
				stopped <- err
				return
			}
		}
	}()
	dir := filepath.Join(t.TempDir(), "copy")
	pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + source.Socket()}, []string{"xbstream", "-x", "--prepare", "-C", dir})
	close(done)
	check(t, <-stopped)
	// Opened for reading, and for writing.
	for _, args := range [][]string{nil, logs} {
		copied := servertest.NewOn(t, dir, servertest.Options{Args: args})
		for _, table := range []string{"general_log", "slow_log"} {
			if n, err := copied.String(t.Context(), "SELECT COUNT(*) FROM mysql."+table); err != nil || n == "0" {
				t.Errorf("%s holds %s rows, %v", table, n, err)
			}
		}
		if log := copied.ErrorLog(); strings.Contains(log, "crashed") {
			t.Errorf("the copy's error log:\n%s", log)
		}
		check(t, copied.Stop())
	}
}
