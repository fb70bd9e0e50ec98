package chunker

import (
	"fmt"
	"strings"
	"unicode"
)

// SplitNames splits a list at its blanks, but not within backquotes.
func SplitNames(list string) []string {
	quoted := false
	return strings.FieldsFunc(list, func(c rune) bool {
		if c == '`' {
			quoted = !quoted // a doubled one changes it twice
		}
		return !quoted && unicode.IsSpace(c)
	})
}

// parseName reads the name of a database, or of a table as db.table. A part in
// backquotes, as in SQL, may hold any character; without them the first dot ends
// the database.
func parseName(name string) (db, table string, qualified bool, err error) {
	db, rest, err := parsePart(name, ".")
	if err != nil {
		return "", "", false, err
	}
	if rest == "" {
		return db, "", false, nil
	}
	table, rest, err = parsePart(rest[1:], "")
	if err == nil && rest != "" {
		err = fmt.Errorf("name %s: %q follows the table", name, rest)
	}
	return db, table, true, err
}

// parsePart reads a part of a name and returns what follows: nothing, or what
// begins with a dot. A part without backquotes ends before one of the stops.
func parsePart(s, stops string) (part, rest string, err error) {
	if !strings.HasPrefix(s, "`") {
		if i := strings.IndexAny(s, stops); i >= 0 {
			return s[:i], s[i:], nil
		}
		return s, "", nil
	}
	var b strings.Builder
	for rest = s[1:]; ; {
		text, more, closed := strings.Cut(rest, "`")
		b.WriteString(text)
		if !closed {
			return "", "", fmt.Errorf("name %s: a backquote is not closed", s)
		}
		if !strings.HasPrefix(more, "`") {
			rest = more
			break
		}
		b.WriteByte('`')
		rest = more[1:]
	}
	if rest != "" && rest[0] != '.' {
		return "", "", fmt.Errorf("name %s: %q follows the backquote", s, rest)
	}
	return b.String(), rest, nil
}
