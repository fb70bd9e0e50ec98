package prepare

import (
	"context"
	"database/sql/driver"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/internal/backupdir"
)

// prepareOwn leaves transactions prepared that are, to a server, its own: a server
// tells its own XIDs by their form only, and XA START takes any. Each inserts a row
// into d.xa.
func prepareOwn(s *server, transactions int) error {
	for n := range transactions {
		xid := fmt.Sprintf("X'%x'", ownXID(uint64(100+n)))
		if err := prepareTransaction(s, xid, fmt.Sprintf("INSERT INTO d.xa VALUES ('own', %d)", n)); err != nil {
			return err
		}
	}
	return nil
}

// prepareTransaction prepares one, and closes the connection.
func prepareTransaction(s *server, xid, write string) error {
	c, err := s.db.Conn(context.Background())
	if err != nil {
		return err
	}
	defer c.Close()
	defer c.Raw(func(any) error { return driver.ErrBadConn })
	for _, q := range []string{"XA START " + xid, write, "XA END " + xid, "XA PREPARE " + xid} {
		if _, err := c.ExecContext(context.Background(), q); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	return nil
}

const own = 3

// withPrepared is a case in which three transactions are prepared as the server
// itself does, and one by XA PREPARE.
func withPrepared(name string, install, args []string) peerCase {
	return peerCase{name: name, tables: tablesPlain[:1], install: install, args: args,
		setup: []string{"CREATE SEQUENCE d.seq ENGINE=InnoDB", "CREATE TABLE d.xa (a VARCHAR(200), b INT) ENGINE=InnoDB"},
		during: func(s *server) error {
			if err := prepareOwn(s, own); err != nil {
				return err
			}
			return prepareXA(s)
		}}
}

// withPreparedAfter is one whose copy is checked for that.
func withPreparedAfter(name string, install []string) peerCase {
	c := withPrepared(name, install, nil)
	c.after = checkPrepared
	return c
}

// checkPrepared checks the server on the copy: it has rolled back what was its own,
// and XA's is prepared and can be committed.
func checkPrepared(t *testing.T, s *server) {
	t.Helper()
	var n int
	if err := s.db.QueryRow("SELECT COUNT(*) FROM d.xa").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows of transactions that were not committed, %v", n, err)
	}
	checkXA(t, s)
	if err := s.db.QueryRow("SELECT COUNT(*) FROM d.xa").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows in the end, %v; want that of XA", n, err)
	}
}

// G1: a server starts on a copy of one with transactions that it had prepared
// itself, and rolls these back, and no other.
func TestPreparedByTheServer(t *testing.T) {
	for _, c := range []peerCase{
		withPrepared("16k", nil, nil),
		withPrepared("4k, crc32, undo tablespaces", []string{"--innodb-page-size=4k", "--innodb-checksum-algorithm=crc32", "--innodb-undo-tablespaces=3"}, nil),
		withPrepared("64k, undo tablespaces", []string{"--innodb-page-size=64k", "--innodb-undo-tablespaces=3"}, nil),
		withPrepared("8k, crc32, two system files", []string{"--innodb-page-size=8k", "--innodb-checksum-algorithm=crc32", "--innodb-data-file-path=ibdata1:10M;ibdata2:10M:autoextend"}, nil),
	} {
		t.Run(c.name, func(t *testing.T) {
			backup := takeBackup(t, c)
			dir := copyTree(t, backup)
			rep, err := Run(t.Context(), dir, Options{Verify: true})
			if err != nil {
				t.Fatal(err)
			}
			if rep.PreparedRolledBack != own {
				t.Errorf("%d transactions were prepared by the server, want %d", rep.PreparedRolledBack, own)
			}
			checkKept(t, dir)
			again, err := Run(t.Context(), dir, Options{})
			if err != nil || !again.AlreadyPrepared || again.PreparedRolledBack != own {
				t.Errorf("second run: %+v, %v", again, err)
			}
			// mariabackup reads the file that the number is kept in.
			if err := command("mariabackup", "--prepare", "--target-dir="+copyTree(t, dir)); err != nil {
				t.Error(err)
			}
			checkPrepared(t, checkStartsClean(t, dir, backup, c.install...))
		})
	}
}

// checkKept checks that the number can be asked for later.
func checkKept(t *testing.T, dir string) {
	t.Helper()
	if _, n, err := backupdir.Prepared(dir); err != nil || n != own {
		t.Errorf("the directory says %d transactions, %v; want %d", n, err, own)
	}
}

// G1: an earlier run that was killed when it had replaced the log, but had not said
// that it was done, is finished with the same number.
func TestPreparedByTheServerKilledLate(t *testing.T) {
	backup := takeBackup(t, withPrepared("", nil, nil))
	dir := copyTree(t, backup)
	if _, err := Run(t.Context(), dir, Options{}); err != nil {
		t.Fatal(err)
	}
	want := copyTree(t, dir)
	if err := copyFile(filepath.Join(backup, "xtrabackup_checkpoints"), filepath.Join(dir, "xtrabackup_checkpoints")); err != nil {
		t.Fatal(err)
	}
	rep, err := Run(t.Context(), dir, Options{})
	if err != nil || rep.AlreadyPrepared || rep.PreparedRolledBack != own {
		t.Errorf("%+v, %v; want %d transactions", rep, err, own)
	}
	sameTree(t, dir, want)
}

// G1: what only a server can recover, it recovers with such transactions too, and
// tables are exported from a directory that mariabackup has prepared.
func TestPreparedByTheServerWithServer(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("1;"+strings.Repeat("a7", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	plugin := []string{"--plugin-load-add=file_key_management", "--file-key-management", "--file-key-management-filename=" + keys,
		"--innodb-encrypt-log=ON", "--innodb-encrypt-tables=ON", "--innodb-encryption-threads=2", "--innodb-encryption-rotate-key-age=0"}
	for _, c := range []struct {
		name string
		args []string
	}{{"plain", nil}, {"encrypted", plugin}} {
		t.Run(c.name, func(t *testing.T) {
			backup := takeBackup(t, withPrepared("", nil, c.args))
			dir := copyTree(t, backup)
			rep, err := WithServer(t.Context(), dir, "", Options{ServerArgs: c.args})
			if err != nil {
				t.Fatal(err)
			}
			if rep.PreparedRolledBack != own {
				t.Errorf("%d transactions were prepared by the server, want %d", rep.PreparedRolledBack, own)
			}
			checkKept(t, dir)
			checkPrepared(t, checkStartsClean(t, dir, backup, c.args...))
		})
	}
	t.Run("export", func(t *testing.T) {
		c := withPrepared("", nil, nil)
		c.during = func(s *server) error { return prepareOwn(s, own) }
		dir := takeBackup(t, c)
		if err := command("mariabackup", "--prepare", "--target-dir="+dir); err != nil {
			t.Fatal(err)
		}
		if n, err := Export(t.Context(), dir, "", Options{}); err != nil || n == 0 {
			t.Errorf("%d tables were exported, %v", n, err)
		}
		checkKept(t, dir)
	})
}
