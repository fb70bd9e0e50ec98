package prepare

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/spaces"
)

// scattered returns a copy of a directory with a manifest of which the tables of
// database d are in another directory, as a mapping leaves them.
func scattered(t *testing.T, ready string, m *format.Manifest) (dir, far string) {
	t.Helper()
	dir, far = copyTree(t, ready), t.TempDir()
	mine := *m
	mine.Files = slices.Clone(m.Files)
	if err := os.Mkdir(filepath.Join(far, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i, f := range mine.Files {
		if f.Kind != format.KindTablespace || !strings.HasPrefix(f.Path, "d/") {
			continue
		}
		mine.Files[i].Source = "/source/" + f.Path
		to := filepath.Join(far, f.Path)
		link := filepath.Join(dir, strings.TrimSuffix(f.Path, ".ibd")+".isl")
		if err := errors.Join(os.Rename(filepath.Join(dir, f.Path), to), os.WriteFile(link, []byte(to), 0o660)); err != nil {
			t.Fatal(err)
		}
	}
	writeManifest(t, dir, &mine)
	return dir, far
}

// testElsewhere prepares tables in another directory, killed now and then: all
// become what they would have become in the directory.
func testElsewhere(t *testing.T, ready string, m *format.Manifest) {
	start := time.Now()
	want := prepared(t, ready)
	whole := time.Since(start)
	killed := 0
	for range 5 {
		dir, far := scattered(t, ready, m)
		for range 2 {
			c := prepareElsewhere(dir)
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			timer := time.AfterFunc(rand.N(whole), func() { _ = c.Process.Kill() })
			if c.Wait() != nil {
				killed++
			}
			timer.Stop()
		}
		if _, err := Run(context.Background(), dir, Options{Verify: true}); err != nil {
			t.Fatal(err)
		}
		moved := 0
		for _, f := range m.Files {
			at := filepath.Join(dir, f.Path)
			if _, err := os.Stat(at); err != nil {
				at = filepath.Join(far, f.Path)
				moved++
			}
			x, err1 := os.ReadFile(at)
			y, err2 := os.ReadFile(filepath.Join(want, f.Path))
			if !removedInBoth(f.Path, err1, err2) && (err1 != nil || err2 != nil || !bytes.Equal(x, y)) {
				t.Errorf("%s differs (%v, %v)", at, err1, err2)
			}
		}
		if moved == 0 {
			t.Error("no table was elsewhere")
		}
		os.RemoveAll(dir)
		os.RemoveAll(far)
	}
	t.Logf("%d of 10 runs were killed", killed)
}

// What an interrupted run was writing elsewhere is written there.
func TestJournalReplaysElsewhere(t *testing.T) {
	dir, far := t.TempDir(), t.TempDir()
	file := filepath.Join(far, "t.ibd")
	pages := bytes.Repeat([]byte("new!"), 4096)
	if err := os.WriteFile(file, bytes.Repeat([]byte("old!"), 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := startJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	tr := spaces.NewTree(dir, 16384)
	tr.Links = map[string]string{"d/t.ibd": file}
	if err := errors.Join(j.slot(0).keep("d/t.ibd", 16384, pages), j.f.Close(), replayJournal(dir, tr)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if want := append(bytes.Repeat([]byte("old!"), 4096), pages...); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file is not what it should be, first difference at %d, %v", firstDifference(got, want), err)
	}
}
