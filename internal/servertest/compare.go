package servertest

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// Digest is the content of one table, or of the answer of one query, whatever
// the order of the rows: their number, and the sum modulo 2^128 of a hash of
// each. A sum, unlike an exclusive or, does not forget rows that are there
// twice.
type Digest struct {
	Rows     int64
	Lo, Hi   uint64
	contents map[[16]byte]string // row by hash, kept only for Differences
}

func (d *Digest) add(row []sql.RawBytes, keep bool) {
	h := sha256.New()
	var n [9]byte
	for _, v := range row {
		// NULL, the empty string, and where one value ends and the next
		// begins must all tell.
		n[0] = 0
		if v != nil {
			n[0] = 1
		}
		binary.BigEndian.PutUint64(n[1:], uint64(len(v)))
		h.Write(n[:])
		h.Write(v)
	}
	var sum [32]byte
	h.Sum(sum[:0])
	d.Rows++
	lo := d.Lo + binary.BigEndian.Uint64(sum[:8])
	if lo < d.Lo {
		d.Hi++
	}
	d.Lo = lo
	d.Hi += binary.BigEndian.Uint64(sum[8:16])
	if keep {
		d.contents[[16]byte(sum[:16])] = rowText(row)
	}
}

// equal compares what counts.
func (d Digest) equal(o Digest) bool { return d.Rows == o.Rows && d.Lo == o.Lo && d.Hi == o.Hi }

func rowText(row []sql.RawBytes) string {
	var s []string
	for _, v := range row {
		switch {
		case v == nil:
			s = append(s, "NULL")
		case len(v) > 60:
			s = append(s, fmt.Sprintf("%.60q… (%d bytes)", v, len(v)))
		default:
			s = append(s, fmt.Sprintf("%q", v))
		}
	}
	return strings.Join(s, ", ")
}

// digest reads the answer of a query. With keep it remembers the rows.
func (s *Server) digest(ctx context.Context, query string, keep bool) (Digest, error) {
	rows, err := s.db.QueryContext(ctx, query)
	if err != nil {
		return Digest{}, fmt.Errorf("%s: %w", query, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return Digest{}, err
	}
	d := Digest{}
	if keep {
		d.contents = map[[16]byte]string{}
	}
	row := make([]sql.RawBytes, len(columns))
	dest := make([]any, len(columns))
	for i := range row {
		dest[i] = &row[i]
	}
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return Digest{}, fmt.Errorf("%s: %w", query, err)
		}
		d.add(row, keep)
	}
	if err := rows.Err(); err != nil {
		return Digest{}, fmt.Errorf("%s: %w", query, err)
	}
	return d, nil
}

// queries returns, by name, everything of this server that a copy must have:
// every row of every table of every user's database, and the definitions of
// what is not a table.
func (s *Server) queries(ctx context.Context) (map[string]string, error) {
	q := maps.Clone(definitions)
	if s.opts.Release.MySQL() {
		maps.Copy(q, definitionsOfMySQL)
	}
	rows, err := s.db.QueryContext(ctx, `SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES
		WHERE TABLE_SCHEMA NOT IN ('information_schema', 'performance_schema', 'mysql', 'sys')`)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var db, name, kind string
		if err := rows.Scan(&db, &name, &kind); err != nil {
			return nil, fmt.Errorf("list tables: %w", err)
		}
		ref := ident(db) + "." + ident(name)
		switch kind {
		case "SYSTEM VERSIONED":
			q[ref] = "SELECT *, ROW_START, ROW_END FROM " + ref + " FOR SYSTEM_TIME ALL"
		default:
			q[ref] = "SELECT * FROM " + ref
		}
	}
	return q, rows.Err()
}

