//go:build unix && !linux

package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

func growPipe(*os.File, int) {}

func unread(uintptr) int { return 0 }

func letReaderGoOn() {}

// writev writes of pieces, of which there is at least one, as much as one call
// takes.
func writev(fd int, pieces [][]byte) (int, error) { return unix.Write(fd, pieces[0]) }
