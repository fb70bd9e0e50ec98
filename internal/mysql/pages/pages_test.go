package pages

import "testing"

// Flags seen on files of real servers.
func TestFlags(t *testing.T) {
	for flags, want := range map[uint32][2]int{0x4000: {16384, 16384}, 0x4021: {16384, 16384}, 0x4029: {16384, 8192}, 0x4800: {16384, 16384}, 0: {16384, 16384}, 0x2000 | 0x4021: {16384, 16384}, 0x4021 | 3<<6: {4096, 4096}, 0x4021 | 7<<6: {65536, 65536}} {
		f, err := ParseFlags(flags)
		if err != nil || f.Logical != want[0] || f.Physical != want[1] || f.FullCRC32 || f.PageCompressed || !f.MySQL || f.Encrypted != (flags&0x2000 != 0) {
			t.Errorf("%#x: %+v, %v", flags, f, err)
		}
	}
	for _, flags := range []uint32{1 << 15, 1 << 16, 1 << 31, 0x4001 | 9<<1} {
		if f, err := ParseFlags(flags); err == nil {
			t.Errorf("%#x: %+v", flags, f)
		}
	}
}
