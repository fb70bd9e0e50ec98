package backupdir

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// TempSuffix ends the names of files that are not yet what they will be.
const TempSuffix = ".xbstream-tmp"

// ReplaceFile puts content in the place of path so that a crash leaves the old
// file or the new one: written beside it, synced, renamed, directory synced. The
// new file has mode and owner of the old one, if there is one.
func ReplaceFile(path string, content []byte) error {
	return ReplaceWith(path, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// ReplaceWith is ReplaceFile of what write writes.
func ReplaceWith(path string, write func(io.Writer) error) error {
	old, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	temp := path + TempSuffix
	if err := writeSynced(temp, write, old); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// writeSynced gives the file mode and owner of old, which may be nil.
func writeSynced(path string, write func(io.Writer) error, old fs.FileInfo) error {
	mode := fs.FileMode(0o640)
	if old != nil {
		mode = old.Mode().Perm()
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil && old != nil {
		err = keepOwner(f, old)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
