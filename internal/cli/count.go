package cli

import (
	"errors"
	"strconv"
)

// Count is a flag's value: a whole number above 0. 0 as a default stands for a
// number that the command finds out.
type Count int

// Set parses the text.
func (c *Count) Set(text string) error {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 1 {
		return errors.New("must be a whole number, 1 or more")
	}
	*c = Count(n)
	return nil
}

// String prints the value for --help.
func (c *Count) String() string { return strconv.Itoa(int(*c)) }

// Type names the value for --help.
func (c *Count) Type() string { return "N" }
