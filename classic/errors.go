package classic

import (
	"errors"
	"fmt"

	"github.com/xbstream/xbstream/format"
)

// ErrIncomplete is wrapped, beside format.ErrDamaged, when a stream ends where
// it must not.
var ErrIncomplete = errors.New("the stream ends too early")

// ChunkError says where in a stream something is wrong. It wraps
// format.ErrDamaged and its cause.
type ChunkError struct {
	Chunk  uint64 // number of the chunk, from 0
	Offset int64  // where the chunk begins, in bytes from the start of the stream
	Path   string // of the chunk, if it got that far
	Err    error
}

func (e *ChunkError) Error() string {
	where := fmt.Sprintf("chunk %d at offset %d", e.Chunk, e.Offset)
	if e.Path != "" {
		where += fmt.Sprintf(", file %q", e.Path)
	}
	return fmt.Sprintf("%v: %v (%s)", format.ErrDamaged, e.Err, where)
}

// Unwrap lets errors.Is find format.ErrDamaged and the cause.
func (e *ChunkError) Unwrap() []error { return []error{format.ErrDamaged, e.Err} }
