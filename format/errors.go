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
	ErrTruncated = errors.New("it ends too early")
	// ErrNotArchive says that the stream does not begin as an archive.
	ErrNotArchive = errors.New("not an xbsend archive")
	// ErrUnsupported says that the archive uses what this version does not
	// know. Beside ErrDamaged it says that a part of it does.
	ErrUnsupported = errors.New("unsupported")
)

// truncated is the error of an archive that ends after n bytes.
func truncated(n int64) error {
	return fmt.Errorf("%w: %w, after %s: the sender failed or the connection broke", ErrDamaged, ErrTruncated, humanSize(n))
}

// DamageError says where in an archive something is wrong. It wraps ErrDamaged
// and its cause.
type DamageError struct {
	Frame  uint64 // number of the frame, from 0
	Offset int64  // where the frame begins, in bytes from the start of the archive
	Path   string // provisional path of the file concerned, if any
	Err    error
}

// Error says what happened in words of databases, and then, in parentheses, those
// of SPEC.md.
func (e *DamageError) Error() string {
	where := fmt.Sprintf("frame %d at offset %d", e.Frame, e.Offset)
	switch {
	case errors.Is(e.Err, ErrTruncated):
		return fmt.Sprintf("%v (%s)", truncated(e.Offset), where)
	case e.Path != "":
		return fmt.Sprintf("%v: file %q, after %s of the archive (%s: %v)", ErrDamaged, e.Path, humanSize(e.Offset), where, e.Err)
	}
	return fmt.Sprintf("%v: after %s (%s: %v)", ErrDamaged, humanSize(e.Offset), where, e.Err)
}

// Unwrap lets errors.Is find ErrDamaged and the cause.
func (e *DamageError) Unwrap() []error { return []error{ErrDamaged, e.Err} }
