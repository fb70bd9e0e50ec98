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
