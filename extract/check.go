package extract

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// CheckTarget refuses a target that Extract would refuse for what it holds, and
// so the directories of its mappings. It changes nothing, so it may come before a
// user is asked for a key; Extract looks again.
func CheckTarget(opt Options) error {
	dirs := []string{opt.Dir}
	for _, m := range opt.Mappings {
		dirs = append(dirs, m.New)
	}
	for _, dir := range dirs {
		opt.Dir = dir
		if err := checkTarget(opt); err != nil {
			return err
		}
	}
	return nil
}

func checkTarget(opt Options) error {
	st, err := os.Stat(opt.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTarget, err)
	}
	if !st.IsDir() {
		return fmt.Errorf("%w: %q is no directory", ErrTarget, opt.Dir)
	}
	dir, err := os.Open(opt.Dir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTarget, err)
	}
	defer dir.Close()
	if err := busy(lockDir(dir), opt.Dir); err != nil {
		return err
	}
	_, err = inspect(os.DirFS(opt.Dir), opt)
	return err
}
