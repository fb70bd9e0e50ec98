package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

// P1 for MySQL: see TestRestoredCopyFollowsSource.
func TestRestoredMySQLFollowsSource(t *testing.T) {
	for _, row := range []struct {
		name    string
		log     int64 // MiB
		workers int
		server  bool
		long    bool // runs with XB_REPEAT only
	}{
		{"8 MiB log, 1 worker", 8, 1, false, false},
		{"96 MiB log, 4 workers", 96, 4, false, true},
		{"96 MiB log, prepared by the server", 96, 2, true, false},
	} {
		if row.long && os.Getenv("XB_REPEAT") == "" {
			continue
		}
		for _, r := range servertest.MySQLReleases(t) {
			for n := range repeats(t) {
				t.Run(fmt.Sprintf("%s/%s/%d", row.name, r, n), func(t *testing.T) {
					var prepare []string
					if row.server {
						prepare = []string{"--with-server=" + r.Command("mysqld")}
					}
					followSource(t, r, row.log<<20, row.workers, prepare, uint64(n))
				})
			}
		}
	}
}

// P1 under DDL, for MySQL: see TestCopyTakenInAStormOfDDL.
func TestMySQLCopyTakenInAStormOfDDL(t *testing.T) {
	var mu sync.Mutex
	good, statements := 0, map[string]int{}
	first := uint64(0)
	if os.Getenv("XB_SEED") != "" {
		first = killSeed(t)
	}
	t.Run("storms", func(t *testing.T) {
		for _, r := range servertest.MySQLReleases(t) {
			for n := range repeats(t) {
				s := stormy{release: r, args: []string{"--rate=30M", "-j2"}, logSize: 24, done: func(done map[string]int) {
					mu.Lock()
					defer mu.Unlock()
					for kind, n := range done {
						statements[kind] += n
					}
				}}
				t.Run(fmt.Sprintf("%s/%d", r, n), func(t *testing.T) {
					t.Parallel()
					s.run(t, first+uint64(n), s.backUp)
					mu.Lock()
					defer mu.Unlock()
					if !t.Failed() {
						good++
					}
				})
			}
		}
	})
	for _, kind := range slices.Sorted(maps.Keys(statements)) {
		t.Logf("%6d × %s", statements[kind], kind)
	}
	t.Logf("%d of %d copies start, follow and are equal", good, repeats(t)*len(servertest.MySQLReleases(t)))
	if repeats(t) < 10 {
		return // a single storm does not do everything
	}
	for _, kind := range []string{
		"CREATE TABLE IF NOT EXISTS", "RENAME TABLE TO", "RENAME TABLE TO , TO , TO", "TRUNCATE TABLE", "DROP TABLE IF EXISTS", "OPTIMIZE TABLE",
		"ALTER TABLE ADD COLUMN INT DEFAULT FIRST, ALGORITHM=INSTANT", "ALTER TABLE DROP COLUMN , ALGORITHM=INSTANT",
		"ALTER TABLE ADD INDEX", "ALTER TABLE FORCE, ALGORITHM=COPY", "ALTER TABLE FORCE, ALGORITHM=INPLACE", "ALTER TABLE IMPORT TABLESPACE",
		"ALTER TABLE EXCHANGE PARTITION WITH TABLE", "ALTER TABLE TRUNCATE PARTITION", "ALTER UNDO TABLESPACE SET INACTIVE", "ALTER UNDO TABLESPACE SET ACTIVE",
	} {
		if statements[kind] == 0 {
			t.Errorf("no statement of the storm was %q", kind)
		}
	}
}

