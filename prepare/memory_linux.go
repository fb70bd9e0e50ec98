package prepare

import "golang.org/x/sys/unix"

// reserve returns n bytes of address space that take memory only where they
// are written, and in large pages: lists of runs are written and read in random
// order.
func reserve(n int64) (mem []byte, release func(), err error) {
	mem, err = unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, nil, err
	}
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE) // a wish
	return mem, func() { _ = unix.Munmap(mem) }, nil
}
