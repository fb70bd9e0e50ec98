//go:build !linux

package sparse

import "os"

// Punch writes zeros over n bytes of a file.
func Punch(f *os.File, off, n int64) error { return writeZeros(f, off, n) }
