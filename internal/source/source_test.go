package source

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree is a data directory with a database d and a directory outside, which
// the owner of the data directory may use, and one that it may not.
type tree struct {
	dir, data, open, shut string
}

// strange is a user who owns nothing else.
const strange = 65534

func newTree(t *testing.T) tree {
	t.Helper()
	dir := t.TempDir()
	tr := tree{dir, dir + "/data", dir + "/open", dir + "/shut"}
	for p := dir; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		check(t, os.Chmod(p, 0o755))
	}
	for _, d := range []string{tr.data, tr.data + "/d", tr.open, tr.shut} {
		check(t, os.Mkdir(d, 0o755))
	}
	tr.write(t, tr.data+"/d/t.MYD")
	tr.write(t, tr.open+"/x")
	tr.write(t, tr.shut+"/x")
	tr.write(t, tr.open+"/secret")
	tr.forbid(t, tr.open+"/secret")
	tr.forbid(t, tr.shut)
	return tr
}

func (tr tree) write(t *testing.T, path string) {
	t.Helper()
	check(t, os.WriteFile(path, []byte(filepath.Base(path)), 0o644))
}

// forbid keeps the owner of the data directory from a path: that is another user
// where the test may choose one, and this one else.
func (tr tree) forbid(t *testing.T, path string) {
	t.Helper()
	mode := fs.FileMode(0)
	if os.Getuid() == 0 {
		mode = 0o700
		check(t, os.Chown(tr.data, strange, strange))
	}
	check(t, os.Chmod(path, mode))
	t.Cleanup(func() { os.Chmod(path, 0o700) })
}

func read(r *Root, abs string, linked bool) (string, error) {
	fd, _, err := r.Open(abs, linked)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), abs)
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}

