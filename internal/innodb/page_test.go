package innodb

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/xbstream/xbstream/format"
)

func TestParseFlags(t *testing.T) {
	full := func(size int, algorithm byte) PageFormat {
		return PageFormat{FullCRC32: true, Logical: size, Physical: size, PageCompressed: algorithm != 0, Algorithm: algorithm}
	}
	old := func(size int) PageFormat { return PageFormat{Logical: size, Physical: size} }
	zip := func(size, physical int) PageFormat { return PageFormat{Logical: size, Physical: physical, Zip: true} }
	// Values marked "seen" come from servers' files.
	for _, c := range []struct {
		name  string
		flags uint32
		want  PageFormat // zero: refused
	}{
		{"full 16K, seen", 0x15, full(16<<10, 0)},
		{"full 16K zlib, seen", 0x35, full(16<<10, AlgorithmZlib)},
		{"full 4K", 0x13, full(4<<10, 0)},
		{"full 64K snappy", 0xd7, full(64<<10, AlgorithmSnappy)},
		{"full 2K", 0x12, PageFormat{}},
		{"full 128K", 0x18, PageFormat{}},
		{"full algorithm 7", 0xf5, PageFormat{}},
		{"full unknown bit", 0x115, PageFormat{}},
		{"old redundant 16K, seen", 0x0, old(16 << 10)},
		{"old dynamic 16K, seen", 0x21, old(16 << 10)},
		{"old 8K, seen", 0x121, old(8 << 10)},
		{"old 8K redundant, seen", 0x100, old(8 << 10)},
		{"zip 8K, seen", 0x29, zip(16<<10, 8<<10)},
		{"zip 4K, seen", 0x27, zip(16<<10, 4<<10)},
		{"zip 16K", 0x2b, zip(16<<10, 16<<10)},
		{"old 8K page_compressed, seen", 0x10121, PageFormat{Logical: 8 << 10, Physical: 8 << 10, PageCompressed: true}},
		{"old data directory", 0x421, old(16 << 10)},
		{"old 16K spelled out", 0x161, PageFormat{}},
		{"old 1K", 0x61, PageFormat{}},
		{"zip larger than page", 0x12b, PageFormat{}},
		{"zip in 32K", 0x1a9, PageFormat{}},
		{"zip without row format", 0x8, PageFormat{}},
		{"blobs without row format", 0x20, PageFormat{}},
		{"both compressions", 0x10029, PageFormat{}},
		{"old reserved bit", 0x821, PageFormat{}},
		{"old high bit", 0x80000021, PageFormat{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseFlags(c.flags)
			if got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			if refused := errors.Is(err, ErrFormat); refused != (c.want == PageFormat{}) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestIsZero(t *testing.T) {
	for _, n := range []int{0, 1, 7, 15, 16, 17, 4096, MaxPageSize, MaxPageSize + 1, 3*MaxPageSize + 5} {
		p := make([]byte, n)
		if !IsZero(p) {
			t.Errorf("%d zero bytes are not zero", n)
		}
		for _, i := range []int{0, 7, 8, 15, 16, n / 2, n - 1} {
			if i < 0 || i >= n {
				continue
			}
			p[i] = 1
			if IsZero(p) {
				t.Errorf("%d bytes with one at %d are zero", n, i)
			}
			p[i] = 0
		}
	}
}

// TestUnwrittenPages: an all-zero page was never written and is sound; before
// full_crc32 the eight bytes that no checksum covers may be set.
func TestUnwrittenPages(t *testing.T) {
	for _, flags := range []uint32{0x15, 0x35, 0x21, 0x29, 0x10121} {
		f, err := ParseFlags(flags)
		if err != nil {
			t.Fatal(err)
		}
		page := make([]byte, f.Physical)
		if err := f.Verify(page, 7); err != nil {
			t.Errorf("flags %#x: %v", flags, err)
		}
		page[30] = 1
		if err := f.Verify(page, 7); (err != nil) != f.FullCRC32 {
			t.Errorf("flags %#x with byte 30 set: %v", flags, err)
		}
		page[f.Physical-9] = 1
		if f.Verify(page, 7) == nil {
			t.Errorf("flags %#x with byte %d set: accepted", flags, f.Physical-9)
		}
	}
}

// legacyPage makes a page as innodb_checksum_algorithm=none or =innodb did; no
// server of today writes it any more.
func legacyPage(first, second func(page []byte) uint32) []byte {
	page := bytes.Repeat([]byte("rows"), 4096)
	putU32(page, OffPageNo, 3)
	SetLSN(page, 0x1_0000_0002)
	putU32(page, offKeyVersion, 0)
	putU32(page, len(page)-4, 2)
	putU32(page, offChecksum, first(page))
	putU32(page, len(page)-Trailer, second(page))
	return page
}

func TestLegacyChecksums(t *testing.T) {
	f, err := ParseFlags(0)
	if err != nil {
		t.Fatal(err)
	}
	none := func([]byte) uint32 { return noChecksum }
	lsnHigh := func([]byte) uint32 { return 1 }
	wrong := func([]byte) uint32 { return 12345 }
	for _, c := range []struct {
		name          string
		first, second func([]byte) uint32
		sound         bool
	}{
		{"none", none, none, true},
		{"innodb", legacySum, legacyTrailerSum, true},
		{"innodb with LSN", legacySum, lsnHigh, true},
		{"crc32", oldCRC, oldCRC, true},
		{"none in front only", none, oldCRC, false},
		{"wrong trailer", legacySum, wrong, false},
		{"wrong front", wrong, legacyTrailerSum, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			page := legacyPage(c.first, c.second)
			if err := f.Verify(page, 3); (err == nil) != c.sound {
				t.Errorf("%v", err)
			}
			page[len(page)-1]++
			if f.Verify(page, 3) == nil {
				t.Error("a page with two LSNs is accepted")
			}
		})
	}
}

// TestPagesOfMySQL56 checks two pages that MySQL 5.6.24 wrote into
// innodb_index_stats.ibd with innodb_checksum_algorithm=innodb. Words that are
// not listed are zero.
func TestPagesOfMySQL56(t *testing.T) {
	f, err := ParseFlags(0)
	if err != nil {
		t.Fatal(err)
	}
	for no, words := range map[format.PageNo]map[int]uint32{
		1: {0: 0xab8a8f21, 4: 0x1, 20: 0x187e81, 24: 0x50000, 36: 0x20000, 16376: 0xd47c1f02, 16380: 0x187e81},
		3: {
			0: 0xe3bc0949, 4: 0x3, 8: 0xffffffff, 12: 0xffffffff, 20: 0x191246, 24: 0x45bf0000, 36: 0x20002, 40: 0x788002,
			48: 0x5, 72: 0x120000, 76: 0x20000, 80: 0x200f2, 84: 0x2, 88: 0x2, 92: 0x320100, 96: 0x2000d69, 100: 0x6e66696d,
			104: 0x756d0001, 108: 0xb0000, 112: 0x73757072, 116: 0x656d756d, 16372: 0x700063, 16376: 0xee619673, 16380: 0x191246,
		},
	} {
		page := make([]byte, f.Physical)
		for off, w := range words {
			putU32(page, off, w)
		}
		if err := f.Verify(page, no); err != nil {
			t.Error(err)
		}
		page[110]++
		if f.Verify(page, no) == nil {
			t.Errorf("page %d: a changed byte goes unnoticed", no)
		}
	}
}

func TestVerifyNamesThePage(t *testing.T) {
	f, err := ParseFlags(0x15)
	if err != nil {
		t.Fatal(err)
	}
	page := make([]byte, f.Physical)
	putU32(page, OffPageNo, 9)
	SetLSN(page, 4711)
	f.Seal(page)
	var ce *ChecksumError
	if err := f.Verify(page, 8); !errors.As(err, &ce) || ce.PageNo != 8 || ce.Found != 9 || ce.LSN != 4711 {
		t.Errorf("%v", err)
	}
	page[100]++
	if err := f.Verify(page, 9); !errors.As(err, &ce) || ce.Problem != "checksum" || ce.Found == ce.Want {
		t.Errorf("%v", err)
	}
	if err := f.Verify(page[:512], 9); !errors.Is(err, ErrFormat) {
		t.Errorf("short page: %v", err)
	}
}

// fuzzSeeds are pages of every format, sound but for the checksums.
func fuzzSeeds() (seeds []struct {
	flags uint32
	page  []byte
}) {
	add := func(flags uint32, page []byte) {
		seeds = append(seeds, struct {
			flags uint32
			page  []byte
		}{flags, page})
	}
	for _, flags := range []uint32{0x15, 0x13, 0x21, 0x121, 0x29, 0x23} {
		f, _ := ParseFlags(flags)
		page := make([]byte, f.Physical)
		putU32(page, OffPageNo, 1)
		f.Seal(page)
		add(flags, page)
	}
	for a := uint32(1); a <= 6; a++ {
		page := make([]byte, 4<<10)
		page[OffType], page[OffType+1] = 0x80, 2
		putU32(page, OffPageNo, 1)
		copy(page[fullStream:], streams[a])
		add(0x13|a<<5, page)
		page = make([]byte, 16<<10)
		putU32(page, offChecksum, noChecksum)
		putU32(page, OffPageNo, 1)
		page[OffType], page[OffType+1] = 0x86, 0x32
		page[offOldAlgorithm+7] = byte(a)
		page[offOldLength+1] = byte(len(streams[a]))
		copy(page[oldStream:], streams[a])
		add(0x10021, page)
	}
	return seeds
}

// streams are the beginnings of streams as the algorithms write them.
var streams = func() [7][]byte {
	var s [7][]byte
	for i, text := range []string{
		AlgorithmZlib:   "789c636018059801000400" + "0001",
		AlgorithmLZ4:    "1f000100ffffffffffffffffffffffffffffffff0050000000000000",
		AlgorithmLZO:    "1200002000000000000000e9110000",
		AlgorithmLZMA:   "fd377a585a000000ff12d941020021011600000074" + "2fe5a3e00fff000c5d000000",
		AlgorithmBzip2:  "425a683131415926535900",
		AlgorithmSnappy: "802000" + "00fe0100fe0100fe0100",
	} {
		s[i], _ = hex.DecodeString(text)
	}
	return s
}()

func FuzzPage(f *testing.F) {
	seeds := fuzzSeeds()
	if len(seeds) != 18 {
		f.Fatalf("%d seeds", len(seeds))
	}
	for _, s := range seeds {
		f.Add(s.flags, s.page)
	}
	f.Fuzz(func(t *testing.T, flags uint32, data []byte) {
		pf, err := ParseFlags(flags)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		page := make([]byte, pf.Physical)
		copy(page, data)
		var ce *ChecksumError
		if err := pf.Verify(page, PageNo(page)); err != nil && !errors.As(err, &ce) {
			t.Fatalf("verify: %v", err)
		}
		if used := pf.Used(page); used < 0 || used > len(page) {
			t.Fatalf("%d of %d bytes used", used, len(page))
		}
		pf.PageEncrypted(page)
		pf.CryptData(page)
		pf.DoublewriteRange(page)
		dst := make([]byte, pf.Logical)
		err = pf.Decompress(dst, page)
		if err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrAlgorithm) && !errors.Is(err, ErrEncrypted) {
			t.Fatalf("decompress: %v", err)
		}
		pf.Seal(page)
		if marked := Type(page)&typeFullCompressedMarker != 0; !marked && !pf.PageEncrypted(page) {
			if err := pf.Verify(page, PageNo(page)); err != nil {
				t.Fatalf("sealed: %v", err)
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	for _, c := range []struct {
		name  string
		flags uint32
	}{{"full_crc32", 0x15}, {"crc32", 0x21}, {"compressed", 0x29}} {
		b.Run(c.name, func(b *testing.B) {
			f, err := ParseFlags(c.flags)
			if err != nil {
				b.Fatal(err)
			}
			page := bytes.Repeat([]byte{1, 2, 3, 4}, f.Physical/4)
			putU32(page, offKeyVersion, 0)
			putU32(page, offChecksum, 0)
			page[OffType] = 0
			f.Seal(page)
			b.SetBytes(int64(len(page)))
			b.ReportAllocs()
			for b.Loop() {
				if err := f.Verify(page, format.PageNo(0x01020304)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
