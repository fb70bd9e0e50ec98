package chunker

import (
	"regexp"
	"slices"
	"testing"
)

// D1: what matches nothing is named as it was given.
func TestUnmatched(t *testing.T) {
	var f Filter
	for _, name := range []string{"shop", "shp", "shop.orders", "shop.itms", "`my-db.x`.`a b`", "`my-db.x`.`a c`", "d.t#P#p0", "d.t#P#p9", "d.t"} {
		if _, err := f.Include.Add(name); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range []string{"^shop[.]ord", "^shop[.]itm", "p0$"} {
		f.Include.AddExpression(regexp.MustCompile(e))
	}
	tally := f.Include.Tally()
	for _, db := range []string{"shop", "d", "my-db.x"} {
		tally.Database(Names{{Database: db}})
	}
	for _, n := range []TableName{{"shop", "orders", ""}, {"my-db.x", "a b", ""}, {"d", "t", "#P#p0"}} {
		tally.Table(Names{{"other", "other", ""}, n})
	}
	want := []string{"`my-db.x`.`a c`", "d.t#P#p9", "shop.itms", "shp", "^shop[.]itm"}
	if got := tally.Unmatched(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// D1: lower_case_table_names=1.
func TestLowerCase(t *testing.T) {
	var f Filter
	for _, name := range []string{"Shop", "D.T"} {
		if _, err := f.Include.Add(name); err != nil {
			t.Fatal(err)
		}
	}
	table := func(db, table string) Names { return Names{{Database: db, Table: table}} }
	if f.Table(table("shop", "x")) {
		t.Error("names match in any case")
	}
	f.LowerCase()
	if !f.Table(table("shop", "x")) || !f.Table(table("d", "t")) || f.Table(table("d", "u")) {
		t.Error("names in upper case do not match")
	}
	if got := f.Include.Tally().Unmatched(); !slices.Equal(got, []string{"D.T", "Shop"}) {
		t.Errorf("%q", got)
	}
}
