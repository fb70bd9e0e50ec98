package extract

import (
	"errors"
	"fmt"

	"github.com/xbstream/xbstream/format"
)

// ErrTarget is wrapped by every refusal of the target directory.
var ErrTarget = errors.New("target refused")

// ErrPrepare is wrapped by the error of Options.Prepare.
var ErrPrepare = errors.New("prepare failed")

// ErrNothing says that nothing was left to extract.
var ErrNothing = errors.New("nothing to extract")

// incomplete is the error of an archive whose manifest and frames disagree.
func incomplete(msg string, args ...any) error {
	return fmt.Errorf("%w: manifest: %w", format.ErrDamaged, fmt.Errorf(msg, args...))
}
