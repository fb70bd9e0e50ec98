package extract

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

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
			// ext4 with data=journal takes any memory, and goes through the cache.
			if direct := flags&unix.O_DIRECT != 0; direct != (piece.direct && able) && piece.skew == 0 {
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

// Files that are written in turn each lie in one piece, and keep their holes.
func TestDirectFilesInOnePiece(t *testing.T) {
	const mib = 1 << 20
	dir := t.TempDir()
	w := &fileWriter{opt: Options{}.withDefaults(), open: map[format.FileNo]*openFile{}, limit: 1}
	stage, err := os.OpenRoot(dir)
	check(t, err)
	defer stage.Close()
	check(t, stage.MkdirAll(partDir(1), 0o700))
	names := []format.FileNo{1, 2, 3}
	for _, n := range names {
		f, err := stage.Create(partName(n))
		check(t, err)
		w.open[n] = &openFile{at: &target{stage: stage}}
		check(t, w.admit(n, f)) // which closes the one before
	}
	frame := func(kind format.FrameType, n format.FileNo, pos, length int64) {
		f := &format.Frame{Type: kind, File: n, Pos: uint64(pos), Len: length}
		if kind == format.FrameData {
			b := format.GetBuffer()
			for i := range b.Space()[:length] {
				b.Space()[i] = byte(n)
			}
			b.SetLen(int(length))
			f.SetPayload(b)
		}
		check(t, w.write(f))
		f.Release()
	}
	// All three are in what is reserved: one is told of after what follows it, the
	// last one reaches beyond.
	const size, hole, late, hole2, end2 = 120 * mib, 20 * mib, 45 * mib, 60 * mib, 110 * mib
	for at := int64(0); at < size; at += mib {
		for _, n := range names {
			switch {
			case at == hole:
				frame(format.FrameHole, n, at, mib)
			case at == hole2:
				frame(format.FrameHole, n, at, end2-hole2)
			case at == late:
			case at < hole2 || at >= end2:
				frame(format.FrameData, n, at, mib)
			}
			if at == late+2*mib {
				frame(format.FrameHole, n, late, mib)
			}
		}
	}
	for _, n := range names {
		frame(format.FrameClose, n, size, 0)
	}
	for _, n := range names {
		f, err := stage.Open(partName(n))
		check(t, err)
		defer f.Close()
		check(t, f.Sync())
		var st unix.Stat_t
		check(t, unix.Fstat(int(f.Fd()), &st))
		written := int64(size - 2*mib - (end2 - hole2))
		if got := st.Blocks * 512; st.Size != size || got < written || got > written+mib {
			t.Errorf("file %d: size %d, %d bytes of blocks for %d written", n, st.Size, got, written)
		}
		want := bytes.Repeat([]byte{byte(n)}, size)
		clear(want[hole : hole+mib])
		clear(want[late : late+mib])
		clear(want[hole2:end2])
		got, err := os.ReadFile(filepath.Join(dir, partName(n)))
		check(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("file %d differs from what was written", n)
		}
		pieces := extents(t, f)
		t.Logf("file %d: %d extents", n, pieces)
		if pieces > size/mib/3 {
			t.Errorf("file %d lies in %d pieces", n, pieces)
		}
	}
}

// extents returns in how many pieces a file lies on the disk (FS_IOC_FIEMAP).
func extents(t *testing.T, f *os.File) uint32 {
	m := struct {
		start, length                  uint64
		flags, mapped, count, reserved uint32
	}{length: 1 << 62}
	const ioctl = 0xc020660b
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), ioctl, uintptr(unsafe.Pointer(&m))); errno != 0 {
		t.Fatal(errno)
	}
	return m.mapped
}

// shm returns a directory that is surely in memory.
func shm(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "extract")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
