//go:build !unix

package cli

import "runtime"

// Workers returns how many workers to use when n are asked for, 0 for one a core.
func Workers(n int) int {
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	return n
}
