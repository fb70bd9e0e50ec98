package extract

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xbstream/xbstream/format"
)

// refused extracts a, which must fail and leave nothing, and returns the error.
func refused(t *testing.T, what string, a []byte) error {
	t.Helper()
	parent := t.TempDir()
	_, err := Extract(t.Context(), Stream(bytes.NewReader(a), 2), Options{RedoHead: redoHead, Dir: filepath.Join(parent, "new")})
	if err == nil {
		t.Errorf("%s: extracted", what)
	}
	if got := tree(t, parent); len(got) != 1 {
		t.Errorf("%s: left %v", what, got)
	}
	os.Remove(parent)
	return err
}

// P2, SPEC.md §10: none of the bad archives leaves anything.
func TestBadVectorsLeaveNothing(t *testing.T) {
	names, err := filepath.Glob("../format/testdata/v1-bad-*.xb")
	check(t, err)
	if len(names) < 40 {
		t.Fatalf("only %d bad archives found", len(names))
	}
	for _, name := range names {
		a, err := os.ReadFile(name)
		check(t, err)
		if err := refused(t, name, a); !errors.Is(err, format.ErrDamaged) && !errors.Is(err, format.ErrUnsupported) {
			t.Errorf("%s: error %v, want ErrDamaged or ErrUnsupported", name, err)
		}
	}
}

func TestGoodVectorsExtract(t *testing.T) {
	for name, files := range map[string]int{"three-files": 3, "backup": 2, "zstd": 1} {
		a, err := os.ReadFile("../format/testdata/v1-" + name + ".xb")
		check(t, err)
		rep, err := Extract(t.Context(), Stream(bytes.NewReader(a), 2), Options{RedoHead: redoHead, Dir: filepath.Join(t.TempDir(), "new")})
		check(t, err)
		if rep.Files != files {
			t.Errorf("%s: %d files, want %d", name, rep.Files, files)
		}
	}
}

// frames cuts an archive into its header and its frames.
func frames(a []byte) (parts [][]byte) {
	for off, n := 0, 32; off < len(a); off, n = off+n, 48 {
		if off > 0 {
			n += int(binary.BigEndian.Uint32(a[off+32:]))
		}
		parts = append(parts, a[off:off+n])
	}
	return parts
}

// P2: a sample of the sweep of package format, through to the target.
func TestDamagedArchivesLeaveNothing(t *testing.T) {
	s := source{files: map[string]string{"a": "one", "b/c": "two", "d": strings.Repeat("\x00", 5000)}, dirs: []string{"b"}}
	a := s.archive(t)
	tried := 0
	try := func(what string, a []byte) {
		tried++
		if err := refused(t, what, a); !errors.Is(err, format.ErrDamaged) {
			t.Errorf("%s: error %v, want ErrDamaged", what, err)
		}
	}
	for i := 0; i < len(a); i += 5 {
		a[i] ^= 1 << (i % 8)
		try("a flipped bit", a)
		a[i] ^= 1 << (i % 8)
	}
	parts, other := frames(a), frames(s.archive(t))
	for i := range parts {
		with := func(p ...[]byte) []byte {
			return bytes.Join(append(append(parts[:i:i], p...), parts[i+1:]...), nil)
		}
		try("a dropped frame", with())
		try("a doubled frame", with(parts[i], parts[i]))
		try("a frame of another archive", with(other[min(i, len(other)-1)]))
		if i+1 < len(parts) {
			try("swapped frames", bytes.Join(append(append(parts[:i:i], parts[i+1], parts[i]), parts[i+2:]...), nil))
		}
	}
	try("two archives", append(bytes.Clone(a), a...))
	try("nothing", nil)
	t.Logf("%d variants", tried)
}

// Names that lead somewhere else, or nowhere. What the writer refuses itself is
// among the vectors.
func TestHostileNamesLeaveNothing(t *testing.T) {
	for name, change := range map[string]func(m *format.Manifest){
		"a/../b":           func(m *format.Manifest) { m.Files[0].Path = "x/../y" },
		"absolute":         func(m *format.Manifest) { m.Files[0].Path = "/etc/cron.d/x" },
		"device":           func(m *format.Manifest) { m.Files[0].Path = "/dev/null" },
		"parent":           func(m *format.Manifest) { m.Files[0].Path = "../../x" },
		"NUL":              func(m *format.Manifest) { m.Files[0].Path = "x\x00y" },
		"empty":            func(m *format.Manifest) { m.Files[0].Path = "" },
		"dot":              func(m *format.Manifest) { m.Files[0].Path = "." },
		"backslash":        func(m *format.Manifest) { m.Files[0].Path = `..\x` },
		"long element":     func(m *format.Manifest) { m.Files[0].Path = strings.Repeat("x", 256) },
		"long path":        func(m *format.Manifest) { m.Files[0].Path = strings.Repeat("x/", 2048) + "x" },
		"not UTF-8":        func(m *format.Manifest) { m.Files[0].Path = "x\xff/../y" },
		"the log":          func(m *format.Manifest) { m.Files[0].Path = "ib_logfile0" },
		"info file":        func(m *format.Manifest) { m.Files[0].Path = "xtrabackup_info" },
		"staging":          func(m *format.Manifest) { m.Files[0].Path = partialPrefix + "/x" },
		"dir over a file":  func(m *format.Manifest) { m.Files = append(m.Files, dirEntry(m.Files[0].Path)) },
		"file over a dir":  func(m *format.Manifest) { m.Files[0].Path = m.Files[1].Path + "/x" },
		"dir below a file": func(m *format.Manifest) { m.Files = append(m.Files, dirEntry(m.Files[0].Path+"/x")) },
		"dir twice":        func(m *format.Manifest) { m.Files = append(m.Files, dirEntry("x"), dirEntry("x")) },
		"dir leaves":       func(m *format.Manifest) { m.Files = append(m.Files, dirEntry("x/../../y")) },
		"negative size":    func(m *format.Manifest) { m.Files[0].Size = -1 },
		"size of 2^63-1":   func(m *format.Manifest) { m.Files[0].Size = math.MaxInt64 },
		"number of 2^32-1": func(m *format.Manifest) { m.Files[0].No = math.MaxUint32 },
		"tablespace twice": func(m *format.Manifest) {
			for i := range 2 {
				m.Files[i].Kind, m.Files[i].Space = format.KindTablespace, &format.Space{ID: 7, PageSize: 16384}
			}
		},
	} {
		s := source{files: map[string]string{"a": "one", "b": "two"}, manifest: change}
		if err := refused(t, name, s.archive(t)); !errors.Is(err, format.ErrDamaged) {
			t.Errorf("%s: error %v, want ErrDamaged", name, err)
		}
	}
}

