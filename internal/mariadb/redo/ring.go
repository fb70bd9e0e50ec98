package redo

import (
	"fmt"

	"github.com/xbstream/xbstream/format"
)

// Ring maps LSNs to offsets of the log file (InnoDB log0log.h,
// log_t::calc_lsn_offset and log_t::get_sequence_bit). One LSN is one byte:
// there are no block headers in the payload.
type Ring struct {
	// FirstLSN is the header's first LSN.
	FirstLSN format.LSN
	// Capacity is the size of the payload area in bytes.
	Capacity int64
}

// NewRing returns the geometry of a log file of the given size in bytes.
func NewRing(h Header, fileSize int64) (Ring, error) {
	if fileSize <= StartOffset {
		return Ring{}, fmt.Errorf("redo log of %d bytes is too small: the header alone takes %d", fileSize, StartOffset)
	}
	return Ring{FirstLSN: h.FirstLSN, Capacity: fileSize - StartOffset}, nil
}

// Offset returns the file offset of an LSN, which must not be below FirstLSN.
func (r Ring) Offset(lsn format.LSN) int64 {
	return StartOffset + int64(uint64(lsn-r.FirstLSN)%uint64(r.Capacity))
}

// SeqBit returns the value of an end marker that lies at an LSN, which must
// not be below FirstLSN: 1 on the first lap, 0 on the second, and so on.
func (r Ring) SeqBit(lsn format.LSN) byte {
	lap := uint64(lsn-r.FirstLSN) / uint64(r.Capacity)
	return byte(^lap & 1)
}
