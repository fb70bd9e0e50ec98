package extract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/format/formattest"
	mariadb "github.com/xbstream/xbstream/internal/mariadb/redo"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// source is what a test archive is made of.
type source struct {
	files    map[string]string // path to content; content may hold long runs of NUL
	sources  map[string]string // of tablespaces elsewhere: path to path at the source
	late     bool              // the FILE frames do not say so
	dirs     []string
	backup   *format.Backup
	redo     []byte
	manifest func(*format.Manifest) // last changes to the manifest
}

// archive writes s as xbsend would, several files interleaved.
func (s source) archive(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := format.NewWriter(&out, format.WriterOptions{})
	check(t, err)
	m := &format.Manifest{Tool: "test 1", Started: time.Unix(0, 0), Finished: time.Unix(1, 0), Backup: s.backup}
	for _, d := range s.dirs {
		m.Files = append(m.Files, format.File{Path: d, Kind: format.KindDir, Mode: 0o750})
	}
	lsn := format.LSN(0)
	if s.backup != nil {
		lsn = s.backup.Redo.CheckpointLSN
	}
	for path, content := range s.files {
		f := format.File{Path: path, Kind: format.KindFile, Mode: 0o640, Size: int64(len(content))}
		if path == "ibdata1" {
			f.Kind, f.Space = format.KindSystem, &format.Space{PageSize: 16384}
		}
		if s.sources[path] != "" {
			f.Kind, f.Source, f.Space = format.KindTablespace, s.sources[path], &format.Space{ID: format.SpaceID(len(m.Files) + 1), PageSize: 16384}
		}
		said := f
		if s.late {
			said.Source = ""
		}
		f.No, err = w.BeginFile(said)
		check(t, err)
		writeContent(t, w, f.No, content)
		if n := min(len(s.redo), 100); n > 0 {
			check(t, w.WriteRedo(format.RedoPosition(lsn), s.redo[:n]))
			s.redo, lsn = s.redo[n:], lsn+format.LSN(n)
		}
		check(t, w.EndFile(f.No, f.Size))
		m.Files = append(m.Files, f)
	}
	if len(s.redo) > 0 {
		check(t, w.WriteRedo(format.RedoPosition(lsn), s.redo))
	}
	_, err = w.Close(m)
	check(t, err)
	if s.manifest == nil {
		return out.Bytes()
	}
	s.manifest(m)
	return formattest.Rewrite(out.Bytes(), func([]byte) []byte { return formattest.Encode(m) })
}

// writeContent sends runs of 4096 NUL bytes as holes, the last piece first.
func writeContent(t testing.TB, w *format.Writer, no format.FileNo, content string) {
	const piece = 4096
	for off := (len(content) - 1) / piece * piece; off >= 0 && content != ""; off -= piece {
		p := content[off:min(off+piece, len(content))]
		if strings.Trim(p, "\x00") == "" {
			check(t, w.WriteHole(no, int64(off), int64(len(p))))
			continue
		}
		b := format.GetBuffer()
		b.SetLen(copy(b.Space(), p))
		check(t, w.WriteData(no, int64(off), b))
	}
}

// tree reads a directory: path to content.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	check(t, filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		check(t, err)
		rel, _ := filepath.Rel(dir, p)
		if e.IsDir() {
			got[rel+"/"] = ""
			return nil
		}
		b, err := os.ReadFile(p)
		check(t, err)
		got[rel] = string(b)
		return nil
	}))
	return got
}

func ordinary() source {
	rnd := rand.New(rand.NewPCG(1, 2))
	s := source{files: map[string]string{"empty": "", "holes": strings.Repeat("\x00", 20000)}, dirs: []string{"void", "a"}}
	for i := range 40 {
		content := make([]byte, rnd.IntN(30000))
		for j := range content {
			if j/4096%3 != 1 {
				content[j] = byte(rnd.Uint32())
			}
		}
		s.files[fmt.Sprintf("a/d%d/f%d", i%7, i)] = string(content)
	}
	return s
}

