package format

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// CheckPath refuses a path that an archive may not carry (SPEC.md §5.3):
// absolute, empty, too long, with an element that is empty, "." or "..", with
// a control character or backslash, or not UTF-8.
func CheckPath(p string) error {
	if err := checkPath(p); err != nil {
		return fmt.Errorf("path %q: %w", clip(p), err)
	}
	return nil
}

func checkPath(p string) error {
	switch {
	case p == "":
		return errors.New("empty")
	case len(p) > MaxPath:
		return fmt.Errorf("%d bytes, over the limit of %d", len(p), MaxPath)
	case !utf8.ValidString(p):
		return errors.New("not UTF-8")
	case strings.ContainsFunc(p, isControl):
		return errors.New("control character in it")
	case strings.Contains(p, `\`):
		return errors.New("backslash in it")
	case p[0] == '/':
		return errors.New("absolute")
	}
	for e := range strings.SplitSeq(p, "/") {
		switch {
		case e == "":
			return errors.New("empty element")
		case e == "." || e == "..":
			return fmt.Errorf("element %q", e)
		case len(e) > MaxPathElement:
			return fmt.Errorf("element of %d bytes, over the limit of %d", len(e), MaxPathElement)
		}
	}
	return nil
}

func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}