// C1: whatever lies where a file is expected, opening it returns, and what is no
// regular file is refused by name.
func TestWhatIsNoRegularFileIsRefusedByName(t *testing.T) {
	tr := newTree(t)
	db := tr.data + "/d/"
	check(t, unix.Mkfifo(db+"fifo.ibd", 0o644))
	check(t, os.Mkdir(db+"dir.ibd", 0o755))
	t.Chdir(db) // the name of a socket is short
	l, err := net.Listen("unix", "sock.ibd")
	check(t, err)
	defer l.Close()
	check(t, os.Symlink(db+"fifo.ibd", db+"link.MYD"))
	check(t, os.Symlink("/dev/zero", db+"device.MYD"))
	for name, want := range map[string]string{
		"fifo.ibd": "FIFO", "dir.ibd": "directory", "sock.ibd": "socket", "link.MYD": "FIFO", "device.MYD": "device",
	} {
		_, err := read(NewRoot(tr.data), db+name, true)
		if e, ok := errors.AsType[*RefusedError](err); !ok || e.Path != db+name || !strings.Contains(e.Reason, want) {
			t.Errorf("%s below the root: %v", name, err)
		}
		_, _, err = Open(db + name)
		if _, refused := errors.AsType[*RefusedError](err); !refused && name != "sock.ibd" || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// C2: which links are followed, and where to.
func TestLinks(t *testing.T) {
	tr := newTree(t)
	link := func(target, at string) {
		t.Helper()
		check(t, os.Symlink(target, filepath.Join(tr.data, at)))
	}
	link(tr.open, "linkeddb")
	link("../open", "relativedb")
	link(tr.shut, "shutdb")
	link(tr.open+"/x", "d/x.MYD")
	link("../../open/x", "d/relative.MYD")
	link(tr.open+"/./../open//x", "d/odd.MYD")
	link(tr.data+"/d/x.MYD", "d/twice.MYD")
	link(tr.open+"/secret", "d/secret.MYD")
	link(tr.shut+"/x", "d/shut.MYD")
	link("loop.MYD", "d/loop.MYD")
	link(tr.open+"/none", "d/none.MYD")
	check(t, os.Link(tr.open+"/secret", tr.data+"/d/hard.MYD"))
	check(t, os.Link(tr.open+"/x", tr.data+"/d/hardx.MYD"))
	hard := "may not read"
	if os.Getuid() != 0 {
		hard = "permission denied" // the kernel is first
	}
	type row struct {
		path   string
		linked bool
		want   string // what is read; else
		err    string
	}
	for _, r := range []row{
		{"data/d/t.MYD", false, "t.MYD", ""},
		{"data/linkeddb/x", false, "x", ""},
		{"data/relativedb/x", false, "x", ""},
		{"data/d/x.MYD", true, "x", ""},
		{"data/d/relative.MYD", true, "x", ""},
		{"data/d/odd.MYD", true, "x", ""},
		{"data/d/twice.MYD", true, "x", ""},
		{"data/d/hardx.MYD", false, "x", ""},
		{"open/x", false, "x", ""}, // as an .isl file names it

		{"data/d/x.MYD", false, "", "symbolic link"},
		{"data/d/secret.MYD", true, "", "may not read"},
		{"data/d/shut.MYD", true, "", "may not read"},
		{"data/linkeddb/secret", false, "", "may not read"},
		{"data/shutdb/x", false, "", "may not read"},
		{"data/d/hard.MYD", false, "", hard},
		{"open/secret", false, "", "may not read"},
		{"shut/x", false, "", "may not read"},
		{"data/d/loop.MYD", true, "", "too many levels"},
		{"data/d/none.MYD", true, "", "no such file"},
		{"data/none/t.MYD", true, "", "no such file"},
		{"data/d/t.MYD/x", true, "", "not a directory"},
	} {
		root := NewRoot(tr.data)
		got, err := read(root, filepath.Join(tr.dir, r.path), r.linked)
		if r.err == "" && (err != nil || got != r.want) || r.err != "" && (err == nil || !strings.Contains(err.Error(), r.err)) {
			t.Errorf("%s, may be linked %v: %q, %v; want %q %s", r.path, r.linked, got, err, r.want, r.err)
		}
		if err != nil && strings.Contains(r.err, "no such file") != errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, not as files that are gone", r.path, err)
		}
		// The same on a kernel without openat2.
		abs := filepath.Join(tr.dir, r.path)
		rel, below := root.relative(abs)
		w := &walk{root: root, wantFile: true, linked: r.linked}
		fd, _, walkErr := w.open(abs, rel, below)
		if walkErr == nil {
			unix.Close(fd)
		}
		if (walkErr == nil) != (err == nil) {
			t.Errorf("%s step by step: %v; in one: %v", r.path, walkErr, err)
		}
	}
}

// C2: the names in a directory are not read either where the server could not.
func TestReadDirBehindALink(t *testing.T) {
	tr := newTree(t)
	check(t, os.Symlink(tr.open, tr.data+"/linkeddb"))
	check(t, os.Symlink(tr.shut, tr.data+"/shutdb"))
	entries, err := NewRoot(tr.data).ReadDir(tr.data + "/linkeddb")
	if err != nil || len(entries) != 2 || entries[0].Name() != "secret" || entries[1].Name() != "x" {
		t.Errorf("%v, %v", entries, err)
	}
	if entries, err := NewRoot(tr.data).ReadDir(tr.data + "/shutdb"); err == nil {
		t.Errorf("a directory that the server cannot read was read: %v", entries)
	}
}

// The directory of undo tablespaces is trusted as the data directory is, and
// links in it are judged by the data directory's owner.
func TestDirectoryBeside(t *testing.T) {
	tr := newTree(t)
	check(t, os.Symlink(tr.open, tr.dir+"/undo"))
	check(t, os.Symlink("x", tr.open+"/linked"))
	check(t, os.Symlink("secret", tr.open+"/bad"))
	undo := NewRoot(tr.data).Beside(tr.dir + "/undo")
	for name, want := range map[string]bool{"x": true, "linked": true, "secret": true, "bad": false} {
		if _, err := read(undo, tr.dir+"/undo/"+name, true); (err == nil) != want && !(name == "secret" && errors.Is(err, fs.ErrPermission)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if r := NewRoot(tr.data); r.Beside(tr.data+"/") != r {
		t.Error("the same directory is another root")
	}
}

// C2: names that change between file and link while they are opened never give
// what the server may not read.
func TestNamesThatChangeWhileTheyAreOpened(t *testing.T) {
	tr := newTree(t)
	file, link, at := tr.data+"/d/file", tr.data+"/d/link", tr.data+"/d/t.MYI"
	check(t, os.Symlink(tr.open+"/secret", link))
	tr.write(t, file)
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			var err error
			if n%2 == 0 {
				err = errors.Join(os.Remove(file), os.WriteFile(file, []byte("file"), 0o644), os.Rename(file, at), os.WriteFile(file, nil, 0o644))
			} else {
				err = errors.Join(os.Rename(link, at), os.Symlink(tr.open+"/secret", link))
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	root := NewRoot(tr.data)
	var files, refused int
	for files < 200 || refused < 200 {
		got, err := read(root, at, true)
		_, no := errors.AsType[*RefusedError](err)
		switch {
		case err == nil && got == "file":
			files++
		case err == nil:
			t.Fatalf("read %q", got)
		case no || errors.Is(err, unix.ELOOP):
			refused++
		case !errors.Is(err, fs.ErrNotExist):
			t.Fatal(err)
		}
	}
	close(stop)
	check(t, <-done)
}
