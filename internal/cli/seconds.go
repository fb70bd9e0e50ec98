package cli

import (
	"fmt"
	"strconv"
	"strings"
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
		return fmt.Errorf("not a time: %q; give seconds, or a time such as 90s or 5m", text)
	}
	*s = Seconds(d)
	return nil
}

// String prints the value for --help.
func (s *Seconds) String() string {
	text := time.Duration(*s).String()
	if short, ok := strings.CutSuffix(text, "m0s"); ok {
		text = short + "m"
	}
	return text
}

// Type names the value for --help.
func (s *Seconds) Type() string { return "TIME" }
