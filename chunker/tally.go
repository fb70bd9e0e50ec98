package chunker

import "slices"

// Tally finds out which databases, tables and expressions of Rules match
// nothing, as a name that was mistyped.
type Tally struct {
	rules       *Rules
	databases   map[string]bool
	tables      map[TableName]bool
	expressions map[int]bool
}

// Tally returns a Tally of rules that has seen nothing yet.
func (r *Rules) Tally() *Tally {
	return &Tally{r, map[string]bool{}, map[TableName]bool{}, map[int]bool{}}
}

// Database notes that there is a database. Only that of the names counts.
func (t *Tally) Database(n Names) {
	for _, name := range n {
		if t.rules.databases[name.Database] {
			t.databases[name.Database] = true
		}
	}
}

// Table notes that there is a table, or a partition of one.
func (t *Tally) Table(n Names) {
	for _, name := range n {
		for _, key := range []TableName{name.file(), name.table()} {
			if name := key.folded(); t.rules.tables[name] {
				t.tables[name] = true
			}
			for i, e := range t.rules.expressions {
				if !t.expressions[i] && e.MatchString(key.Database+"."+key.Table) {
					t.expressions[i] = true
				}
			}
		}
	}
}

// Unmatched returns what matched nothing, as it was given: names in order, then
// expressions.
func (t *Tally) Unmatched() []string {
	var out []string
	for key, given := range t.rules.given {
		found := t.databases[key.Database]
		if t.rules.tables[key] {
			found = t.tables[key]
		}
		if !found {
			out = append(out, given)
		}
	}
	slices.Sort(out)
	for i, e := range t.rules.expressions {
		if !t.expressions[i] {
			out = append(out, e.String())
		}
	}
	return out
}
