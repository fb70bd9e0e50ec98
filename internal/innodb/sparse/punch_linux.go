package sparse

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Punch makes n bytes of a file a hole. Its size stays. Where the file system
// has no holes, zeros are written.
func Punch(f *os.File, off, n int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return writeZeros(f, off, n)
	}
	return os.NewSyscallError("fallocate", err)
}
