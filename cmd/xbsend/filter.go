package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/pflag"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
)

// maxFilter bounds what the manifest says of the filter: it must fit into its
// first line, and that is found out at the start, not at the end of a backup.
const maxFilter = 24 << 10

// registerFilter adds the flags of a partial backup, which have the names and
// the meaning they have in mariabackup.
func registerFilter(s *pflag.FlagSet, f *format.Filter) {
	s.StringVar(&f.Databases, "databases", "", "back up only the databases and tables in `LIST`: db or db.table, separated by blanks")
	s.StringVar(&f.DatabasesExclude, "databases-exclude", "", "leave out the databases and tables in `LIST`")
	s.StringVar(&f.DatabasesFile, "databases-file", "", "back up only the databases and tables in `FILE`, one per line")
	s.StringVar(&f.Tables, "tables", "", "back up only tables with a db.table that matches `REGEXP`; separate several by commas")
	s.StringVar(&f.TablesExclude, "tables-exclude", "", "leave out tables with a db.table that matches `REGEXP`")
	s.StringVar(&f.TablesFile, "tables-file", "", "back up only the tables in `FILE`, one db.table per line")
}

// readFilter makes the filter that the flags ask for, nil if they do not.
func readFilter(f format.Filter) (*chunker.Filter, error) {
	if f == (format.Filter{}) {
		return nil, nil
	}
	var c chunker.Filter
	if err := addList(&c.Include, "databases", f.Databases); err != nil {
		return nil, err
	}
	if err := addList(&c.Exclude, "databases-exclude", f.DatabasesExclude); err != nil {
		return nil, err
	}
	if err := addFile(&c.Include, "databases-file", f.DatabasesFile, false); err != nil {
		return nil, err
	}
	if err := addFile(&c.Include, "tables-file", f.TablesFile, true); err != nil {
		return nil, err
	}
	if err := addExpressions(&c.Include, "tables", f.Tables); err != nil {
		return nil, err
	}
	if err := addExpressions(&c.Exclude, "tables-exclude", f.TablesExclude); err != nil {
		return nil, err
	}
	if text, err := json.Marshal(f); err != nil || len(text) > maxFilter {
		return nil, fmt.Errorf("the lists of databases and tables are too long for the manifest: use --databases-file and --tables-file (%d bytes, limit %d)", len(text), maxFilter)
	}
	return &c, nil
}

func addList(r *chunker.Rules, flag, list string) error {
	names := chunker.SplitNames(list)
	if len(names) == 0 && list != "" {
		return fmt.Errorf("--%s %q names nothing", flag, list)
	}
	for _, name := range names {
		if _, err := r.Add(name); err != nil {
			return fmt.Errorf("--%s: %w", flag, err)
		}
	}
	return nil
}

// addFile adds the names of a file, one a line; qualified ones only if they must
// be tables.
func addFile(r *chunker.Rules, flag, path string, qualified bool) error {
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("--%s: %w", flag, err)
	}
	defer f.Close()
	lines, n, names := bufio.NewScanner(f), 0, 0
	for lines.Scan() {
		n++
		name := strings.TrimSpace(lines.Text())
		if name == "" {
			continue
		}
		names++
		ofTable, err := r.Add(name)
		if err == nil && qualified && !ofTable {
			err = fmt.Errorf("%q is not of the form db.table", name)
		}
		if err != nil {
			return fmt.Errorf("--%s: %s, line %d: %w", flag, path, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("--%s: %s, line %d: %w", flag, path, n+1, err)
	}
	if names == 0 {
		return fmt.Errorf("--%s: %s names nothing", flag, path)
	}
	return nil
}

// addExpressions adds expressions separated by commas: POSIX extended ones, and
// those with the additions that C libraries have, such as \w.
func addExpressions(r *chunker.Rules, flag, list string) error {
	for part := range strings.SplitSeq(list, ",") {
		if part == "" {
			continue
		}
		if strings.Count(part, "{") != strings.Count(part, "}") {
			return fmt.Errorf("--%s %q: a comma separates expressions and cannot be part of one", flag, list)
		}
		e, err := regexp.CompilePOSIX(part)
		if err != nil {
			var other error
			if e, other = regexp.Compile(part); other != nil {
				return fmt.Errorf("--%s %q: %w", flag, part, err)
			}
		}
		r.AddExpression(e)
	}
	return nil
}
