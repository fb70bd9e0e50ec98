package servertest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// ImportTablespace gives the InnoDB table to a copy of the tablespace of from,
// as a DBA does it: discard, export, copy, import. Both are tables of db, of the
// same definition, and have plain names. What to held is gone. The binary log
// hears nothing of it.
func (s *Server) ImportTablespace(ctx context.Context, db, from, to string) error {
	if err := s.ReplaceTablespace(ctx, db, from, to); err != nil {
		return err
	}
	if err := s.Exec(ctx, "SET SESSION sql_log_bin = 0, lock_wait_timeout = 120", "ALTER TABLE "+db+"."+to+" IMPORT TABLESPACE"); err != nil {
		return err
	}
	return os.Remove(filepath.Join(s.datadir, db, to+".cfg"))
}

// ReplaceTablespace is ImportTablespace but for the last step: the files are
// there and wait to be imported.
func (s *Server) ReplaceTablespace(ctx context.Context, db, from, to string) error {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("import %s.%s: %w", db, to, err)
	}
	defer discard(conn)
	for _, step := range []struct {
		query string
		then  func() error
	}{
		{"SET SESSION sql_log_bin = 0, lock_wait_timeout = 120", nil},
		{"ALTER TABLE " + db + "." + to + " DISCARD TABLESPACE", nil},
		{"FLUSH TABLES " + db + "." + from + " FOR EXPORT", func() error { return copyTablespace(filepath.Join(s.datadir, db), from, to) }},
		{"UNLOCK TABLES", nil},
	} {
		if _, err := conn.ExecContext(ctx, step.query); err != nil {
			return fmt.Errorf("%s: %w", step.query, err)
		}
		if step.then == nil {
			continue
		}
		if err := step.then(); err != nil {
			return fmt.Errorf("import %s.%s: %w", db, to, err)
		}
	}
	return nil
}

// copyTablespace copies a table's files of an export in a database's directory.
func copyTablespace(dir, from, to string) error {
	for _, ext := range []string{".ibd", ".cfg"} {
		b, err := os.ReadFile(filepath.Join(dir, from+ext))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, to+ext), b, 0o660); err != nil {
			return err
		}
	}
	return nil
}
