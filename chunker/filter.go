package chunker

import (
	"regexp"
	"slices"
	"strings"
)

// Filter says which databases and tables a partial backup is of, with the
// meaning that mariabackup gives such flags. A nil Filter wants everything.
//
// An exclusion wins over an inclusion. Databases that are included confine the
// backup to them; a database that is included as a whole is not narrowed by
// names or expressions of tables.
type Filter struct {
	Include, Exclude Rules
}

// Rules name databases and tables.
type Rules struct {
	// databases are named as a whole; tables by db.table; partly are the
	// databases of such tables.
	databases, tables, partly map[string]bool
	expressions               []*regexp.Regexp
}

// Add adds a database, or a table as db.table.
func (r *Rules) Add(name string) {
	if db, _, ok := strings.Cut(name, "."); ok {
		put(&r.tables, name)
		put(&r.partly, db)
		return
	}
	put(&r.databases, name)
}

func put(set *map[string]bool, name string) {
	if *set == nil {
		*set = map[string]bool{}
	}
	(*set)[name] = true
}

// AddExpression adds all tables whose db.table the expression matches.
func (r *Rules) AddExpression(e *regexp.Regexp) { r.expressions = append(r.expressions, e) }

// Names are what a table may be called in rules: as the server prints it, and as
// its file names have it.
type Names []TableName

// TableName is one of them. Partition is empty, or what follows the table's name
// in the name of a partition's file: #P# and so on.
type TableName struct{ Database, Table, Partition string }

// Table says whether a table, or a partition of one, is wanted.
func (f *Filter) Table(n Names) bool {
	if f == nil {
		return true
	}
	if f.Exclude.database(n) || f.Include.confined() && !f.Include.mentions(n) {
		return false
	}
	// A partition may be named by itself; else its table decides.
	for _, suffix := range []func(TableName) string{TableName.file, TableName.table} {
		if f.Exclude.table(n, suffix) {
			return false
		}
		if f.Include.table(n, suffix) {
			return true
		}
	}
	return f.Database(n)
}

// Database says whether a database is wanted as such: with what no rule names,
// and if it is empty. Only the database of the names counts.
func (f *Filter) Database(n Names) bool {
	switch {
	case f == nil:
		return true
	case f.Exclude.database(n):
		return false
	case f.Include.database(n):
		return true
	}
	return !f.Include.confined() && len(f.Include.expressions) == 0
}

func (t TableName) table() string { return t.Database + "." + t.Table }

func (t TableName) file() string { return t.table() + t.Partition }

// confined says that databases were named.
func (r *Rules) confined() bool { return len(r.databases)+len(r.partly) > 0 }

// database says whether the database is named as a whole.
func (r *Rules) database(n Names) bool {
	return slices.ContainsFunc(n, func(t TableName) bool { return r.databases[t.Database] })
}

// mentions says whether the database or a table of it is named.
func (r *Rules) mentions(n Names) bool {
	return slices.ContainsFunc(n, func(t TableName) bool { return r.databases[t.Database] || r.partly[t.Database] })
}

func (r *Rules) table(n Names, as func(TableName) string) bool {
	return slices.ContainsFunc(n, func(t TableName) bool {
		name := as(t)
		return r.tables[name] || slices.ContainsFunc(r.expressions, func(e *regexp.Regexp) bool { return e.MatchString(name) })
	})
}
