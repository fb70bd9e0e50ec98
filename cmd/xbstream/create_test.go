package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/cli"
)

// ordinaryTree makes files of several sizes, modes and times, some with holes.
func ordinaryTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for i, size := range []int{0, 1, 100, 1<<20 - 1, 1 << 20, 1<<20 + 1, 5 << 20} {
		name := filepath.Join(dir, "d", strings.Repeat("e/", i%3), "f"+string(rune('0'+i)))
		check(t, os.MkdirAll(filepath.Dir(name), 0o750))
		content := bytes.Repeat([]byte("content "), size/8+1)[:size]
		if i == 6 {
			clear(content[1<<20 : 4<<20])
		}
		check(t, os.WriteFile(name, content, 0o600))
		check(t, os.Chmod(name, fs.FileMode(0o600|i)))
		check(t, os.Chtimes(name, time.Time{}, time.Unix(int64(1e9+i), 123456789)))
	}
	check(t, os.Mkdir(filepath.Join(dir, "empty"), 0o700))
	check(t, os.Chtimes(filepath.Join(dir, "empty"), time.Time{}, time.Unix(1e9, 0)))
	check(t, os.Chtimes(filepath.Join(dir, "d"), time.Time{}, time.Unix(2e9, 0)))
	return dir
}

// create | extract gives the same files, modes and times, and leaves holes where
// there is nothing but zeros.
func TestCreatedArchivesRestore(t *testing.T) {
	source := ordinaryTree(t)
	id, err := age.GenerateX25519Identity()
	check(t, err)
	key := filepath.Join(t.TempDir(), "key")
	check(t, os.WriteFile(key, []byte(id.String()+"\n"), 0o600))
	for _, args := range [][]string{nil, {"--compress"}, {"-r", id.Recipient().String()}, {"--compress=best", "-j1", "-r", id.Recipient().String()}} {
		code, archive, log := xbstream(t, strings.NewReader(""), append([]string{"create", "-C", source, "."}, args...)...)
		if code != cli.ExitDone {
			t.Fatalf("%q: exit code %d\n%s", args, code, log)
		}
		if code, _, log := xbstream(t, strings.NewReader(archive), "verify", "-i", key); code != cli.ExitDone {
			t.Errorf("%q: verify: exit code %d\n%s", args, code, log)
		}
		dir := filepath.Join(t.TempDir(), "new")
		if code, _, log := xbstream(t, strings.NewReader(archive), "extract", "-i", key, "-C", dir); code != cli.ExitDone {
			t.Fatalf("%q: extract: exit code %d\n%s", args, code, log)
		}
		check(t, os.Remove(filepath.Join(dir, "xbstream_manifest.json")))
		sameAttributes(t, dir, source)
		st, err := os.Stat(filepath.Join(dir, "d", "f6"))
		check(t, err)
		if used := st.Sys().(*syscall.Stat_t).Blocks * 512; used > 3<<20 {
			t.Errorf("%q: a file of 5 MiB with a hole of 3 takes %d bytes", args, used)
		}
	}
}

// A2: plain --compress means fast.
func TestPlainCompressIsFast(t *testing.T) {
	dir := t.TempDir()
	var text strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&text, "%d green bottles hanging on wall %x\n", i%977, i*i)
	}
	check(t, os.WriteFile(filepath.Join(dir, "text"), []byte(text.String()), 0o600))
	size := map[string]int{}
	for _, flag := range []string{"--compress", "--compress=fast", "--compress=default"} {
		code, archive, log := xbstream(t, strings.NewReader(""), "create", "-C", dir, flag, "text")
		if code != cli.ExitDone {
			t.Fatalf("%s: exit code %d\n%s", flag, code, log)
		}
		size[flag] = len(archive)
	}
	// The manifest has the time, with more or fewer digits.
	if plain, fast, other := size["--compress"], size["--compress=fast"], size["--compress=default"]; max(plain-fast, fast-plain) > 100 || max(plain-other, other-plain) < 1000 {
		t.Errorf("bytes: %v", size)
	}
}

