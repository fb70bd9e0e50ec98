package redo

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
)

// StartOffset is where the payload of the log file begins: byte
// StartOffset + n holds LSN first_lsn + n on the first lap (InnoDB log0log.h).
const StartOffset = 12288

// FormatName names framing and record encoding in format.Redo.Format.
const FormatName = format.RedoMariaDB

// Format magics, the first four bytes of the file (InnoDB log0log.h).
const (
	// MagicPlain, "Phys", is the format of 10.8 and later.
	MagicPlain = 0x50687973
	// MagicEncrypted is the same with encrypted records (since MDEV-36024).
	MagicEncrypted = 0xF09F979D

	magicEncryptedOld = 0x80000000 // flag of encrypted logs before 10.8
	magic105          = 0x50485953 // "PHYS"
)

// Offsets in the header block.
const (
	headerSize    = 512
	headerZero    = 4
	headerFirst   = 8
	headerCreator = 16
	headerCrypt   = 48
	headerCRC     = 508
)

var (
	// ErrUnsupported means a redo log of another kind; the error is an
	// *UnsupportedError that names it.
	ErrUnsupported = innodb.ErrUnsupportedLog
	// ErrChecksum means a block that is damaged or was read while it was
	// being written; reading again may help.
	ErrChecksum = errors.New("redo log header damaged")
	// ErrNoCheckpoint means that neither checkpoint block is valid; reading
	// again may help.
	ErrNoCheckpoint = errors.New("no valid checkpoint block in the redo log")
)

// UnsupportedError says which kind of log was refused.
type UnsupportedError struct {
	// Magic is the first word of the file; 0 also where there is no such
	// file.
	Magic uint32
	// Series names the servers that write this kind, or is "unknown".
	Series string
	// Creator is the program that wrote the header, where it says so.
	Creator string
}

func (e *UnsupportedError) Error() string {
	s := fmt.Sprintf("%v (%s)", ErrUnsupported, e.Series)
	if e.Magic != 0 {
		s = fmt.Sprintf("%v 0x%08x (%s)", ErrUnsupported, e.Magic, e.Series)
	}
	if e.Creator != "" {
		s += fmt.Sprintf(", created by %q", e.Creator)
	}
	return s
}

// Unwrap makes the error match ErrUnsupported.
func (e *UnsupportedError) Unwrap() error { return ErrUnsupported }

// Encryption holds bytes 48..75 of the header of an encrypted log: key id,
// key version, message and nonce, from which a server that has the keys
// derives the log key. It holds no key itself. All zero in a plain log.
type Encryption [28]byte

// String prints it as format.Redo.Encryption has it: hexadecimal, empty for a
// plain log.
func (e Encryption) String() string {
	if e == (Encryption{}) {
		return ""
	}
	return hex.EncodeToString(e[:])
}

// ParseEncryption is the reverse of Encryption.String.
func ParseEncryption(s string) (Encryption, error) {
	var e Encryption
	if s == "" {
		return e, nil
	}
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(e) {
		return e, fmt.Errorf("parse redo encryption %q: want %d bytes in hexadecimal", s, len(e))
	}
	copy(e[:], b)
	return e, nil
}

// Header is the header block of the log file (InnoDB log0log.cc,
// log_t::header_write).
type Header struct {
	Magic uint32
	// FirstLSN is the LSN of offset StartOffset on the first lap.
	FirstLSN format.LSN
	// Creator is the program that wrote the file, as "MariaDB 10.11.19".
	Creator    string
	Encryption Encryption
}

// Encrypted says that records are encrypted and every mini-transaction
// carries a nonce.
func (h Header) Encrypted() bool { return h.Magic == MagicEncrypted }

// ParseHeader reads the first 512 bytes of a log file. Other formats give an
// *UnsupportedError, a torn or damaged header ErrChecksum.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < headerSize {
		return Header{}, fmt.Errorf("%w: %d bytes, want %d", ErrChecksum, len(b), headerSize)
	}
	h := Header{
		Magic:    binary.BigEndian.Uint32(b),
		FirstLSN: format.LSN(binary.BigEndian.Uint64(b[headerFirst:])),
		Creator:  creatorOf(b[headerCreator:headerCrypt]),
	}
	copy(h.Encryption[:], b[headerCrypt:])
	sumOK := crc32c(b[:headerCRC]) == binary.BigEndian.Uint32(b[headerCRC:])
	if series := refused(h, sumOK); series != "" {
		return Header{}, &UnsupportedError{Magic: h.Magic, Series: series, Creator: h.Creator}
	}
	if !sumOK {
		return Header{}, fmt.Errorf("%w: checksum mismatch", ErrChecksum)
	}
	if binary.BigEndian.Uint32(b[headerZero:]) != 0 {
		return Header{}, fmt.Errorf("%w: reserved bytes are not zero", ErrChecksum)
	}
	if h.FirstLSN < StartOffset {
		return Header{}, fmt.Errorf("%w: first LSN %v is below %d", ErrChecksum, h.FirstLSN, StartOffset)
	}
	return h, nil
}

// refused names the kind of log that is not ours, or returns "". A magic that
// nobody writes, with a wrong checksum, is damage and no format.
func refused(h Header, sumOK bool) string {
	switch m := h.Magic; {
	case m == MagicPlain && sumOK && h.Encryption != (Encryption{}):
		// Nonces and key derivation differ from MagicEncrypted, and no
		// server at hand writes it, so nothing here was ever checked on it.
		return "MariaDB 10.8 or later, encrypted as before MDEV-36024"
	case m == MagicPlain || m == MagicEncrypted:
		return ""
	case m&^magicEncryptedOld == magic105:
		return "MariaDB 10.5 to 10.7"
	case m&^magicEncryptedOld == 104:
		return "MariaDB 10.4"
	case m&^magicEncryptedOld == 103:
		return "MariaDB 10.3"
	case m == 1 && strings.HasPrefix(h.Creator, "MySQL"):
		return "MySQL 5.7"
	case m&^magicEncryptedOld == 1:
		return "MariaDB 10.2 or MySQL 5.7"
	case m >= 2 && m <= 6:
		return "MySQL 8.0 or later"
	case m == 0:
		return "MariaDB before 10.2.2, MySQL before 5.7.9, or an empty file"
	case sumOK:
		return "unknown"
	}
	return ""
}

// creatorOf returns the NUL-padded name; anything that is no printable ASCII
// is no name, but part of a format without that field.
func creatorOf(b []byte) string {
	name, _, _ := bytes.Cut(b, []byte{0})
	for _, c := range name {
		if c < ' ' || c > '~' {
			return ""
		}
	}
	return string(name)
}

// Encode returns the header block as ParseHeader reads it. A creator of more
// than 31 bytes is cut.
func (h Header) Encode() [headerSize]byte {
	var b [headerSize]byte
	binary.BigEndian.PutUint32(b[:], h.Magic)
	binary.BigEndian.PutUint64(b[headerFirst:], uint64(h.FirstLSN))
	copy(b[headerCreator:headerCrypt-1], h.Creator)
	copy(b[headerCrypt:], h.Encryption[:])
	binary.BigEndian.PutUint32(b[headerCRC:], crc32c(b[:headerCRC]))
	return b
}

// BackupCreator turns a server's creator string into that of a backup's log:
// "MariaDB 10.11.19" becomes "Backup 10.11.19". Recovery looks at the first
// word, to know that it starts on a copy.
func BackupCreator(creator string) string {
	_, version, ok := strings.Cut(creator, " ")
	if !ok {
		version = creator
	}
	return "Backup " + version
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crc32c(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
