package main

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/internal/innodb/filename"
)

// withoutTable adds to the error of a damaged page how to back up the rest.
func withoutTable(err error) error {
	page, ok := errors.AsType[*chunker.PageError](err)
	if !ok || page.Table == path.Base(page.Path) { // of no database: mysql.ibd, a general tablespace
		return err
	}
	table, ok := excludable(page.Path)
	if !ok {
		return err
	}
	return fmt.Errorf("%w; to back up all other tables: --tables-exclude='%s'", err, table)
}

// excludable is the expression for --tables-exclude that matches the table of a
// tablespace file and no other table. There is none for the system tablespace and
// undo tablespaces, and for names with a comma, which separates expressions.
func excludable(file string) (expression string, ok bool) {
	stem, isTable := strings.CutSuffix(path.Base(file), ".ibd")
	db := path.Base(path.Dir(file))
	if !isTable || db == "mysql" || filename.Internal(file) {
		return "", false
	}
	table, _ := filename.CutPartition(stem)
	expression = "^" + regexp.QuoteMeta(filename.Decode(db)) + "[.]" + regexp.QuoteMeta(filename.Decode(table)) + "$"
	return expression, !strings.ContainsAny(expression, ",'")
}
