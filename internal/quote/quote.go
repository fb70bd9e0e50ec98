// Package quote prints what others chose: names and texts from an archive, a
// server or a file system. They must not move a cursor, hide or reorder what
// stands beside them, begin a line of their own, or end a string.
//
// Everything of that kind that is printed goes through it: names in lists by
// Name, whole lines and messages by Line, JSON by JSON.
package quote

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// plain says whether r shows as itself: no control character of ASCII or C1, no
// format character (bidirectional controls, zero width, soft hyphen), no space
// but the usual one, no line separator, nothing that shows as nothing.
func plain(r rune) bool {
	return strconv.IsPrint(r) && !unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r)
}

// Name is a name in a list: as it is, so that it can be pasted, or as a quoted
// string of Go where something in it would not show as itself.
func Name(s string) string {
	if utf8.ValidString(s) && !strings.HasPrefix(s, `"`) && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return `"` + escape(s, `"\`) + `"`
}

// Line is a text as one line: line ends and tabs become spaces, and what would not
// show as itself is escaped.
func Line(s string) string {
	s = strings.NewReplacer("\r\n", " ", "\n", " ", "\r", " ", "\t", " ").Replace(strings.TrimRight(s, "\r\n"))
	return escape(s, "")
}

// escape escapes what is not plain, and the characters of more by a backslash.
func escape(s, more string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case strings.ContainsRune(more, r):
			b.WriteRune('\\')
			b.WriteRune(r)
		case plain(r):
			b.WriteRune(r)
		default:
			e := strconv.QuoteRuneToASCII(r)
			b.WriteString(e[1 : len(e)-1])
		}
	}
	return b.String()
}

// JSON returns a writer of JSON that escapes in its strings what would not show as
// itself. Each Write must hold whole characters, as those of encoding/json do.
func JSON(w io.Writer) io.Writer { return jsonWriter{w} }

type jsonWriter struct{ w io.Writer }

func (j jsonWriter) Write(p []byte) (int, error) {
	var out []byte
	for rest := p; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		switch {
		case r < utf8.RuneSelf && r != 0x7F || r != utf8.RuneError && plain(r):
			out = append(out, rest[:n]...)
		case r > 0xFFFF:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xD800+r>>10, 0xDC00+r&0x3FF)
		default: // a byte that is no UTF-8 is U+FFFD
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		rest = rest[n:]
	}
	if _, err := j.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}