// Any number of workers restores the same tree.
func TestExtractRestoresTheTree(t *testing.T) {
	s := ordinary()
	a := s.archive(t)
	for _, j := range []int{1, 2, 8, 300} {
		dir := filepath.Join(t.TempDir(), "new")
		rep, err := Extract(t.Context(), Stream(bytes.NewReader(a), 2), Options{RedoHead: redoHead, Dir: dir, Parallel: j})
		check(t, err)
		if rep.Files != len(s.files) {
			t.Errorf("-j %d: %d files reported, want %d", j, rep.Files, len(s.files))
		}
		got := tree(t, dir)
		for p, want := range s.files {
			if got[p] != want {
				t.Errorf("-j %d: %s differs (%d bytes, want %d)", j, p, len(got[p]), len(want))
			}
		}
		if _, ok := got["void/"]; !ok {
			t.Errorf("-j %d: empty directory is missing", j)
		}
		for p := range got {
			if strings.Contains(p, partialPrefix) {
				t.Errorf("-j %d: %s was left behind", j, p)
			}
		}
	}
}

// P2, P3: an archive cut anywhere leaves nothing, not even the directory.
func TestCutArchiveLeavesNothing(t *testing.T) {
	s := source{files: map[string]string{"a": "one", "b/c": "two", "d": strings.Repeat("\x00", 5000)}}
	a := s.archive(t)
	parent := t.TempDir()
	kept := filepath.Join(parent, "kept")
	check(t, os.Mkdir(kept, 0o700))
	for n := range len(a) {
		dir := kept
		if n%2 == 0 {
			dir = filepath.Join(parent, "new")
		}
		_, err := Extract(t.Context(), Stream(bytes.NewReader(a[:n]), 2), Options{RedoHead: redoHead, Dir: dir})
		if !errors.Is(err, format.ErrDamaged) {
			t.Fatalf("cut after %d of %d bytes: error %v, want ErrDamaged", n, len(a), err)
		}
		if got := tree(t, parent); len(got) != 2 {
			t.Fatalf("cut after %d of %d bytes: left %v", n, len(a), got)
		}
	}
	t.Logf("%d cuts", len(a))
}

// noRead fails the test when it is read from.
type noRead struct{ t *testing.T }

func (r noRead) Read([]byte) (int, error) {
	r.t.Error("the archive was read before the target was refused")
	return 0, io.EOF
}

// P3: a target that is not empty is refused before the first byte is read.
func TestTargetIsRefusedBeforeReading(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	check(t, os.WriteFile(file, []byte("x"), 0o600))
	partial := t.TempDir()
	check(t, os.Mkdir(filepath.Join(partial, partialPrefix+"x"), 0o700))
	for name, dir := range map[string]string{
		"not empty":           filepath.Dir(file),
		"a file":              file,
		"no parent":           filepath.Join(t.TempDir(), "a", "b"),
		"an unfinished one":   partial,
		"no name":             "",
		"below a file":        filepath.Join(file, "x"),
		"not empty, trailing": filepath.Dir(file) + "/",
	} {
		if _, err := Extract(t.Context(), Stream(noRead{t}, 2), Options{RedoHead: redoHead, Dir: dir}); !errors.Is(err, ErrTarget) {
			t.Errorf("%s: error %v, want ErrTarget", name, err)
		}
	}
}

func TestIntoNonEmptyRefusesCollisions(t *testing.T) {
	s := source{files: map[string]string{"a": "new", "b": "new"}}
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "log"), []byte("old"), 0o600))
	_, err := Extract(t.Context(), Stream(bytes.NewReader(s.archive(t)), 2), Options{RedoHead: redoHead, Dir: dir, IntoNonEmpty: true})
	check(t, err)
	if got := tree(t, dir); got["a"] != "new" || got["log"] != "old" {
		t.Errorf("got %v", got)
	}
	dir = t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "b"), []byte("old"), 0o600))
	_, err = Extract(t.Context(), Stream(bytes.NewReader(s.archive(t)), 2), Options{RedoHead: redoHead, Dir: dir, IntoNonEmpty: true})
	if got := tree(t, dir); !errors.Is(err, ErrTarget) || len(got) != 2 || got["b"] != "old" {
		t.Errorf("collision: error %v, left %v", err, got)
	}
}

