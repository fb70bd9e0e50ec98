package cli

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/dustin/go-humanize"
)

// Bytes is a number of bytes as the value of a log attribute: text has it as
// "60 MiB", JSON as a number under a key that ends in _bytes.
type Bytes uint64

// String is the number for people.
func (b Bytes) String() string { return humanize.IBytes(uint64(b)) }

// unitInKey turns sizes and durations into plain numbers, for JSON.
func unitInKey(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value.Any().(type) {
	case Bytes:
		return slog.Uint64(a.Key+"_bytes", uint64(v))
	case time.Duration:
		return slog.Float64(a.Key+"_seconds", v.Round(time.Millisecond).Seconds())
	}
	return a
}

// forPeople is an attribute's value in text.
func forPeople(v slog.Value) string {
	if v.Kind() == slog.KindDuration {
		if d := v.Duration(); d%time.Second != 0 {
			return fmt.Sprintf("%.2fs", d.Seconds())
		}
	}
	return v.String()
}