func sameAttributes(t *testing.T, got, want string) {
	t.Helper()
	seen := 0
	walk := func(a, b string, compare bool) {
		check(t, filepath.WalkDir(a, func(p string, e fs.DirEntry, err error) error {
			rel, _ := filepath.Rel(a, p)
			if rel == "." || err != nil {
				return err
			}
			x, err := os.Stat(p)
			check(t, err)
			y, err := os.Stat(filepath.Join(b, rel))
			if err != nil {
				t.Errorf("%s is in %s only", rel, a)
				return nil
			}
			if !compare {
				return nil
			}
			seen++
			if x.Mode() != y.Mode() || !x.ModTime().Equal(y.ModTime()) {
				t.Errorf("%s: %v %v, want %v %v", rel, x.Mode(), x.ModTime(), y.Mode(), y.ModTime())
			}
			if e.Type().IsRegular() {
				xb, err := os.ReadFile(p)
				check(t, err)
				yb, err := os.ReadFile(filepath.Join(b, rel))
				check(t, err)
				if !bytes.Equal(xb, yb) {
					t.Errorf("%s differs", rel)
				}
			}
			return nil
		}))
	}
	walk(got, want, true)
	walk(want, got, false)
	if seen < 10 {
		t.Errorf("only %d entries compared", seen)
	}
}

func TestCreateRefusesWhatIsNoFile(t *testing.T) {
	for what, make := range map[string]func(string) error{
		"link":   func(p string) error { return os.Symlink("/etc/passwd", p) },
		"fifo":   func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"socket": func(p string) error { return syscall.Mknod(p, syscall.S_IFSOCK|0o600, 0) },
	} {
		dir := t.TempDir()
		check(t, os.WriteFile(filepath.Join(dir, "a"), []byte("x"), 0o600))
		check(t, make(filepath.Join(dir, "special")))
		code, out, log := xbstream(t, strings.NewReader(""), "create", "-C", dir, ".")
		if code == cli.ExitDone || !strings.Contains(log, "special: neither a file nor a directory") {
			t.Errorf("%s: exit code %d, %q", what, code, log)
		}
		if code, _, _ := xbstream(t, strings.NewReader(out), "verify"); code == cli.ExitDone {
			t.Errorf("%s: what was written is an archive", what)
		}
	}
	for _, p := range []string{"../x", "/etc/passwd", "missing"} {
		if code, _, _ := xbstream(t, strings.NewReader(""), "create", "-C", t.TempDir(), p); code == cli.ExitDone {
			t.Errorf("path %q was archived", p)
		}
	}
}

// changing writes to a file as soon as the archive's first bytes arrive, when
// the file was found and not yet read to its end.
type changing struct {
	change func() error
	out    bytes.Buffer
	err    error
}

func (c *changing) Write(p []byte) (int, error) {
	if c.change != nil {
		c.err, c.change = c.change(), nil
	}
	return c.out.Write(p)
}

// P2: a file that is not what it was when it was found makes no archive.
func TestFileThatChangesIsRefused(t *testing.T) {
	for what, change := range map[string]func(name string) error{
		"grows":   func(name string) error { return appendTo(name) },
		"shrinks": func(name string) error { return os.Truncate(name, 10) },
		"touched": func(name string) error { return os.Chtimes(name, time.Time{}, time.Unix(5, 0)) },
	} {
		dir := t.TempDir()
		name := filepath.Join(dir, "f")
		check(t, os.WriteFile(name, bytes.Repeat([]byte("x"), 3<<20), 0o600))
		out := &changing{change: func() error { return change(name) }}
		n := creation{dir: dir, parallel: 1, bar: new(cli.Progress)}
		_, err := n.run(t.Context(), out, []string{"."})
		check(t, out.err)
		if !errors.Is(err, errChanged) {
			t.Errorf("%s: error %v", what, err)
		}
		r, err := format.NewReader(&out.out, format.ReaderOptions{})
		for err == nil {
			_, err = r.Next()
		}
		if err == io.EOF || !errors.Is(err, format.ErrDamaged) {
			t.Errorf("%s: what was written reads with error %v", what, err)
		}
	}
}

func appendTo(name string) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("more")
	return errors.Join(err, f.Close())
}
