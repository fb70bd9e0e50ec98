package main

import (
	"path"
	"path/filepath"
	"strings"

	"github.com/xbstream/xbstream/extract"
	"github.com/xbstream/xbstream/internal/cli"
)

// parseMappings reads the values of --tablespace-mapping.
func parseMappings(values []string) ([]extract.Mapping, error) {
	var list []extract.Mapping
	seen := map[string]bool{}
	for _, v := range values {
		m, err := parseMapping(v)
		if err != nil {
			return nil, err
		}
		if seen[m.Old] {
			return nil, cli.Usagef("--tablespace-mapping: %q is mapped twice", m.Old)
		}
		seen[m.Old] = true
		list = append(list, m)
	}
	return list, nil
}

// parseMapping reads OLD=NEW; a = in a path is written \=.
func parseMapping(v string) (m extract.Mapping, err error) {
	parts := strings.Split(strings.ReplaceAll(v, `\=`, "\x00"), "=")
	if len(parts) != 2 {
		return m, cli.Usagef("--tablespace-mapping %q: not of the form OLD=NEW (a = in a path is written \\=)", v)
	}
	for i := range parts {
		parts[i] = strings.ReplaceAll(parts[i], "\x00", "=")
	}
	m.Old, m.New = cleaned(parts[0], "/"), cleaned(parts[1], string(filepath.Separator))
	if !path.IsAbs(m.Old) || path.Clean(m.Old) != m.Old || !filepath.IsAbs(m.New) || filepath.Clean(m.New) != m.New {
		return m, cli.Usagef("--tablespace-mapping %q: both directories must be absolute paths, without . and ..", v)
	}
	return m, nil
}

// cleaned is a directory without the separator that may end it.
func cleaned(dir, separator string) string {
	if short := strings.TrimRight(dir, separator); short != "" {
		return short
	}
	return dir
}