func dirEntry(path string) format.File {
	return format.File{Path: path, Kind: format.KindDir, Mode: 0o755}
}

// Names that differ in case only are two files where the file system says so.
func TestCaseClash(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	s := source{files: map[string]string{"A": "one", "a": "two"}}
	_, err := Extract(t.Context(), Stream(bytes.NewReader(s.archive(t)), 2), Options{RedoHead: redoHead, Dir: dir})
	if _, aerr := os.Stat(filepath.Join(dir, "..", "NEW")); aerr == nil { // case does not matter here
		if err == nil {
			t.Error("one file took the place of the other")
		}
		return
	}
	check(t, err)
	if got := tree(t, dir); got["A"] != "one" || got["a"] != "two" {
		t.Errorf("got %v", got)
	}
}

// Links that are in the target already are never followed.
func TestLinksInTheTargetAreNotFollowed(t *testing.T) {
	s := source{files: map[string]string{"db/t": "table", "f": "file"}, dirs: []string{"db"}}
	a := s.archive(t)
	for _, link := range []string{"db", "f", partialPrefix + "x"} {
		outside, dir := t.TempDir(), t.TempDir()
		check(t, os.WriteFile(filepath.Join(outside, "kept"), []byte("kept"), 0o600))
		check(t, os.Symlink(outside, filepath.Join(dir, link)))
		opt := Options{RedoHead: redoHead, Dir: dir, IntoNonEmpty: true, RemovePartial: true}
		_, err := Extract(t.Context(), Stream(bytes.NewReader(a), 2), opt)
		if removed := strings.HasPrefix(link, partialPrefix); removed != (err == nil) {
			t.Errorf("link %q: error %v", link, err)
		}
		if err != nil && !errors.Is(err, ErrTarget) {
			t.Errorf("link %q: error %v, want ErrTarget", link, err)
		}
		if got := tree(t, outside); len(got) != 2 || got["kept"] != "kept" {
			t.Errorf("link %q: outside of the target are %v", link, got)
		}
	}
}

// Two extractions into one target: the second is refused, and changes nothing of
// what the first one does.
func TestTwoExtractionsIntoOneTarget(t *testing.T) {
	a := ordinary().archive(t)
	dir := filepath.Join(t.TempDir(), "new")
	var second, third error
	opt := Options{RedoHead: redoHead, Dir: dir, Prepare: func(ctx context.Context, _ string) error {
		again := Options{RedoHead: redoHead, Dir: dir, IntoNonEmpty: true, RemovePartial: true}
		second = CheckTarget(again)
		_, third = Extract(ctx, Stream(bytes.NewReader(a), 2), again)
		return nil
	}}
	rep, err := Extract(t.Context(), Stream(bytes.NewReader(a), 2), opt)
	check(t, err)
	for _, err := range []error{second, third} {
		if !errors.Is(err, ErrTarget) || !strings.Contains(err.Error(), "another extraction") {
			t.Errorf("the second: %v", err)
		}
	}
	if got := tree(t, dir); len(got) < rep.Files {
		t.Errorf("%d entries of %d files", len(got), rep.Files)
	}
	// It is free again.
	if err := CheckTarget(Options{RedoHead: redoHead, Dir: dir, IntoNonEmpty: true}); err != nil {
		t.Error(err)
	}
}

// An archive of ordinary files brings back their times, a backup does not.
func TestTimesAreRestored(t *testing.T) {
	then := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	old := func(m *format.Manifest) {
		for i := range m.Files {
			m.Files[i].ModTime = then
		}
	}
	for _, backup := range []bool{false, true} {
		s := source{files: map[string]string{"d/f": "x"}, dirs: []string{"d"}}
		if backup {
			s = backupOf([]byte("redo"))
			s.files["d/f"], s.dirs = "x", []string{"d"}
		}
		s.manifest = old
		dir := filepath.Join(t.TempDir(), "new")
		_, err := Extract(t.Context(), Stream(bytes.NewReader(s.archive(t)), 2), Options{RedoHead: redoHead, Dir: dir})
		check(t, err)
		for _, p := range []string{"d", "d/f"} {
			st, err := os.Stat(filepath.Join(dir, p))
			check(t, err)
			if st.ModTime().Equal(then) == backup {
				t.Errorf("backup %v: %s has time %v", backup, p, st.ModTime())
			}
			if want := map[bool]fs.FileMode{true: 0o750, false: 0o640}[st.IsDir()]; st.Mode().Perm() != want {
				t.Errorf("%s has mode %v, want %v", p, st.Mode(), want)
			}
		}
	}
}
