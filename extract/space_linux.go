package extract

import (
	"math"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// elastic are the magic numbers of file systems on which files may take less than
// their bytes: btrfs, ZFS, bcachefs, f2fs. Network file systems and FUSE may hide
// one of these.
var elastic = []int64{unix.BTRFS_SUPER_MAGIC, 0x2fc12fc1, unix.BCACHEFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC,
	unix.NFS_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC}

// freeSpace returns the bytes that this process may still write to the file
// system of dir, and whether that means anything.
func freeSpace(dir string) (free int64, known bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Bsize <= 0 || slices.Contains(elastic, int64(st.Type)) {
		return 0, false
	}
	blocks := st.Bavail
	if os.Geteuid() == 0 {
		blocks = st.Bfree // with those that are kept for root
	}
	if blocks > uint64(math.MaxInt64/st.Bsize) {
		return 0, false
	}
	return int64(blocks) * int64(st.Bsize), true
}
