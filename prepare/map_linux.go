package prepare

import (
	"os"

	"golang.org/x/sys/unix"
)

// mapFile maps n bytes of a file, also beyond its end: what comes there later is
// seen, what is not there must not be touched.
func mapFile(f *os.File, off int64, n int) ([]byte, error) {
	mem, err := unix.Mmap(int(f.Fd()), off, n, unix.PROT_READ, unix.MAP_SHARED)
	if err == nil {
		_ = unix.Madvise(mem, unix.MADV_WILLNEED) // a wish
	}
	return mem, err
}

func unmap(mem []byte) error { return unix.Munmap(mem) }
