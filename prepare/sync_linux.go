package prepare

import (
	"os"

	"golang.org/x/sys/unix"
)

// startWriteback asks the kernel to begin writing the file out, so that the
// sync at the end does not find all of it still to do. Only a hint.
func startWriteback(f *os.File) {
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
}

// readAhead is what the kernel takes of one willRead at least; the rest of a
// longer one it may ignore.
const readAhead = 128 << 10

// willRead asks the kernel to fetch n bytes of a file. Only a hint.
func willRead(f *os.File, off, n int64) {
	for end := off + n; off < end; off += readAhead {
		_ = unix.Fadvise(int(f.Fd()), off, min(readAhead, end-off), unix.FADV_WILLNEED)
	}
}

// uncache asks the kernel to forget the cached pages of n bytes of a file. Only a
// hint.
func uncache(f *os.File, off, n int64) {
	_ = unix.Fadvise(int(f.Fd()), off, n, unix.FADV_DONTNEED)
}