func TestUnfinishedExtractionIsRemovedOnRequest(t *testing.T) {
	dir := t.TempDir()
	check(t, os.MkdirAll(filepath.Join(dir, partialPrefix+"x", "tree", "mysql"), 0o700))
	s := source{files: map[string]string{"a": "new"}}
	_, err := Extract(t.Context(), Stream(bytes.NewReader(s.archive(t)), 2), Options{RedoHead: redoHead, Dir: dir, RemovePartial: true})
	check(t, err)
	if got := tree(t, dir); len(got) != 3 || got["a"] != "new" {
		t.Errorf("got %v", got)
	}
}

// P3: an extraction killed among its renames is told from a finished one.
func TestExtractionKilledWhilePublishing(t *testing.T) {
	s := source{files: map[string]string{"a/x": "one", "b": "two"}}
	dir := t.TempDir()
	stage := filepath.Join(dir, partialPrefix+"x")
	check(t, os.MkdirAll(filepath.Join(stage, treeDir), 0o700))
	check(t, os.WriteFile(filepath.Join(stage, publishPart), []byte("a\nb\nibdata1\n"), 0o600))
	check(t, os.Mkdir(filepath.Join(dir, "a"), 0o700))
	opt := Options{RedoHead: redoHead, Dir: dir}
	if err := CheckTarget(opt); !errors.Is(err, ErrTarget) {
		t.Errorf("half published: %v, want ErrTarget", err)
	}
	opt.RemovePartial = true
	check(t, CheckTarget(opt))
	// With the last name in place it is a complete directory, perhaps in use.
	check(t, os.WriteFile(filepath.Join(dir, "ibdata1"), []byte("precious"), 0o600))
	if _, err := Extract(t.Context(), Stream(bytes.NewReader(s.archive(t)), 1), opt); !errors.Is(err, ErrTarget) {
		t.Errorf("published: %v, want ErrTarget", err)
	}
	if got := tree(t, dir); got["ibdata1"] != "precious" {
		t.Errorf("left %v", got)
	}
	check(t, os.Remove(filepath.Join(dir, "ibdata1")))
	_, err := Extract(t.Context(), Stream(bytes.NewReader(s.archive(t)), 1), opt)
	check(t, err)
	if got := tree(t, dir); len(got) != 5 || got["b"] != "two" || got["a/x"] != "one" {
		t.Errorf("got %v", got)
	}
}

// P2, P8: a manifest that disagrees with the frames publishes nothing.
func TestManifestThatDisagreesIsRefused(t *testing.T) {
	for name, change := range map[string]func(*format.Manifest){
		"wrong size":         func(m *format.Manifest) { m.Files[0].Size++ },
		"file not named":     func(m *format.Manifest) { m.Files = m.Files[1:] },
		"too many discarded": func(m *format.Manifest) { m.Discarded = 1 },
		"number twice":       func(m *format.Manifest) { m.Files[1].No = m.Files[0].No },
		"number unknown":     func(m *format.Manifest) { m.Files[1].No = 77 },
		"path twice":         func(m *format.Manifest) { m.Files[1].Path = m.Files[0].Path },
		"path leaves":        func(m *format.Manifest) { m.Files[1].Path = "../x" },
		"path absolute":      func(m *format.Manifest) { m.Files[1].Path = "/x" },
		"file under a file":  func(m *format.Manifest) { m.Files[1].Path = m.Files[0].Path + "/x" },
		"our own name":       func(m *format.Manifest) { m.Files[1].Path = format.ManifestName },
		"staging name":       func(m *format.Manifest) { m.Files[1].Path = partialPrefix + "x" },
		"backup, no system":  func(m *format.Manifest) { m.Backup = &format.Backup{} },
		"unknown kind":       func(m *format.Manifest) { m.Files[1].Kind = "device" },
	} {
		s := source{files: map[string]string{"a": "one", "b": "two!"}, manifest: change}
		parent := t.TempDir()
		_, err := Extract(t.Context(), Stream(bytes.NewReader(s.archive(t)), 2), Options{RedoHead: redoHead, Dir: filepath.Join(parent, "new")})
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if got := tree(t, parent); len(got) != 1 {
			t.Errorf("%s: left %v", name, got)
		}
	}
}

