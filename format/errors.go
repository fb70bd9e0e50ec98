package format

import (
	"errors"
	"fmt"
)

// Sentinels for what a caller decides on.
var (
	// ErrDamaged is wrapped by every error about an archive that is not
	// what its writer wrote, whole: flipped, cut, doubled, empty.
	ErrDamaged = errors.New("archive damaged or incomplete")
	// ErrTruncated is wrapped, beside ErrDamaged, when the stream ended
	// before the end frame.
	ErrTruncated = errors.New("the stream ends before the end frame")
	// ErrNotArchive says that the stream does not begin as an archive.
	ErrNotArchive = errors.New("not an xbsend archive")
	// ErrUnsupported says that the archive uses what this version does not
	// know.
	ErrUnsupported = errors.New("unsupported")
)

// DamageError says where in an archive something is wrong. It wraps ErrDamaged
// and its cause.
type DamageError struct {
	Frame  uint64 // number of the frame, from 0
	Offset int64  // where the frame begins, in bytes from the start of the archive
	Path   string // provisional path of the file concerned, if any
	Err    error
}

func (e *DamageError) Error() string {
	if e.Path != "" {
		return fmt.Sprintf("archive damaged or incomplete: frame %d at offset %d, file %q: %v", e.Frame, e.Offset, e.Path, e.Err)
	}
	return fmt.Sprintf("archive damaged or incomplete: frame %d at offset %d: %v", e.Frame, e.Offset, e.Err)
}

// Unwrap lets errors.Is find ErrDamaged and the cause.
func (e *DamageError) Unwrap() []error { return []error{ErrDamaged, e.Err} }
