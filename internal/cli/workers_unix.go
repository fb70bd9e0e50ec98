//go:build unix

package cli

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// spareFiles are the files a command has open beside those its workers read.
const spareFiles = 32

// Workers returns how many workers to use when n are asked for, 0 for one a core:
// fewer where the process may not open two files for each.
func Workers(n int) int {
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return n
	}
	files := int(min(uint64(limit.Cur), 1<<20))
	return max(1, min(n, (files-spareFiles)/2))
}