func backupOf(redo []byte) source {
	return source{
		files: map[string]string{"ibdata1": "system", "db/t.ibd": "table"},
		redo:  redo,
		backup: &format.Backup{
			Type:   "full-backuped",
			Server: format.Server{Dialect: "mariadb", Version: "10.11.19-MariaDB-0+deb12u1-log", PageSize: 16384, DataFilePath: "ibdata1:12M:autoextend"},
			Redo:   format.Redo{Format: mariadb.FormatName, CheckpointLSN: 15000, CheckpointEndLSN: 15000, EndLSN: 15000 + format.LSN(len(redo)), LastCheckpointLSN: 15100},
			Binlog: &format.BinlogPosition{File: "bin.000001", Position: 42},
			GTID:   "0-1-7",
		},
	}
}

func TestRedoBecomesALinearLog(t *testing.T) {
	redo := bytes.Repeat([]byte("redo"), 100)
	dir := filepath.Join(t.TempDir(), "new")
	_, err := Extract(t.Context(), Stream(bytes.NewReader(backupOf(redo).archive(t)), 2), Options{RedoHead: redoHead, Dir: dir})
	check(t, err)
	got := tree(t, dir)
	log := []byte(got["ib_logfile0"])
	if !bytes.Equal(log[mariadb.StartOffset:], redo) {
		t.Errorf("%d bytes of redo, want %d", len(log)-mariadb.StartOffset, len(redo))
	}
	h, err := mariadb.ParseHeader(log)
	check(t, err)
	if h.Creator != "Backup 10.11.19" || h.FirstLSN != 15000 {
		t.Errorf("log header %+v", h)
	}
	c, err := mariadb.NewestCheckpoint(log, h.FirstLSN)
	check(t, err)
	if c.LSN != 15000 || c.EndLSN != 15000 {
		t.Errorf("checkpoint %+v", c)
	}
	if want := "bin.000001\t42\t0-1-7\n"; got["xtrabackup_binlog_info"] != want {
		t.Errorf("xtrabackup_binlog_info is %q", got["xtrabackup_binlog_info"])
	}
	if want := "backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = 15100\nlast_lsn = 15400\n"; !strings.HasPrefix(got["xtrabackup_checkpoints"], want) {
		t.Errorf("xtrabackup_checkpoints is %q", got["xtrabackup_checkpoints"])
	}
}

// TestRedoCanBeReadAsItArrives reads, whenever redo is said to be there, all
// that is said to be.
func TestRedoCanBeReadAsItArrives(t *testing.T) {
	redo := bytes.Repeat([]byte("redo"), 100)
	var ends []format.RedoPosition
	follow := func(log *os.File, first format.RedoPosition) func(format.RedoPosition) {
		t.Cleanup(func() { log.Close() })
		if first != 15000 {
			t.Errorf("redo starts at %v, want 15000", first)
		}
		return func(end format.RedoPosition) {
			ends = append(ends, end)
			got := make([]byte, end-first)
			if _, err := log.ReadAt(got, mariadb.StartOffset); err != nil || !bytes.Equal(got, redo[:len(got)]) {
				t.Errorf("redo up to %v is not what was sent: %v", end, err)
			}
		}
	}
	prepare := func(context.Context, string) error {
		if want := []format.RedoPosition{15100, 15200, 15400}; !slices.Equal(ends, want) {
			t.Errorf("told of %v before preparing, want %v", ends, want)
		}
		return nil
	}
	_, err := Extract(t.Context(), Stream(bytes.NewReader(backupOf(redo).archive(t)), 2),
		Options{RedoHead: redoHead, Dir: filepath.Join(t.TempDir(), "new"), Redo: follow, Prepare: prepare})
	check(t, err)
	if len(ends) == 0 {
		t.Error("told of nothing")
	}
}

func TestRedoThatDoesNotJoinIsRefused(t *testing.T) {
	redo := bytes.Repeat([]byte("redo"), 100)
	for name, change := range map[string]func(*format.Redo){
		"starts later":           func(r *format.Redo) { r.CheckpointLSN-- },
		"ends earlier":           func(r *format.Redo) { r.EndLSN++ },
		"FILE_CHECKPOINT beyond": func(r *format.Redo) { r.CheckpointEndLSN = r.EndLSN },
		"FILE_CHECKPOINT before": func(r *format.Redo) { r.CheckpointEndLSN = 1 },
		"unknown format":         func(r *format.Redo) { r.Format = "mysql-9" },
	} {
		s := backupOf(redo)
		s.manifest = func(m *format.Manifest) { b := *m.Backup; change(&b.Redo); m.Backup = &b }
		parent := t.TempDir()
		_, err := Extract(t.Context(), Stream(bytes.NewReader(s.archive(t)), 2), Options{RedoHead: redoHead, Dir: filepath.Join(parent, "new")})
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if got := tree(t, parent); len(got) != 1 {
			t.Errorf("%s: left %v", name, got)
		}
	}
}

