package cli

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// growPipe asks for a larger buffer in a pipe. It is only faster with it.
func growPipe(f *os.File, size int) { _, _ = unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, size) }

// unread returns how many bytes wait in a pipe for its reader.
func unread(fd uintptr) int {
	n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
	if err != nil {
		return 0
	}
	return n
}

// readerTime is for how long a reader is let go on: a fast one takes less than
// half of pipeSize in it, and so never waits for us.
const readerTime = 100 * time.Microsecond

// letReaderGoOn sleeps for about readerTime. time.Sleep would for a millisecond
// or more.
func letReaderGoOn() {
	d := unix.NsecToTimespec(int64(readerTime))
	_ = unix.Nanosleep(&d, nil)
}

// writev writes pieces, of which there is at least one.
func writev(fd int, pieces [][]byte) (int, error) { return unix.Writev(fd, pieces) }
