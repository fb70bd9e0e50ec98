//go:build unix

package extract

import (
	"errors"
	"os"
	"syscall"
)

// lockDir takes the lock of an open directory, which is free again when it is
// closed or the process ends. Where a file system has no such locks there is none.
func lockDir(dir *os.File) error {
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		return errBusy
	}
	return nil
}
