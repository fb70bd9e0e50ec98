package main

import (
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/xbstream/xbstream/internal/cli"
	"github.com/xbstream/xbstream/internal/innodb/filename"
)

// selection is what --only asks for: shell patterns of paths, of db.table, which
// stands for all files of the table, and of databases. Names may be written as
// the server prints them, or in the letters of the file names.
type selection struct {
	patterns []string
	matched  []atomic.Bool
	warned   sync.Once
}

func newSelection(patterns []string) (*selection, error) {
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			return nil, cli.Usagef("--only %q: %w", p, err)
		}
	}
	return &selection{patterns: patterns, matched: make([]atomic.Bool, len(patterns))}, nil
}

// match says whether the file is wanted, and notes by which patterns. It may be
// called from several goroutines.
func (s *selection) match(name string) (wanted bool) {
	names := []string{name, filename.Decode(name)}
	if table := tableOf(name); table != "" {
		db, _, _ := strings.Cut(name, "/")
		names = append(names, table, filename.Decode(table), db, filename.Decode(db))
	}
	for i, p := range s.patterns {
		if slices.ContainsFunc(names, func(name string) bool { ok, _ := path.Match(p, name); return ok }) {
			s.matched[i].Store(true)
			wanted = true
		}
	}
	return wanted
}

// unmatched are the patterns that have matched no file yet.
func (s *selection) unmatched() (out []string) {
	for i, p := range s.patterns {
		if !s.matched[i].Load() {
			out = append(out, p)
		}
	}
	return out
}

// checkOnly refuses patterns that matched nothing of all the archive holds. It is
// called when the index of a file was read, and again when all was.
func (x *extractFlags) checkOnly(warn func(msg string)) error {
	names := x.selected.unmatched()
	switch {
	case len(names) == 0:
		return nil
	case !x.allowMissing:
		return cli.Usagef("--only: nothing in the archive matches %s; nothing was extracted. Correct it, or use --allow-missing", strings.Join(names, ", "))
	}
	x.selected.warned.Do(func() { warn("--only: nothing in the archive matches " + strings.Join(names, ", ")) })
	return nil
}

// tableOf is the db.table a file belongs to, in the letters of its file name;
// partitions belong to their table. MySQL puts a number behind the name in that of
// an .sdi file.
func tableOf(name string) string {
	db, file, ok := strings.Cut(name, "/")
	if !ok {
		return ""
	}
	stem, ext, _ := strings.Cut(file, ".")
	if number := strings.LastIndexByte(stem, '_'); ext == "sdi" && number > 0 {
		stem = stem[:number]
	}
	stem, _ = filename.CutPartition(stem)
	return db + "." + stem
}
