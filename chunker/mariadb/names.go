package mariadb

import (
	"path"
	"strconv"
	"strings"
	"unicode/utf8"
)

// tableName turns the path of a table's file into the name the server prints:
// db.table, decoded. A file of no database keeps its name.
func tableName(rel string) string {
	db, file := path.Split(rel)
	base, _ := cutExt(file)
	if db == "" {
		return file
	}
	return decodeName(strings.TrimSuffix(db, "/")) + "." + decodeName(base)
}

// decodeName decodes the server's file name encoding: letters, digits and
// underscore stand for themselves, @ and four hexadecimal digits for any other
// character. Sequences it does not know stay as they are.
func decodeName(name string) string {
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

// isEncoded says whether the server could have made a name: whether it has
// only the characters of the encoding.
func isEncoded(name string) bool {
	for i := range len(name) {
		c := name[i]
		letter := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && c != '_' && c != '@' && c != '$' && c < utf8.RuneSelf {
			return false
		}
	}
	return name != ""
}
