package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pipeSize is what we ask the kernel to buffer in a pipe: one frame. Fewer and
// longer writes, and a receiver that pauses for a moment does not stop us.
const pipeSize = 1 << 20

// output prepares standard output for the archive. A write to a pipe that
// nobody reads must not keep a cancelled backup, and the locks it holds, from
// ending; so a pipe is made non-blocking, and the end of ctx ends its writes.
// release undoes that: others may share the pipe.
func output(ctx context.Context, out *os.File) (w io.Writer, release func(), err error) {
	st, err := out.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("standard output: %w", err)
	}
	if st.Mode()&(os.ModeNamedPipe|os.ModeSocket) == 0 {
		return out, func() {}, nil
	}
	_, _ = unix.FcntlInt(out.Fd(), unix.F_SETPIPE_SZ, pipeSize) // only faster with it
	fd, err := unix.Dup(int(out.Fd()))
	if err != nil {
		return nil, nil, fmt.Errorf("standard output: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, nil, fmt.Errorf("standard output: %w", err)
	}
	f := os.NewFile(uintptr(fd), "standard output")
	stop := context.AfterFunc(ctx, func() { f.SetWriteDeadline(time.Now()) })
	return f, func() {
		stop()
		unix.SetNonblock(fd, false)
		f.Close()
	}, nil
}
