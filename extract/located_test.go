package extract

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// F3: an error says once where it happened, whatever the operation is called.
func TestErrorsAreLocatedByTheirPath(t *testing.T) {
	here := t.TempDir()
	t.Chdir(here)
	if err := os.Mkdir("target", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Join(here, "target"), "target", "./target/"} {
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		file, err := root.Create("file")
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
		_, below := root.Stat("none")
		rename := root.Rename("none", "other")
		_, read := file.Stat()
		_, elsewhere := os.Stat(filepath.Join(here, "none"))
		tg := &target{opt: Options{Dir: dir}}
		for name, c := range map[string]struct {
			err     error
			located bool
		}{
			"below the root":        {below, true},
			"renamed below it":      {rename, true},
			"of a file of the root": {read, false},
			"of an absolute path":   {elsewhere, false},
			"of no path":            {errors.New("x"), false},
			"made up":               {&fs.PathError{Op: "open", Path: "a/b", Err: fs.ErrExist}, true},
		} {
			if c.err == nil {
				t.Fatal(name)
			}
			if got := tg.located(c.err); (got.Error() != c.err.Error()) != c.located || !errors.Is(got, c.err) {
				t.Errorf("%s, in %s: %v", name, dir, got)
			}
		}
	}
}
