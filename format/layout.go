package format

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
)

// This file is SPEC.md §2 to §4 as code: offsets and sizes, no I/O. All
// integers are big-endian, as everything else in this field.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// SPEC.md §2: the archive header.
const (
	archiveHeaderSize = 32

	// Version is the version of the archive format this package writes and
	// the only one it reads.
	Version = 1
)

// Magic opens every archive. The first byte has bit 7 set and line ends of two
// kinds follow, so that a transfer in text mode is noticed at once.
var Magic = [8]byte{0x89, 'X', 'B', 'A', '\r', '\n', 0x1A, '\n'}

// ArchiveID ties frames to their archive.
type ArchiveID [16]byte

// String prints the id in lower-case hexadecimal, as the manifest has it.
func (id ArchiveID) String() string { return hex.EncodeToString(id[:]) }

// archiveHeader is SPEC.md §2.
type archiveHeader struct {
	id ArchiveID
}

func (h archiveHeader) encode() [archiveHeaderSize]byte {
	var b [archiveHeaderSize]byte
	copy(b[0:8], Magic[:])
	binary.BigEndian.PutUint16(b[8:], Version)
	binary.BigEndian.PutUint16(b[10:], 0) // flags
	copy(b[12:28], h.id[:])
	binary.BigEndian.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli))
	return b
}

func decodeArchiveHeader(b []byte) (archiveHeader, error) {
	var h archiveHeader
	if !bytes.Equal(b[0:8], Magic[:]) {
		return h, ErrNotArchive
	}
	if got, want := crc32.Checksum(b[:28], castagnoli), binary.BigEndian.Uint32(b[28:]); got != want {
		return h, fmt.Errorf("archive header checksum is %08x, computed %08x", want, got)
	}
	if v := binary.BigEndian.Uint16(b[8:]); v != Version {
		return h, fmt.Errorf("%w: archive version %d, this program reads version %d: use a newer xbstream", ErrUnsupported, v, Version)
	}
	if f := binary.BigEndian.Uint16(b[10:]); f != 0 {
		return h, fmt.Errorf("%w: archive flags %#04x: use a newer xbstream", ErrUnsupported, f)
	}
	copy(h.id[:], b[12:28])
	return h, nil
}

// frameHeaderSize is the size of the header of SPEC.md §3.
const frameHeaderSize = 48

var frameMagic = [4]byte{'X', 'B', 'F', '1'}

// FrameType says what a frame carries (SPEC.md §4).
type FrameType uint8

// The frame types of version 1.
const (
	FrameFile     FrameType = 1 // announces a file: provisional path and kind
	FrameData     FrameType = 2 // bytes of a file
	FrameHole     FrameType = 3 // a run of zero bytes of a file
	FrameClose    FrameType = 4 // the file is complete; Offset is its size
	FrameRedo     FrameType = 5 // whole mini-transactions; Offset is their RedoPosition
	FrameManifest FrameType = 6 // a piece of the manifest
	FrameIndex    FrameType = 7 // where the frames before it are
	FrameEnd      FrameType = 8 // totals and digest; always the last frame
	// FrameEstimate is advice. All rules but those of parsing it are those of a
	// type that a reader does not know, so that it is not one of known().
	FrameEstimate FrameType = 9
)

var frameNames = [...]string{"", "FILE", "DATA", "HOLE", "CLOSE", "REDO", "MANIFEST", "INDEX", "END", "ESTIMATE"}

