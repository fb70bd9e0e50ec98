package files

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/filename"
	"github.com/xbstream/xbstream/internal/servertest"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

func mustExec(t *testing.T, s *servertest.Server, statements ...string) {
	t.Helper()
	if err := s.Exec(t.Context(), statements...); err != nil {
		t.Fatal(err)
	}
}

func layout(dir string) chunker.Layout {
	return chunker.Layout{DataDir: dir, PageSize: 16 << 10, DataFiles: []chunker.DataFile{{Name: "ibdata1"}}}
}

// find lists everything a Discoverer finds: files as "path class", with the
// source where it is elsewhere, and directories.
func find(t *testing.T, l chunker.Layout) (innodbFiles, others, dirs []string, all []chunker.File) {
	t.Helper()
	d := New(l)
	spaces, err := d.InnoDB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rest, err := d.Others(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range spaces {
		innodbFiles = append(innodbFiles, string(f.Kind)+" "+f.Rel)
	}
	for _, f := range rest {
		others = append(others, fmt.Sprintf("%s %d", f.Rel, f.Class))
	}
	found, err := d.Dirs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if f.Kind != format.KindDir || f.Mode == 0 || f.ModTime.IsZero() {
			t.Errorf("directory %+v", f)
		}
		dirs = append(dirs, f.Path)
	}
	return innodbFiles, others, dirs, slices.Concat(spaces, rest)
}

