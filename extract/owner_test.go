package extract

import (
	"io/fs"
	"syscall"
)

func ownerOf(st fs.FileInfo) Owner {
	sys := st.Sys().(*syscall.Stat_t)
	return Owner{UID: int(sys.Uid), GID: int(sys.Gid)}
}