// definitions are compared like tables. Left out are times of creation and
// what a server does on its own: an event's last execution, statistics.
var definitions = map[string]string{
	"databases":         "SELECT * FROM information_schema.SCHEMATA",
	"tables":            "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, ROW_FORMAT, TABLE_COLLATION, CREATE_OPTIONS FROM information_schema.TABLES WHERE TABLE_SCHEMA NOT IN ('information_schema', 'performance_schema')",
	"columns":           "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, ORDINAL_POSITION, COLUMN_DEFAULT, COLUMN_TYPE, COLLATION_NAME, GENERATION_EXPRESSION FROM information_schema.COLUMNS WHERE TABLE_SCHEMA NOT IN ('information_schema', 'performance_schema', 'sys', 'mysql')",
	"indexes":           "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX, COLUMN_NAME, SUB_PART, INDEX_TYPE FROM information_schema.STATISTICS WHERE TABLE_SCHEMA NOT IN ('information_schema', 'performance_schema', 'sys', 'mysql')",
	"views":             "SELECT TABLE_SCHEMA, TABLE_NAME, VIEW_DEFINITION, DEFINER, SECURITY_TYPE FROM information_schema.VIEWS",
	"triggers":          "SELECT TRIGGER_SCHEMA, TRIGGER_NAME, EVENT_MANIPULATION, EVENT_OBJECT_TABLE, ACTION_TIMING, ACTION_STATEMENT, SQL_MODE, DEFINER FROM information_schema.TRIGGERS",
	"routines":          "SELECT db, name, type, body, definer, sql_mode, param_list, returns FROM mysql.proc",
	"events":            "SELECT db, name, body, definer, interval_value, interval_field, sql_mode FROM mysql.event",
	"accounts":          "SELECT Host, User, Priv FROM mysql.global_priv WHERE User NOT IN ('mariadb.sys', '" + replUser + "')",
	"grants":            "SELECT * FROM mysql.db",
	"roles":             "SELECT * FROM mysql.roles_mapping",
	"columns of grants": "SELECT Host, Db, User, Table_name, Column_name, Column_priv FROM mysql.columns_priv",
	"foreign keys":      "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, REFERENCED_TABLE_NAME, UPDATE_RULE, DELETE_RULE FROM information_schema.REFERENTIAL_CONSTRAINTS",
}

// Comparison is the result of Compare.
type Comparison struct {
	Tables int   // compared, definitions included
	Rows   int64 // of the source
	// Differences has a line for each table that is not equal, with some
	// of the rows that differ.
	Differences []string
}

