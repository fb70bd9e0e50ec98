// Package optfile reads the option files of MariaDB and MySQL (my.cnf) as the
// servers' own clients do: the same places in the same order, the same syntax,
// the same oddities. What my_print_defaults prints is what Read returns, with
// four differences: a line without an option name and a --defaults-file that is
// a directory are errors; a line is never cut at 4096 bytes; and an !include in
// a last line without newline is read, where the clients lose the last letter
// of its path.
//
// The package knows no option by name; it hands out what is written, in order,
// so that a later value replaces an earlier one. Errors name file and line and
// never quote a line, which may hold a password.
package optfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Option is one line of an option file that belongs to a group asked for.
type Option struct {
	// Group is the group as written in the file, without brackets.
	Group string
	// Name has dashes where the file may have underscores, and no loose-
	// prefix.
	Name string
	// Value is the text after the equals sign, unquoted and unescaped.
	Value string
	// HasValue tells "name=" from "name".
	HasValue bool
	// Loose says that a program that does not know the option ignores it.
	Loose bool
	// File and Line say where the option stands; the first line is 1.
	File string
	Line int
}

// Search says which files are read. The zero value reads the default ones.
type Search struct {
	// NoDefaults reads nothing at all.
	NoDefaults bool
	// File is read alone, in place of the default files, and must exist.
	File string
	// ExtraFile is read after the system's files and before ~/.my.cnf, and
	// must exist.
	ExtraFile string
	// GroupSuffix asks for each group a second time with this appended.
	// Empty means MYSQL_GROUP_SUFFIX of the environment.
	GroupSuffix string
	// Getenv looks up environment variables; nil means os.Getenv.
	Getenv func(string) string
}

// Result is what a search found.
type Result struct {
	// Options of all groups asked for, in the order of files and lines: the
	// last one of a name counts.
	Options []Option
	// Warnings are about files that were not read, one line each.
	Warnings []string
}

// Read returns the options of the groups. Errors are *Error for what stands in
// a file, and wrap fs.ErrNotExist and the like for a file that was asked for
// and cannot be read.
func (s Search) Read(groups ...string) (Result, error) {
	var r Result
	if s.NoDefaults {
		return r, nil
	}
	p := parser{groups: s.expand(groups), result: &r}
	for _, f := range s.files() {
		err := p.file(f.path, 0)
		if err != nil && (f.required || !unreadable(err)) {
			return Result{Warnings: r.Warnings}, err
		}
	}
	return r, nil
}

func (s Search) getenv(name string) string {
	if s.Getenv == nil {
		return os.Getenv(name)
	}
	return s.Getenv(name)
}

// expand adds each group with the suffix. Names are compared without case.
func (s Search) expand(groups []string) []string {
	suffix := s.GroupSuffix
	if suffix == "" {
		suffix = s.getenv("MYSQL_GROUP_SUFFIX")
	}
	all := slices.Clone(groups)
	if suffix != "" {
		for _, g := range groups {
			all = append(all, g+suffix)
		}
	}
	return all
}

type candidate struct {
	path     string
	required bool
}

func (s Search) files() []candidate {
	if s.File != "" {
		return []candidate{{s.home(s.File), true}}
	}
	list := []candidate{{path: "/etc/my.cnf"}, {path: "/etc/mysql/my.cnf"}}
	// MYSQL_HOME is looked at only where MARIADB_HOME is not set.
	if dir := s.getenv("MARIADB_HOME"); dir != "" {
		list = append(list, candidate{path: filepath.Join(dir, "my.cnf")})
	} else if dir := s.getenv("MYSQL_HOME"); dir != "" {
		list = append(list, candidate{path: filepath.Join(dir, "my.cnf")})
	}
	if s.ExtraFile != "" {
		list = append(list, candidate{s.home(s.ExtraFile), true})
	}
	if dir := s.getenv("HOME"); dir != "" {
		list = append(list, candidate{path: filepath.Join(dir, ".my.cnf")})
	}
	return list
}

// home resolves a leading ~/, which a shell leaves alone in --option=~/file.
func (s Search) home(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok && s.getenv("HOME") != "" {
		return filepath.Join(s.getenv("HOME"), rest)
	}
	return path
}

// unreadable tells a file that clients pass over from one with a mistake in it.
func unreadable(err error) bool {
	var place *Error
	return !errors.As(err, &place) && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, errNotFile))
}
