package redo

import (
	"encoding/binary"

	"github.com/xbstream/xbstream/format"
)

// Where the two checkpoint blocks and the encryption block of a log file are.
const (
	Checkpoint1 = 1 * BlockSize
	Encryption  = 2 * BlockSize
	Checkpoint2 = 3 * BlockSize

	checkpointLSN = 8 // u64
)

// ParseCheckpoint reads a checkpoint block. ok is false if it is damaged or
// holds none. Whether the LSN lies in the file is for the caller to check: a
// file keeps the old ones of its earlier life (InnoDB log0files_io.cc,
// log_checkpoint_header_deserialize).
func ParseCheckpoint(b []byte) (lsn format.LSN, ok bool) {
	if len(b) < BlockSize || crc32c(b[:headerCRC]) != binary.BigEndian.Uint32(b[headerCRC:]) {
		return 0, false
	}
	lsn = format.LSN(binary.BigEndian.Uint64(b[checkpointLSN:]))
	return lsn, lsn != 0
}

// EncodeCheckpoint returns the block as ParseCheckpoint reads it; 0 is a block
// that holds no checkpoint.
func EncodeCheckpoint(lsn format.LSN) [BlockSize]byte {
	var b [BlockSize]byte
	binary.BigEndian.PutUint64(b[checkpointLSN:], uint64(lsn))
	binary.BigEndian.PutUint32(b[headerCRC:], crc32c(b[:headerCRC]))
	return b
}

// Encrypted says whether the head of a log file, its first StartOffset bytes,
// holds a key: blocks may be encrypted.
func Encrypted(head []byte) bool {
	for _, c := range head[Encryption:Checkpoint2] {
		if c != 0 {
			return true
		}
	}
	return false
}

// Head returns the first StartOffset bytes of a log file that a server accepts:
// header and both checkpoint blocks (InnoDB log0recv.cc recovers from the
// newest checkpoint of all files).
func Head(h Header, checkpoint format.LSN) []byte {
	head := make([]byte, StartOffset)
	block, c := h.Encode(), EncodeCheckpoint(checkpoint)
	copy(head, block[:])
	copy(head[Checkpoint1:], c[:])
	copy(head[Checkpoint2:], c[:])
	return head
}
