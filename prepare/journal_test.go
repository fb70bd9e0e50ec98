package prepare

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/xbstream/xbstream/internal/spaces"
)

func TestJournal(t *testing.T) {
	old, fresh := bytes.Repeat([]byte("old "), 8192), bytes.Repeat([]byte("new!"), 4096)
	torn := bytes.Clone(old)
	copy(torn[4096:], fresh[:8192]) // two of four blocks reached the file
	whole := bytes.Clone(old)
	copy(whole[4096:], fresh)
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, path string)
		want  []byte
	}{
		{"torn page is completed", func(*testing.T, string) {}, whole},
		{"torn header is ignored", func(t *testing.T, path string) { flip(t, path, slotLength+9) }, torn},
		{"torn pages are ignored", func(t *testing.T, path string) { flip(t, path, slotLength+slotHeader+8000) }, torn},
		{"cut journal is ignored", func(t *testing.T, path string) {
			if err := os.Truncate(path, slotLength+slotHeader+8000); err != nil {
				t.Fatal(err)
			}
		}, torn},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "d", "t.ibd")
			if err := os.WriteFile(file, torn, 0o600); err != nil {
				t.Fatal(err)
			}
			j, err := startJournal(dir)
			if err != nil {
				t.Fatal(err)
			}
			// The second worker's slot: the first one was never used.
			if err := j.slot(1).keep("d/t.ibd", 4096, fresh); err != nil {
				t.Fatal(err)
			}
			j.f.Close()
			c.spoil(t, filepath.Join(dir, journalName))
			if err := replayJournal(dir, spaces.NewTree(dir, 16384)); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(file)
			if err != nil || !bytes.Equal(got, c.want) {
				t.Errorf("file is not what it should be after the replay (%v), first difference at %d", err, firstDifference(got, c.want))
			}
		})
	}
}

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	if err := flipByte(path, at); err != nil {
		t.Fatal(err)
	}
}

// G6: the pages of a page_compressed tablespace come back with their holes.
func TestJournalOfHoles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "t.ibd")
	old, fresh := bytes.Repeat([]byte("old "), 16<<10), make([]byte, 48<<10)
	for _, at := range []int{0, 16 << 10, 20 << 10} { // a page of one block, one of two, one of none
		copy(fresh[at:], "new page")
	}
	if err := os.WriteFile(file, old, 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := startJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.slot(0).keepSparse("t.ibd", 8<<10, fresh); err != nil {
		t.Fatal(err)
	}
	j.f.Close()
	if err := replayJournal(dir, spaces.NewTree(dir, 16384)); err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(old)
	copy(want[8<<10:], fresh)
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
		t.Errorf("file is not what it should be after the replay (%v), first difference at %d", err, firstDifference(got, want))
	}
	if got, want := allocated(t, file), int64(16<<10+12<<10); got > want {
		t.Errorf("the file takes %d bytes of the disk, its data %d", got, want)
	}
}
