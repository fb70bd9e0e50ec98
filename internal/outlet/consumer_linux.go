package outlet

import (
	"os"

	"golang.org/x/sys/unix"
)

// awaitEnd returns when a child has ended, and does not reap it.
func awaitEnd(pid int) {
	for {
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != unix.EINTR {
			return
		}
	}
}

// unread returns how many bytes wait in a pipe for its reader.
func unread(pipe *os.File) (int, error) {
	n, err := unix.IoctlGetInt(int(pipe.Fd()), unix.TIOCINQ)
	return n, os.NewSyscallError("ioctl", err)
}
