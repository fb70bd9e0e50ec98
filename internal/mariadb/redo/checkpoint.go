package redo

import (
	"encoding/binary"

	"strings"

	"github.com/xbstream/xbstream/format"
)

// Offsets of the two checkpoint blocks in the file, and the bytes in use in
// each (InnoDB log0log.h).
const (
	Checkpoint1    = 4096
	Checkpoint2    = 8192
	CheckpointSize = 64

	checkpointZero = 16
	checkpointCRC  = 60
)

// Checkpoint is the content of a checkpoint block (InnoDB buf0flu.cc,
// log_t::write_checkpoint).
type Checkpoint struct {
	// LSN is where recovery starts to apply; a mini-transaction's boundary.
	LSN format.LSN
	// EndLSN is where the FILE_MODIFY and FILE_CHECKPOINT records that
	// belong to this checkpoint start; not below LSN.
	EndLSN format.LSN
}

// ParseCheckpoint reads one checkpoint block; ok is false when it is damaged,
// torn or was never written. Whether LSN is below the log's first one is for
// the caller to check.
func ParseCheckpoint(b []byte) (c Checkpoint, ok bool) {
	if len(b) < CheckpointSize {
		return c, false
	}
	if crc32c(b[:checkpointCRC]) != binary.BigEndian.Uint32(b[checkpointCRC:]) {
		return c, false
	}
	for _, z := range b[checkpointZero:checkpointCRC] {
		if z != 0 {
			return c, false
		}
	}
	c.LSN = format.LSN(binary.BigEndian.Uint64(b))
	c.EndLSN = format.LSN(binary.BigEndian.Uint64(b[8:]))
	return c, c.LSN <= c.EndLSN
}

// NewestCheckpoint chooses the checkpoint recovery starts from, out of head,
// the first StartOffset bytes of the file. A tie is won by the second block.
// The error is ErrNoCheckpoint.
func NewestCheckpoint(head []byte, firstLSN format.LSN) (Checkpoint, error) {
	var best Checkpoint
	found := false
	for _, off := range []int{Checkpoint1, Checkpoint2} {
		if len(head) < off+CheckpointSize {
			break
		}
		c, ok := ParseCheckpoint(head[off : off+CheckpointSize])
		if ok && c.LSN >= firstLSN && (!found || c.LSN >= best.LSN) {
			best, found = c, true
		}
	}
	if !found {
		return Checkpoint{}, ErrNoCheckpoint
	}
	return best, nil
}

// Encode returns the block as ParseCheckpoint reads it.
func (c Checkpoint) Encode() [CheckpointSize]byte {
	var b [CheckpointSize]byte
	binary.BigEndian.PutUint64(b[:], uint64(c.LSN))
	binary.BigEndian.PutUint64(b[8:], uint64(c.EndLSN))
	binary.BigEndian.PutUint32(b[checkpointCRC:], crc32c(b[:checkpointCRC]))
	return b
}

// LinearHead returns the StartOffset bytes that stand before the payload of a
// linear log, the form in which a backup keeps redo: the payload starts with
// start.LSN, never wraps, and all its markers are 1. A non-zero encryption
// makes it the head of an encrypted log.
func LinearHead(creator string, encryption Encryption, start Checkpoint) []byte {
	h := Header{Magic: MagicPlain, FirstLSN: start.LSN, Creator: creator, Encryption: encryption}
	if encryption != (Encryption{}) {
		h.Magic = MagicEncrypted
	}
	head := make([]byte, StartOffset)
	block := h.Encode()
	copy(head, block[:])
	cp := start.Encode()
	copy(head[Checkpoint1:], cp[:])
	return head
}

// MinimalLog returns the smallest log a server starts from without any
// recovery: one checkpoint at n and its FILE_CHECKPOINT. n + 16 must not be
// below the end LSN of the redo already applied.
func MinimalLog(n format.LSN, creator string) []byte {
	head := LinearHead(creator, Encryption{}, Checkpoint{LSN: n, EndLSN: n})
	record := AppendFileRecord(nil, FileRecord{Op: FileCheckpoint, Checkpoint: n})
	return AppendMTR(head, record, 1)
}

// BackupHead is LinearHead for the redo of a backup.
func BackupHead(b *format.Backup) ([]byte, error) {
	enc, err := ParseEncryption(b.Redo.Encryption)
	if err != nil {
		return nil, err
	}
	start := Checkpoint{LSN: b.Redo.CheckpointLSN, EndLSN: b.Redo.CheckpointEndLSN}
	return LinearHead(backupCreator(b.Server.Version), enc, start), nil
}

// backupCreator is the creator string by which a server knows that it starts
// from a backup: the plain version, without the suffix of the distribution.
func backupCreator(version string) string {
	v, _, _ := strings.Cut(version, "-")
	return "Backup " + v
}
