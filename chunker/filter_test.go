package chunker

import (
	"regexp"
	"strings"
	"testing"
)

// The rows are what mariabackup 10.11 does with flags of these names, but where
// it leaves out a whole database because one of its tables is excluded.
func TestFilter(t *testing.T) {
	for _, c := range []struct {
		include, exclude         string // lists
		expressions, inexpressed string
		wanted, leftOut          string
	}{
		{wanted: "a b a.t a.t#P#p0"},
		{include: "a", wanted: "a a.t a.t#P#p0 a.other", leftOut: "b b.t aa.t"},
		{include: "a.t b", wanted: "a.t a.t#P#p0 b b.t", leftOut: "a a.other c.t"},
		{include: "a a.t", wanted: "a a.t a.other"},
		{include: "a.t#P#p1", wanted: "a.t#P#p1", leftOut: "a.t a.t#P#p2"},
		{exclude: "a", wanted: "b b.t", leftOut: "a a.t"},
		{exclude: "a.t", wanted: "a a.other b.t", leftOut: "a.t a.t#P#p0"},
		{include: "a", exclude: "a.t", wanted: "a a.other", leftOut: "a.t b.t"},
		{include: "a", exclude: "a", leftOut: "a a.t b"},
		{expressions: "^a[.]t", wanted: "a.t a.two a.t#P#p0", leftOut: "a b a.other b.a.t"},
		{expressions: "t$", wanted: "a.t b.t a.t#P#p0", leftOut: "a.two"},
		{expressions: "^a[.]t#P#p1$", wanted: "a.t#P#p1", leftOut: "a.t#P#p2 a.t"},
		{inexpressed: "^a[.]", wanted: "a b b.t", leftOut: "a.t"},
		{expressions: "^a[.]", inexpressed: "two", wanted: "a.t", leftOut: "a.two b.t"},
		{expressions: "^a[.]t#P#p1$", inexpressed: "^a[.]t$", wanted: "a.t#P#p1", leftOut: "a.t#P#p2"},
		// A list of databases confines expressions and is not narrowed by them.
		{include: "a", expressions: "^b[.]t", wanted: "a.t a", leftOut: "b.t"},
		{include: "a.t", expressions: "^a[.]two|^b[.]", wanted: "a.t a.two", leftOut: "a.other b.t"},
	} {
		var f Filter
		for r, list := range map[*Rules]string{&f.Include: c.include, &f.Exclude: c.exclude} {
			for _, name := range strings.Fields(list) {
				r.Add(name)
			}
		}
		for r, e := range map[*Rules]string{&f.Include: c.expressions, &f.Exclude: c.inexpressed} {
			if e != "" {
				r.AddExpression(regexp.MustCompilePOSIX(e))
			}
		}
		for list, want := range map[string]bool{c.wanted: true, c.leftOut: false} {
			for _, name := range strings.Fields(list) {
				if got := wants(&f, name); got != want {
					t.Errorf("%+v: %s: %v, want %v", c, name, got, want)
				}
			}
		}
	}
	if !wants(nil, "a") || !wants(nil, "a.t") {
		t.Error("no filter, and something is not wanted")
	}
}

func wants(f *Filter, name string) bool {
	db, table, ok := strings.Cut(name, ".")
	if !ok {
		return f.Database(Names{{Database: db}})
	}
	n := TableName{Database: db, Table: table}
	if i := strings.Index(table, "#P#"); i > 0 {
		n.Table, n.Partition = table[:i], table[i:]
	}
	return f.Table(Names{n})
}
