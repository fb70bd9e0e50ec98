package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/xbstream/xbstream/internal/servertest"
)

// An ordinary user gets files of his own, and clear words before anything is
// read where he may not have what he asks for. Root's side is a test of extract.
func TestExtractAsOrdinaryUser(t *testing.T) {
	archive := smallArchive(t)
	uid := uint32(os.Geteuid())
	if uid == 0 {
		uid = 65534
	}
	_, xbstream := binaries(t)
	extract := func(dir string, args ...string) (code int, log string) {
		cmd := exec.Command(xbstream, append([]string{"-x", "-C", dir}, args...)...)
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		}
		cmd.Dir = "/"
		cmd.Stdin = bytes.NewReader(archive)
		out, err := cmd.CombinedOutput()
		return exitCode(t, err), string(out)
	}
	// The test's own directories are closed to others.
	home, err := os.MkdirTemp("", "xbtest-owner-")
	check(t, err)
	defer os.RemoveAll(home)
	check(t, os.Chown(home, int(uid), -1))
	closed := filepath.Join(home, "closed")
	check(t, os.Mkdir(closed, 0o500))
	check(t, os.Chown(closed, int(uid), -1))

	own := filepath.Join(home, "own")
	if code, log := extract(own); code != 0 {
		t.Fatalf("exit code %d\n%s", code, log)
	}
	files := 0
	check(t, filepath.WalkDir(own, func(p string, e fs.DirEntry, err error) error {
		check(t, err)
		st, err := e.Info()
		check(t, err)
		if st.Sys().(*syscall.Stat_t).Uid != uid {
			t.Errorf("%s belongs to %d", p, st.Sys().(*syscall.Stat_t).Uid)
		}
		files++
		return nil
	}))
	if files < 6 {
		t.Errorf("%d files", files)
	}

	for _, row := range []struct {
		dir  string
		args []string
		want []string
	}{
		{"foreign", []string{"--chown=0:0"}, []string{"cannot be given to user 0 and group 0, as was asked for (--chown); only root can", "operation not permitted"}},
		{"foreign", []string{"--chown=no-such-user"}, []string{"no such user"}},
		{"closed", nil, []string{closed, "permission denied"}},
		{"closed/new", nil, []string{closed + "/new", "permission denied"}},
	} {
		code, log := extract(filepath.Join(home, row.dir), row.args...)
		if code != exitTarget && !(row.args != nil && strings.Contains(row.args[0], "no-such") && code == 2) {
			t.Errorf("%s %q: exit code %d\n%s", row.dir, row.args, code, log)
		}
		for _, w := range row.want {
			if !strings.Contains(lastLine(log), w) {
				t.Errorf("%s %q does not say %q:\n%s", row.dir, row.args, w, log)
			}
		}
		if _, err := os.Lstat(filepath.Join(home, "foreign")); !os.IsNotExist(err) {
			t.Errorf("%s %q: left a target: %v", row.dir, row.args, err)
		}
		mustNotHold(t, closed, "")
	}
}

// What root prepares belongs to whom the backup was given: a server that runs as
// that user must be able to open it. What lies beside it is left alone.
func TestPrepareKeepsOwner(t *testing.T) {
	uid := uint32(os.Geteuid())
	if uid == 0 {
		uid = 65534
	}
	source := servertest.New(t, servertest.Options{})
	check(t, source.Exec(t.Context(), "CREATE DATABASE mine", "CREATE TABLE mine.a (id INT PRIMARY KEY) ENGINE=InnoDB"))
	archive := filepath.Join(t.TempDir(), "archive.xb")
	sendTo(t, archive, source)
	for _, how := range []string{"--verify", "--with-server", "--export"} {
		t.Run(how, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range []string{"logs/server.log", "lost+found/x"} {
				check(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
				check(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
			}
			receive(t, "-x", "-C", dir, "--into-non-empty", fmt.Sprintf("--chown=%d", uid), archive)
			receive(t, "prepare", how, dir)
			check(t, filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
				check(t, err)
				if p == dir {
					return nil
				}
				st, err := e.Info()
				check(t, err)
				want := uid
				if rel, _ := filepath.Rel(dir, p); strings.HasPrefix(rel, "lo") {
					want = uint32(os.Geteuid())
				}
				if got := st.Sys().(*syscall.Stat_t).Uid; got != want {
					t.Errorf("%s belongs to %d, want %d", p, got, want)
				}
				return nil
			}))
		})
	}
}

// E5: files that a server cannot open because they belong to root are said to,
// with the way out; and a new file system is an empty target.
func TestFilesOfRootAreSaid(t *testing.T) {
	xbsend, xbstream := binaries(t)
	servers, err := scriptServers()
	check(t, err)
	archive, err := exec.Command(xbsend, "--no-defaults", "-uroot", "-S"+servers.usual.Socket()).Output()
	check(t, err)
	root := os.Geteuid() == 0
	target := filepath.Join(t.TempDir(), "disk")
	check(t, os.Mkdir(target, 0o755))
	check(t, os.Mkdir(filepath.Join(target, "lost+found"), 0o700))
	for _, row := range []struct {
		dir  string
		args []string
		want bool
	}{
		{filepath.Join(t.TempDir(), "new"), []string{"--prepare"}, root},
		{target, nil, root},
		{filepath.Join(t.TempDir(), "given"), []string{fmt.Sprintf("--chown=%d:%d", max(1, os.Geteuid()), max(1, os.Getegid()))}, false},
	} {
		cmd := exec.Command(xbstream, append([]string{"-x", "-C", row.dir}, row.args...)...)
		cmd.Stdin = bytes.NewReader(archive)
		log, err := cmd.CombinedOutput()
		check(t, err)
		last := lastLine(string(log))
		if said := strings.Contains(last, "chown -R mysql: "+row.dir) && strings.Contains(last, "--chown mysql:"); said != row.want {
			t.Errorf("%q: said %v, want %v:\n%s", row.args, said, row.want, log)
		}
	}
	// fsck has put something there: then it is a target that holds something.
	full := filepath.Join(t.TempDir(), "disk")
	check(t, os.MkdirAll(filepath.Join(full, "lost+found", "#12"), 0o755))
	cmd := exec.Command(xbstream, "-x", "-C", full)
	cmd.Stdin = bytes.NewReader(archive)
	log, err := cmd.CombinedOutput()
	if exitCode(t, err) != 9 || !strings.Contains(string(log), `it holds "lost+found"; --into-non-empty`) {
		t.Errorf("%v\n%s", err, log)
	}
}
