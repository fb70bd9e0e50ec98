package cli

import (
	"fmt"

	"github.com/dustin/go-humanize"
)

// Size is a flag's value in bytes, given as 64M, 1GiB or a plain number. K, M,
// G and T mean powers of 1024, as in the servers' own options.
type Size int64

// Set parses the text.
func (s *Size) Set(text string) error {
	if n := len(text); n > 1 {
		switch text[n-1] {
		case 'k', 'K', 'm', 'M', 'g', 'G', 't', 'T':
			text += "iB"
		}
	}
	v, err := humanize.ParseBytes(text)
	if err != nil || v > 1<<62 {
		return fmt.Errorf("not a size: %q", text)
	}
	*s = Size(v)
	return nil
}

// String prints the value for --help.
func (s *Size) String() string {
	if *s == 0 {
		return ""
	}
	return humanize.IBytes(uint64(*s))
}

// Type names the kind of value for --help.
func (s *Size) Type() string { return "SIZE" }
