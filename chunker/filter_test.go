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
				if _, err := r.Add(name); err != nil {
					t.Fatal(err)
				}
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

// G8: a name in backquotes holds what it likes.
func TestNamesInBackquotes(t *testing.T) {
	table := func(db, table string) Names { return Names{{Database: db, Table: table}} }
	for _, c := range []struct {
		list            string
		wanted, leftOut []Names
		databases       []string // wanted as a whole
	}{
		{"`my-db.x`", []Names{table("my-db.x", "t")}, []Names{table("my-db", "x"), table("x", "t")}, []string{"my-db.x"}},
		{"`my db` other", []Names{table("my db", "t"), table("other", "t")}, []Names{table("my", "t"), table("db", "t")}, []string{"my db", "other"}},
		{"`my-db.x`.t", []Names{table("my-db.x", "t")}, []Names{table("my-db", "x.t"), table("my-db.x", "u")}, nil},
		{"my-db.x.t", []Names{table("my-db", "x.t")}, []Names{table("my-db.x", "t")}, nil},
		{"d.`a b` `d`.`c.d` e.f", []Names{table("d", "a b"), table("d", "c.d"), table("e", "f")}, []Names{table("d", "a"), table("b", "t")}, nil},
		{"`a``b`.`x ``y` `c``.d`", []Names{table("a`b", "x `y"), table("c`.d", "t")}, []Names{table("a", "t"), table("c`", "d")}, []string{"c`.d"}},
		{"`d`.`t#P#p0`", []Names{{{Database: "d", Table: "t", Partition: "#P#p0"}}}, []Names{{{Database: "d", Table: "t", Partition: "#P#p1"}}}, nil},
		// MySQL has them in lower case.
		{"d.t#P#pB", []Names{{{Database: "d", Table: "t", Partition: "#p#pb"}}, {{Database: "d", Table: "t", Partition: "#P#pB"}}}, []Names{{{Database: "d", Table: "t", Partition: "#p#pc"}}, {{Database: "d", Table: "T", Partition: "#p#pb"}}}, nil},
	} {
		var f Filter
		for _, name := range SplitNames(c.list) {
			if _, err := f.Include.Add(name); err != nil {
				t.Errorf("%s: %v", c.list, err)
			}
		}
		for _, n := range c.wanted {
			if !f.Table(n) {
				t.Errorf("%s: %q is not wanted", c.list, n)
			}
		}
		for _, n := range c.leftOut {
			if f.Table(n) {
				t.Errorf("%s: %q is wanted", c.list, n)
			}
		}
		for _, db := range c.databases {
			if !f.Database(Names{{Database: db}}) {
				t.Errorf("%s: database %q is not wanted", c.list, db)
			}
		}
	}
	for _, bad := range []string{"`open", "`a`b", "`a`.`b", "`a`.`b`.c", "`a`.`b`c", "a.`b`.c"} {
		var r Rules
		if _, err := r.Add(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
