package format

import "encoding/binary"

// indexEvery is how many entries a writer gathers before it writes an INDEX
// frame. The index travels in pieces all through the archive, each naming the
// one before, so that neither side's memory grows with the data.
const indexEvery = 32 << 10

// index gathers entries of the next INDEX frame, encoded.
type index struct {
	buf     []byte
	entries int
	last    uint64 // archive offset of the INDEX frame before
}

func (x *index) add(at uint64, file FileNo) {
	if x.buf == nil {
		x.buf = make([]byte, 0, indexHead+indexEvery*indexEntry)
	}
	if x.entries == 0 {
		x.buf = binary.BigEndian.AppendUint64(x.buf[:0], x.last)
	}
	x.buf = binary.BigEndian.AppendUint64(x.buf, at)
	x.buf = binary.BigEndian.AppendUint32(x.buf, uint32(file))
	x.entries++
}

// take copies the payload of the next INDEX frame to dst and returns its size.
func (x *index) take(dst []byte) int {
	x.entries = 0
	return copy(dst, x.buf)
}

// place is an entry of the index: where a frame begins and whose it is.
type place struct {
	at   uint64
	file FileNo
}

// parseIndex reads the payload of an INDEX frame.
func parseIndex(p []byte) (before uint64, places []place) {
	before = binary.BigEndian.Uint64(p)
	for p = p[indexHead:]; len(p) >= indexEntry; p = p[indexEntry:] {
		places = append(places, place{binary.BigEndian.Uint64(p), FileNo(binary.BigEndian.Uint32(p[8:]))})
	}
	return before, places
}
