package extract

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xbstream/xbstream/format"
)

// P1: a file is the same whichever of its pieces went past the page cache, and
// large ones do so where the file system is one for it.
func TestDirectWrites(t *testing.T) {
	for _, dir := range []string{t.TempDir(), shm(t)} {
		f, err := os.OpenFile(filepath.Join(dir, "f"), os.O_CREATE|os.O_RDWR, 0o600)
		check(t, err)
		defer f.Close()
		var fs unix.Statfs_t
		check(t, unix.Fstatfs(int(f.Fd()), &fs))
		able := fs.Type == unix.EXT4_SUPER_MAGIC || fs.Type == unix.XFS_SUPER_MAGIC
		t.Logf("%s: file system %#x", dir, fs.Type)

		const align = format.BufferAlign
		o := &openFile{f: f}
		var want []byte
		for _, piece := range []struct {
			off     int64
			n, skew int // skew is how far from alignment the memory begins
			direct  bool
		}{
			{0, format.ChunkSize, 0, true},
			{2 << 20, 100, 0, false},                      // a short piece, behind a hole
			{1 << 20, format.ChunkSize, 0, true},          // in front of it
			{2<<20 + align, directMin, 0, true},           // the least there is
			{3 << 20, directMin - align, 0, false},        // and less
			{4<<20 + 1, directMin, 0, false},              // between blocks of the file
			{5 << 20, directMin + 1, 0, false},            // with a part of one
			{512 << 10, directMin, 0, true},               // what is there already
			{6 << 20, format.ChunkSize - align, 1, false}, // the kernel refuses such memory
			{7 << 20, format.ChunkSize, 0, false},         // and is not asked again
		} {
			b := format.GetBuffer()
			p := b.Space()[piece.skew:][:piece.n]
			for i := range p {
				p[i] = byte(rand.Uint32())
			}
			check(t, o.writeAt(p, piece.off))
			want = append(want, make([]byte, max(0, int(piece.off)+piece.n-len(want)))...)
			copy(want[piece.off:], p)
			b.Release()
			flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
			check(t, err)
			if direct := flags&unix.O_DIRECT != 0; direct != (piece.direct && able) {
				t.Errorf("%s: %d bytes at %d: past the page cache is %t", dir, piece.n, piece.off, direct)
			}
		}
		got, err := os.ReadFile(f.Name())
		check(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the file differs from what was written", dir)
		}
	}
}

// shm returns a directory that is surely in memory.
func shm(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "extract")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
