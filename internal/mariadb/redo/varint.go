package redo

// Smallest value of each longer form of a varint: every value has exactly one
// encoding (InnoDB mtr0log.h, mlog_decode_varint).
const (
	varint2 = 1 << 7
	varint3 = varint2 + 1<<14
	varint4 = varint3 + 1<<21
	varint5 = varint4 + 1<<28
)

// Varint decodes the number at the start of b and returns how many bytes it
// takes. n is 0 when b ends too early, and -1 when no number starts so.
func Varint(b []byte) (v uint32, n int) {
	if len(b) == 0 {
		return 0, 0
	}
	first := b[0]
	switch {
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
	default:
		return 0, -1
	}
	if len(b) < n {
		return 0, 0
	}
	for _, c := range b[1:n] {
		v = v<<8 | uint32(c)
	}
	least := [...]uint32{2: varint2, 3: varint3, 4: varint4, 5: varint5}[n]
	if v+least < v {
		return 0, -1
	}
	return v + least, n
}

// AppendVarint appends the encoding of v.
func AppendVarint(dst []byte, v uint32) []byte {
	switch {
	case v < varint2:
		return append(dst, byte(v))
	case v < varint3:
		v -= varint2
		return append(dst, 0x80|byte(v>>8), byte(v))
	case v < varint4:
		v -= varint3
		return append(dst, 0xC0|byte(v>>16), byte(v>>8), byte(v))
	case v < varint5:
		v -= varint4
		return append(dst, 0xE0|byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
	}
	v -= varint5
	return append(dst, 0xF0, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}
