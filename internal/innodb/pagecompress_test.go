package innodb_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
)

// canCompress are the algorithms that Compress has.
var canCompress = []string{"zlib", "lz4", "lzma", "snappy"}

func blocksOf(n int) int { return (n + innodb.PunchSize - 1) / innodb.PunchSize }

// checkCompress compresses again what a server has compressed, and notes how
// many blocks both take.
func checkCompress(t *testing.T, path string, f innodb.PageFormat, page []byte, tally map[string]int) {
	if !f.Compressed(page) || f.PageEncrypted(page) {
		return
	}
	algorithm := f.PageAlgorithm(page)
	if !innodb.CanCompress(algorithm) {
		return
	}
	plain, again, expanded := make([]byte, f.Logical), make([]byte, f.Logical), make([]byte, f.Logical)
	if err := f.Decompress(plain, page); err != nil {
		t.Fatal(err)
	}
	f.Seal(plain)
	used := f.Logical
	if f.Compress(again, plain, algorithm) {
		if err := f.Verify(again, innodb.PageNo(page)); err != nil {
			t.Fatalf("%s page %d compressed: %v", path, innodb.PageNo(page), err)
		}
		if err := f.Decompress(expanded, again); err != nil || !bytes.Equal(expanded, plain) || f.PageAlgorithm(again) != algorithm {
			t.Fatalf("%s page %d does not expand to itself: %v", path, innodb.PageNo(page), err)
		}
		used = f.Used(again)
		if !innodb.IsZero(again[used:]) || blocksOf(used) >= blocksOf(f.Logical) {
			t.Errorf("%s page %d: %d bytes used of %d", path, innodb.PageNo(page), used, f.Logical)
		}
	}
	name := algorithms[algorithm-1]
	tally["blocks at the server "+name] += blocksOf(f.Used(page))
	tally["blocks of ours "+name] += blocksOf(used)
}

// checkBlocks (G6): our pages take 1.1 times the blocks of the server's at most.
// Large pages of LZMA take more: our library finds fewer matches than liblzma.
func checkBlocks(t *testing.T, pageSize int, tally map[string]int) {
	for _, name := range canCompress {
		theirs, ours, limit := tally["blocks at the server "+name], tally["blocks of ours "+name], 1.1
		if name == "lzma" && pageSize > 16<<10 {
			limit = 1.3
		}
		if theirs == 0 || float64(ours) > limit*float64(theirs) {
			t.Errorf("%s, %d bytes a page: %d blocks where the server's pages take %d", name, pageSize, ours, theirs)
		}
	}
}

// Pages that the server leaves plain stay plain, and so do those that would not
// take fewer blocks.
func TestCompressLeavesPagesPlain(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, sum := range []string{"full_crc32", "crc32"} {
		f := innodb.PageFormat{Logical: 16 << 10, Physical: 16 << 10, PageCompressed: true}
		if sum == "full_crc32" {
			f.FullCRC32, f.Algorithm = true, innodb.AlgorithmZlib
		}
		page := func(kind uint16, noise int) []byte {
			p := make([]byte, f.Logical)
			p[7], p[23] = 9, 8 // page number, LSN
			p[24], p[25] = byte(kind>>8), byte(kind)
			for i := range noise {
				p[100+i] = byte(random.Uint32())
			}
			f.Seal(p)
			return p
		}
		for _, c := range []struct {
			name string
			page []byte
			want bool
		}{
			{"index", page(innodb.TypeIndex, 100), true},
			{"three blocks", page(innodb.TypeIndex, 11<<10), true},
			{"four blocks", page(innodb.TypeIndex, 12300), false},
			{"noise", page(innodb.TypeIndex, 16000), false},
			{"allocated", page(innodb.TypeAllocated, 0), false},
			{"header", page(innodb.TypeFSPHeader, 0), false},
			{"descriptors", page(innodb.TypeXDES, 0), false},
		} {
			dst := bytes.Repeat([]byte{0xAA}, f.Logical)
			if got := f.Compress(dst, c.page, innodb.AlgorithmZlib); got != c.want {
				t.Errorf("%s, %s: compressed is %v", sum, c.name, got)
			} else if got {
				if err := f.Verify(dst, format.PageNo(9)); err != nil {
					t.Errorf("%s, %s: %v", sum, c.name, err)
				}
			}
			for _, a := range []byte{innodb.AlgorithmNone, innodb.AlgorithmLZO, innodb.AlgorithmBzip2, 7, 255} {
				if f.Compress(dst, c.page, a) {
					t.Errorf("%s, %s: algorithm %d compresses", sum, c.name, a)
				}
			}
		}
		small := f
		small.Logical, small.Physical = 4<<10, 4<<10
		p := make([]byte, 4<<10)
		p[7], p[24], p[25] = 9, innodb.TypeIndex>>8, innodb.TypeIndex&0xff
		small.Seal(p)
		if small.Compress(make([]byte, 4<<10), p, innodb.AlgorithmZlib) {
			t.Errorf("%s: a page of one block was compressed", sum)
		}
	}
}
