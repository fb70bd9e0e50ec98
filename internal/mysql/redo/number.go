package redo

import "encoding/binary"

// Cursor reads the fields of a record, or of its body, one after the other. The
// first failure stays; what is read after it is 0.
type Cursor struct {
	b   []byte
	at  int
	err error
}

// NewCursor starts at the first byte of b.
func NewCursor(b []byte) *Cursor { return &Cursor{b: b} }

// Err returns the first failure: ErrShort, ErrMalformed, or that of Fail.
func (c *Cursor) Err() error { return c.err }

// Fail makes err the failure, unless there is one.
func (c *Cursor) Fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// Rest returns what has not been read.
func (c *Cursor) Rest() []byte { return c.b[c.at:] }

// Done says that all has been read, without a failure.
func (c *Cursor) Done() bool { return c.err == nil && c.at == len(c.b) }

// Take returns the next n bytes, nil if they are not there.
func (c *Cursor) Take(n int) []byte {
	switch {
	case c.err != nil:
		return nil
	case n < 0 || n > MaxMTR:
		c.err = ErrMalformed
		return nil
	case n > len(c.b)-c.at:
		c.err = ErrShort
		return nil
	}
	c.at += n
	return c.b[c.at-n : c.at : c.at]
}

// Skip passes over n bytes.
func (c *Cursor) Skip(n int) { c.Take(n) }

// U8 reads one byte.
func (c *Cursor) U8() int {
	if p := c.Take(1); p != nil {
		return int(p[0])
	}
	return 0
}

// U16 reads two bytes.
func (c *Cursor) U16() int {
	if p := c.Take(2); p != nil {
		return int(binary.BigEndian.Uint16(p))
	}
	return 0
}

// U32 reads four bytes.
func (c *Cursor) U32() uint32 {
	if p := c.Take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

// U64 reads eight bytes.
func (c *Cursor) U64() uint64 {
	if p := c.Take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

// Number reads a compressed number.
func (c *Cursor) Number() uint32 {
	if c.err != nil {
		return 0
	}
	v, n := Number(c.b[c.at:])
	switch {
	case n == 0:
		c.err = ErrShort
	case n < 0:
		c.err = ErrMalformed
	default:
		c.at += n
	}
	return v
}

// Length reads a compressed number that counts bytes or the like. More than limit
// is a failure.
func (c *Cursor) Length(limit uint32) int {
	v := c.Number()
	if v > limit {
		c.Fail(ErrMalformed)
		return 0
	}
	return int(v)
}

// Number64 reads a compressed upper and a plain lower half.
func (c *Cursor) Number64() uint64 {
	high := c.Number()
	return uint64(high)<<32 | uint64(c.U32())
}

// Small64 reads the form for numbers that are small most of the time.
func (c *Cursor) Small64() uint64 {
	if c.err == nil && c.at < len(c.b) && c.b[c.at] == 0xFF {
		c.at++
		high := c.Number()
		return uint64(high)<<32 | uint64(c.Number())
	}
	return uint64(c.Number())
}

// Number decodes the compressed number at the start of b and returns how many
// bytes it takes. n is 0 when b ends too early, and -1 when no number starts so
// (InnoDB mach0data.ic, mach_write_compressed). The first bits say how many
// bytes follow; since 8.0.19 numbers close to 2^32 have short forms, too.
func Number(b []byte) (v uint32, n int) {
	if len(b) == 0 {
		return 0, 0
	}
	var ones uint32 // the upper bits that the short form leaves out
	switch first := b[0]; {
	case first < 0x80:
		return uint32(first), 1
	case first < 0xC0:
		n, v = 2, uint32(first&0x3F)
	case first < 0xE0:
		n, v = 3, uint32(first&0x1F)
	case first < 0xF0:
		n, v = 4, uint32(first&0x0F)
	case first == 0xF0:
		n = 5
	case first < 0xF8:
		return 0, -1
	case first < 0xFC:
		n, v, ones = 2, uint32(first&0x03), 0xFFFFFC00
	case first < 0xFE:
		n, v, ones = 3, uint32(first&0x01), 0xFFFE0000
	case first == 0xFE:
		n, ones = 4, 0xFF000000
	default:
		return 0, -1
	}
	if len(b) < n {
		return 0, 0
	}
	for _, c := range b[1:n] {
		v = v<<8 | uint32(c)
	}
	return v | ones, n
}

// AppendNumber appends the shortest form of v.
func AppendNumber(dst []byte, v uint32) []byte {
	switch {
	case v < 1<<7:
		return append(dst, byte(v))
	case v < 1<<14:
		return append(dst, 0x80|byte(v>>8), byte(v))
	case v < 1<<21:
		return append(dst, 0xC0|byte(v>>16), byte(v>>8), byte(v))
	case v < 1<<28:
		return append(dst, 0xE0|byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
	case v >= 0xFFFFFC00:
		return append(dst, 0xF8|byte(v>>8)&0x03, byte(v))
	case v >= 0xFFFE0000:
		return append(dst, 0xFC|byte(v>>16)&0x01, byte(v>>8), byte(v))
	case v >= 0xFF000000:
		return append(dst, 0xFE, byte(v>>16), byte(v>>8), byte(v))
	}
	return append(dst, 0xF0, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}
