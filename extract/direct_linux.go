package extract

import (
	"os"

	"golang.org/x/sys/unix"
)

// setDirect lets writes go past the page cache, or through it again, and says
// whether they go past it now. It does so on ext4 and XFS only: others take
// such writes too, but give up compression or checksums for them, or are no
// faster with them.
func setDirect(f *os.File, direct bool) bool {
	fd := int(f.Fd())
	var fs unix.Statfs_t
	if direct && (unix.Fstatfs(fd, &fs) != nil || fs.Type != unix.EXT4_SUPER_MAGIC && fs.Type != unix.XFS_SUPER_MAGIC) {
		return false
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return false
	}
	flags &^= unix.O_DIRECT
	if direct {
		flags |= unix.O_DIRECT
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
	return err == nil && direct
}

// roomToReserve is how much must be free where anything is reserved: a copy that
// just fits must not fail for it.
const roomToReserve = 2 << 30

// reserve sets n bytes of the file system aside for a file, whose size stays, and
// says whether that was done.
func reserve(f *os.File, off, n int64) bool {
	fd := int(f.Fd())
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil || int64(fs.Bavail) < roomToReserve/fs.Bsize {
		return false
	}
	return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, off, n) == nil
}
