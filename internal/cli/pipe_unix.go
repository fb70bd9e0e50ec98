//go:build unix

package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pollSlice is how soon a read that waits notices that its context has ended.
const pollSlice = 100 // milliseconds

// reader returns what reads the file. A read of a pipe begins when there is
// something to read, and so needs no change of the pipe, which others may share.
func (p *Pipe) reader() func([]byte) (int, error) {
	if pipe, err := isPipe(p.file); err != nil || !pipe {
		return p.file.Read
	}
	fd := int(p.file.Fd())
	return func(b []byte) (int, error) {
		for {
			if p.ctx.Err() != nil {
				return 0, context.Cause(p.ctx)
			}
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, pollSlice)
			if n > 0 || err != nil && err != unix.EINTR && err != unix.EAGAIN {
				return p.file.Read(b) // which says what is wrong, if something is
			}
		}
	}
}

// pipeSize is what we ask the kernel to buffer in a pipe: one frame. Fewer and
// longer writes, and a receiver that pauses for a moment does not stop us.
const pipeSize = 1 << 20

// writer returns what writes the file. A pipe is made non-blocking, which undo
// takes back, because others may share it.
func (p *Pipe) writer() (write func([][]byte) (int, error), undo func(), err error) {
	pipe, err := isPipe(p.file)
	if err != nil || !pipe {
		return p.writeFile, func() {}, err
	}
	growPipe(p.file, pipeSize)
	fd, err := unix.Dup(int(p.file.Fd()))
	if err != nil {
		return nil, nil, err
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fd), p.file.Name())
	conn, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	stop := context.AfterFunc(p.ctx, func() { f.SetWriteDeadline(time.Now()) })
	return func(pieces [][]byte) (int, error) { return p.writeTo(conn, pieces) }, func() {
		stop()
		unix.SetNonblock(fd, false)
		f.Close()
	}, nil
}

// writeError says where to look when nobody reads any more.
func (p *Pipe) writeError(err error) error {
	at := &os.PathError{Op: "write", Path: p.file.Name(), Err: err}
	if err == unix.EPIPE || err == unix.ECONNRESET {
		return fmt.Errorf("the receiving side ended, see its message: %w", at)
	}
	return at
}

// writeTo writes all pieces, and notices each part that is taken. A pipe that
// was full has room again as soon as the reader has taken a little, which is 16
// KiB with ssh. Filling that at once makes both sides take turns by such pieces,
// which costs them more than the data does; so a reader that has left most of it
// is let go on first. One that takes large pieces must not wait for us.
func (p *Pipe) writeTo(conn syscall.RawConn, pieces [][]byte) (n int, err error) {
	wasFull, left := false, slices.Clone(pieces)
	waited := conn.Write(func(fd uintptr) bool {
		if wasFull && unread(fd) > pipeSize/4*3 {
			letReaderGoOn()
		}
		wasFull = true
		for left = rest(left, 0); len(left) > 0; {
			var m int
			m, err = writev(int(fd), left)
			switch {
			case err == unix.EINTR:
			case err == unix.EAGAIN:
				err = nil
				return false
			case err != nil:
				err = p.writeError(err)
				return true
			default:
				n += m
				left = rest(left, m)
				p.moved()
			}
		}
		return true
	})
	if waited != nil && p.ctx.Err() != nil {
		return n, context.Cause(p.ctx)
	}
	if err == nil {
		err = waited
	}
	return n, err
}

// rest is what is left of pieces after n bytes, without empty ones at its start.
func rest(pieces [][]byte, n int) [][]byte {
	for len(pieces) > 0 && n >= len(pieces[0]) {
		n -= len(pieces[0])
		pieces = pieces[1:]
	}
	if n > 0 {
		pieces[0] = pieces[0][n:]
	}
	return pieces
}
