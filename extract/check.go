package extract

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// CheckTarget refuses a target that Extract would refuse for what it holds. It
// changes nothing, so it may come before a user is asked for a key; Extract
// looks again.
func CheckTarget(opt Options) error {
	entries, err := os.ReadDir(opt.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTarget, err)
	}
	t := &target{opt: opt}
	for _, e := range entries {
		switch partial := strings.HasPrefix(e.Name(), partialPrefix); {
		case partial && !opt.RemovePartial:
			return t.leftover(e.Name())
		case !partial && !opt.IntoNonEmpty:
			return fmt.Errorf("%w: directory %q is not empty: it holds %q", ErrTarget, opt.Dir, e.Name())
		}
	}
	return nil
}