// xbstreamOf runs xbstream and returns what it wrote to both outputs.
func xbstreamOf(t *testing.T, args ...string) string {
	t.Helper()
	_, xbstream := binaries(t)
	cmd := exec.CommandContext(t.Context(), xbstream, args...)
	cmd.Env = []string{"PATH=/nonexistent"} // it must need no server
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("xbstream %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func exists(t *testing.T, path ...string) bool {
	t.Helper()
	_, err := os.Lstat(filepath.Join(path...))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return err == nil
}

// A backup of a server that does nothing, of which there may be no redo at all, step
// by step.
func TestMySQLArchiveStepByStep(t *testing.T) {
	onMySQL(t, mysqlStepByStep)
}

func mysqlStepByStep(t *testing.T, r servertest.Release) {
	source := servertest.New(t, servertest.Options{Release: r, LogBin: true})
	check(t, source.Exec(t.Context(), "CREATE DATABASE shop",
		"CREATE TABLE shop.t (id INT PRIMARY KEY AUTO_INCREMENT, b VARCHAR(100)) COMPRESSION='zlib'",
		"INSERT INTO shop.t (b) VALUES ('1'), ('2'), ('3'), ('4'), ('5'), ('6'), ('7'), ('8'), ('9')",
		"DELETE FROM shop.t WHERE id > 4",
		"CREATE TABLE shop.m (id INT) ENGINE=MyISAM"))
	atRest(t, source)
	archive, said, code := xbsendOf(t, "--no-defaults", "--user=root", "--socket="+source.Socket())
	if code != 0 {
		t.Fatalf("xbsend: %d\n%s", code, said)
	}
	file := filepath.Join(t.TempDir(), "shop.xb")
	check(t, os.WriteFile(file, archive, 0o600))
	xbstreamOf(t, "verify", file)
	// A mysqld that is MariaDB's is none.
	mariadb, err := exec.LookPath("mariadbd")
	check(t, err)
	_, xbstream := binaries(t)
	out, err := exec.CommandContext(t.Context(), xbstream, "-x", "--prepare", "--with-server="+mariadb, "-C", filepath.Join(t.TempDir(), "x"), file).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another family of servers") {
		t.Errorf("MariaDB recovers a backup of MySQL: %v\n%s", err, out)
	}
	info := xbstreamOf(t, "info", file)
	for _, want := range []string{"RESET BINARY LOGS AND GTIDS; SET GLOBAL gtid_purged='", "CHANGE REPLICATION SOURCE TO", "INSTANCE", "TABLES"} {
		if !strings.Contains(info, want) {
			t.Errorf("info does not say %q:\n%s", want, info)
		}
	}

	dir := filepath.Join(t.TempDir(), "copy")
	xbstreamOf(t, "-x", "-C", dir, file)
	for _, own := range []string{"auto.cnf", "#innodb_redo", "#innodb_temp", "ibtmp1", "#ib_16384_0.dblwr"} {
		if exists(t, dir, own) {
			t.Errorf("%s was restored", own)
		}
	}
	for n, again := range []string{"", "killed before it said so", "already"} {
		if n == 1 {
			// What a run leaves that is killed at its very end.
			state := filepath.Join(dir, "xtrabackup_checkpoints")
			b, err := os.ReadFile(state)
			check(t, err)
			check(t, os.WriteFile(state, bytes.Replace(b, []byte("log-applied"), []byte("full-backuped"), 1), 0o600))
		}
		out := xbstreamOf(t, "prepare", dir)
		if again == "already" != strings.Contains(out, "is already prepared") {
			t.Errorf("prepare, %s: %s", again, out)
		}
		if exists(t, dir, "ib_logfile0") || !exists(t, dir, "#innodb_redo", "#ib_redo0") {
			t.Errorf("prepare, %s: the log is not where the server wants it", again)
		}
	}
	xbstreamOf(t, "verify", dir)

	copied := startCopyOn(t, r, dir)
	check(t, copied.Exec(t.Context(), "INSERT INTO shop.t (b) VALUES ('next')"))
	for query, want := range map[string]string{
		"SELECT COUNT(*) FROM shop.t":                        "5",
		"SELECT id FROM shop.t WHERE b='next'":               "10", // not 5: the counter is kept
		"SELECT COUNT(*) FROM shop.m":                        "0",
		"SELECT @@server_uuid = '" + uuidOf(t, source) + "'": "0",
	} {
		if got, err := copied.String(t.Context(), query); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", query, got, err, want)
		}
	}
}

// A file that waits for IMPORT TABLESPACE bears the id of the table that it was copied
// from. MySQL does not start beside it: it is left out, and the copy has what it had.
func TestMySQLFileThatWaitsForImport(t *testing.T) {
	for _, r := range servertest.MySQLReleases(t) {
		t.Run(r.String(), func(t *testing.T) {
			source := servertest.New(t, servertest.Options{Release: r})
			check(t, source.Exec(t.Context(), "CREATE DATABASE shop", "CREATE TABLE shop.t (id INT PRIMARY KEY)", "INSERT INTO shop.t VALUES (1), (2)",
				"CREATE TABLE shop.waits LIKE shop.t"))
			check(t, source.ReplaceTablespace(t.Context(), "shop", "t", "waits"))
			dir := filepath.Join(t.TempDir(), "copy")
			sent, _ := pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + source.Socket()},
				[]string{"xbstream", "-x", "--prepare", "-C", dir})
			if !strings.Contains(sent, "left out: the server does not start with two files of one tablespace") {
				t.Errorf("xbsend said: %s", sent)
			}
			copied := servertest.NewOn(t, dir, servertest.Options{Release: r})
			if n, err := copied.String(t.Context(), "SELECT COUNT(*) FROM shop.t"); err != nil || n != "2" {
				t.Errorf("%s rows, %v", n, err)
			}
		})
	}
}