// P3: prepare sees the complete tree, and its failure publishes nothing.
func TestPrepareRunsBeforePublishing(t *testing.T) {
	a := backupOf([]byte("some redo that nobody applies")).archive(t)
	parent := t.TempDir()
	dir := filepath.Join(parent, "new")
	boom := errors.New("boom")
	_, err := Extract(t.Context(), Stream(bytes.NewReader(a), 2), Options{RedoHead: redoHead, Dir: dir, Prepare: func(_ context.Context, p string) error {
		if got := tree(t, p); got["db/t.ibd"] != "table" || got["ib_logfile0"] == "" {
			t.Errorf("prepare sees %v", got)
		}
		if _, err := os.Stat(filepath.Join(dir, "ibdata1")); err == nil {
			t.Error("published before prepare")
		}
		return boom
	}})
	if !errors.Is(err, ErrPrepare) || !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
	if got := tree(t, parent); len(got) != 1 {
		t.Errorf("left %v", got)
	}
}

// A reader that never answers must not keep a cancelled extraction from
// cleaning up.
func TestCancelledExtractionCleansUp(t *testing.T) {
	a := ordinary().archive(t)
	pr, pw := io.Pipe()
	t.Cleanup(func() { pw.Close() })
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	go func() {
		pw.Write(a[:len(a)/2])
		cancel(stop)
	}()
	parent := t.TempDir()
	if _, err := Extract(ctx, Stream(pr, 2), Options{RedoHead: redoHead, Dir: filepath.Join(parent, "new")}); !errors.Is(err, stop) {
		t.Errorf("error %v, want stop", err)
	}
	if got := tree(t, parent); len(got) != 1 {
		t.Errorf("left %v", got)
	}
}

func TestOwnerAndModes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	s := source{files: map[string]string{"d/a": "x"}, dirs: []string{"d"}}
	there := filepath.Join(t.TempDir(), "there")
	check(t, os.Mkdir(there, 0o755))
	check(t, os.Chown(there, 1234, 1235))
	for _, row := range []struct {
		opt   Options
		owner Owner                  // of what was extracted
		dir   Owner                  // of the target
		modes map[string]fs.FileMode // of both
	}{
		{Options{RedoHead: redoHead, Dir: there}, Owner{1234, 1235}, Owner{1234, 1235}, map[string]fs.FileMode{".": 0o755}},
		{Options{RedoHead: redoHead, Dir: filepath.Join(t.TempDir(), "new")}, Owner{}, Owner{}, map[string]fs.FileMode{".": 0o700}},
		{Options{RedoHead: redoHead, Dir: filepath.Join(t.TempDir(), "new"), Owner: &Owner{1236, 1237}}, Owner{1236, 1237}, Owner{1236, 1237}, map[string]fs.FileMode{".": 0o700}},
		{Options{RedoHead: redoHead, Dir: t.TempDir(), Owner: &Owner{1236, 1237}}, Owner{1236, 1237}, Owner{}, nil},
	} {
		_, err := Extract(t.Context(), Stream(bytes.NewReader(s.archive(t)), 2), row.opt)
		check(t, err)
		want := map[string]fs.FileMode{"d": 0o750, "d/a": 0o640}
		maps.Copy(want, row.modes)
		for p, mode := range want {
			st, err := os.Stat(filepath.Join(row.opt.Dir, p))
			check(t, err)
			owner := row.owner
			if p == "." {
				owner = row.dir
			}
			if st.Mode().Perm() != mode || ownerOf(st) != owner {
				t.Errorf("%+v: %s: mode %v owner %v", row, p, st.Mode(), ownerOf(st))
			}
		}
	}
}

// redoHead is a family's, which the rooms know nothing of.
var redoHead = mariadb.BackupHead
