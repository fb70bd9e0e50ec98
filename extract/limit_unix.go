//go:build unix

package extract

import (
	"math"

	"golang.org/x/sys/unix"
)

// openLimit is how many files this process may open.
func openLimit() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt32
	}
	return int(min(uint64(limit.Cur), math.MaxInt32))
}
