// Package filename decodes the names that a server gives the files of databases
// and tables, and that InnoDB gives its tables.
package filename

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Decode decodes a name. In the server's encoding letters, digits and
// underscore stand for themselves, @ and four hexadecimal digits for any other
// character. Sequences it does not know stay as they are.
func Decode(name string) string {
	if !strings.Contains(name, "@") {
		return name
	}
	var b strings.Builder
	for name != "" {
		r, n := decodeRune(name)
		b.WriteRune(r)
		name = name[n:]
	}
	return b.String()
}

// decodeRune decodes the first character and says how many bytes it took.
func decodeRune(name string) (rune, int) {
	if name[0] != '@' {
		return utf8.DecodeRuneInString(name)
	}
	if len(name) >= 5 {
		if v, err := strconv.ParseUint(name[1:5], 16, 16); err == nil {
			return rune(v), 5
		}
	}
	if len(name) >= 3 {
		if r, ok := letters[name[1:3]]; ok {
			return r, 3
		}
	}
	return '@', 1
}

// IsEncoded says whether the server could have made a name: whether it has
// only the characters of the encoding.
func IsEncoded(name string) bool {
	for i := range len(name) {
		c := name[i]
		letter := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && c != '_' && c != '@' && c != '$' && c < utf8.RuneSelf {
			return false
		}
	}
	return name != ""
}
