package redotail

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
)

// Piece is a run of whole mini-transactions, verified, with the end markers
// of a log that never wraps.
type Piece struct {
	// LSN is the position of the first byte.
	LSN  format.LSN
	Data []byte
	// Framing is how many bytes of the log between LSN and End are not in Data:
	// headers and trailers of blocks, in a log that has them.
	Framing int
	// Files are the file records in Data, in order. Log sets them; pieces
	// from Tailer.Next have none.
	Files []FileRecord
}

// End is the LSN after the last byte.
func (p Piece) End() format.LSN { return p.LSN + format.LSN(len(p.Data)+p.Framing) }

// Log is a server's redo log, read while the server writes it. Only one
// goroutine may use it at a time.
type Log interface {
	// Start says where the redo begins, and of what kind it is.
	Start() format.Redo
	// Read returns the next piece, which is never empty. Its Data is valid
	// until the next call. The error is ErrTip when the server has written
	// nothing more yet, and ErrOverrun or ErrDamaged for good.
	Read(ctx context.Context) (Piece, error)
	// Written says that the server has flushed its log up to lsn, which a
	// reader cannot know of the last bytes by itself. It may be called from
	// any goroutine.
	Written(lsn format.LSN)
	// Cut returns the piece up to the first LSN not below at where a
	// mini-transaction ends; it is empty for p.LSN. at must not be above p.End().
	Cut(p Piece, at format.LSN) Piece
	// StartComplete returns the LSN up to which redo must be copied for
	// recovery to find its start; ok is false as long as that was not read.
	StartComplete() (lsn format.LSN, ok bool)
	// Checkpoint returns the server's newest checkpoint LSN seen so far.
	Checkpoint() format.LSN
	// Imported returns what tells of a tablespace, by its id, the path of its
	// file and its pages, whether it may have been imported within the redo
	// before end, and at which LSN it was discarded then. It is nil for a log
	// in which no table was, and for one that shows imports by itself: only of
	// an encrypted log must they be guessed.
	Imported(end format.LSN) func(id format.SpaceID, path string, age innodb.Age) (at format.LSN, may bool)
	// Capacity returns how many bytes of redo the log holds before the server
	// overwrites it. A resize changes that.
	Capacity() int64
	Close() error
}

var (
	// ErrTip means that the end of the log is reached for now.
	ErrTip = errors.New("end of the redo log reached for now")
	// ErrOverrun means that the server overwrote redo that was not yet read;
	// the error is an *OverrunError.
	ErrOverrun = errors.New("redo lost")
	// ErrDamaged means that the log holds no valid redo where the server says
	// it does; the error is a *DamagedError.
	ErrDamaged = errors.New("redo log damaged")
	// ErrStuck means that the log did not reach the LSN asked for; the error
	// is a *StuckError.
	ErrStuck = errors.New("redo log does not move on")
	// ErrSpoolFull means that the consumer fell behind by more than memory
	// and spool file may hold.
	ErrSpoolFull = errors.New("redo spool is full")
)

// OverrunError says which redo was lost.
type OverrunError struct {
	// Lost is the first LSN that can no longer be read.
	Lost format.LSN
	// Checkpoint is the server's newest checkpoint: it had no use any more
	// for redo below that.
	Checkpoint format.LSN
	// Capacity is the size of the log's payload in bytes.
	Capacity int64
	// Variable is the server's for the size; empty means innodb_log_file_size.
	Variable string
}

func (e *OverrunError) Error() string {
	return fmt.Sprintf("%v: the server overwrote its log at LSN %v before it was read (newest checkpoint %v, log holds %d bytes); a larger %s gives more time",
		ErrOverrun, e.Lost, e.Checkpoint, e.Capacity, cmp.Or(e.Variable, "innodb_log_file_size"))
}

// Unwrap makes the error match ErrOverrun.
func (e *OverrunError) Unwrap() error { return ErrOverrun }

// DamagedError says where the log is damaged, and how.
type DamagedError struct {
	LSN   format.LSN
	Cause error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%v at LSN %v: %v", ErrDamaged, e.LSN, e.Cause)
}

// Unwrap makes the error match ErrDamaged and its cause.
func (e *DamagedError) Unwrap() []error { return []error{ErrDamaged, e.Cause} }

// StuckError says how far the log was readable and how far it should have
// been.
type StuckError struct {
	Reached, Wanted format.LSN
}

func (e *StuckError) Error() string {
	return fmt.Sprintf("%v: readable up to LSN %v, wanted %v; with innodb_flush_log_at_trx_commit=0 the server writes its log only every innodb_flush_log_at_timeout seconds",
		ErrStuck, e.Reached, e.Wanted)
}

// Unwrap makes the error match ErrStuck.
func (e *StuckError) Unwrap() error { return ErrStuck }
