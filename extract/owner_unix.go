//go:build unix

package extract

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// own gives the tree to owner; without one and as root, to the owner of the
// target, because a server that runs as another user could not read it.
func (t *target) own(owner *Owner) error {
	if owner == nil {
		if os.Geteuid() != 0 {
			return nil
		}
		st, err := t.root.Stat(".")
		if err != nil {
			return err
		}
		sys, ok := st.Sys().(*syscall.Stat_t)
		if !ok {
			return errors.New("owner of the target cannot be read")
		}
		owner = &Owner{UID: int(sys.Uid), GID: int(sys.Gid)}
	}
	return fs.WalkDir(t.stage.FS(), treeDir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return t.stage.Lchown(p, owner.UID, owner.GID)
	})
}
