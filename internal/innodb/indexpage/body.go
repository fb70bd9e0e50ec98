package indexpage

import (
	"encoding/binary"

	"github.com/xbstream/xbstream/internal/innodb"
)

// Body is what lies between the FIL header and the trailer of a page of any type,
// while it is changed. The first read or write outside sets Bad. Later ones do
// nothing, so that the steps of a change read straight down and the caller checks
// Bad once, at the end.
type Body struct {
	// B is the whole page.
	B   []byte
	Bad bool
}

// In reports whether n bytes at off lie in the body and nothing was Bad before.
func (x *Body) In(off, n int) bool {
	if off < innodb.OffData || n < 0 || off+n > len(x.B)-innodb.Trailer {
		x.Bad = true
	}
	return !x.Bad
}

// U8 reads a byte.
func (x *Body) U8(off int) int {
	if !x.In(off, 1) {
		return 0
	}
	return int(x.B[off])
}

// U16 reads two bytes.
func (x *Body) U16(off int) int {
	if !x.In(off, 2) {
		return 0
	}
	return int(binary.BigEndian.Uint16(x.B[off:]))
}

// Put16 writes two bytes.
func (x *Body) Put16(off, v int) {
	if x.In(off, 2) {
		binary.BigEndian.PutUint16(x.B[off:], uint16(v))
	}
}
