package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/internal/servertest"
)

// G8: databases and tables with dots and blanks in their names can be named.
func TestNamesWithDotsAndBlanks(t *testing.T) {
	t.Parallel()
	source := servertest.New(t, servertest.Options{LogBin: true})
	const dot, blank = "my@002ddb@002ex", "my@0020db"
	check(t, source.Exec(t.Context(), "CREATE DATABASE `my-db.x`", "CREATE DATABASE `my db`", "CREATE DATABASE plain",
		"CREATE TABLE `my-db.x`.`t.1` (a INT) ENGINE=InnoDB", "CREATE TABLE `my-db.x`.t2 (a INT) ENGINE=MyISAM",
		"CREATE TABLE `my db`.t (a INT) ENGINE=InnoDB", "CREATE TABLE plain.t (a INT) ENGINE=InnoDB",
		"CREATE DATABASE binlog", "CREATE TABLE binlog.t (a INT) ENGINE=MyISAM")) // as the binary log is called
	dir := t.TempDir()
	list := filepath.Join(dir, "list")
	check(t, os.WriteFile(list, []byte("`my-db.x`.`t.1`\n`my db`.t\n"), 0o600))
	all := []string{dot + "/t2.MYD", dot + "/t@002e1.ibd", blank + "/t.ibd", "plain/t.ibd", "binlog/t.MYD"}
	for _, c := range []struct {
		flag string
		want []int // of all
	}{
		{"--databases=`my-db.x`", []int{0, 1}},
		{"--databases=`my-db.x`.t2 `my db`", []int{0, 2}},
		{"--databases-exclude=`my-db.x` `my db`", []int{3, 4}},
		{"--databases-exclude=`my-db.x`.`t.1`", []int{0, 2, 3, 4}},
		{"--tables-file=" + list, []int{1, 2}},
		{"--databases-file=" + list, []int{1, 2}},
	} {
		archive := filepath.Join(dir, "archive.xb")
		sendTo(t, archive, source, c.flag)
		got := strings.Fields(receive(t, "list", archive))
		for i, name := range all {
			if slices.Contains(got, name) != slices.Contains(c.want, i) {
				t.Errorf("%s: the archive holds %s: %t", c.flag, name, slices.Contains(got, name))
			}
		}
	}
	if _, said, code := xbsendOf(t, "--no-defaults", "--socket="+source.Socket(), "--databases=`my-db.x"); code != 2 || !strings.Contains(said, "backquote") {
		t.Errorf("exit code %d\n%s", code, said)
	}
}
