package servertest

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A replica that was never a copy: what the load writes can be replicated, and
// is equal afterwards. If this fails, no backup can pass.
func TestLoadReplicates(t *testing.T) {
	for _, r := range Releases(t) {
		t.Run(r.String(), func(t *testing.T) { loadReplicates(t, r) })
	}
}

func loadReplicates(t *testing.T, r Release) {
	source := New(t, Options{Release: r, LogBin: true, TCP: true})
	if v, err := source.String(t.Context(), "SELECT VERSION()"); err != nil || !strings.HasPrefix(v, strings.TrimPrefix(r.String(), "mariadb-")+".") {
		t.Errorf("%s is version %s, %v", r, v, err)
	}
	other := New(t, Options{Release: r, ServerID: 2})
	ctx := t.Context()
	check(t, other.AttachReplica(ctx, source, ""))
	check(t, source.CreateSchema(ctx, LoadOptions{}))
	load, err := source.StartLoad(ctx, LoadOptions{Seed: 1})
	check(t, err)
	for limit := time.Now().Add(2 * time.Minute); load.Operations() < 1000 && time.Now().Before(limit); {
		time.Sleep(10 * time.Millisecond)
	}
	counts, err := load.Stop()
	check(t, err)
	check(t, source.StopEvents(ctx))
	check(t, other.WaitCaughtUp(ctx, source))
	c, err := Compare(ctx, source, other)
	check(t, err)
	for _, d := range c.Differences {
		t.Error(d)
	}
	if counts.Total() < 100 || c.Tables < 40 || c.Rows < 1000 {
		t.Errorf("too little was tried: %+v, %d tables, %d rows", counts, c.Tables, c.Rows)
	}
	_, complaints, err := other.CheckTables(ctx)
	check(t, err)
	for _, c := range complaints {
		t.Error(c)
	}
	t.Logf("%+v, %d tables, %d rows", counts, c.Tables, c.Rows)
}

// Compare must find what differs.
func TestCompareFindsDifferences(t *testing.T) {
	a, b := New(t, Options{}), New(t, Options{ServerID: 2})
	ctx := t.Context()
	for _, s := range []*Server{a, b} {
		check(t, s.Exec(ctx, "CREATE DATABASE d", "CREATE TABLE d.t (id INT, v VARCHAR(10))",
			"INSERT INTO d.t VALUES (1, 'x'), (1, 'x'), (2, NULL), (3, '')"))
	}
	c, err := Compare(ctx, a, b)
	check(t, err)
	if len(c.Differences) != 0 {
		t.Fatalf("equal servers differ: %v", c.Differences)
	}
	for name, change := range map[string][2]string{
		"`d`.`t`: 4 rows in the source, 3": {"DELETE FROM d.t WHERE id = 2", "INSERT INTO d.t VALUES (2, NULL)"},
		"`d`.`t`: 4 rows in the source, 4": {"UPDATE d.t SET v = '' WHERE id = 2", "UPDATE d.t SET v = NULL WHERE id = 2"},
		"`d`.`t`: 4 rows in the source, 2": {"DELETE FROM d.t WHERE id = 1", "INSERT INTO d.t VALUES (1, 'x'), (1, 'x')"},
		"only in the copy: \"3\", \"y\"":   {"UPDATE d.t SET v = 'y' WHERE id = 3", "UPDATE d.t SET v = '' WHERE id = 3"},
		"`d`.`u`: only in the copy":        {"CREATE TABLE d.u (i INT)", "DROP TABLE d.u"},
		"views: ":                          {"CREATE VIEW d.v AS SELECT 1", "DROP VIEW d.v"},
		"routines: ":                       {"CREATE PROCEDURE d.p() SELECT 1", "DROP PROCEDURE d.p"},
		"databases: ":                      {"CREATE DATABASE e", "DROP DATABASE e"},
		"accounts: ":                       {"CREATE USER u", "DROP USER u"},
	} {
		check(t, b.Exec(ctx, change[0]))
		c, err := Compare(ctx, a, b)
		check(t, err)
		if got := strings.Join(c.Differences, "\n"); !strings.Contains(got, strings.TrimPrefix(name, " ")) {
			t.Errorf("after %s: found %q, want %q in it", change[0], got, name)
		}
		check(t, b.Exec(ctx, change[1]))
	}
	c, err = Compare(ctx, a, b)
	check(t, err)
	if len(c.Differences) != 0 {
		t.Errorf("equal again, but: %v", c.Differences)
	}
}
