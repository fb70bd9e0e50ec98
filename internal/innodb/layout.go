package innodb

import (
	"encoding/binary"

	"github.com/xbstream/xbstream/format"
)

// Offsets in every page: the FIL header (InnoDB fil0types.h, fil0fil.h).
const (
	offChecksum    = 0  // u32 checksum; full_crc32: key version
	OffPageNo      = 4  // u32
	OffPrev        = 8  // u32 previous page, followed by the next one
	offLSN         = 16 // u64
	OffType        = 24 // u16
	offKeyVersion  = 26 // u32, before full_crc32
	offCryptSum    = 30 // u32 checksum of the encrypted page, before full_crc32
	OffSpaceID     = 34 // u32
	OffData        = 38 // end of the FIL header
	Trailer        = 8  // after the content: u32 checksum, u32 low half of the LSN; full_crc32: the other way around
	checksumLength = 4
)

// Offsets in page 0: the FSP header (InnoDB fsp0fsp.h).
const (
	offFSPSpaceID = 38 // u32, same as OffSpaceID
	offFSPSize    = 46 // u32 size of the tablespace in pages
	offFSPFlags   = 54 // u32 FSP_SPACE_FLAGS
	// offXDES is where the extent descriptors start, offAfterXDES what is
	// added to their length to get to the encryption data: the server adds
	// the FIL header twice.
	offXDES      = 38 + 112
	offAfterXDES = offXDES + 38
)

// Offsets in a page_compressed page (InnoDB fil0pagecompress.cc).
const (
	fullStream       = 26 // full_crc32: stream starts here
	offOldAlgorithm  = 26 // before: u64 algorithm, plain pages
	offOldLength     = 38 // u16 length of the stream
	oldStream        = 40 // stream of a plain page
	offOldCryptAlg   = 40 // u16 algorithm of an encrypted page
	oldCryptedStream = 42 // stream of an encrypted page
)

// Page types that change how a page is checked (InnoDB fil0fil.h).
const (
	TypeAllocated            = 0
	TypeUndoLog              = 2
	TypeInode                = 3
	TypeTrxSys               = 7
	TypeFSPHeader            = 8
	TypeXDES                 = 9
	TypeRTree                = 17854
	TypeIndex                = 17855
	TypePageCompressed       = 34354
	TypePageCompressedCrypt  = 37401
	typeFullCompressedMarker = 1 << 15
)

// HeaderSize is the number of bytes at the start of page 0 that the accessors
// of this file read.
const HeaderSize = offFSPFlags + 4

// TrxSysPage is the page of space 0 that says where the doublewrite areas are.
const TrxSysPage format.PageNo = 5

// SystemSpace is the system tablespace.
const SystemSpace format.SpaceID = 0

// PageNo returns the page number a page says it has.
func PageNo(page []byte) format.PageNo {
	return format.PageNo(binary.BigEndian.Uint32(page[OffPageNo:]))
}

// LSN returns the LSN of the last change of a page.
func LSN(page []byte) format.LSN {
	return format.LSN(binary.BigEndian.Uint64(page[offLSN:]))
}

// SetLSN writes the LSN of the last change; Seal writes its copy.
func SetLSN(page []byte, lsn format.LSN) {
	binary.BigEndian.PutUint64(page[offLSN:], uint64(lsn))
}

// Type returns the page type, in full_crc32 with bit 15 for page_compressed.
func Type(page []byte) uint16 {
	return binary.BigEndian.Uint16(page[OffType:])
}

// SpaceID returns the tablespace a page says it belongs to. In compressed
// pages of full_crc32 the field is part of the stream and means nothing.
func SpaceID(page []byte) format.SpaceID {
	return format.SpaceID(binary.BigEndian.Uint32(page[OffSpaceID:]))
}

// FSPSpaceID returns the tablespace id of the FSP header of page 0; it equals
// SpaceID in a sound page 0.
func FSPSpaceID(page0 []byte) format.SpaceID {
	return format.SpaceID(binary.BigEndian.Uint32(page0[offFSPSpaceID:]))
}

// FSPSize returns the size of the tablespace in pages, from page 0.
func FSPSize(page0 []byte) uint32 {
	return binary.BigEndian.Uint32(page0[offFSPSize:])
}

// Flags returns FSP_SPACE_FLAGS, from page 0.
func Flags(page0 []byte) uint32 {
	return binary.BigEndian.Uint32(page0[offFSPFlags:])
}

func u32(page []byte, off int) uint32 { return binary.BigEndian.Uint32(page[off:]) }

func u16(page []byte, off int) int { return int(binary.BigEndian.Uint16(page[off:])) }

func putU32(page []byte, off int, v uint32) { binary.BigEndian.PutUint32(page[off:], v) }
