package spaces

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
)

// What a link file may name is a regular file called as the table is; only of
// tables that were elsewhere, and are not in the directory, it is looked for.
func TestReadLinks(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(link, file string) error
		want  error
		found bool
	}{
		{"good", func(_, _ string) error { return nil }, nil, true},
		{"line end", func(link, file string) error { return os.WriteFile(link, []byte(file+"\n"), 0o660) }, nil, true},
		{"not elsewhere", func(link, _ string) error { return os.WriteFile(strings.TrimSuffix(link, ".isl")+".ibd", nil, 0o660) }, nil, false},
		{"no link file", func(link, _ string) error { return os.Remove(link) }, nil, false},
		{"missing", func(_, file string) error { return os.Remove(file) }, backupdir.ErrIncomplete, false},
		{"of another table", func(link, file string) error { return os.WriteFile(link, []byte(file+"x.ibd"), 0o660) }, backupdir.ErrDamaged, false},
		{"relative", func(link, _ string) error { return os.WriteFile(link, []byte("x/d/t.ibd"), 0o660) }, backupdir.ErrDamaged, false},
		{"empty", func(link, _ string) error { return os.WriteFile(link, nil, 0o660) }, backupdir.ErrDamaged, false},
		{"dots", func(link, _ string) error { return os.WriteFile(link, []byte("/x/../d/t.ibd"), 0o660) }, backupdir.ErrDamaged, false},
		{"link file is a link", func(link, _ string) error { return errors.Join(os.Rename(link, link+"x"), os.Symlink(link+"x", link)) }, backupdir.ErrDamaged, false},
		{"file is a link", func(_, file string) error { return errors.Join(os.Rename(file, file+"x"), os.Symlink(file+"x", file)) }, backupdir.ErrDamaged, false},
		{"file is a directory", func(_, file string) error { return errors.Join(os.Remove(file), os.Mkdir(file, 0o700)) }, backupdir.ErrDamaged, false},
	} {
		dir, far := t.TempDir(), t.TempDir()
		link, file := filepath.Join(dir, "d", "t.isl"), filepath.Join(far, "d", "t.ibd")
		if err := errors.Join(os.Mkdir(filepath.Dir(link), 0o700), os.Mkdir(filepath.Dir(file), 0o700),
			os.WriteFile(file, []byte("page"), 0o660), os.WriteFile(link, []byte(file), 0o660), c.spoil(link, file)); err != nil {
			t.Fatal(err)
		}
		m := &format.Manifest{Files: []format.File{
			{Path: "d/near.ibd", Kind: format.KindTablespace}, {Path: "d/t.ibd", Kind: format.KindTablespace, Source: "/source/d/t.ibd"},
			{Path: "undo001", Kind: format.KindUndo, Source: "/undo/undo001"}}}
		tr := NewTree(dir, 16384)
		err := tr.ReadLinks(m)
		if !errors.Is(err, c.want) || err != nil && (c.want == nil || !strings.Contains(err.Error(), "d/t.")) {
			t.Errorf("%s: got %v, want %v that names the table", c.name, err, c.want)
		}
		want := filepath.Join(dir, "d", "t.ibd")
		if c.found {
			want = file
		}
		if got := tr.Path("d/t.ibd"); got != want {
			t.Errorf("%s: the table is looked for at %s, want %s", c.name, got, want)
		}
	}
}
