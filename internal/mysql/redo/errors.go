package redo

import (
	"errors"
	"fmt"

	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
)

// MaxMTR bounds the size of a mini-transaction in bytes. The largest seen among
// millions had 84 KB, but JSON_SET of a value of 5 MB wrote one of that size (9.7.4).
const MaxMTR = redolog.MaxMTR

var (
	// ErrUnsupported means a redo log of another kind; the error is an
	// *UnsupportedError that names it.
	ErrUnsupported = innodb.ErrUnsupportedLog
	// ErrChecksum means a header that is damaged or was read while it was being
	// written; reading again may help.
	ErrChecksum = errors.New("redo log header damaged")
	// ErrNoCheckpoint means that no checkpoint block is valid; reading again may
	// help.
	ErrNoCheckpoint = errors.New("no valid checkpoint block in the redo log")
	// ErrShort means that the bytes end before the mini-transaction does.
	ErrShort = redolog.ErrShort
	// ErrMalformed means a record that makes no sense.
	ErrMalformed = redolog.ErrMalformed
)

// UnsupportedError says which kind of log was refused.
type UnsupportedError struct {
	// Format is the number in the header.
	Format uint32
	// Series names the servers that write it, or is "unknown".
	Series string
	// Creator is the program that wrote the header.
	Creator string
}

func (e *UnsupportedError) Error() string {
	s := fmt.Sprintf("%v %d (%s)", ErrUnsupported, e.Format, e.Series)
	if e.Creator != "" {
		s += fmt.Sprintf(", created by %q", e.Creator)
	}
	return s
}

// Unwrap makes the error match ErrUnsupported.
func (e *UnsupportedError) Unwrap() error { return ErrUnsupported }
