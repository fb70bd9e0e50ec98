package cli

import (
	"errors"
	"fmt"

	"github.com/dustin/go-humanize"
)

// Size is a flag's value in bytes, more than 0, given as 64M, 1GiB or a plain
// number. K, M,
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
		return fmt.Errorf("not a size: %q; give bytes, or a size such as 64M or 1G", text)
	}
	if v == 0 {
		return errors.New("must be more than 0")
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
