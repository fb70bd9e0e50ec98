package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xbstream/xbstream/internal/servertest"
)

// sent is what became of one xbsend.
type sent struct {
	archive []byte
	said    string
	code    int
	took    time.Duration
}

// send backs a server up. A minute is far more than it takes: one that waits for
// ever fails the test.
func send(t *testing.T, source *servertest.Server, args ...string) sent {
	t.Helper()
	xbsend, _ := binaries(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, xbsend, append([]string{"--no-defaults", "--user=root", "--socket=" + source.Socket()}, args...)...)
	var archive, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &archive, &said
	began := time.Now()
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || !exit.Exited()) {
		t.Fatalf("%v\n%s", err, &said)
	}
	return sent{archive.Bytes(), said.String(), cmd.ProcessState.ExitCode(), time.Since(began)}
}

func newDatabase(t *testing.T) (source *servertest.Server, db string) {
	t.Helper()
	source = servertest.New(t, servertest.Options{})
	check(t, source.Exec(t.Context(), "CREATE DATABASE d", "CREATE TABLE d.t (a INT) ENGINE=InnoDB", "CREATE TABLE d.m (a INT) ENGINE=MyISAM"))
	return source, filepath.Join(source.Datadir(), "d")
}

// C1: what is no regular file where a table's file is expected ends the backup,
// by name and at once.
func TestStrangeFilesOfTablesAreRefusedByName(t *testing.T) {
	source, db := newDatabase(t)
	fifo := func(path string) error { return unix.Mkfifo(path, 0o644) }
	link := func(path string) error { return os.Symlink("t.frm", path) }
	for _, c := range []struct {
		name string
		make func(path string) error
		why  string
	}{
		{"x.ibd", fifo, "a FIFO"}, {"x.isl", fifo, "a FIFO"}, {"x.MYD", fifo, "a FIFO"}, {"x.frm", fifo, "a FIFO"}, {"db.opt", nil, ""},
		{"x.ibd", func(path string) error { return os.Mkdir(path, 0o755) }, "a directory"},
		{"x.MYI", func(path string) error { return os.Symlink("/dev/zero", path) }, "a device"},
		{"x.ibd", link, "a symbolic link"}, {"x.isl", link, "a symbolic link"}, {"x.frm", link, "a symbolic link"}, {"x.CSV", link, "a symbolic link"},
	} {
		if c.make == nil {
			continue
		}
		path := filepath.Join(db, c.name)
		check(t, c.make(path))
		for _, args := range [][]string{nil, {"--dry-run"}} {
			if s := send(t, source, args...); args == nil && s.code == 0 || strings.HasSuffix(c.name, "ibd") && s.code == 0 ||
				s.code != 0 && (!strings.Contains(s.said, path) || !strings.Contains(s.said, c.why)) {
				t.Errorf("%s, %s, %q: exit %d\n%s", c.name, c.why, args, s.code, s.said)
			}
		}
		check(t, os.Remove(path))
	}
	if s := send(t, source); s.code != 0 {
		t.Fatalf("and without: exit %d\n%s", s.code, s.said)
	}
}

// C1: a FIFO that comes while DDL is blocked does not keep it blocked.
func TestFIFOMadeUnderTheLocks(t *testing.T) {
	source, db := newDatabase(t)
	hooked(t, "none/none", func(event, _ string) error {
		if event == "reconcile" {
			return unix.Mkfifo(filepath.Join(db, "x.ibd"), 0o644)
		}
		return nil
	})
	s := send(t, source)
	if s.code == 0 || !strings.Contains(s.said, "x.ibd") || !strings.Contains(s.said, "a FIFO") || s.took > 20*time.Second {
		t.Errorf("exit %d after %v\n%s", s.code, s.took, s.said)
	}
	check(t, noSession(source))
}

