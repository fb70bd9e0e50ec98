package redo

import (
	"encoding/binary"

	"github.com/xbstream/xbstream/format"
)

// Offsets in a log block (InnoDB log0constants.h).
const (
	blockNo    = 0 // u32, bit 31 was a flag of older servers
	blockLen   = 4 // u16, bit 15: encrypted
	blockFirst = 6 // u16
	blockEpoch = 8 // u32
	blockCRC   = 508

	blockEncrypted = 0x8000
	// noChecksum stands in blocks written with innodb_log_checksums=OFF.
	noChecksum = 0xDEADBEEF
	// epochBlocks is how many blocks an epoch has.
	epochBlocks = 1 << 30
)

// BlockState is what a block is to a reader that expects a certain LSN in it.
type BlockState int

// The states.
const (
	// Complete: all of its payload is there.
	Complete BlockState = iota
	// Partial: the server will write this block again, with more in it.
	Partial
	// Unwritten: zeros, or a block of an earlier life of the file.
	Unwritten
	// Torn: read while it was written, or damaged; reading again tells.
	Torn
	// Overtaken: a later block; the file was used again before it was read.
	Overtaken
)

// Block is the header of a log block.
type Block struct {
	// Used is how many bytes of the block are in use, header included: 512 in a
	// complete block.
	Used int
	// First is where the first mini-transaction starts that starts in this
	// block, 0 if none does.
	First int
	// Encrypted says that what follows the header is encrypted. Its checksum is
	// that of the plain block, so that State cannot check it.
	Encrypted bool
}

// expected returns the two numbers that the block of an LSN carries (InnoDB
// log0files_io.h, log_block_convert_lsn_to_hdr_no, ..._to_epoch_no).
func expected(lsn format.LSN) (no, epoch uint32) {
	n := uint64(lsn) / BlockSize
	return uint32(1 + n%epochBlocks), uint32(1 + n/epochBlocks)
}

// ParseBlock reads the 512 bytes of the block that should start at an LSN, and
// says what they are. The block is only valid if it is Complete or Partial.
func ParseBlock(b []byte, lsn format.LSN) (Block, BlockState) {
	if len(b) < BlockSize {
		return Block{}, Unwritten
	}
	be := binary.BigEndian
	no, epoch := be.Uint32(b[blockNo:])&^(1<<31), be.Uint32(b[blockEpoch:])
	used := be.Uint16(b[blockLen:])
	out := Block{Used: int(used &^ blockEncrypted), First: int(be.Uint16(b[blockFirst:])), Encrypted: used&blockEncrypted != 0}
	sum := be.Uint32(b[blockCRC:])
	sumOK := out.Encrypted || sum == crc32c(b[:blockCRC])
	wantNo, wantEpoch := expected(lsn)
	here := no == wantNo && epoch == wantEpoch
	if here && sum == noChecksum {
		sumOK = true
	}
	switch {
	case here && sumOK && out.sound():
		if out.Used < BlockSize {
			return out, Partial
		}
		return out, Complete
	case here && sumOK:
		return Block{}, Torn
	case sumOK && no != 0 && (epoch > wantEpoch || epoch == wantEpoch && no > wantNo):
		return Block{}, Overtaken
	case sumOK || zero(b[:BlockSize]):
		return Block{}, Unwritten
	}
	return Block{}, Torn
}

// sound says whether the lengths in a header make sense.
func (b Block) sound() bool {
	full := b.Used == BlockSize
	return (full || b.Used >= blockHeader && b.Used < BlockSize-blockTrailer) &&
		(b.First == 0 || b.First >= blockHeader && b.First <= b.Used && b.First < BlockSize-blockTrailer)
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// End is the LSN up to which the block that starts at an LSN holds the log.
func (b Block) End(lsn format.LSN) format.LSN { return lsn + format.LSN(b.Used) }

// Payload returns the bytes of records in a block, which must be complete or
// partial.
func (b Block) Payload(raw []byte) []byte {
	return raw[blockHeader:min(b.Used, BlockSize-blockTrailer)]
}

// EncodeBlock returns the block that starts at an LSN with the given payload, of
// at most 496 bytes. first is where in the block the first mini-transaction
// starts that starts there, 0 for none.
func EncodeBlock(lsn format.LSN, payload []byte, first int) [BlockSize]byte {
	var b [BlockSize]byte
	be := binary.BigEndian
	no, epoch := expected(lsn)
	used := blockHeader + copy(b[blockHeader:blockHeader+BlockPayload], payload)
	if used == BlockSize-blockTrailer {
		used = BlockSize
	}
	be.PutUint32(b[blockNo:], no)
	be.PutUint16(b[blockLen:], uint16(used))
	be.PutUint16(b[blockFirst:], uint16(first))
	be.PutUint32(b[blockEpoch:], epoch)
	be.PutUint32(b[blockCRC:], crc32c(b[:blockCRC]))
	return b
}