// Compare reads everything of both servers and says what differs. Nothing may
// write to either while it runs.
func Compare(ctx context.Context, source, other *Server) (Comparison, error) {
	var c Comparison
	want, err := source.queries(ctx)
	if err != nil {
		return c, err
	}
	have, err := other.queries(ctx)
	if err != nil {
		return c, err
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if _, ok := want[name]; !ok {
			c.Differences = append(c.Differences, name+": only in the copy")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		c.Tables++
		if _, ok := have[name]; !ok {
			c.Differences = append(c.Differences, name+": missing in the copy")
			continue
		}
		if err := c.compare(ctx, name, want[name], source, other); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (c *Comparison) compare(ctx context.Context, name, query string, source, other *Server) error {
	a, errA := source.digest(ctx, query, false)
	c.Rows += a.Rows
	b, errB := other.digest(ctx, query, false)
	switch {
	case invalidView(errA) && invalidView(errB):
		return nil // its table is gone, on both sides
	case errA != nil:
		return fmt.Errorf("source: %w", errA)
	case errB != nil:
		c.Differences = append(c.Differences, fmt.Sprintf("%s: cannot be read in the copy: %v", name, errB))
		return nil
	}
	if a.equal(b) {
		return nil
	}
	line := fmt.Sprintf("%s: %d rows in the source, %d in the copy", name, a.Rows, b.Rows)
	more, err := rowDifferences(ctx, query, source, other)
	if err != nil {
		return err
	}
	c.Differences = append(c.Differences, line+more)
	return nil
}

// invalidView says that a view refers to what is not there.
func invalidView(err error) bool {
	const viewInvalid = 1356
	e, ok := errors.AsType[*mysql.MySQLError](err)
	return ok && e.Number == viewInvalid
}

// rowDifferences shows a few rows that only one side has.
func rowDifferences(ctx context.Context, query string, source, other *Server) (string, error) {
	a, err := source.digest(ctx, query, true)
	if err != nil {
		return "", err
	}
	b, err := other.digest(ctx, query, true)
	if err != nil {
		return "", err
	}
	return missing("source", a, b) + missing("copy", b, a), nil
}

func missing(where string, a, b Digest) string {
	text, n := "", 0
	for h, row := range a.contents {
		if _, ok := b.contents[h]; ok {
			continue
		}
		if n++; n <= 3 {
			text += fmt.Sprintf("\n    only in the %s: %s", where, row)
		}
	}
	if n > 3 {
		text += fmt.Sprintf("\n    and %d more", n-3)
	}
	return text
}

// CheckTables runs CHECK TABLE … EXTENDED on every table of every user's
// database and of mysql, and returns what was not well. It first waits until
// InnoDB has rolled back what was not committed and purged its history: CHECK
// TABLE complains of the index entry of a virtual column whose row is purged
// already while the entry is about to be.
func (s *Server) CheckTables(ctx context.Context) (tables int, complaints []string, err error) {
	if err := s.awaitRollback(ctx); err != nil {
		return 0, nil, err
	}
	if err := s.awaitPurge(ctx); err != nil {
		return 0, nil, err
	}
	rows, err := s.db.QueryContext(ctx, `SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES
		WHERE TABLE_SCHEMA NOT IN ('information_schema', 'performance_schema') AND TABLE_TYPE <> 'VIEW'`)
	if err != nil {
		return 0, nil, fmt.Errorf("list tables: %w", err)
	}
	defer rows.Close()
	var refs []string
	for rows.Next() {
		var db, name, kind string
		if err := rows.Scan(&db, &name, &kind); err != nil {
			return 0, nil, fmt.Errorf("list tables: %w", err)
		}
		refs = append(refs, ident(db)+"."+ident(name))
	}
	if err := rows.Err(); err != nil {
		return 0, nil, fmt.Errorf("list tables: %w", err)
	}
	for _, ref := range refs {
		c, err := s.checkTable(ctx, ref)
		if err != nil {
			return 0, nil, err
		}
		complaints = append(complaints, c...)
	}
	return len(refs), complaints, nil
}

// awaitRollback waits, for a while, until no transaction of before the start is left
// that is not prepared: CHECK TABLE counts the entries of a spatial index as they
// are. It asks seldom, as the server looks again only for who has not asked for a
// tenth of a second.
func (s *Server) awaitRollback(ctx context.Context) error {
	const recovered = "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_mysql_thread_id = 0 AND trx_state <> 'PREPARED'"
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(250 * time.Millisecond) {
		n, err := s.String(ctx, recovered)
		if err != nil || n == "0" || time.Now().After(deadline) {
			return err
		}
	}
}

// purgeTimeout bounds the wait for purge. It is far above what is usual.
const purgeTimeout = 5 * time.Minute

// awaitPurge waits until no history is left.
func (s *Server) awaitPurge(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, purgeTimeout)
	defer cancel()
	if s.opts.Release.MySQL() {
		return s.awaitMySQLPurge(ctx)
	}
	if err := s.Exec(ctx, "SET GLOBAL innodb_max_purge_lag_wait = 0"); err != nil {
		return fmt.Errorf("wait for purge: %w\n%s", err, s.ErrorLog())
	}
	return nil
}

// leftByPurge recognises a warning that servers give of their own tables too,
// never copied: purge sometimes leaves a delete-marked entry in the index of a
// virtual column (seen with 10.11.19 after load and DDL). info_bits=32 is the
// delete mark; an entry without it would be damage.
func leftByPurge(warning string) bool {
	return strings.Contains(warning, "Clustered index record not found for index") && strings.Contains(warning, "info_bits=32")
}

func (s *Server) checkTable(ctx context.Context, ref string) (complaints []string, err error) {
	rows, err := s.db.QueryContext(ctx, "CHECK TABLE "+ref+" EXTENDED")
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", ref, err)
	}
	defer rows.Close()
	for rows.Next() {
		var table, op, kind, text string
		if err := rows.Scan(&table, &op, &kind, &text); err != nil {
			return nil, fmt.Errorf("check %s: %w", ref, err)
		}
		well := kind == "status" && (text == "OK" || text == "Table is already up to date")
		cannot := kind == "note" && strings.Contains(text, "doesn't support check")
		if !well && !cannot && !leftByPurge(text) {
			complaints = append(complaints, fmt.Sprintf("%s: %s: %s", ref, kind, text))
		}
	}
	return complaints, rows.Err()
}
