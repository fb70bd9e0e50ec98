//go:build !linux

package extract

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// syncTree makes everything below dir durable, files first.
func syncTree(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			dirs = append(dirs, p)
			return nil
		}
		return syncPath(p, os.O_RDWR)
	})
	for i := len(dirs) - 1; i >= 0 && err == nil; i-- {
		err = syncDir(dirs[i])
	}
	return err
}

func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // directories cannot be opened for that there
	}
	return syncPath(dir, os.O_RDONLY)
}

func syncPath(p string, mode int) error {
	f, err := os.OpenFile(p, mode, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func startWriteback(*os.File) {}
