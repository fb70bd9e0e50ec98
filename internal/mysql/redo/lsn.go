package redo

import "github.com/xbstream/xbstream/format"

// A log block: header, payload, checksum (InnoDB log0constants.h).
const (
	BlockSize    = 512
	blockHeader  = 12
	blockTrailer = 4
	// BlockPayload is how many bytes of records a block holds.
	BlockPayload = BlockSize - blockHeader - blockTrailer
)

// FirstLSN is where the log of a new instance starts.
const FirstLSN format.LSN = 16 * BlockSize

// Position counts the bytes of payload before a place in the log; the sources
// call it sn. Records are addressed by it where blocks are out of the way.
type Position uint64

// LSN returns the LSN of a position (InnoDB log0log.h, log_translate_sn_to_lsn).
func (p Position) LSN() format.LSN {
	return format.LSN(p/BlockPayload*BlockSize + p%BlockPayload + blockHeader)
}

// PositionOf returns the position of an LSN; ok is false if no record can start
// there, because it lies in the header or trailer of a block.
func PositionOf(lsn format.LSN) (p Position, ok bool) {
	in := lsn % BlockSize
	if in < blockHeader || in >= BlockSize-blockTrailer {
		return 0, false
	}
	return Position(lsn/BlockSize*BlockPayload + in - blockHeader), true
}

// Align returns the start of the block of an LSN.
func Align(lsn format.LSN) format.LSN { return lsn - lsn%BlockSize }
