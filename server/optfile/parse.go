package optfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxDepth is how deep !include may nest; the clients' own limit. It also ends
// a file that includes itself.
const maxDepth = 10

// maxLine bounds the memory of a line. The clients cut at 4096 bytes.
const maxLine = 1 << 20

// errNotFile is the cause for a directory where a file is expected.
var errNotFile = errors.New("is a directory")

// Error is a mistake in an option file.
type Error struct {
	File string
	Line int
	Err  error
}

// Error names file and line; it never quotes the line.
func (e *Error) Error() string {
	return fmt.Sprintf("read option file %s, line %d: %v", e.File, e.Line, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

type parser struct {
	groups []string
	result *Result
}

// wants compares groups as the clients do, without case.
func (p *parser) wants(group string) bool {
	return slices.ContainsFunc(p.groups, func(g string) bool { return strings.EqualFold(g, group) })
}

func (p *parser) warn(format string, args ...any) {
	p.result.Warnings = append(p.result.Warnings, fmt.Sprintf(format, args...))
}

func (p *parser) file(path string, depth int) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read option file: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read option file: %w", err)
	}
	if st.IsDir() {
		return fmt.Errorf("read option file %s: %w", path, errNotFile)
	}
	// Whoever may write the file could point the client anywhere.
	if st.Mode().IsRegular() && st.Mode().Perm()&0o002 != 0 && worldWritableMatters {
		p.warn("option file %q is ignored, because every user may write to it: chmod o-w", path)
		return nil
	}
	return p.lines(path, f, depth)
}

// lines reads one file. The group reached does not leak into an included file
// nor out of it.
func (p *parser) lines(path string, r io.Reader, depth int) error {
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxLine)
	group, grouped := "", false
	n := 0
	fail := func(err error) error { return &Error{path, n, err} }
	for in.Scan() {
		n++
		line := trim(in.Text())
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		switch line[0] {
		case '!':
			if err := p.directive(trim(line[1:]), depth); err != nil {
				return fail(err)
			}
		case '[':
			end := strings.IndexByte(line, ']')
			if end < 0 {
				return fail(errors.New("group without closing bracket"))
			}
			group, grouped = strings.TrimRight(line[1:end], space), true
		default:
			if !grouped {
				return fail(errors.New("option before the first group"))
			}
			o, err := option(line)
			if err != nil {
				return fail(err)
			}
			if p.wants(group) {
				o.Group, o.File, o.Line = group, path, n
				p.result.Options = append(p.result.Options, o)
			}
		}
	}
	n++
	if err := in.Err(); err != nil {
		return fail(err)
	}
	return nil
}

// directive follows !include and !includedir; others are passed over, as the
// clients do.
func (p *parser) directive(text string, depth int) error {
	word, arg := text, ""
	if i := strings.IndexAny(text, space); i >= 0 {
		word, arg = text[:i], trim(text[i:])
	}
	if word != "include" && word != "includedir" {
		return nil
	}
	if arg == "" {
		return fmt.Errorf("!%s without a path", word)
	}
	if depth >= maxDepth {
		p.warn("option file %q is ignored: included more than %d deep", arg, maxDepth)
		return nil
	}
	if word == "includedir" {
		return p.dir(arg, depth+1)
	}
	p.included(arg, depth+1)
	return nil
}

// included goes on after a file that cannot be read, and after a mistake in
// one, as the clients do. It says so: a password that is not found is hard to
// find.
func (p *parser) included(path string, depth int) {
	if err := p.file(path, depth); err != nil {
		p.warn("%v", err)
	}
}

// dir reads the *.cnf files of a directory in the order of their names.
func (p *parser) dir(path string, depth int) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("read option directory: %w", err)
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".cnf" {
			continue
		}
		p.included(filepath.Join(path, e.Name()), depth)
	}
	return nil
}

// option takes a line apart: name, name=, name=value.
func option(line string) (Option, error) {
	line = trim(uncomment(line))
	name, value, has := strings.Cut(line, "=")
	name = strings.ReplaceAll(trim(name), "_", "-")
	name, loose := strings.CutPrefix(name, "loose-")
	if name == "" {
		return Option{}, errors.New("value without an option name")
	}
	return Option{Name: name, Value: unescape(unquote(trim(value))), HasValue: has, Loose: loose}, nil
}

// uncomment cuts the line at the first # that is not between quotes. A
// backslash protects a quote only inside quotes.
func uncomment(line string) string {
	var quote byte
	escaped := false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case (c == '\'' || c == '"') && !escaped:
			switch quote {
			case 0:
				quote = c
			case c:
				quote = 0
			}
		case c == '#' && quote == 0:
			return line[:i]
		}
		escaped = quote != 0 && c == '\\' && !escaped
	}
	return line
}

// unquote removes a pair of equal quotes around the whole value.
func unquote(v string) string {
	if len(v) < 2 || v[0] != v[len(v)-1] || v[0] != '"' && v[0] != '\'' {
		return v
	}
	return v[1 : len(v)-1]
}

var escapes = map[byte]byte{
	'n': '\n', 't': '\t', 'r': '\r', 'b': '\b', 's': ' ', '"': '"', '\'': '\'', '\\': '\\',
}

// unescape resolves the known escapes and leaves others as they are, so that a
// Windows path survives. A backslash at the end stands for itself.
func unescape(v string) string {
	if strings.IndexByte(v, '\\') < 0 {
		return v
	}
	var b strings.Builder
	for i := 0; i < len(v); i++ {
		if v[i] == '\\' && i+1 < len(v) {
			if c, ok := escapes[v[i+1]]; ok {
				b.WriteByte(c)
				i++
				continue
			}
		}
		b.WriteByte(v[i])
	}
	return b.String()
}

// space is what C calls white space.
const space = " \t\n\v\f\r"

func trim(s string) string { return strings.Trim(s, space) }