// The counter of AUTO_INCREMENT does not go back to what the rows say: redo has it, of
// no page, and the log that is left must have it, too. DISCARD and IMPORT are in the
// window as well.
func TestMySQLCountersInTheRedo(t *testing.T) {
	for _, r := range servertest.MySQLReleases(t) {
		t.Run(r.String(), func(t *testing.T) {
			source := servertest.New(t, servertest.Options{Release: r, LogBin: true})
			const columns = " (id INT PRIMARY KEY AUTO_INCREMENT, b VARCHAR(100))"
			check(t, source.Exec(t.Context(), "CREATE DATABASE shop", "CREATE TABLE shop.t"+columns, "CREATE TABLE shop.other"+columns,
				"CREATE TABLE shop.imported"+columns, "CREATE TABLE shop.twin LIKE shop.imported", "INSERT INTO shop.twin (b) VALUES ('a'), ('b')"))
			atRest(t, source)
			hooked(t, "none/none", func(event, _ string) error {
				switch event {
				case "redo-started":
				case "stage-block-commit":
					// At the very end: with its next checkpoint, the server writes the
					// counters into a table as well.
					return source.Exec(t.Context(), "INSERT INTO shop.t (b) VALUES ('1'), ('2'), ('3'), ('4'), ('5')",
						"INSERT INTO shop.t (b) VALUES ('6'), ('7'), ('8')", "DELETE FROM shop.t WHERE id > 4", "INSERT INTO shop.other (b) VALUES ('1')")
				default:
					return nil
				}
				if err := source.Exec(t.Context(), "INSERT INTO shop.imported (b) VALUES ('gone')"); err != nil {
					return err
				}
				if err := source.ImportTablespace(t.Context(), "shop", "twin", "imported"); err != nil {
					return err
				}
				return source.Exec(t.Context(), "INSERT INTO shop.imported (b) VALUES ('c')")
			})
			dir := filepath.Join(t.TempDir(), "copy")
			pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + source.Socket()},
				[]string{"xbstream", "-x", "--prepare", "-C", dir})
			copied := startCopyOn(t, r, dir)
			check(t, copied.Exec(t.Context(), "INSERT INTO shop.t (b) VALUES ('next')", "INSERT INTO shop.other (b) VALUES ('next')"))
			for query, want := range map[string]string{
				"SELECT id FROM shop.t WHERE b = 'next'":               "9",
				"SELECT id FROM shop.other WHERE b = 'next'":           "2",
				"SELECT GROUP_CONCAT(b ORDER BY b) FROM shop.imported": "a,b,c",
			} {
				if got, err := copied.String(t.Context(), query); err != nil || got != want {
					t.Errorf("%s: %s, %v; want %s", query, got, err, want)
				}
			}
		})
	}
}

func uuidOf(t *testing.T, s *servertest.Server) string {
	t.Helper()
	id, err := s.String(t.Context(), "SELECT @@server_uuid")
	check(t, err)
	return id
}

// atRest waits until the server has nothing more to write, for a while: some part of
// it may always have.
func atRest(t *testing.T, s *servertest.Server) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		behind, err := s.String(t.Context(), "SELECT STORAGE_ENGINES->>'$.InnoDB.LSN' - STORAGE_ENGINES->>'$.InnoDB.LSN_checkpoint' FROM performance_schema.log_status")
		check(t, err)
		if behind == "0" || time.Now().After(deadline) {
			t.Logf("checkpoint %s behind the LSN", behind)
			return
		}
	}
}

// A partial update of a large JSON column is one mini-transaction of more than a
// megabyte.
func TestMySQLLargeMiniTransactions(t *testing.T) {
	for _, r := range servertest.MySQLReleases(t) {
		t.Run(r.String(), func(t *testing.T) {
			source := servertest.New(t, servertest.Options{Release: r, LogFileSize: 128 << 20, Args: []string{"--innodb-log-buffer-size=16M", "--max-allowed-packet=64M"}})
			check(t, source.Exec(t.Context(), "CREATE DATABASE shop", "CREATE TABLE shop.t (id INT PRIMARY KEY, j JSON)",
				"INSERT INTO shop.t VALUES (1, JSON_OBJECT('a', REPEAT('x', 5000000), 'b', 1))"))
			atRest(t, source)
			hooked(t, "none/none", func(event, _ string) error {
				if event != "stage-start" {
					return nil
				}
				return source.Exec(t.Context(), "UPDATE shop.t SET j = JSON_SET(j, '$.a', REPEAT('y', 5000000))", "UPDATE shop.t SET j = JSON_SET(j, '$.b', 2)")
			})
			dir := filepath.Join(t.TempDir(), "copy")
			pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + source.Socket()},
				[]string{"xbstream", "-x", "--prepare", "-C", dir})
			copied := startCopyOn(t, r, dir)
			got, err := copied.String(t.Context(), "SELECT CONCAT(LENGTH(j->>'$.a'), LEFT(j->>'$.a', 1), j->>'$.b') FROM shop.t")
			if err != nil || got != "5000000y2" {
				t.Errorf("%s, %v", got, err)
			}
		})
	}
}
