package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/internal/servertest"
)

// D1: a name that matches nothing is named, and nothing is copied.
func TestNamesThatMatchNothing(t *testing.T) {
	ctx := t.Context()
	source := servertest.New(t, servertest.Options{})
	check(t, source.Exec(ctx, "CREATE DATABASE shop", "CREATE DATABASE none", "CREATE TABLE shop.orders (id INT PRIMARY KEY) ENGINE=InnoDB",
		"CREATE TABLE shop.parts (id INT) ENGINE=InnoDB PARTITION BY HASH (id) PARTITIONS 2",
		"CREATE TABLE shop.items (id INT) ENGINE=MyISAM", "CREATE VIEW shop.seen AS SELECT * FROM shop.items",
		"CREATE TRIGGER shop.pulled BEFORE INSERT ON shop.items FOR EACH ROW SET NEW.id = 1"))
	dir := t.TempDir()
	file := func(name, text string) string {
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		return filepath.Join(dir, name)
	}
	for i, c := range []struct {
		args  []string
		names string // what the message names; empty: all is there
	}{
		{[]string{"--databases=mysql shp"}, "(to back up: shp)"},
		{[]string{"--databases=shop.orders shop.itms"}, "(to back up: shop.itms)"},
		{[]string{"--databases=shop.pulled shop. shop.orders.ibd"}, "(to back up: shop., shop.orders.ibd, shop.pulled)"},
		{[]string{"--databases-exclude=shpo"}, "(to leave out: shpo)"},
		{[]string{"--databases-exclude=shop.orders shop.order"}, "(to leave out: shop.order)"},
		{[]string{"--tables=^shop[.]orders$,^shop[.]item$"}, "(to back up: ^shop[.]item$)"},
		{[]string{"--tables-exclude=^shop[.]item$"}, "(to leave out: ^shop[.]item$)"},
		{[]string{"--databases-file=" + file("databases", "shop\nshop.no\n`no.such`\n")}, "(to back up: `no.such`, shop.no)"},
		{[]string{"--tables-file=" + file("tables", "shop.orders\nshop.itmes\n")}, "(to back up: shop.itmes)"},
		{[]string{"--databases=shop x", "--databases-exclude=y"}, "(to back up: x; to leave out: y)"},
		{[]string{"--databases=shop.parts#P#p0 shop.parts#P#p7"}, "(to back up: shop.parts#P#p7)"},
		{[]string{"--databases=shop.parts shop.seen none shop.items shop.parts#P#p1", "--tables-exclude=column_stats$"}, ""},
	} {
		for _, more := range []string{"", "--allow-missing", "--dry-run"} {
			if more != "" && i%4 != 0 { // the rest is the same for all
				continue
			}
			args := append([]string{"--no-defaults", "-uroot", "-S" + source.Socket()}, c.args...)
			if more != "" {
				args = append(args, more)
			}
			archive, said, code := xbsendOf(t, args...)
			want := 2
			if more == "--allow-missing" || c.names == "" {
				want = 0
			}
			if code != want || c.names != "" && !strings.Contains(said, strings.Trim(c.names, "()")) {
				t.Errorf("%q: exit code %d\n%s", args[3:], code, said)
			}
			if c.names == "" && strings.Contains(said, "these names") {
				t.Errorf("%q\n%s", args[3:], said)
			}
			if (want == 2 || more == "--dry-run") != (len(archive) == 0) {
				t.Errorf("%q: %d bytes were sent", args[3:], len(archive))
			}
		}
	}
}

// D1: on a server with lower_case_table_names=1 all names are in lower case.
func TestNamesInLowerCase(t *testing.T) {
	source := servertest.New(t, servertest.Options{Args: []string{"--lower-case-table-names=1"}})
	check(t, source.Exec(t.Context(), "CREATE DATABASE Shop", "CREATE TABLE Shop.Orders (id INT PRIMARY KEY) ENGINE=InnoDB"))
	archive := filepath.Join(t.TempDir(), "archive.xb")
	for _, flag := range []string{"--databases=Shop", "--databases=SHOP.Orders", "--databases=shop.orders"} {
		sendTo(t, archive, source, flag)
		if list := receive(t, "list", archive); !strings.Contains(list, "shop/orders.ibd\n") {
			t.Errorf("%s: the archive holds %s", flag, list)
		}
	}
}

