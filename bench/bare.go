package main

import (
	"context"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// bareArg makes bench do what bareLoop does, and nothing else.
const bareArg = "-bare"

// bareLoop writes all files below dir to standard output: what a backup cannot do
// without, by as many workers as there are cores. Each reads a MiB, sums each of
// its pages and the whole, and writes it. It is the floor to measure ours against.
func bareLoop(dir string) error {
	const chunk, page = 1 << 20, 16 << 10
	_, _ = unix.FcntlInt(os.Stdout.Fd(), unix.F_SETPIPE_SZ, chunk) // as ours: it is only faster with it
	table := crc32.MakeTable(crc32.Castagnoli)
	var out sync.Mutex
	g, ctx := errgroup.WithContext(context.Background())
	type piece struct {
		f   *os.File
		off int64
	}
	pieces := make(chan piece)
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			buf, sum := make([]byte, chunk), uint32(0)
			for p := range pieces {
				n, err := p.f.ReadAt(buf, p.off)
				if err != nil && !errors.Is(err, io.EOF) {
					return err
				}
				for at := 0; at+page <= n; at += page {
					sum ^= crc32.Checksum(buf[at:at+page], table)
				}
				buf[0] ^= byte(sum ^ crc32.Checksum(buf[:n], table))
				out.Lock()
				_, err = os.Stdout.Write(buf[:n])
				out.Unlock()
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(pieces)
		return eachFile(dir, func(path string, _ fs.DirEntry) error {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			st, err := f.Stat()
			if err != nil {
				return err
			}
			for off := int64(0); off < st.Size(); off += chunk {
				select {
				case pieces <- piece{f, off}:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil // open until the end: a worker may be at its last piece
		})
	})
	return g.Wait()
}
