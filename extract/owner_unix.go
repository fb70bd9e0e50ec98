//go:build unix

package extract

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// chooseOwner says whom the tree is given to: who was asked for or, as root, the
// owner of the target, because a server that runs as another user could not
// read it. It is tried at once, before anything was read.
func (t *target) chooseOwner() error {
	o := t.opt.Owner
	if o == nil {
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
		o = &Owner{UID: int(sys.Uid), GID: int(sys.Gid)}
	}
	if err := t.manifest.Chown(o.UID, o.GID); err != nil {
		return fmt.Errorf("%w: files in %q cannot be given to user %d and group %d, as %s; only root can, and not on every file system: %w",
			ErrTarget, t.opt.Dir, o.UID, o.GID, t.whyOwner(), errors.Unwrap(err))
	}
	t.owner = o
	return nil
}

func (t *target) whyOwner() string {
	switch {
	case t.main != nil:
		return "own what is in " + t.main.opt.Dir
	case t.opt.Owner != nil:
		return "was asked for (--chown)"
	}
	return "own the directory; --chown names others"
}

// own gives the tree to its owner, and the target with it if it was made here.
func (t *target) own() error {
	if t.owner == nil {
		return nil
	}
	err := fs.WalkDir(t.stage.FS(), treeDir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return t.stage.Lchown(p, t.owner.UID, t.owner.GID)
	})
	if err == nil && t.made {
		err = t.root.Lchown(".", t.owner.UID, t.owner.GID)
	}
	return err
}
