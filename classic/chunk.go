package classic

import (
	"encoding/binary"
	"fmt"

	"github.com/xbstream/xbstream/format"
)

// This file is the layout of a chunk, no I/O. Integers are little-endian. The
// facts are those of MariaDB extra/mariabackup/xbstream_write.cc and Percona
// storage/innobase/xtrabackup/doc (xbstream file format), tried with mbstream
// 10.11.

// Magic opens every chunk, so also the stream.
const Magic = "XBSTCK01"

// headSize is the part in front of the path: magic, flags, type, path length.
const headSize = len(Magic) + 1 + 1 + 4

// Flags of a chunk.
const (
	flagIgnorable = 0x01 // a reader that does not know the type skips the chunk
	flagRewrite   = 0x02 // MariaDB: the file may be there already, and is replaced
)

// The types of chunks.
const (
	typePayload = 'P'
	typeEnd     = 'E'
	typeSkip    = 'S' // MariaDB: seek; Percona: payload with holes
	typeRemove  = 'D' // MariaDB
	typeRename  = 'R' // MariaDB
)

// head is the fixed part of a chunk.
type head struct {
	flags   byte
	typ     byte
	pathLen int
}

func decodeHead(b []byte) (h head, err error) {
	if string(b[:len(Magic)]) != Magic {
		return h, fmt.Errorf("no chunk here: found %q instead of %s", b[:len(Magic)], Magic)
	}
	h = head{flags: b[8], typ: b[9]}
	if h.flags&^(flagIgnorable|flagRewrite) != 0 {
		return h, fmt.Errorf("unknown flags %#02x", h.flags)
	}
	h.pathLen, err = decodePathLen(b[10:])
	return h, err
}

func (h head) rewrite() bool { return h.flags&flagRewrite != 0 }

// decodePathLen bounds a path before it is read.
func decodePathLen(b []byte) (int, error) {
	n := binary.LittleEndian.Uint32(b)
	if n > format.MaxPath {
		return 0, fmt.Errorf("path of %d bytes, over the limit of %d", n, format.MaxPath)
	}
	return int(n), nil
}

// payloadSize is the size of what lies between the path and the payload.
const payloadSize = 8 + 8 + 4

// payload is the head of the data of a chunk.
type payload struct {
	size   int64 // bytes that follow
	offset int64 // in the file
	crc    uint32
}

func decodePayload(b []byte) (payload, error) {
	size, offset := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	p := payload{size: int64(size), offset: int64(offset), crc: binary.LittleEndian.Uint32(b[16:])}
	// Each is bounded first: their sum could overflow.
	if size > format.MaxFileSize || offset > format.MaxFileSize || size+offset > format.MaxFileSize {
		return p, fmt.Errorf("%d bytes at offset %d, over the limit of %d", size, offset, int64(format.MaxFileSize))
	}
	return p, nil
}

// seekSize is the size of what follows the path in MariaDB's 'S' chunk.
const seekSize = 8

func decodeSeek(b []byte) (int64, error) {
	off := binary.LittleEndian.Uint64(b)
	if off > format.MaxFileSize {
		return 0, fmt.Errorf("seek to %d, over the limit of %d", off, int64(format.MaxFileSize))
	}
	return int64(off), nil
}

// maxSparse bounds the entries of a sparse map. xtrabackup makes one a page at
// most, of 10 MiB.
const maxSparse = 1 << 16

// sparseSize is the size of an entry of a sparse map.
const sparseSize = 4 + 4

// run is an entry of a sparse map: so many bytes left out, so many present.
type run struct{ skip, size int64 }

// decodeSparse reads a sparse map whose present bytes must be those of p.
func decodeSparse(b []byte, p payload) ([]run, error) {
	runs := make([]run, len(b)/sparseSize)
	present, all := int64(0), int64(0)
	for i := range runs {
		e := b[i*sparseSize:]
		runs[i] = run{int64(binary.LittleEndian.Uint32(e)), int64(binary.LittleEndian.Uint32(e[4:]))}
		present += runs[i].size
		all += runs[i].skip + runs[i].size
	}
	if present != p.size {
		return nil, fmt.Errorf("sparse map of %d bytes, payload of %d", present, p.size)
	}
	if p.offset+all > format.MaxFileSize {
		return nil, fmt.Errorf("sparse map ends at %d, over the limit of %d", p.offset+all, int64(format.MaxFileSize))
	}
	return runs, nil
}
