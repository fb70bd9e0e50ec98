package extract

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncTree makes everything below dir durable. One syncfs costs the same for
// one file as for twenty thousand; it reports write errors since Linux 5.8.
func syncTree(dir string) error { return withDir(dir, func(fd int) error { return unix.Syncfs(fd) }) }

func syncDir(dir string) error { return withDir(dir, unix.Fsync) }

func withDir(dir string, sync func(fd int) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := sync(int(d.Fd())); err != nil {
		return os.NewSyscallError("sync", err)
	}
	return nil
}

// startWriteback asks the kernel to begin writing the file out, so that the
// sync at the end does not find all of it still to do. Only a hint.
func startWriteback(f *os.File) {
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
}
