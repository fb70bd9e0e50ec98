package extract

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/xbstream/xbstream/format"
)

// headerOf makes page 0 of a tablespace of full_crc32 with pages of 16 KiB.
func headerOf(flags uint32) []byte {
	p := make([]byte, 16<<10)
	binary.BigEndian.PutUint16(p[24:], 8)
	binary.BigEndian.PutUint32(p[34:], 7)
	binary.BigEndian.PutUint32(p[38:], 7)
	binary.BigEndian.PutUint32(p[54:], flags)
	binary.BigEndian.PutUint32(p[len(p)-4:], crc32.Checksum(p[:len(p)-4], crc32.MakeTable(crc32.Castagnoli)))
	return p
}

// G6: zeros in the data of ordinary files become holes: single blocks in a
// page_compressed tablespace, longer runs in other files. What is written a
// second time, as a classic stream does, counts.
func TestHolesInData(t *testing.T) {
	const plain, compressed, kib = 0x15, 0x35, 1 << 10
	noise := func(n int) []byte {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(rand.Uint32N(255) + 1)
		}
		return p
	}
	page := func(used int) []byte { return append(noise(used), make([]byte, 16*kib-used)...) }
	type piece struct {
		off int64
		p   []byte
	}
	for _, c := range []struct {
		name   string
		pieces []piece
		kind   format.FileKind
		blocks int64 // KiB
	}{
		{"page_compressed", []piece{{0, headerOf(compressed)}, {16 * kib, page(3 * kib)}, {32 * kib, bytes.Join([][]byte{page(5 * kib), page(0), page(100)}, nil)}}, format.KindFile, 4 + 4 + 4 + 8 + 4},
		{"damaged header", []piece{{0, append(headerOf(compressed)[:16*kib-1], 1)}, {16 * kib, page(3 * kib)}, {32 * kib, page(5 * kib)}}, format.KindFile, 16 + 4 + 8},
		{"plain tablespace", []piece{{0, bytes.Join([][]byte{headerOf(plain), page(3 * kib), noise(4 * kib), make([]byte, 28*kib), noise(kib)}, nil)}}, format.KindFile, 16 + 16 + 4 + 4},
		{"ends in zeros", []piece{{0, page(3 * kib)}, {16 * kib, make([]byte, 100*kib+7)}}, format.KindFile, 4},
		{"only zeros", []piece{{0, make([]byte, 5)}}, format.KindFile, 0},
		{"written again", []piece{{0, noise(64 * kib)}, {0, append(page(4*kib), noise(8*kib)...)}, {40 * kib, make([]byte, 40*kib)}}, format.KindFile, 40},
		{"between blocks", []piece{{0, noise(3 * kib)}, {3 * kib, make([]byte, 61*kib)}}, format.KindFile, 64},
		{"tablespace of xbsend", []piece{{0, headerOf(compressed)}, {16 * kib, page(3 * kib)}}, format.KindTablespace, 32},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			stage, err := os.OpenRoot(dir)
			check(t, err)
			defer stage.Close()
			w := &fileWriter{opt: Options{}.withDefaults(), open: map[format.FileNo]*openFile{}, limit: 4, t: &target{stage: stage}}
			check(t, stage.MkdirAll(partsDir, 0o700))
			check(t, w.write(&format.Frame{Type: format.FrameFile, File: 1, Path: "d/t.ibd", Kind: c.kind}))
			var want []byte
			for _, piece := range c.pieces {
				want = append(want, make([]byte, max(0, int(piece.off)+len(piece.p)-len(want)))...)
				copy(want[piece.off:], piece.p)
				b := format.GetBuffer()
				b.SetLen(copy(b.Space(), piece.p))
				f := &format.Frame{Type: format.FrameData, File: 1, Pos: uint64(piece.off)}
				f.SetPayload(b)
				check(t, w.write(f))
				f.Release()
			}
			check(t, w.write(&format.Frame{Type: format.FrameClose, File: 1, Pos: uint64(len(want))}))
			got, err := os.ReadFile(filepath.Join(dir, partName(1)))
			check(t, err)
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes came out, not the %d that went in", len(got), len(want))
			}
			f, err := stage.OpenFile(partName(1), os.O_RDWR, 0)
			check(t, err)
			defer f.Close()
			check(t, f.Sync())
			st, err := f.Stat()
			check(t, err)
			if got := st.Sys().(*syscall.Stat_t).Blocks / 2; got != c.blocks {
				t.Errorf("%d KiB of blocks, want %d", got, c.blocks)
			}
		})
	}
}

// A table that moves to another disk keeps its holes (G6).
func TestCopySparse(t *testing.T) {
	for _, c := range []struct {
		name   string
		flags  uint32
		blocks int64
	}{{"page_compressed", 0x35, 8 + 4 + 4}, {"plain", 0x15, 16 + 4 + 4}} {
		page := append(bytes.Repeat([]byte{1}, 100), make([]byte, 16<<10-100)...)
		want := bytes.Join([][]byte{headerOf(c.flags), page, page}, nil)
		if c.flags == 0x15 {
			want = bytes.Join([][]byte{headerOf(c.flags), page, make([]byte, 32<<10), page}, nil)
		}
		f, err := os.Create(filepath.Join(t.TempDir(), "file"))
		check(t, err)
		defer f.Close()
		size, err := copySparse(f, bytes.NewReader(want))
		check(t, err)
		check(t, f.Truncate(size))
		check(t, f.Sync())
		got, err := os.ReadFile(f.Name())
		check(t, err)
		st, err := f.Stat()
		check(t, err)
		if blocks := st.Sys().(*syscall.Stat_t).Blocks / 2; !bytes.Equal(got, want) || blocks != c.blocks {
			t.Errorf("%s: %d bytes in %d KiB of blocks, want %d in %d", c.name, len(got), blocks, len(want), c.blocks)
		}
	}
}
