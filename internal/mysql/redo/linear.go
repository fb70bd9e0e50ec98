package redo

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/xbstream/xbstream/format"
)

// A linear log is the form in which a backup keeps redo: a head, and behind it
// whole mini-transactions, without blocks. One byte is one Position.
//
// Its head is none of the server's: a server must not take it for a log of its
// own, find no block where it expects one, and start as if there were no redo.
const (
	// LinearStart is where the mini-transactions start.
	LinearStart = 0x3000

	linearMagic      = 0x78627236 // "xbr6"
	linearFirst      = 8          // u64
	linearCreator    = 16         // 32 bytes
	linearCheckpoint = 48         // u64
)

// Linear is what the head of a linear log says.
type Linear struct {
	// First is the LSN of the first mini-transaction.
	First format.LSN
	// Checkpoint is the one that the backup started from. First may be some bytes
	// before it, or, if it lies within a mini-transaction, after it.
	Checkpoint format.LSN
	// Creator is the program that wrote the log at the source.
	Creator string
}

// Encode returns the LinearStart bytes that stand before the mini-transactions.
func (l Linear) Encode() []byte {
	b := make([]byte, LinearStart)
	be := binary.BigEndian
	be.PutUint32(b, linearMagic)
	be.PutUint64(b[linearFirst:], uint64(l.First))
	copy(b[linearCreator:linearCheckpoint-1], l.Creator)
	be.PutUint64(b[linearCheckpoint:], uint64(l.Checkpoint))
	be.PutUint32(b[headerCRC:], crc32c(b[:headerCRC]))
	return b
}

// ParseLinear reads the head of a linear log. Those of servers give an
// *UnsupportedError or, if they are this package's, ErrChecksum.
func ParseLinear(b []byte) (Linear, error) {
	if len(b) < BlockSize {
		return Linear{}, fmt.Errorf("%w: %d bytes, want %d", ErrChecksum, len(b), BlockSize)
	}
	be := binary.BigEndian
	if be.Uint32(b) != linearMagic {
		if _, err := ParseHeader(b); err != nil {
			return Linear{}, err
		}
		return Linear{}, fmt.Errorf("%w: it is a server's, not a backup's", ErrChecksum)
	}
	if crc32c(b[:headerCRC]) != be.Uint32(b[headerCRC:]) {
		return Linear{}, fmt.Errorf("%w: checksum mismatch", ErrChecksum)
	}
	l := Linear{
		First:      format.LSN(be.Uint64(b[linearFirst:])),
		Checkpoint: format.LSN(be.Uint64(b[linearCheckpoint:])),
		Creator:    creatorOf(b[linearCreator:linearCheckpoint]),
	}
	if _, ok := PositionOf(l.First); !ok || l.First < FirstLSN {
		return Linear{}, fmt.Errorf("%w: first LSN %v", ErrChecksum, l.First)
	}
	return l, nil
}

// Packer writes mini-transactions as the blocks of a log file.
type Packer struct {
	w     io.Writer
	lsn   format.LSN // of the block in hand
	raw   [BlockPayload]byte
	used  int
	first int
}

// NewPacker starts at an LSN at which a mini-transaction may start. The block of
// that LSN is the first one written; what is before it in the block is zero.
func NewPacker(w io.Writer, start format.LSN) (*Packer, error) {
	at, ok := PositionOf(start)
	if !ok {
		return nil, fmt.Errorf("no mini-transaction starts at LSN %v: %w", start, ErrMalformed)
	}
	return &Packer{w: w, lsn: Align(start), used: int(at % BlockPayload)}, nil
}

// Add writes one mini-transaction.
func (p *Packer) Add(mtr []byte) error {
	if p.first == 0 {
		p.first = blockHeader + p.used
	}
	for len(mtr) > 0 {
		n := copy(p.raw[p.used:], mtr)
		mtr = mtr[n:]
		if p.used += n; p.used == BlockPayload {
			if err := p.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Packer) flush() error {
	b := EncodeBlock(p.lsn, p.raw[:p.used], p.first)
	p.lsn, p.used, p.first = p.lsn+BlockSize, 0, 0
	clear(p.raw[:])
	_, err := p.w.Write(b[:])
	return err
}

// End is the LSN after the last mini-transaction.
func (p *Packer) End() format.LSN {
	return (Position(p.lsn/BlockSize*BlockPayload) + Position(p.used)).LSN()
}

// Close writes the last block, even if it is empty: a server wants the block of
// the checkpoint.
func (p *Packer) Close() error {
	if p.first == 0 {
		p.first = blockHeader + p.used
	}
	return p.flush()
}

// smallest is the size of the smallest log file that a server accepts (InnoDB
// log0constants.h, LOG_FILE_MIN_SIZE).
const smallest = 64 << 10

// EmptyUUID is the UUID of what EmptyLog makes. A server makes a new one, random,
// when it makes a log.
const EmptyUUID = 1

// StartAfter returns the first LSN from end on at which EmptyLog can start: the
// payload of a block starts there.
func StartAfter(end format.LSN) format.LSN {
	if end%BlockSize > blockHeader {
		end += BlockSize
	}
	return Align(end) + blockHeader
}

// EmptyLog returns the smallest log file from which a server starts at an LSN,
// which is one of StartAfter. kept are mini-transactions that it shall find there;
// without any, it needs no recovery (InnoDB log0chkp.cc,
// log_files_write_first_data_block_low). The flush LSN in the system tablespace
// must be start.
func EmptyLog(start format.LSN, creator string, kept [][]byte) ([]byte, error) {
	out := &appender{b: Head(Header{UUID: EmptyUUID, Start: Align(start), Creator: creator}, start)}
	p, err := NewPacker(out, start)
	if err != nil {
		return nil, err
	}
	for _, mtr := range kept {
		if err := p.Add(mtr); err != nil {
			return nil, err
		}
	}
	if err := p.Close(); err != nil {
		return nil, err
	}
	size := max(smallest, (len(out.b)+smallest-1)/smallest*smallest)
	return append(out.b, make([]byte, size-len(out.b))...), nil
}

type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}
