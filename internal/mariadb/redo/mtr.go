package redo

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/xbstream/xbstream/internal/innodb/redolog"
)

// MaxMTR bounds the size of a mini-transaction in bytes (InnoDB mtr0types.h,
// MTR_SIZE_MAX). The largest seen in millions had 32 KB.
const MaxMTR = 1 << 20

const (
	nonceSize = 8
	crcSize   = 4
)

// What ScanMTR finds at a place where no whole mini-transaction lies. They
// come bare, without place or cause: at the tip of a log they are the
// ordinary answer, given thousands of times a second.
var (
	// ErrShort means that the bytes end before the mini-transaction does.
	ErrShort = redolog.ErrShort
	// ErrEnd means that an end marker or padding stands where a record
	// should start.
	ErrEnd = errors.New("no mini-transaction starts here")
	// ErrMalformed means that the lengths of the records make no sense.
	ErrMalformed = redolog.ErrMalformed
	// ErrCRC means that the mini-transaction's checksum does not match.
	ErrCRC = errors.New("mini-transaction checksum mismatch")
)

// MTR is one mini-transaction, whole and with a matching checksum.
type MTR struct {
	// Records holds the records, without the marker.
	Records []byte
	// Marker is the end marker, 0 or 1. Whether it is the right one for its
	// LSN is for the caller to check (Ring.SeqBit): it is not covered by the
	// checksum.
	Marker byte
	// MarkerAt is the marker's offset from the mini-transaction's start.
	MarkerAt int
	// Size counts records, marker, nonce and checksum.
	Size int
}

// ScanMTR reads the mini-transaction at the start of b. The error is one of
// ErrShort, ErrEnd, ErrMalformed and ErrCRC (InnoDB log0recv.cc,
// recv_sys_t::parse).
func ScanMTR(b []byte, encrypted bool) (MTR, error) {
	at := 0
	for at < len(b) && b[at] > 1 {
		next, err := recordEnd(b, at)
		if err != nil {
			return MTR{}, err
		}
		at = next
	}
	size, err := sizeMTR(b, at, encrypted)
	if err != nil {
		return MTR{}, err
	}
	return MTR{Records: b[:at], Marker: b[at], MarkerAt: at, Size: size}, nil
}

// ScanRuns reads the mini-transaction at the start of b as ScanMTR does, finds its
// runs, and returns its end marker. FREE_PAGE or INIT_PAGE that go on with a page
// are ErrMalformed too.
func ScanRuns(s *redolog.Scan, b []byte, encrypted bool) (marker byte, err error) {
	at, onPage := 0, false
	for at < len(b) && b[at] > 1 {
		next, err := recordEnd(b, at)
		if err != nil {
			return 0, err
		}
		switch first := b[at]; {
		case first&bitSame == 0:
			onPage = true
			s.Starts = append(s.Starts, uint32(at))
			s.Records++
		case !onPage:
			s.Starts = append(s.Starts, uint32(at))
		case first&0x60 == 0:
			return 0, ErrMalformed
		default:
			s.Records++
		}
		at = next
	}
	size, err := sizeMTR(b, at, encrypted)
	if err != nil {
		return 0, err
	}
	s.RecordsEnd, s.Size = at, size
	return b[at], nil
}

// recordEnd returns where the record ends that starts at b[at].
func recordEnd(b []byte, at int) (int, error) {
	if n := int(b[at] & 15); n != 0 {
		at += 1 + n
	} else {
		head, body, err := recordLen(b[at:])
		if err != nil {
			return 0, err
		}
		at += head + body
	}
	if at >= MaxMTR {
		return 0, ErrMalformed
	}
	if at > len(b) {
		return 0, ErrShort
	}
	return at, nil
}

// sizeMTR checks the mini-transaction whose records end at b[at] and returns its
// size.
func sizeMTR(b []byte, at int, encrypted bool) (int, error) {
	if at == len(b) {
		return 0, ErrShort
	}
	if at == 0 {
		return 0, ErrEnd
	}
	tail := at + 1
	if encrypted {
		tail += nonceSize
	}
	if len(b) < tail+crcSize {
		return 0, ErrShort
	}
	sum := crc32c(b[:at])
	if encrypted {
		sum = crc32.Update(sum, castagnoli, b[at+1:tail]) // the nonce
	}
	if sum != binary.BigEndian.Uint32(b[tail:]) {
		return 0, ErrCRC
	}
	return tail + crcSize, nil
}

// AppendMTR appends a plain mini-transaction of the given records.
func AppendMTR(dst, records []byte, marker byte) []byte {
	dst = append(dst, records...)
	dst = append(dst, marker)
	return binary.BigEndian.AppendUint32(dst, crc32c(records))
}

// AppendEncryptedMTR appends a mini-transaction of an encrypted log, of
// records that are encrypted already.
func AppendEncryptedMTR(dst, records []byte, marker byte, nonce [nonceSize]byte) []byte {
	sum := crc32.Update(crc32c(records), castagnoli, nonce[:])
	dst = append(dst, records...)
	dst = append(dst, marker)
	dst = append(dst, nonce[:]...)
	return binary.BigEndian.AppendUint32(dst, sum)
}
