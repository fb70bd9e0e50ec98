package redo

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/xbstream/xbstream/format"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crc32c(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// Format is the format of the log that this package reads.
const Format = 6

// StartOffset is where the blocks of a log file start: header, checkpoint,
// encryption and checkpoint block, 512 bytes each, stand before them.
const StartOffset = 4 * BlockSize

// Offsets in the header block (InnoDB log0files_io.cc,
// log_file_header_serialize).
const (
	headerFormat  = 0  // u32
	headerUUID    = 4  // u32
	headerStart   = 8  // u64
	headerCreator = 16 // 32 bytes, ended by zeros
	headerFlags   = 48 // u32
	headerZero    = 52
	headerCRC     = 508
)

// Flags of a log file (InnoDB log0constants.h). Those of the newest file count.
type Flags uint32

// The flags.
const (
	NoLogging      Flags = 1 << iota // ALTER INSTANCE DISABLE INNODB REDO_LOG
	CrashUnsafe                      // and the server was not stopped since
	NotInitialized                   // the instance was not made to its end
	FileFull                         // a newer file exists
)

// Header is the first block of a log file.
type Header struct {
	// UUID is the same in all files of an instance.
	UUID uint32
	// Start is the LSN of the first block, at StartOffset.
	Start format.LSN
	// Creator is the program that wrote the file, as "MySQL 8.0.30".
	Creator string
	Flags   Flags
}

// series names the servers that write a format.
var series = map[uint32]string{
	1: "MySQL 5.7", 2: "MySQL 8.0.1", 3: "MySQL 8.0.3 to 8.0.18", 4: "MySQL 8.0.19 to 8.0.27", 5: "MySQL 8.0.28 or 8.0.29",
	0x50687973: "MariaDB 10.8 or later", 0x50485953: "MariaDB 10.5 to 10.7",
}

// ParseHeader reads the first 512 bytes of a log file. Other formats give an
// *UnsupportedError, a torn or damaged header ErrChecksum.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < BlockSize {
		return Header{}, fmt.Errorf("%w: %d bytes, want %d", ErrChecksum, len(b), BlockSize)
	}
	be := binary.BigEndian
	h := Header{
		UUID:    be.Uint32(b[headerUUID:]),
		Start:   format.LSN(be.Uint64(b[headerStart:])),
		Creator: creatorOf(b[headerCreator:headerFlags]),
		Flags:   Flags(be.Uint32(b[headerFlags:])),
	}
	sumOK := crc32c(b[:headerCRC]) == be.Uint32(b[headerCRC:])
	if f := be.Uint32(b[headerFormat:]); f != Format {
		name := series[f]
		if name == "" && !sumOK {
			return Header{}, fmt.Errorf("%w: checksum mismatch", ErrChecksum)
		}
		if name == "" {
			name = "unknown"
		}
		return Header{}, &UnsupportedError{Format: f, Series: name, Creator: h.Creator}
	}
	switch {
	case !sumOK:
		return Header{}, fmt.Errorf("%w: checksum mismatch", ErrChecksum)
	case h.Start < FirstLSN || h.Start%BlockSize != 0:
		return Header{}, fmt.Errorf("%w: start LSN %v", ErrChecksum, h.Start)
	case len(bytes.TrimLeft(b[headerZero:headerCRC], "\x00")) != 0:
		return Header{}, fmt.Errorf("%w: reserved bytes are not zero", ErrChecksum)
	}
	return h, nil
}

// creatorOf returns the printable start of a name that is padded with zeros.
func creatorOf(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, string(b))
}

// Encode returns the block as ParseHeader reads it. A creator of more than 31
// bytes is cut.
func (h Header) Encode() [BlockSize]byte {
	var b [BlockSize]byte
	be := binary.BigEndian
	be.PutUint32(b[headerFormat:], Format)
	be.PutUint32(b[headerUUID:], h.UUID)
	be.PutUint64(b[headerStart:], uint64(h.Start))
	copy(b[headerCreator:headerFlags-1], h.Creator)
	be.PutUint32(b[headerFlags:], uint32(h.Flags))
	be.PutUint32(b[headerCRC:], crc32c(b[:headerCRC]))
	return b
}
