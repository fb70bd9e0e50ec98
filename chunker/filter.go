package chunker

import (
	"regexp"
	"slices"
	"strings"

	"github.com/xbstream/xbstream/internal/innodb/filename"
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
	// databases are named as a whole; partly are the databases of tables.
	databases, partly map[string]bool
	tables            map[TableName]bool // the name of a partition is part of Table
	expressions       []*regexp.Regexp
	given             map[TableName]string // names of both as they were given
}

// Add adds a database, or a table as db.table. Names with dots or blanks in them
// are in backquotes. It says whether it was a table's.
func (r *Rules) Add(name string) (ofTable bool, err error) {
	db, table, ofTable, err := parseName(name)
	if err == nil {
		key := TableName{Database: db, Table: table}.folded()
		put(&r.given, key, name)
		r.add(key, ofTable)
	}
	return ofTable, err
}

func (r *Rules) add(name TableName, ofTable bool) {
	if !ofTable {
		put(&r.databases, name.Database, true)
		return
	}
	put(&r.tables, name, true)
	put(&r.partly, name.Database, true)
}

func put[K comparable, V any](m *map[K]V, name K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[name] = v
}

// LowerCase makes names match as on a server with lower_case_table_names=1,
// whose names are all in lower case. Expressions stay as they are.
func (f *Filter) LowerCase() {
	for _, r := range []*Rules{&f.Include, &f.Exclude} {
		given, tables := r.given, r.tables
		r.given, r.tables, r.databases, r.partly = nil, nil, nil, nil
		for name, text := range given {
			low := TableName{Database: strings.ToLower(name.Database), Table: strings.ToLower(name.Table)}
			put(&r.given, low, text)
			r.add(low, tables[name])
		}
	}
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
	for _, suffix := range []func(TableName) TableName{TableName.file, TableName.table} {
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

// table is the table that a partition belongs to.
func (t TableName) table() TableName { return TableName{Database: t.Database, Table: t.Table} }

// file is the partition by itself.
func (t TableName) file() TableName {
	return TableName{Database: t.Database, Table: t.Table + t.Partition}
}

// folded has the name of a partition in lower case: to the server its case does not
// matter, and MySQL does not keep it in the names of files.
func (t TableName) folded() TableName {
	table, partition := filename.CutPartition(t.Table)
	return TableName{Database: t.Database, Table: table + strings.ToLower(partition)}
}

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

func (r *Rules) table(n Names, as func(TableName) TableName) bool {
	return slices.ContainsFunc(n, func(t TableName) bool {
		key := as(t)
		name := key.Database + "." + key.Table
		return r.tables[key.folded()] || slices.ContainsFunc(r.expressions, func(e *regexp.Regexp) bool { return e.MatchString(name) })
	})
}