// String prints the name SPEC.md uses.
func (t FrameType) String() string {
	if int(t) < len(frameNames) && t != 0 {
		return frameNames[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

func (t FrameType) known() bool { return t >= FrameFile && t <= FrameEnd }

// flagSkippable marks a frame that a reader may skip when it does not know the
// type. Every other flag is refused.
const flagSkippable = 0x01

// codec says how the payload is stored.
type codec uint8

const (
	codecStored codec = 0
	codecZstd   codec = 1
)

// frameHeader is SPEC.md §3.
type frameHeader struct {
	typ      FrameType
	flags    uint8
	codec    codec
	seq      uint64
	file     FileNo
	rawLen   uint32
	offset   uint64
	stored   uint32
	sum      uint32 // crc32c of the payload as stored
	rawSum   uint32 // crc32c of the raw payload, 0 when codec is stored
	checksum uint32 // crc32c of archive id and bytes 0..43
}

// encode writes the header into b, tied to the archive id.
func (h *frameHeader) encode(b []byte, id *ArchiveID) {
	_ = b[frameHeaderSize-1]
	copy(b[0:4], frameMagic[:])
	b[4] = uint8(h.typ)
	b[5] = h.flags
	b[6] = uint8(h.codec)
	b[7] = 0
	binary.BigEndian.PutUint64(b[8:], h.seq)
	binary.BigEndian.PutUint32(b[16:], uint32(h.file))
	binary.BigEndian.PutUint32(b[20:], h.rawLen)
	binary.BigEndian.PutUint64(b[24:], h.offset)
	binary.BigEndian.PutUint32(b[32:], h.stored)
	binary.BigEndian.PutUint32(b[36:], h.sum)
	binary.BigEndian.PutUint32(b[40:], h.rawSum)
	binary.BigEndian.PutUint32(b[44:], headerChecksum(b, id))
}

func headerChecksum(b []byte, id *ArchiveID) uint32 {
	return crc32.Update(crc32.Checksum(id[:], castagnoli), castagnoli, b[:44])
}

// decodeFrameHeader checks magic and checksum and nothing else; check does the
// rest.
func decodeFrameHeader(b []byte, id *ArchiveID) (frameHeader, error) {
	var h frameHeader
	if !bytes.Equal(b[0:4], frameMagic[:]) {
		return h, fmt.Errorf("no frame here: found % x instead of the frame magic", b[0:4])
	}
	h.checksum = binary.BigEndian.Uint32(b[44:])
	if got := headerChecksum(b, id); got != h.checksum {
		return h, fmt.Errorf("frame header checksum is %08x, computed %08x (damaged, or a frame of another archive)", h.checksum, got)
	}
	h.typ = FrameType(b[4])
	h.flags = b[5]
	h.codec = codec(b[6])
	if b[7] != 0 {
		return h, fmt.Errorf("%w: reserved byte of the frame header is %#02x", ErrUnsupported, b[7])
	}
	h.seq = binary.BigEndian.Uint64(b[8:])
	h.file = FileNo(binary.BigEndian.Uint32(b[16:]))
	h.rawLen = binary.BigEndian.Uint32(b[20:])
	h.offset = binary.BigEndian.Uint64(b[24:])
	h.stored = binary.BigEndian.Uint32(b[32:])
	h.sum = binary.BigEndian.Uint32(b[36:])
	h.rawSum = binary.BigEndian.Uint32(b[40:])
	return h, nil
}

// The limits of SPEC.md §6. A reader allocates no more than they allow.
const (
	// MaxPayload bounds the payload of a frame, raw and stored, in bytes.
	MaxPayload = ChunkSize
	// MaxHole bounds the length of one hole frame, in bytes.
	MaxHole = 1 << 30
	// MaxFileSize bounds the size of a file, in bytes.
	MaxFileSize = 1 << 50
	// MaxPath bounds a path, in bytes; MaxPathElement each of its elements.
	MaxPath        = 4096
	MaxPathElement = 255
	// MaxFiles bounds the number of files in an archive, and that of entries
	// in its manifest.
	MaxFiles = 1 << 24
	// MaxOpenFiles bounds the files announced and not yet closed at any
	// point of the stream.
	MaxOpenFiles = 1024
	// MaxExtents bounds the separate runs of bytes an open file may consist
	// of at any point of the stream.
	MaxExtents = 1024
	// MaxManifest bounds the manifest, MaxManifestLine each of its lines.
	MaxManifest     = 4 << 30
	MaxManifestLine = 64 << 10
	// maxFilePayload bounds the payload of a FILE frame.
	maxFilePayload = 8 << 10
)

// check applies what SPEC.md §3 and §4 demand of a single header, before
// anything is allocated for its payload.
func (h *frameHeader) check() error {
	if h.flags&^flagSkippable != 0 {
		return fmt.Errorf("%w: frame flags %#02x", ErrUnsupported, h.flags)
	}
	if !h.typ.known() {
		if h.flags&flagSkippable == 0 {
			return fmt.Errorf("%w: frame %s", ErrUnsupported, h.typ)
		}
	} else if h.flags&flagSkippable != 0 && h.typ != FrameIndex {
		return fmt.Errorf("%s frame is marked as skippable", h.typ)
	}
	if h.stored > MaxPayload {
		return fmt.Errorf("%s frame: stored length %d is over the limit of %d", h.typ, h.stored, MaxPayload)
	}
	if h.typ != FrameHole && h.rawLen > MaxPayload {
		return fmt.Errorf("%s frame: raw length %d is over the limit of %d", h.typ, h.rawLen, MaxPayload)
	}
	if err := h.checkCodec(); err != nil {
		return err
	}
	return h.checkType()
}

func (h *frameHeader) checkCodec() error {
	switch h.codec {
	case codecStored:
		if h.rawSum != 0 {
			return fmt.Errorf("%s frame: raw checksum on a stored payload", h.typ)
		}
		if h.typ != FrameHole && h.rawLen != h.stored {
			return fmt.Errorf("%s frame: raw length %d, stored length %d", h.typ, h.rawLen, h.stored)
		}
		return nil
	case codecZstd:
		if h.stored == 0 || h.stored >= h.rawLen || h.typ == FrameHole {
			return fmt.Errorf("%s frame: raw length %d, compressed length %d", h.typ, h.rawLen, h.stored)
		}
		return nil
	}
	return fmt.Errorf("%w: codec %d of %s frame", ErrUnsupported, h.codec, h.typ)
}

func (h *frameHeader) checkType() error {
	ofFile := h.typ == FrameFile || h.typ == FrameData || h.typ == FrameHole || h.typ == FrameClose
	switch {
	case !h.typ.known():
		return nil
	case ofFile && (h.file == 0 || h.file > MaxFiles):
		return fmt.Errorf("%s frame: file number %d", h.typ, h.file)
	case !ofFile && h.file != 0:
		return fmt.Errorf("%s frame: file number %d, must be 0", h.typ, h.file)
	}
	switch h.typ {
	case FrameFile:
		if h.offset != 0 || h.rawLen > maxFilePayload {
			return fmt.Errorf("FILE frame: offset %d, length %d", h.offset, h.rawLen)
		}
	case FrameData:
		if h.rawLen == 0 {
			return fmt.Errorf("DATA frame without data")
		}
		return checkRange(h)
	case FrameHole:
		if h.stored != 0 || h.sum != 0 || h.rawLen == 0 || h.rawLen > MaxHole {
			return fmt.Errorf("HOLE frame: length %d, stored length %d", h.rawLen, h.stored)
		}
		return checkRange(h)
	case FrameClose:
		if h.rawLen != 0 || h.offset > MaxFileSize {
			return fmt.Errorf("CLOSE frame: size %d, payload of %d bytes", h.offset, h.rawLen)
		}
	case FrameIndex:
		if h.rawLen < indexHead+indexEntry || (h.rawLen-indexHead)%indexEntry != 0 {
			return fmt.Errorf("INDEX frame: length %d", h.rawLen)
		}
	case FrameRedo, FrameManifest:
		if h.rawLen == 0 || h.offset > 1<<63 {
			return fmt.Errorf("%s frame: position %d, length %d", h.typ, h.offset, h.rawLen)
		}
	case FrameEnd:
		if h.rawLen != endSize || h.offset != 0 || h.codec != codecStored {
			return fmt.Errorf("END frame: length %d, must be %d", h.rawLen, endSize)
		}
	}
	return nil
}

func checkRange(h *frameHeader) error {
	if h.offset > MaxFileSize || h.offset+uint64(h.rawLen) > MaxFileSize {
		return fmt.Errorf("%s frame: offset %d, length %d: over the limit of %d for a file", h.typ, h.offset, h.rawLen, int64(MaxFileSize))
	}
	return nil
}

// The payload of an INDEX frame, SPEC.md §4.7: a head, then entries.
const (
	indexHead  = 8  // archive offset of the INDEX frame before, 0 = none
	indexEntry = 12 // archive offset of a frame (8), its file number (4)
	// maxIndexEntries is the most entries an INDEX frame may have.
	maxIndexEntries = (MaxPayload - indexHead) / indexEntry
)

// endSize is the size of the payload of the END frame, SPEC.md §4.8.
const endSize = 88

// Totals are the counts an END frame carries.
type Totals struct {
	Frames    uint64 // frames before the END frame
	Files     uint64 // FILE frames
	DataBytes uint64 // raw bytes of DATA frames
	HoleBytes uint64 // bytes of HOLE frames
	RedoBytes uint64 // raw bytes of REDO frames
}

// endPayload is SPEC.md §4.8.
type endPayload struct {
	totals   Totals
	manifest uint64 // archive offset of the first MANIFEST frame
	index    uint64 // archive offset of the last INDEX frame, 0 = none
	digest   [32]byte
}

func (e *endPayload) encode() [endSize]byte {
	var b [endSize]byte
	binary.BigEndian.PutUint64(b[0:], e.totals.Frames)
	binary.BigEndian.PutUint64(b[8:], e.totals.Files)
	binary.BigEndian.PutUint64(b[16:], e.totals.DataBytes)
	binary.BigEndian.PutUint64(b[24:], e.totals.HoleBytes)
	binary.BigEndian.PutUint64(b[32:], e.totals.RedoBytes)
	binary.BigEndian.PutUint64(b[40:], e.manifest)
	binary.BigEndian.PutUint64(b[48:], e.index)
	copy(b[56:88], e.digest[:])
	return b
}

func decodeEnd(b []byte) endPayload {
	var e endPayload
	e.totals.Frames = binary.BigEndian.Uint64(b[0:])
	e.totals.Files = binary.BigEndian.Uint64(b[8:])
	e.totals.DataBytes = binary.BigEndian.Uint64(b[16:])
	e.totals.HoleBytes = binary.BigEndian.Uint64(b[24:])
	e.totals.RedoBytes = binary.BigEndian.Uint64(b[32:])
	e.manifest = binary.BigEndian.Uint64(b[40:])
	e.index = binary.BigEndian.Uint64(b[48:])
	copy(e.digest[:], b[56:88])
	return e
}
