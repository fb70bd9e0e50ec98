package prepare

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
	_ "github.com/xbstream/xbstream/internal/families" // whose redo is read
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/filename"
	"github.com/xbstream/xbstream/internal/mariadb/redo"
	"github.com/xbstream/xbstream/internal/spaces"
)

// killedDir names the directory a copy of this test binary is to prepare, so
// that a test can kill it.
const killedDir = "XB_TEST_PREPARE_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killedDir); dir != "" {
		if _, err := Run(context.Background(), dir, Options{Memory: minMemory}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestRun(t *testing.T) {
	backup := takeBackup(t, peerCase{
		tables: slices.Concat(tablesPlain, tablesSpecial, []tableKind{zipKind(4)}),
		ddl:    true, setup: flushing,
		install: []string{"--innodb-undo-tablespaces=3"},
		args: []string{"--innodb-undo-log-truncate=ON", "--innodb-max-undo-log-size=10M", "--innodb-purge-rseg-truncate-frequency=1",
			"--innodb-log-file-size=512M"},
		during: truncateUndo,
		usable: hasRedo(minMemory * 3 / 2), // a batch takes less than a third of it
	})
	want := copySpaces(t, backup)
	rep, err := Run(context.Background(), want, Options{Parallel: 1})
	if err != nil {
		t.Fatal(err)
	}
	if rep.Batches != 1 || rep.Applied == 0 || rep.PagesWritten == 0 {
		t.Errorf("report says nothing was done: %+v", rep)
	}

	t.Run("same result in many batches by many workers", func(t *testing.T) {
		dir := copyTree(t, backup)
		rep, err := Run(context.Background(), dir, Options{Memory: minMemory, Parallel: 8, Verify: true})
		if err != nil {
			t.Fatal(err)
		}
		if rep.Batches < 3 || rep.PagesVerified == 0 {
			t.Errorf("%d batches, %d pages verified; the case is not what it should be", rep.Batches, rep.PagesVerified)
		}
		sameTree(t, dir, want)
	})
	t.Run("second run does nothing", func(t *testing.T) {
		dir := copyTree(t, want)
		rep, err := Run(context.Background(), dir, Options{})
		if err != nil || !rep.AlreadyPrepared {
			t.Errorf("%+v, %v; want a no-op", rep, err)
		}
		sameTree(t, dir, want)
	})
	t.Run("killed and run again", func(t *testing.T) { testKilled(t, rotated(t, backup), want) })
	t.Run("with a manifest", func(t *testing.T) { testManifest(t, backup) })
	t.Run("damage", func(t *testing.T) { testDamage(t, backup) })
}

// rotated returns the backup with three tables under each other's names, as if
// they had been copied before they were renamed.
func rotated(t *testing.T, backup string) string {
	t.Helper()
	dir := copySpaces(t, backup)
	state, err := backupdir.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	histories := historyOf(t, dir, func(pageKey, bool) {})
	tr := treeFound(t, dir, state, histories)
	var names []string
	for id, s := range tr.Spaces {
		if name, ok := histories[id].FinalPath(); ok && !s.Fresh && len(names) < 3 {
			names = append(names, tr.Path(name))
		}
	}
	if len(names) < 3 {
		// A server that was too slow for that: the rest of the test is no
		// worse for it.
		t.Logf("only %d tables were renamed during the backup and copied", len(names))
		return dir
	}
	for i, from := range []string{names[0], names[1], names[2], names[0] + "x"} {
		to := []string{names[0] + "x", names[0], names[1], names[2]}[i]
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// treeFound finds the tablespaces that mariabackup left, under their final names.
func treeFound(t *testing.T, dir string, state *backupdir.State, histories spaces.Histories) *spaces.Tree {
	t.Helper()
	tr := spaces.NewTree(dir, state.Server.PageSize)
	if err := tr.SettleMarkers(); err != nil {
		t.Fatal(err)
	}
	if err := tr.ClaimSystem(state.SystemFiles()); err != nil {
		t.Fatal(err)
	}
	if err := tr.SettleFound(histories, 2); err != nil {
		t.Fatal(err)
	}
	return tr
}

// sameTree compares every file of two directories.
func sameTree(t *testing.T, got, want string) {
	t.Helper()
	seen := map[string]bool{}
	for _, dir := range []string{want, got} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			rel, _ := filepath.Rel(dir, path)
			if err != nil || d.IsDir() || seen[rel] {
				return err
			}
			seen[rel] = true
			if sameFile(filepath.Join(got, rel), filepath.Join(want, rel)) {
				return nil
			}
			x, err := os.ReadFile(filepath.Join(got, rel))
			if err != nil {
				t.Errorf("%v", err)
				return nil
			}
			y, err := os.ReadFile(filepath.Join(want, rel))
			if err != nil {
				t.Errorf("%s should not be there", rel)
				return nil
			}
			if !bytes.Equal(x, y) {
				t.Errorf("%s differs: %d bytes, want %d, first difference at %d", rel, len(x), len(y), firstDifference(x[:min(len(x), len(y))], y))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// sameFile says whether both names are links to one file.
func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// testKilled kills a preparation at random moments and runs it again.
func testKilled(t *testing.T, backup, want string) {
	start := time.Now()
	if out, err := prepareElsewhere(copyTree(t, backup)).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	whole := time.Since(start)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, one run takes %v", seed, whole)
	random := rand.New(rand.NewPCG(seed, 0))
	killed := 0
	for range 30 {
		dir := copySpaces(t, backup)
		for range 2 {
			c := prepareElsewhere(dir)
			start := time.Now()
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			timer := time.AfterFunc(time.Duration(random.Int64N(int64(whole))), func() { _ = c.Process.Kill() })
			if c.Wait() != nil {
				killed++
			} else {
				// It was faster than the first one: aim earlier.
				whole = min(whole, time.Since(start))
			}
			timer.Stop()
		}
		if _, err := Run(context.Background(), dir, Options{}); err != nil {
			t.Fatalf("after a kill: %v", err)
		}
		sameTree(t, dir, want)
		os.RemoveAll(dir)
	}
	t.Logf("%d of 60 runs were killed", killed)
	if killed < 10 {
		t.Errorf("only %d runs were killed before they ended", killed)
	}
}

func prepareElsewhere(dir string) *exec.Cmd {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), killedDir+"="+dir)
	c.SysProcAttr = dieWithTest()
	return c
}

// settled returns a directory as extraction leaves one: files under their
// final names, with a manifest.
func settled(t *testing.T, backup string) (string, *format.Manifest) {
	t.Helper()
	dir := copyTree(t, backup)
	state, err := backupdir.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	tr := treeFound(t, dir, state, historyOf(t, dir, func(pageKey, bool) {}))
	l, err := openRedo(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := &format.Manifest{Tool: "test", Backup: &format.Backup{Type: "full-backuped", Server: state.Server,
		Redo: format.Redo{Format: redo.FormatName, CheckpointLSN: l.head.Checkpoint, CheckpointEndLSN: l.head.CheckpointEnd, EndLSN: state.EndLSN}}}
	for _, s := range tr.Spaces {
		for _, f := range s.Files {
			m.Files = append(m.Files, manifestFile(t, tr, s, f))
		}
	}
	slices.SortFunc(m.Files, func(a, b format.File) int { return strings.Compare(a.Path, b.Path) })
	for i := range m.Files {
		m.Files[i].No = format.FileNo(i + 1)
	}
	writeManifest(t, dir, m)
	return dir, m
}

func manifestFile(t *testing.T, tr *spaces.Tree, s *spaces.Tablespace, f spaces.File) format.File {
	t.Helper()
	path := tr.Path(f.Path)
	if s.Fresh {
		if err := os.WriteFile(path, nil, 0o660); err != nil {
			t.Fatal(err)
		}
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	kind, id := format.KindTablespace, s.ID
	switch {
	case id == 0:
		kind = format.KindSystem
	case strings.HasPrefix(f.Path, "undo"):
		kind = format.KindUndo
	}
	if s.Fresh {
		id = 0 // the sender could not know
	}
	return format.File{Path: f.Path, Kind: kind, Size: st.Size(), Mode: 0o660,
		Space: &format.Space{ID: id, PageSize: s.Pages.Physical, FirstPage: f.First, Rebuild: s.Fresh}}
}

func writeManifest(t *testing.T, dir string, m *format.Manifest) {
	t.Helper()
	var b bytes.Buffer
	if err := format.EncodeManifest(&b, m); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, format.ManifestName), b.Bytes(), 0o640); err != nil {
		t.Fatal(err)
	}
}

func testManifest(t *testing.T, backup string) {
	ready, m := settled(t, backup)
	t.Run("prepares", func(t *testing.T) {
		dir := copyTree(t, ready)
		rep, err := Run(context.Background(), dir, Options{Verify: true})
		if err != nil {
			t.Fatal(err)
		}
		if rep.EndLSN != m.Backup.Redo.EndLSN || rep.CheckpointLSN != m.Backup.Redo.CheckpointLSN {
			t.Errorf("report has LSNs %v to %v", rep.CheckpointLSN, rep.EndLSN)
		}
		tally := compareTrees(t, dir, prepared(t, backup), backup)
		if tally["equal"] == 0 {
			t.Error("nothing was compared")
		}
		checkStartsClean(t, dir, backup)
	})
	touched := touchedFile(t, ready, m)
	t.Run("tables elsewhere", func(t *testing.T) { testElsewhere(t, ready, m) })
	t.Run("a table left out", func(t *testing.T) { testLeftOut(t, ready, m, touched) })
	for _, c := range []struct {
		name  string
		spoil func(dir string, m *format.Manifest) error
		want  error
		says  string
	}{
		{"tablespace missing", func(dir string, m *format.Manifest) error { return os.Remove(filepath.Join(dir, touched)) }, ErrIncomplete, touched},
		{"tablespace cut", func(dir string, m *format.Manifest) error {
			return os.Truncate(filepath.Join(dir, touched), 65536)
		}, ErrIncomplete, touched},
		{"not named by the manifest", func(dir string, m *format.Manifest) error {
			m.Files = slices.DeleteFunc(m.Files, func(f format.File) bool { return f.Path == touched })
			return nil
		}, ErrIncomplete, strings.TrimSuffix(touched, ".ibd")},
		{"left out under another id", func(dir string, m *format.Manifest) error {
			leaveOut(m, touched)
			entry(m, touched).Space.ID += 1 << 20
			return os.Remove(filepath.Join(dir, touched))
		}, ErrIncomplete, strings.TrimSuffix(touched, ".ibd")},
		{"left out and there", func(dir string, m *format.Manifest) error {
			m.Files = append(m.Files, *entry(m, touched))
			leaveOut(m, touched)
			return nil
		}, format.ErrDamaged, "two entries have the same path"},
		{"id of another", func(dir string, m *format.Manifest) error {
			entry(m, touched).Space.ID++
			return nil
		}, format.ErrDamaged, "two files of tablespace"},
		{"other id", func(dir string, m *format.Manifest) error {
			entry(m, touched).Space.ID += 1 << 20
			return nil
		}, ErrDamaged, touched},
		{"encrypted", func(dir string, m *format.Manifest) error {
			entry(m, touched).Space.Encrypted = true
			return nil
		}, ErrEncrypted, touched},
		{"redo ends early", func(dir string, m *format.Manifest) error { m.Backup.Redo.EndLSN += 1000; return nil }, ErrIncomplete, fmt.Sprint(m.Backup.Redo.EndLSN)},
		{"redo starts late", func(dir string, m *format.Manifest) error { m.Backup.Redo.CheckpointLSN--; return nil }, ErrIncomplete, "starts"},
		{"other family", func(dir string, m *format.Manifest) error { m.Backup.Server.Dialect = "drizzle"; return nil }, nil, "drizzle"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := copyTree(t, ready)
			mine := *m
			b := *m.Backup
			mine.Backup, mine.Files = &b, slices.Clone(m.Files)
			for i := range mine.Files {
				s := *mine.Files[i].Space
				mine.Files[i].Space = &s
			}
			if err := c.spoil(dir, &mine); err != nil {
				t.Fatal(err)
			}
			writeManifest(t, dir, &mine)
			_, err := Run(context.Background(), dir, Options{})
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %v that names %q", err, c.want, c.says)
			}
		})
	}
}

func entry(m *format.Manifest, path string) *format.File {
	for i := range m.Files {
		if m.Files[i].Path == path {
			return &m.Files[i]
		}
	}
	return nil
}

// leaveOut says that a table was not asked for.
func leaveOut(m *format.Manifest, path string) {
	f := entry(m, path)
	*f = format.File{Path: path, Kind: format.KindLeftOut, Space: &format.Space{ID: f.Space.ID}}
}

// testLeftOut prepares without a table that has redo: all others are as with it.
func testLeftOut(t *testing.T, ready string, m *format.Manifest, touched string) {
	want := prepared(t, ready)
	for _, byName := range []bool{false, true} {
		dir, mine := copyTree(t, ready), *m
		mine.Files = slices.Clone(m.Files)
		leaveOut(&mine, touched)
		if byName {
			// The sender met it before its page 0 was written.
			entry(&mine, touched).Space = &format.Space{Rebuild: true}
		}
		writeManifest(t, dir, &mine)
		if err := os.Remove(filepath.Join(dir, touched)); err != nil {
			t.Fatal(err)
		}
		rep, err := Run(context.Background(), dir, Options{Verify: true})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(rep.Ignored, touched) {
			t.Errorf("%s is not among those whose redo was ignored: %q", touched, rep.Ignored)
		}
		for _, f := range m.Files {
			x, err1 := os.ReadFile(filepath.Join(dir, f.Path))
			y, err2 := os.ReadFile(filepath.Join(want, f.Path))
			if removedInBoth(f.Path, err1, err2) {
				continue
			}
			if gone := f.Path == touched; gone != errors.Is(err1, fs.ErrNotExist) || !gone && (err1 != nil || err2 != nil || !bytes.Equal(x, y)) {
				t.Errorf("%s differs (%v, %v)", f.Path, err1, err2)
			}
		}
	}
}

// removedInBoth says whether a file that could be read in neither of two copies is
// the new table of an ALTER that had not ended: preparing removes it.
func removedInBoth(name string, err1, err2 error) bool {
	return filename.Unfinished(name) && errors.Is(err1, fs.ErrNotExist) && errors.Is(err2, fs.ErrNotExist)
}

// touchedFile returns a table that redo changes and that was copied with
// content.
func touchedFile(t *testing.T, dir string, m *format.Manifest) string {
	t.Helper()
	for _, f := range m.Files {
		if f.Path == "d/dyn.ibd" && !f.Space.Rebuild && f.Size > 65536 {
			return f.Path
		}
	}
	t.Fatal("d/dyn.ibd has no content")
	return ""
}

// prepared returns what Run makes of a backup.
func prepared(t *testing.T, backup string) string {
	t.Helper()
	dir := copyTree(t, backup)
	if _, err := Run(context.Background(), dir, Options{}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func testDamage(t *testing.T, backup string) {
	log := filepath.Join(backup, redoName)
	st, err := os.Stat(log)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int64) func(dir string) error {
		return func(dir string) error { return flipByte(filepath.Join(dir, redoName), at) }
	}
	for _, c := range []struct {
		name  string
		spoil func(dir string) error
		want  error
	}{
		{"no backup", func(dir string) error { return os.Remove(filepath.Join(dir, "xtrabackup_checkpoints")) }, ErrNotBackup},
		{"log missing", func(dir string) error { return os.Remove(filepath.Join(dir, redoName)) }, fs.ErrNotExist},
		{"log empty", func(dir string) error { return os.Truncate(filepath.Join(dir, redoName), 0) }, ErrIncomplete},
		{"log without redo", func(dir string) error { return os.Truncate(filepath.Join(dir, redoName), redo.StartOffset) }, ErrIncomplete},
		{"last byte of the log missing", func(dir string) error { return os.Truncate(filepath.Join(dir, redoName), st.Size()-1) }, ErrIncomplete},
		{"redo byte flipped", flip(st.Size() / 2), ErrDamaged},
		{"last byte flipped", flip(st.Size() - 1), ErrDamaged},
		{"log header flipped", flip(20), redo.ErrChecksum},
		{"checkpoint flipped", flip(4100), redo.ErrNoCheckpoint},
		{"encrypted log", encryptHeader, ErrEncrypted},
		{"page newer than the end", func(dir string) error { return changePage(dir, func(p []byte) { innodb.SetLSN(p, 1<<60) }) }, ErrDamaged},
		{"page damaged", func(dir string) error { return flipByte(filepath.Join(dir, "ibdata1"), 16384*3+100) }, ErrDamaged},
		{"system tablespace missing", func(dir string) error { return os.Remove(filepath.Join(dir, "ibdata1")) }, ErrIncomplete},
		{"incremental", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "xtrabackup_checkpoints"), []byte("backup_type = incremental\nlast_lsn = 5\n"), 0o600)
		}, ErrNotBackup},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := copyTree(t, backup)
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			before := copyTree(t, dir)
			_, err := Run(context.Background(), dir, Options{Verify: true})
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			var at *PageError
			if strings.HasPrefix(c.name, "page") {
				if !errors.As(err, &at) || at.Path == "" {
					t.Errorf("%v names no page", err)
				}
				return // some pages are written by then
			}
			sameTree(t, dir, before)
		})
	}
	t.Run("cut at any mini-transaction", func(t *testing.T) {
		dir := copyTree(t, backup)
		cutRedo(t, dir)
		if _, err := Run(context.Background(), dir, Options{}); !errors.Is(err, ErrIncomplete) {
			t.Errorf("got %v, want ErrIncomplete", err)
		}
	})
}

func flipByte(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return err
	}
	b[0] ^= 0x10
	_, err = f.WriteAt(b[:], at)
	return err
}

// changePage changes page 7 of the system tablespace, and seals it again.
func changePage(dir string, change func(page []byte)) error {
	f, err := os.OpenFile(filepath.Join(dir, "ibdata1"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	page := make([]byte, 16384)
	if _, err := f.ReadAt(page, 0); err != nil {
		return err
	}
	pages, err := innodb.ParseFlags(innodb.Flags(page))
	if err != nil {
		return err
	}
	if _, err := f.ReadAt(page, 7*16384); err != nil {
		return err
	}
	change(page)
	pages.Seal(page)
	_, err = f.WriteAt(page, 7*16384)
	return err
}

func encryptHeader(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, redoName), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, 512)
	if _, err := f.ReadAt(head, 0); err != nil {
		return err
	}
	h := redo.Header{Magic: redo.MagicEncrypted, FirstLSN: format.LSN(binary.BigEndian.Uint64(head[8:])), Creator: "Backup 10.11.19", Encryption: redo.Encryption{3: 1}}
	block := h.Encode()
	_, err = f.WriteAt(block[:], 0)
	return err
}
