package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/chunker"
)

// E10: the expression for --tables-exclude names the table of a file.
func TestExcludable(t *testing.T) {
	for file, want := range map[string]string{
		"/var/lib/mysql/shop/orders.ibd":              `^shop[.]orders$`,
		"/var/lib/mysql/shop/orders#P#p0.ibd":         `^shop[.]orders$`,
		"/var/lib/mysql/my@002ddb/a@002eb.ibd":        `^my-db[.]a\.b$`,
		"/disk2/shop/orders.ibd":                      `^shop[.]orders$`,
		"/var/lib/mysql/ibdata1":                      "",
		"/var/lib/mysql/undo001":                      "",
		"/var/lib/mysql/mysql/innodb_index_stats.ibd": "",
		"/var/lib/mysql/shop/a@002cb.ibd":             "", // a comma
		"/data/shop/fts_000000000000043e_config.ibd":  "", // of MySQL
	} {
		if got, ok := excludable(file); ok != (want != "") || ok && got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
}

// A tablespace of no database has no name for --tables-exclude.
func TestDamagedDictionaryHasNoAdvice(t *testing.T) {
	for table, advice := range map[string]bool{"mysql.ibd": false, "data.mysql": true} {
		err := withoutTable(&chunker.PageError{Table: table, Path: "/srv/data/mysql.ibd", Cause: errors.New("checksum")})
		if got := strings.Contains(err.Error(), "--tables-exclude"); got != advice {
			t.Errorf("%s: %v", table, err)
		}
	}
}