// TestEveryEngine creates tables of every engine and looks for all their files.
func TestEveryEngine(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.Mkdir(elsewhere, 0o777); err != nil {
		t.Fatal(err)
	}
	s := servertest.New(t, servertest.Options{LogBin: true, Args: []string{"--plugin-load-add=ha_archive", "--symbolic-links=1"}})
	mustExec(t, s, "CREATE DATABASE d", "CREATE DATABASE empty", "CREATE DATABASE `odd-näme$`",
		"CREATE TABLE d.i (a INT) ENGINE=InnoDB",
		"CREATE TABLE d.p (a INT PRIMARY KEY) ENGINE=InnoDB PARTITION BY HASH(a) PARTITIONS 2",
		"CREATE TABLE d.m (a INT) ENGINE=MyISAM", "CREATE TABLE d.a (a INT) ENGINE=Aria", "CREATE TABLE d.n (a INT) ENGINE=Aria TRANSACTIONAL=0",
		"CREATE TABLE d.c (a INT NOT NULL) ENGINE=CSV", "CREATE TABLE d.g (a INT) ENGINE=MERGE UNION=(d.m)",
		"CREATE TABLE d.far (a INT) ENGINE=InnoDB DATA DIRECTORY='"+elsewhere+"'",
		"CREATE VIEW d.v AS SELECT 1", "CREATE SEQUENCE d.s", "CREATE TRIGGER d.tr BEFORE INSERT ON d.i FOR EACH ROW SET NEW.a = 1",
		"CREATE TABLE `odd-näme$`.`tä ble/%` (a INT) ENGINE=InnoDB",
		"CREATE TABLE d.r (a INT) ENGINE=ARCHIVE",
	)
	dir := s.Datadir()
	for _, name := range []string{"d/#sql-1.MYD", "d/#sql-1.frm", "d/x.TMD", "d/notes.txt", "ib_logfile101", "tc.log"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	spaces, others, dirs, all := find(t, layout(dir))

	want := []string{"system ibdata1"}
	for _, name := range []string{"far", "i", "p#P#p0", "p#P#p1", "s"} {
		want = append(want, "tablespace d/"+name+".ibd")
	}
	for _, w := range append(want, "tablespace odd@002dn@1ume@0024/t@1u@0020ble@002f@0025.ibd", "tablespace mysql/innodb_table_stats.ibd") {
		if !slices.Contains(spaces, w) {
			// The names of odd letters are the server's; find out below.
			if !strings.Contains(w, "odd") {
				t.Errorf("%s is missing of %v", w, spaces)
			}
		}
	}
	const (
		schema, table, unknown = chunker.ClassSchema, chunker.ClassTable, chunker.ClassUnknown
		control, aria, log     = chunker.ClassAriaControl, chunker.ClassAria, chunker.ClassAriaLog
		server                 = chunker.ClassServerTable
	)
	for name, class := range map[string]chunker.Class{
		"d/db.opt": schema, "d/i.frm": schema, "d/p.par": schema, "d/v.frm": schema, "d/s.frm": schema, "d/i.TRG": schema, "d/tr.TRN": schema,
		"d/m.MYD": table, "d/m.MYI": table, "d/c.CSV": table, "d/c.CSM": table, "d/g.MRG": table, "d/r.ARZ": table, "d/notes.txt": unknown,
		"d/a.MAD": aria, "d/a.MAI": aria, "d/n.MAD": aria, "mysql/db.MAD": aria,
		"mysql/general_log.CSV": server, "mysql/slow_log.CSM": server, "mysql/table_stats.MAD": server, "mysql/column_stats.MAI": server, "mysql/general_log.frm": schema,
		"aria_log_control": control, "aria_log.00000001": log, "empty/db.opt": schema,
	} {
		if w := name + " " + strconv.Itoa(int(class)); !slices.Contains(others, w) {
			t.Errorf("%s is missing", w)
		}
	}
	for _, f := range all {
		base := filepath.Base(f.Rel)
		if strings.HasSuffix(base, ".isl") || strings.HasPrefix(base, "#sql") || base == "x.TMD" || strings.HasPrefix(base, "ib_") || base == "ibtmp1" || strings.Contains(base, "-bin.") || base == "tc.log" || base == "ddl_recovery.log" {
			t.Errorf("%s is not to be copied", f.Rel)
		}
		if far := f.Rel == "d/far.ibd"; far != (f.Source != "") || far && f.Source != filepath.Join(elsewhere, "d", "far.ibd") {
			t.Errorf("%s has source %q", f.Rel, f.Source)
		}
		if err := format.CheckPath(f.Rel); err != nil {
			t.Error(err)
		}
	}
	for _, w := range []string{"d", "empty", "mysql", "sys", "performance_schema"} {
		if !slices.Contains(dirs, w) {
			t.Errorf("directory %s is missing of %v", w, dirs)
		}
	}
	if !slices.ContainsFunc(all, func(f chunker.File) bool {
		return f.Table == "odd-näme$.tä ble/%" && f.Kind == format.KindTablespace
	}) {
		t.Error("no tablespace is called odd-näme$.tä ble/%")
	}
	// The order under a stage: control file first, logs last.
	if !strings.HasPrefix(others[len(others)-1], "aria_log.") || firstOf(others, control) > firstOf(others, aria) {
		t.Errorf("order %v", others)
	}
	checkAllFilesAreKnown(t, dir, all)
}

func firstOf(others []string, class chunker.Class) int {
	return slices.IndexFunc(others, func(s string) bool { return strings.HasSuffix(s, " "+strconv.Itoa(int(class))) })
}

// checkAllFilesAreKnown: what is not found is left out on purpose.
func checkAllFilesAreKnown(t *testing.T, dir string, all []chunker.File) {
	t.Helper()
	found := map[string]bool{}
	for _, f := range all {
		found[f.Rel] = true
	}
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, p)
		if err != nil || e.IsDir() || found[rel] || !strings.Contains(rel, "/") {
			return err
		}
		switch filepath.Base(rel) {
		case "far.isl", "#sql-1.MYD", "#sql-1.frm", "x.TMD":
		default:
			t.Errorf("%s is not found", rel)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestForeignDirectories: only directories that are databases are walked.
func TestForeignDirectories(t *testing.T) {
	dir := t.TempDir()
	write := func(name string) {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"db/db.opt", "noopt/t.frm", "ndb/t.ibd", "dumps/monday.sql", "#innodb_redo/x.frm", ".git/t.frm", "lost+found/1234", "binlogs/t.frm", "db/mysql-bin.000001", "db/mysql-bin.index", "db/mysql-bin.frm", "db/sub/t.frm", "real/t.MYD"} {
		write(name)
	}
	for _, name := range []string{"empty", "empty+odd"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "t.MYI"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"linked": other, "broken": filepath.Join(other, "nothing"), "real/t.MYI": filepath.Join(other, "t.MYI")} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	// The data directory itself may be a link.
	link := filepath.Join(t.TempDir(), "data")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{dir, link} {
		d := New(chunker.Layout{DataDir: root, ExcludePaths: []string{filepath.Join(root, "binlogs")},
			// A database may have the name of a log.
			ExcludeBases: []string{filepath.Join(root, "db", "mysql-bin"), filepath.Join(root, "noopt")}})
		files, err := d.Others(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, f := range files {
			names = append(names, f.Rel)
			source := ""
			if f.Rel == "real/t.MYI" {
				source = filepath.Join(other, "t.MYI")
			}
			if f.Source != source {
				t.Errorf("%s has source %q, want %q", f.Rel, f.Source, source)
			}
		}
		slices.Sort(names)
		if want := []string{"db/db.opt", "db/mysql-bin.frm", "linked/t.MYI", "noopt/t.frm", "real/t.MYD", "real/t.MYI"}; !slices.Equal(names, want) {
			t.Errorf("found %v, want %v", names, want)
		}
		dirs, err := d.Dirs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		names = nil
		for _, f := range dirs {
			names = append(names, f.Path)
		}
		if want := []string{"db", "empty", "linked", "ndb", "noopt", "real"}; !slices.Equal(names, want) {
			t.Errorf("databases %v, want %v", names, want)
		}
	}
}

func TestLinkFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "db"), 0o755); err != nil {
		t.Fatal(err)
	}
	isl := filepath.Join(dir, "db", "t.isl")
	for content, ok := range map[string]bool{"/far/db/t.ibd": true, "/far/db/t.ibd\n": true, "": false, "db/t.ibd": false} {
		if err := os.WriteFile(isl, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		files, err := New(chunker.Layout{DataDir: dir, DataFiles: nil}).InnoDB(t.Context())
		if (err == nil) != ok {
			t.Errorf("%q: error %v", content, err)
		}
		if ok && (len(files) != 1 || files[0].Abs != "/far/db/t.ibd" || files[0].Source != "/far/db/t.ibd" || files[0].Rel != "db/t.ibd") {
			t.Errorf("%q: %+v", content, files)
		}
	}
}

// TestSystemTablespaceOfTwoFiles: page numbers run on, and the second file is
// checked with the format of the first.
func TestSystemTablespaceOfTwoFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	args := []string{"--no-defaults", "--datadir=" + dir, "--tmpdir=" + t.TempDir(), "--auth-root-authentication-method=normal", "--skip-test-db",
		"--innodb-log-file-size=8M", "--innodb-undo-tablespaces=2", "--innodb-data-file-path=ibdata1:3M;ibdata2:9M:autoextend"}
	if os.Getuid() == 0 {
		args = append(args, "--user=root")
	}
	if out, err := exec.CommandContext(t.Context(), "mariadb-install-db", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// Rows in the system tablespace, so that its second file has pages.
	s := servertest.NewOn(t, dir, servertest.Options{Args: []string{"--innodb-data-file-path=ibdata1:3M;ibdata2:9M:autoextend", "--innodb-file-per-table=0", "--innodb-undo-tablespaces=2"}})
	mustExec(t, s, "CREATE DATABASE d", "CREATE TABLE d.t (a INT PRIMARY KEY, b VARCHAR(600)) ENGINE=InnoDB", "INSERT INTO d.t SELECT seq, REPEAT('b', 600) FROM d.seq_1_to_5000")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	l := layout(dir)
	l.DataFiles = []chunker.DataFile{{Name: "ibdata1", Size: 3 << 20}, {Name: "ibdata2", Size: 9 << 20, Autoextend: true}}
	files, err := New(l).InnoDB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s := files[1].System; s == nil || s.FirstPage != 192 || s.Flags != 0x15 || s.Doublewrite[0] != (innodb.PageRange{First: 64, Count: 64}) {
		t.Errorf("second file %+v", s)
	}
	kinds := map[format.FileKind]int{}
	c := &chunker.Copier{Sink: nullSink{}, PageSize: 16 << 10}
	results, err := c.CopyInnoDB(t.Context(), files)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		kinds[r.Entry.Kind]++
		if second := r.Entry.Path == "ibdata2"; second != (r.Entry.Space.FirstPage == 192) || second && r.Entry.Space.ID != 0 {
			t.Errorf("%s: %+v", r.Entry.Path, r.Entry.Space)
		}
		if r.Entry.Kind == format.KindUndo && r.Entry.Space.ID == 0 || r.Foreign {
			t.Errorf("%s: %+v, foreign %v", r.Entry.Path, r.Entry.Space, r.Foreign)
		}
	}
	if kinds[format.KindSystem] != 2 || kinds[format.KindUndo] != 2 || kinds[format.KindTablespace] == 0 {
		t.Errorf("kinds %v", kinds)
	}
	files[1].System.FirstPage++
	if _, err := c.CopyInnoDB(t.Context(), files[1:2]); err == nil {
		t.Error("pages of the second file pass under other numbers")
	}
}

