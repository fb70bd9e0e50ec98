package redo

import "encoding/binary"

// cursor reads the fields of a record one after the other. The first failure
// stays; what is read after it is 0.
type cursor struct {
	b   []byte
	at  int
	err error
}

func (c *cursor) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// take returns the next n bytes, nil if they are not there.
func (c *cursor) take(n int) []byte {
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

func (c *cursor) skip(n int) { c.take(n) }

func (c *cursor) u8() int {
	if p := c.take(1); p != nil {
		return int(p[0])
	}
	return 0
}

func (c *cursor) u16() int {
	if p := c.take(2); p != nil {
		return int(binary.BigEndian.Uint16(p))
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if p := c.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if p := c.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

// number reads a compressed number.
func (c *cursor) number() uint32 {
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

// length reads a number that counts bytes or the like.
func (c *cursor) length() int {
	v := c.number()
	if v > MaxMTR {
		c.fail(ErrMalformed)
		return 0
	}
	return int(v)
}

// number64 reads a compressed upper and a plain lower half.
func (c *cursor) number64() uint64 {
	high := c.number()
	return uint64(high)<<32 | uint64(c.u32())
}

// small64 reads the form for numbers that are small most of the time.
func (c *cursor) small64() uint64 {
	if c.err == nil && c.at < len(c.b) && c.b[c.at] == 0xFF {
		c.at++
		high := c.number()
		return uint64(high)<<32 | uint64(c.number())
	}
	return uint64(c.number())
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
