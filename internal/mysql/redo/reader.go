package redo

import (
	"errors"
	"fmt"
	"io"

	"github.com/xbstream/xbstream/format"
)

// ErrEncrypted means that the log's blocks are encrypted.
var ErrEncrypted = errors.New("redo log is encrypted")

// readAhead is how much a Reader reads at a time.
const readAhead = 128 * BlockSize

// Reader hands out the mini-transactions of a log, from a checkpoint to the end
// of what is there:
//
//	for r := NewReader(log, checkpoint); r.Next(); {
//		… r.MTR() …
//	}
//	if err := r.Err(); err != nil { … }
//
// The end is where a block is not complete, is no longer of this log, or where
// there is no further file. A mini-transaction that is cut there does not count.
type Reader struct {
	log  Log
	lsn  format.LSN // of the next block
	end  format.LSN // of what was read
	last error      // why no further block is read; io.EOF at the end
	why  End

	raw    []byte // blocks that were read and not yet looked at
	buf    []byte // payload from at on, for as far as it was read
	at     Position
	synced bool // at is known: a mini-transaction starts there
	mtr    MTR
	err    error
}

// End says why a log ends.
type End int

// The reasons.
const (
	NotEnded     End = iota
	PartialBlock     // the last block is not complete
	NoBlock          // the next block is not of this log
	NoFile           // there is no file for the next block
)

// String is for tests and messages.
func (e End) String() string {
	return [...]string{"not ended", "partial block", "no block", "no more files"}[e]
}

// NewReader starts with the first mini-transaction that begins in the block of
// the checkpoint or in a later one. That may be some bytes before the checkpoint:
// to apply them again changes nothing. A checkpoint may lie within a
// mini-transaction that began in an earlier block; the pages of that one are on
// disk (InnoDB log0recv.cc, recv_scan_log_recs).
func NewReader(log Log, checkpoint format.LSN) *Reader {
	return &Reader{log: log, lsn: Align(checkpoint)}
}

// Next moves to the next mini-transaction; false at the end.
func (r *Reader) Next() bool {
	if r.err != nil {
		return false
	}
	r.buf, r.at = r.buf[r.mtr.Size:], r.at+Position(r.mtr.Size)
	r.mtr = MTR{}
	for {
		if r.synced && len(r.buf) > 0 {
			m, err := ScanMTR(r.buf)
			if err == nil {
				r.mtr = m
				return true
			}
			if err != ErrShort {
				r.err = fmt.Errorf("redo at LSN %v: %w", r.at.LSN(), err)
				return false
			}
		}
		if r.last != nil {
			if r.last != io.EOF {
				r.err = r.last
			}
			return false
		}
		r.last = r.fill()
	}
}

// MTR returns the current mini-transaction, valid until Next is called again.
func (r *Reader) MTR() MTR { return r.mtr }

// Position is where the current mini-transaction starts.
func (r *Reader) Position() Position { return r.at }

// Err returns what ended the walk before the end of the log.
func (r *Reader) Err() error { return r.err }

// End returns the LSN after the last byte of the log that was read, and why the
// log ends there.
func (r *Reader) End() (format.LSN, End) { return r.end, r.why }

// fill reads blocks and appends their payload. It returns io.EOF at the end.
func (r *Reader) fill() error {
	r.buf = append(make([]byte, 0, len(r.buf)+readAhead), r.buf...)
	f, ok := r.log.file(r.lsn)
	if !ok {
		return r.ended(NoFile)
	}
	n := min(readAhead, int(min(f.End()-r.lsn, readAhead)))
	if r.raw == nil {
		r.raw = make([]byte, readAhead)
	}
	got, err := f.Blocks.ReadAt(r.raw[:n], f.Offset(r.lsn))
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", FileName(f.ID), err)
	}
	if got < BlockSize {
		return r.ended(NoBlock)
	}
	for raw := r.raw[:got]; len(raw) >= BlockSize; raw = raw[BlockSize:] {
		if err := r.take(raw[:BlockSize]); err != nil {
			return err
		}
	}
	return nil
}

func (r *Reader) ended(why End) error {
	r.why = why
	return io.EOF
}

// take looks at the next block.
func (r *Reader) take(raw []byte) error {
	b, state := ParseBlock(raw, r.lsn)
	if state != Complete && state != Partial {
		return r.ended(NoBlock)
	}
	if b.Encrypted {
		return fmt.Errorf("block at LSN %v: %w", r.lsn, ErrEncrypted)
	}
	payload := b.Payload(raw)
	if !r.synced && b.First != 0 && b.First < b.Used {
		first := b.First - blockHeader
		r.at, r.synced = Position(r.lsn/BlockSize*BlockPayload)+Position(first), true
		payload = payload[first:]
	}
	if r.synced {
		r.buf = append(r.buf, payload...)
	}
	r.end = b.End(r.lsn)
	r.lsn += BlockSize
	if state == Partial {
		return r.ended(PartialBlock)
	}
	return nil
}