type nullSink struct{}

func (nullSink) BeginFile(format.File) (format.FileNo, error) { return 1, nil }
func (nullSink) WriteData(_ format.FileNo, _ int64, b *format.Buffer) error {
	b.Release()
	return nil
}
func (nullSink) WriteHole(format.FileNo, int64, int64) error { return nil }
func (nullSink) EndFile(format.FileNo, int64) error          { return nil }

// TestNamesAreDecodedAsTheServerDoes lets a server make file names of many
// letters.
func TestNamesAreDecodedAsTheServerDoes(t *testing.T) {
	s := servertest.New(t, servertest.Options{})
	mustExec(t, s, "CREATE DATABASE d")
	names := []string{"plain_1", "tä ble/%", "ÄÖÜäöüß", "Ωμέγα", "Москва", "ñ@home", "日本語", "a-b.c$d", "ﬀＡｚ", "@0041", "#sql"}
	for _, name := range names {
		mustExec(t, s, "CREATE TABLE d.`"+name+"` (a INT) ENGINE=Aria")
	}
	entries, err := os.ReadDir(filepath.Join(s.Datadir(), "d"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, e := range entries {
		base, ext := cutExt(e.Name())
		found[filename.Decode(base)] = ext != ""
		if !filename.IsEncoded(base) {
			t.Errorf("%s is not taken for a name the server makes", e.Name())
		}
	}
	for _, name := range names {
		if !found[name] {
			t.Errorf("%q is missing of %v", name, found)
		}
	}
	for raw, want := range map[string]string{"": "", "@": "@", "a@": "a@", "@zz": filename.Decode("@zz"), "@00": "@00", "t#P#p0": "t#P#p0"} {
		if got := filename.Decode(raw); got != want {
			t.Errorf("%q decodes to %q", raw, got)
		}
	}
}

// G9: only the mark of a .CSM that has the known form is cleared.
func TestMarkOfAnOpenCSVTableIsCleared(t *testing.T) {
	open := append([]byte{254, 1, 9: 7}, make([]byte, 25)...)
	open[34] = 1
	for _, c := range []struct {
		name    string
		b       []byte
		cleared bool
	}{
		{"open for writing", slices.Clone(open), true},
		{"too long", append(slices.Clone(open), 1), false},
		{"too short", slices.Clone(open[:34]), false},
		{"another version", append([]byte{254, 2}, open[2:]...), false},
		{"another check byte", append([]byte{253, 1}, open[2:]...), false},
	} {
		before := slices.Clone(c.b)
		closeCSV(c.b)
		want := slices.Clone(before)
		if c.cleared {
			want[34] = 0
		}
		if !slices.Equal(c.b, want) {
			t.Errorf("%s: %x became %x", c.name, before, c.b)
		}
	}
}
