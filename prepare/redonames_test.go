package prepare

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/mariadb/redo"
)

// FuzzRedoFileNames prepares a directory whose redo creates, renames and deletes
// a file under any names. Whether that works or not, nothing appears or goes
// outside of the directory, and below it nothing but tablespaces one level down.
func FuzzRedoFileNames(f *testing.F) {
	f.Add("./d/t.ibd", "./d/u.ibd", byte(1))
	f.Add("../../outside.ibd", "../outside/x.ibd", byte(1))
	f.Add("/outside/../../x.ibd", `..\..\x.ibd`, byte(3))
	f.Add("./d/\n.ibd", "./mysql/../../t.ibd", byte(3))
	f.Add("./xbstream_prepare/t.ibd", "./ibdata1/t.ibd", byte(1))
	f.Fuzz(func(t *testing.T, name, newName string, what byte) {
		if len(name)+len(newName) > 4096 {
			return
		}
		var m made
		m.listed(ordinary, 7)
		m.mtr(redo.AppendFileRecord(nil, redo.FileRecord{Op: redo.FileCreate, Space: 8, Name: name}))
		m.create(9, anotherOne)
		if what&1 != 0 {
			m.mtr(redo.AppendFileRecord(nil, redo.FileRecord{Op: redo.FileRename, Space: 7, Name: name, NewName: newName}))
		}
		if what&2 != 0 {
			m.mtr(redo.AppendFileRecord(nil, redo.FileRecord{Op: redo.FileDelete, Space: 9, Name: newName}))
		}
		home := t.TempDir()
		dir := filepath.Join(home, "a", "b")
		if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(m.write(t), dir); err != nil {
			t.Fatal(err)
		}
		Run(context.Background(), dir, Options{})
		err := filepath.WalkDir(home, func(path string, e fs.DirEntry, err error) error {
			rel, _ := filepath.Rel(dir, path)
			rel = filepath.ToSlash(rel)
			if err != nil || rel == "." || rel == ".." || rel == "../.." {
				return err
			}
			if err := format.CheckPath(rel); err != nil {
				t.Errorf("redo named %q and %q: %v", name, newName, err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
