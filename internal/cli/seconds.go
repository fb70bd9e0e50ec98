package cli

import (
	"fmt"
	"strconv"
	"time"
)

// Seconds is a flag's value: a number of seconds, as mariabackup takes it, or a
// duration such as 5m.
type Seconds time.Duration

// Set parses the text.
func (s *Seconds) Set(text string) error {
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		*s = Seconds(time.Duration(n) * time.Second)
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return fmt.Errorf("not a time: %q", text)
	}
	*s = Seconds(d)
	return nil
}

// String prints the value for --help.
func (s *Seconds) String() string { return time.Duration(*s).String() }

// Type names the value for --help.
func (s *Seconds) Type() string { return "TIME" }
