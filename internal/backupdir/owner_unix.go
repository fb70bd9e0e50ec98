//go:build unix

package backupdir

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/xbstream/xbstream/format"
)

// GiveToOwner gives what root made while it prepared dir to whom the backup
// belongs, the owner of the state file: a server that runs as that user could
// not open it. What others make is their own.
func (s *State) GiveToOwner(dir string) error {
	st, err := os.Lstat(filepath.Join(dir, s.checkpoints))
	if os.Geteuid() != 0 || err != nil {
		return nil // without a state file nobody can tell
	}
	owner := st.Sys().(*syscall.Stat_t)
	if owner.Uid == 0 {
		return nil
	}
	return fs.WalkDir(os.DirFS(dir), ".", func(rel string, e fs.DirEntry, err error) error {
		if err != nil || rel == "." {
			return err
		}
		st, err := e.Info()
		if err != nil || st.Sys().(*syscall.Stat_t).Uid != 0 {
			return err
		}
		switch {
		case s.holds(rel):
			return os.Lchown(filepath.Join(dir, rel), int(owner.Uid), int(owner.Gid))
		case e.IsDir():
			return fs.SkipDir
		}
		return nil
	})
}

// holds says whether a name in the directory is of the backup. Others are
// somebody's log, or a lost+found.
func (s *State) holds(rel string) bool {
	db, _, inDatabase := strings.Cut(rel, "/")
	if !inDatabase && slices.ContainsFunc(serverFiles, func(p string) bool { return strings.HasPrefix(rel, p) }) {
		return true
	}
	return inDatabase || s.Manifest != nil && slices.ContainsFunc(s.Manifest.Files, func(f format.File) bool {
		return f.Path == rel || path.Dir(f.Path) == db
	})
}

// serverFiles are how the names of those begin that a server makes beside the
// databases.
var serverFiles = []string{RedoName, "#innodb_redo", "ibdata", "undo", "aria_log"}

// keepOwner gives a file to the owner of the one whose place it takes.
func keepOwner(f *os.File, old fs.FileInfo) error {
	st, ok := old.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}