// C2: names and links that no server makes are left out, each with one warning;
// the backup succeeds.
func TestWhatNoServerMakesIsLeftOut(t *testing.T) {
	source, db := newDatabase(t)
	data := source.Datadir()
	for _, dir := range []string{"new\nline", "esc\x1b[2J"} {
		check(t, os.Mkdir(filepath.Join(data, dir), 0o755))
		check(t, os.WriteFile(filepath.Join(data, dir, "t.frm"), []byte("x"), 0o644))
	}
	check(t, os.WriteFile(filepath.Join(db, "new\nline.frm"), []byte("x"), 0o644))
	check(t, os.WriteFile(filepath.Join(db, "new\nline.ibd"), []byte("x"), 0o644))
	check(t, os.WriteFile(filepath.Join(db, "bad\xff.txt"), []byte("x"), 0o644))
	check(t, unix.Mkfifo(filepath.Join(db, "notes"), 0o644))
	check(t, os.Symlink("t.frm", filepath.Join(db, "notes.txt")))
	check(t, os.Symlink("loop", filepath.Join(data, "loop")))
	check(t, os.Mkdir(filepath.Join(db, "sub"), 0o755))
	check(t, os.Symlink("..", filepath.Join(db, "sub", "up")))
	s := send(t, source)
	if s.code != 0 {
		t.Fatalf("exit %d\n%s", s.code, s.said)
	}
	for _, name := range []string{`new\nline"`, `esc\x1b[2J"`, `d/new\nline.frm"`, `d/new\nline.ibd"`, `d/bad\xff.txt"`, `d/notes"`, `d/notes.txt"`, `/loop"`, `d/sub"`} {
		if n := strings.Count(s.said, name+" is left out"); n != 1 {
			t.Errorf("%s is named %d times", name, n)
		}
	}
	if strings.Contains(s.said, "\x1b") {
		t.Error("a name was printed raw")
	}
	if t.Failed() {
		t.Log(s.said)
	}
	archive := filepath.Join(t.TempDir(), "archive")
	check(t, os.WriteFile(archive, s.archive, 0o644))
	_, xbstream := binaries(t)
	if out, err := exec.Command(xbstream, "verify", archive).CombinedOutput(); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

// C2: the owner of the data directory cannot have a file read by root that it
// may not read itself, by whatever link.
func TestLinksLeadNowhereTheServerMayNotRead(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("only root may read what others may not")
	}
	source, db := newDatabase(t)
	data := source.Datadir()
	outside := t.TempDir()
	for p := outside; p != "/"; p = filepath.Dir(p) {
		st, err := os.Stat(p)
		check(t, err)
		check(t, os.Chmod(p, st.Mode().Perm()|0o055))
	}
	const secret = "only-root-may-read-this"
	hidden, file := filepath.Join(outside, "hidden"), filepath.Join(outside, "file")
	check(t, os.Mkdir(hidden, 0o700))
	for _, f := range []string{file, filepath.Join(hidden, "notes.txt"), filepath.Join(hidden, "x.opt"), filepath.Join(hidden, "x.frm")} {
		check(t, os.WriteFile(f, []byte(secret), 0o644))
	}
	check(t, os.Chmod(file, 0o600))
	check(t, os.Chown(data, 65534, 65534))
	isl := filepath.Join(outside, "isl")
	check(t, os.WriteFile(isl, []byte(file+"\n"), 0o644))
	for name, c := range map[string]struct {
		make func() error
		at   string
		left bool // left out: exit 0
	}{
		"a file of no table":     {func() error { return os.Symlink(file, db+"/evil.txt") }, db + "/evil.txt", true},
		"a table":                {func() error { return os.Symlink(file, db+"/x.MYD") }, db + "/x.MYD", false},
		"a file in a shut place": {func() error { return os.Symlink(hidden+"/notes.txt", db+"/x.MAI") }, db + "/x.MAI", false},
		"a database":             {func() error { return os.Symlink(hidden, data+"/evil") }, data + "/evil", false},
		"a hard link":            {func() error { return os.Link(file, db+"/evil.txt") }, db + "/evil.txt", false},
		"a link to a link":       {func() error { return errors.Join(os.Symlink(file, db+"/a"), os.Symlink("a", db+"/x.MYD")) }, db + "/x.MYD", false},
		"an .isl file":           {func() error { return os.Link(isl, db+"/x.isl") }, db + "/x.isl", false},
		"a log of Aria":          {func() error { return os.Symlink(file, data+"/aria_log.00000099") }, data + "/aria_log.00000099", false},
		"an undo tablespace":     {func() error { return os.Symlink(file, data+"/undo099") }, data + "/undo099", false},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, c.make())
			defer os.Remove(db + "/a")
			defer os.Remove(c.at)
			s := send(t, source)
			if bytes.Contains(s.archive, []byte(secret)) {
				t.Error("it is in the archive")
			}
			if (s.code == 0) != c.left || !strings.Contains(s.said, "evil") && !strings.Contains(s.said, "may not read") {
				t.Errorf("exit %d\n%s", s.code, s.said)
			}
		})
	}
}

// C7, G9: a link file of no table that leads to what is no tablespace is left out,
// with a warning that does not call it empty.
func TestLinkFileThatNamesNoTablespace(t *testing.T) {
	source, db := newDatabase(t)
	text := filepath.Join(t.TempDir(), "notes.txt")
	check(t, os.WriteFile(text, bytes.Repeat([]byte("These are notes.\n"), 4000), 0o644))
	check(t, os.WriteFile(db+"/x.isl", []byte(text+"\r\n"), 0o644))
	s := send(t, source)
	if s.code != 0 || !strings.Contains(s.said, text) || !strings.Contains(s.said, "it is not a tablespace") || strings.Contains(s.said, "empty") {
		t.Errorf("exit %d\n%s", s.code, s.said)
	}
	for _, path := range []string{"relative.ibd", "/a\nb.ibd", strings.Repeat("/long", 2000), ""} {
		check(t, os.WriteFile(db+"/x.isl", []byte(path), 0o644))
		if s := send(t, source); s.code == 0 || !strings.Contains(s.said, "x.isl") || strings.Count(s.said, "\n") > 2 {
			t.Errorf("%.20q: exit %d\n%s", path, s.code, s.said)
		}
	}
}