// D1: what counts is what there is in the end.
func TestNamesDuringTheBackup(t *testing.T) {
	source := servertest.New(t, servertest.Options{})
	check(t, source.Exec(t.Context(), "CREATE DATABASE shop", "CREATE TABLE shop.a (id INT PRIMARY KEY) ENGINE=InnoDB", "CREATE TABLE shop.b LIKE shop.a"))
	hook := filepath.Join(t.TempDir(), "hook")
	check(t, os.WriteFile(hook, []byte("[ $1 = stage-start ] && mariadb --no-defaults -uroot -S "+source.Socket()+" -e 'RENAME TABLE shop.a TO shop.c'; exit 0\n"), 0o600))
	t.Setenv("XB_TEST_HOOK", "sh "+hook)
	back := func() { check(t, source.Exec(t.Context(), "RENAME TABLE shop.c TO shop.a")) }
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--databases=shop.a shop.b"}, 2, "dropped or renamed during the backup, which does not hold them (to back up: shop.a)"},
		{[]string{"--databases=shop.a shop.b", "--allow-missing"}, 0, "warning: no database or table has these names: to back up: shop.a\n"},
		{[]string{"--databases=shop.b shop.c", "--allow-missing"}, 0, ""},
		{[]string{"--databases-exclude=shop.a"}, 0, ""},
		{[]string{"--databases-exclude=shop.c", "--allow-missing"}, 0, ""},
	} {
		_, said, code := xbsendOf(t, append([]string{"--no-defaults", "-uroot", "-S" + source.Socket()}, c.args...)...)
		if code != c.code || !strings.Contains(said, c.says) || c.says == "" && strings.Contains(said, "these names") {
			t.Errorf("%q: exit code %d\n%s", c.args, code, said)
		}
		back()
	}
}

// D1: --only names databases too, and what matches nothing is named; nothing is
// extracted then, also where that is known at the end only.
func TestOnlyThatMatchesNothing(t *testing.T) {
	source := servertest.New(t, servertest.Options{})
	check(t, source.Exec(t.Context(), "CREATE DATABASE shop", "CREATE DATABASE `a-b`", "CREATE TABLE shop.orders (id INT PRIMARY KEY) ENGINE=InnoDB",
		"CREATE TABLE shop.items (id INT) ENGINE=MyISAM", "CREATE TABLE `a-b`.t (id INT) ENGINE=MyISAM"))
	dir := t.TempDir()
	archive := filepath.Join(dir, "archive.xb")
	sendTo(t, archive, source, "--databases=shop `a-b`")
	for _, piped := range []bool{false, true} {
		for _, c := range []struct {
			only    []string
			missing string
			holds   string
		}{
			{[]string{"shop.orders", "shop.itmes"}, "shop.itmes", "shop/orders.ibd"},
			{[]string{"shop.orders", "shp", "shop.items", "x/*"}, "shp, x/*", "shop/items.MYD"},
			{[]string{"shop"}, "", "shop/orders.ibd shop/items.MYD"},
			{[]string{"a-b", "ibdata1"}, "", "a@002db/t.MYD ibdata1"},
		} {
			for _, allow := range []bool{false, true} {
				target := filepath.Join(t.TempDir(), "target")
				args := []string{"-x", "-C", target}
				for _, only := range c.only {
					args = append(args, "--only", only)
				}
				if allow {
					args = append(args, "--allow-missing")
				}
				in := openFile(t, archive)
				var code int
				var said string
				if piped {
					code, said = bounded(t, in, nil, "xbstream", args...)
				} else {
					code, said = bounded(t, nil, nil, "xbstream", append(args, archive)...)
				}
				if fails := c.missing != "" && !allow; fails != (code == 2) || !fails && code != 0 || c.missing != "" && strings.Count(said, "matches "+c.missing) != 1 {
					t.Errorf("%q: exit code %d\n%s", args, code, said)
				}
				for _, name := range strings.Fields(c.holds) {
					if _, err := os.Stat(filepath.Join(target, name)); (err == nil) != (code == 0) {
						t.Errorf("%q, exit code %d: %s: %v", args, code, name, err)
					}
				}
			}
		}
	}
}

func openFile(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Open(name)
	check(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}
