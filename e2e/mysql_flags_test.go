package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

// mysqlShop makes a database with tables of the forms that matter to names and to
// parts of a backup, and two that a partial backup leaves out.
func mysqlShop(t *testing.T, s *servertest.Server) {
	t.Helper()
	check(t, s.Exec(t.Context(), "CREATE DATABASE shop", "CREATE DATABASE apart",
		"CREATE TABLE shop.t (id INT PRIMARY KEY AUTO_INCREMENT, b VARCHAR(100), FULLTEXT (b))", "INSERT INTO shop.t (b) VALUES ('one'), ('two')",
		"CREATE TABLE shop.p (id INT PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION pB VALUES LESS THAN (20))", "INSERT INTO shop.p VALUES (1), (11)",
		"CREATE TABLE shop.inst (id INT PRIMARY KEY, a INT)", "INSERT INTO shop.inst VALUES (1, 1)",
		"ALTER TABLE shop.inst ADD COLUMN c INT DEFAULT 7 AFTER id, DROP COLUMN a, ALGORITHM=INSTANT", "INSERT INTO shop.inst VALUES (2, 8)",
		"CREATE TABLE shop.a_long_name_of_myisam_one (id INT) ENGINE=MyISAM", "INSERT INTO shop.a_long_name_of_myisam_one VALUES (1)",
		"CREATE TABLESPACE common ADD DATAFILE 'common.ibd'", "CREATE TABLE shop.g (id INT PRIMARY KEY) TABLESPACE common", "INSERT INTO shop.g VALUES (1)",
		"CREATE TABLE apart.x (id INT PRIMARY KEY)", "INSERT INTO apart.x VALUES (1)"))
}

// mustAnswer asks a server, which gives a value, or an error that says so.
func mustAnswer(t *testing.T, s *servertest.Server, queries map[string]string) {
	t.Helper()
	for query, want := range queries {
		got, err := s.String(t.Context(), query)
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

// tablesIn lists the files of databases in an archive.
func tablesIn(t *testing.T, archive string) (files []string) {
	t.Helper()
	for line := range strings.Lines(xbstreamOf(t, "list", archive)) {
		if name := strings.TrimSpace(line); strings.Contains(name, "/") {
			files = append(files, name)
		}
	}
	slices.Sort(files)
	return files
}

// P1, P4: what is left out of a backup, at the source or when it is restored, is not
// there, and all else is: a server starts, also without the database mysql.
func TestMySQLPartialBackup(t *testing.T) {
	for _, r := range servertest.MySQLReleases(t) {
		t.Run(r.String(), func(t *testing.T) {
			source := servertest.New(t, servertest.Options{Release: r})
			mysqlShop(t, source)
			dir := t.TempDir()
			send := func(name string, flags ...string) string {
				t.Helper()
				archive, said, code := xbsendOf(t, slices.Concat([]string{"--no-defaults", "--user=root", "--socket=" + source.Socket()}, flags)...)
				if code != 0 {
					t.Fatalf("xbsend %s: %d\n%s", flags, code, said)
				}
				file := filepath.Join(dir, name)
				check(t, os.WriteFile(file, archive, 0o600))
				return file
			}
			for flag, want := range map[string][]string{
				"--databases=shop.p#P#pB":                    {"shop/p#p#pb.ibd"},
				"--tables=^shop[.]p#P#p0$":                   {"shop/p#p#p0.ibd"},
				"--databases=shop.p":                         {"shop/p#p#p0.ibd", "shop/p#p#pb.ibd"},
				"--databases=shop.a_long_name_of_myisam_one": {"sdi", "shop/a_long_name_of_myisam_one.MYD", "shop/a_long_name_of_myisam_one.MYI"},
			} {
				got := tablesIn(t, send("some.xb", flag))
				for i, name := range got {
					if strings.HasPrefix(name, "shop/a_long_name_of_m_") && strings.HasSuffix(name, ".sdi") {
						got[i] = "sdi"
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s: %q, want %q", flag, got, want)
				}
			}
			partlySent(t, r, source, send)
			partlyRestored(t, r, source, send("full.xb"))
		})
	}
}

// partlySent restores one database with the redo of others in the log, without a
// server and with one.
func partlySent(t *testing.T, r servertest.Release, source *servertest.Server, send func(string, ...string) string) {
	check(t, source.Exec(t.Context(), "INSERT INTO apart.x VALUES (2)", "INSERT INTO shop.p VALUES (2)"))
	archive := send("shop.xb", "--databases=shop")
	dir := filepath.Join(t.TempDir(), "copy")
	xbstreamOf(t, "-x", "--prepare", "--verify", "-C", dir, archive)
	copied := startCopyOf(t, r, dir)
	mustAnswer(t, copied, map[string]string{
		"SELECT GROUP_CONCAT(id) FROM shop.p":                     "1,2,11",
		"SELECT id FROM shop.t WHERE MATCH (b) AGAINST ('two')":   "2",
		"SELECT COUNT(*) FROM shop.g":                             "1",
		"SELECT COUNT(*) FROM shop.a_long_name_of_myisam_one":     "1",
		"SELECT COUNT(*) FROM apart.x":                            "Error 1812", // Tablespace is missing
		"SELECT COUNT(*) FROM mysql.user WHERE User = 'root'":     "1",
		"SELECT COUNT(*) > 0 FROM performance_schema.threads":     "1",
		"SELECT GROUP_CONCAT(c ORDER BY id) FROM shop.inst":       "7,8",
		"SELECT GROUP_CONCAT(b ORDER BY id) FROM shop.t":          "one,two",
		"SELECT COUNT(*) FROM information_schema.INNODB_TRX":      "0",
		"SELECT COUNT(*) FROM shop.p PARTITION (pB) WHERE id > 1": "1",
	})
	// The copy is a server like any other, whatever it lacks.
	check(t, copied.Exec(t.Context(), "DROP TABLE apart.x", "CREATE TABLE apart.x (id INT)", "INSERT INTO apart.x VALUES (7)"))
}

// partlyRestored takes tables out of a full backup, exports them, and imports one.
func partlyRestored(t *testing.T, r servertest.Release, source *servertest.Server, archive string) {
	dir := filepath.Join(t.TempDir(), "copy")
	xbstreamOf(t, "-x", "--only=shop.t", "--only=shop.inst", "--only=shop.a_long_name_of_myisam_one", "--prepare", "--export", "--with-server="+r.Command("mysqld"), "-C", dir, archive)
	for _, name := range []string{"mysql.ibd", "common.ibd", "shop/t.cfg", "shop/inst.cfg", "shop/a_long_name_of_myisam_one.MYD"} {
		if !exists(t, dir, name) {
			t.Errorf("%s was not restored", name)
		}
	}
	for pattern, n := range map[string]int{"shop/a_long_name_of_*.sdi": 1, "shop/fts_*_config.ibd": 1, "shop/p#*": 0, "apart": 0} {
		if files, err := filepath.Glob(filepath.Join(dir, pattern)); err != nil || len(files) != n {
			t.Errorf("%s: %q, want %d, %v", pattern, files, n, err)
		}
	}
	check(t, source.Exec(t.Context(), "TRUNCATE TABLE shop.inst", "ALTER TABLE shop.inst DISCARD TABLESPACE"))
	for _, end := range []string{".ibd", ".cfg"} {
		text, err := os.ReadFile(filepath.Join(dir, "shop", "inst"+end))
		check(t, err)
		check(t, os.WriteFile(filepath.Join(source.Datadir(), "shop", "inst"+end), text, 0o660))
	}
	check(t, source.Exec(t.Context(), "ALTER TABLE shop.inst IMPORT TABLESPACE"))
	mustAnswer(t, source, map[string]string{"SELECT GROUP_CONCAT(c ORDER BY id) FROM shop.inst": "7,8"})
	mustAnswer(t, startCopyOf(t, r, dir), map[string]string{
		"SELECT id FROM shop.t WHERE MATCH (b) AGAINST ('two')": "2",
		"SELECT COUNT(*) FROM shop.p":                           "Error 1146", // so MySQL says it of partitions
	})
}

// startCopyOf starts a server on a copy that lacks tables.
func startCopyOf(t *testing.T, r servertest.Release, dir string) *servertest.Server {
	t.Helper()
	return servertest.NewOn(t, dir, servertest.Options{Release: r, ServerID: 2})
}

// What does not work with MySQL is refused by name, and what waits says for whom.
func TestMySQLFlagsThatAreRefused(t *testing.T) {
	for _, r := range servertest.MySQLReleases(t) {
		t.Run(r.String(), func(t *testing.T) {
			source := servertest.New(t, servertest.Options{Release: r})
			mysqlShop(t, source)
			connect := []string{"--no-defaults", "--user=root", "--socket=" + source.Socket()}
			refused := func(code int, want string, flags ...string) {
				t.Helper()
				archive, said, got := xbsendOf(t, slices.Concat(connect, flags)...)
				if got != code || !strings.Contains(said, want) || code != 0 && strings.Contains(said, "backup complete") {
					t.Errorf("xbsend %s: %d with %d bytes, want %d and %q\n%s", flags, got, len(archive), code, want, said)
				}
			}
			refused(2, "shop.nothing", "--databases=shop.nothing")
			refused(0, "--slave-info records nothing", "--slave-info", "--safe-slave-backup")
			refused(0, "nothing was copied", "--dry-run")
			// DDL begins when the backup has listed the files, and lasts longer than a lock
			// may take.
			done := make(chan error, 1)
			var once atomic.Pointer[sync.Once] // of a backup that tries again
			hooked(t, "none/none", func(event, _ string) error {
				first := false
				if event == "tablespaces-listed" {
					once.Load().Do(func() { first = true })
				}
				if !first {
					return nil
				}
				go func() {
					done <- source.Exec(t.Context(), "DROP TABLE IF EXISTS shop.slow", "CREATE TABLE shop.slow SELECT SLEEP(4) s")
				}()
				await(t, "a DDL statement", func() bool {
					n, err := source.String(t.Context(), "SELECT COUNT(*) FROM performance_schema.processlist WHERE STATE = 'User sleep'")
					return err == nil && n == "1"
				})
				return nil
			})
			once.Store(new(sync.Once))
			refused(exitServer, "LOCK INSTANCE FOR BACKUP: not granted within 1s; may be held up by connection", "--lock-timeout=1")
			check(t, <-done)
			once.Store(new(sync.Once))
			refused(0, "lock retries", "--lock-timeout=1", "--lock-retries=20")
			check(t, <-done)
			t.Setenv("XB_TEST_HOOK", "")

			archive, _, code := xbsendOf(t, connect...)
			if code != 0 {
				t.Fatal(code)
			}
			file := filepath.Join(t.TempDir(), "full.xb")
			check(t, os.WriteFile(file, archive, 0o600))
			restore := func(want string, args ...string) {
				t.Helper()
				_, xbstream := binaries(t)
				out, err := exec.CommandContext(t.Context(), xbstream, args...).CombinedOutput()
				if err == nil || !strings.Contains(string(out), want) {
					t.Errorf("xbstream %s: %v, want %q\n%s", args, err, want, out)
				}
			}
			dir := t.TempDir()
			restore("not supported for MySQL", "-x", "--tablespace-mapping="+dir+"/old="+dir+"/new", "-C", dir+"/mapped", file)
			if exists(t, dir, "mapped") || exists(t, dir, "new") {
				t.Error("a mapping that is refused leaves files")
			}
			// As XtraBackup would have left it.
			xbstreamOf(t, "-x", "-C", dir+"/other", file)
			check(t, os.Remove(filepath.Join(dir, "other", "xbstream_manifest.json")))
			check(t, os.Rename(filepath.Join(dir, "other", "ib_logfile0"), filepath.Join(dir, "other", "xtrabackup_logfile")))
			restore("only the xtrabackup of its version can prepare", "prepare", dir+"/other")
		})
	}
}

// P1, P5: a copy of a replica of MySQL goes on in its place, whatever the replica keeps
// of what it applied, while four threads apply: it has every row once.
func TestMySQLCopyOfAReplicaGoesOnInItsPlace(t *testing.T) {
	for _, r := range servertest.MySQLReleases(t) {
		for _, row := range []struct {
			name  string
			mode  string // gtid_mode
			bin   bool
			flags []string
		}{
			{"by GTID, with binary log", "ON", true, nil},
			{"by GTID, without binary log", "ON", false, nil},
			{"by file and position", "OFF", false, []string{"--safe-slave-backup"}},
		} {
			t.Run(r.String()+"/"+row.name, func(t *testing.T) { mysqlInItsPlace(t, r, row.mode, row.bin, row.flags) })
		}
	}
}

func mysqlInItsPlace(t *testing.T, r servertest.Release, mode string, bin bool, flags []string) {
	ctx := t.Context()
	gtid := "--gtid-mode=" + mode
	source := servertest.New(t, servertest.Options{Release: r, LogBin: true, TCP: true, Args: []string{gtid}})
	check(t, source.Exec(ctx, "CREATE DATABASE db0"))
	for i := range 4 {
		check(t, source.Exec(ctx, fmt.Sprintf("CREATE TABLE db0.t%d (a INT, b VARCHAR(50))", i))) // no key notices a row that comes twice
	}
	where := "SOURCE_AUTO_POSITION=1"
	if mode != "ON" {
		where = "SOURCE_LOG_FILE='binlog.000001', SOURCE_LOG_POS=4"
	}
	// Syncing the redo is what a commit waits for before its GTID is in the set.
	replica := servertest.New(t, servertest.Options{Release: r, ServerID: 2, LogBin: bin, Args: []string{
		gtid, "--replica-parallel-workers=4", "--replica-preserve-commit-order=OFF", "--innodb-flush-log-at-trx-commit=1"}})
	check(t, replica.Exec(ctx, "DROP USER repl@127.0.0.1", // it comes from the source
		fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%d, SOURCE_USER='repl', SOURCE_PASSWORD='repl-secret', GET_SOURCE_PUBLIC_KEY=1, %s", source.Port(), where),
		"START REPLICA"))
	rows := "SELECT (SELECT COUNT(*) FROM db0.t0) + (SELECT COUNT(*) FROM db0.t1) + (SELECT COUNT(*) FROM db0.t2) + (SELECT COUNT(*) FROM db0.t3)"
	stop := writeMany(t, source)
	await(t, "rows on the replica", func() bool {
		n, err := replica.String(ctx, rows)
		return err == nil && len(n) > 2
	})
	connect := []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + replica.Socket(), "--slave-info"}
	if flags != nil {
		_, said, code := xbsendOf(t, connect[1:]...)
		if code != exitServer || !strings.Contains(said, "--safe-slave-backup") {
			t.Errorf("a position that is not exact is not refused: %d\n%s", code, said)
		}
	}
	dir := filepath.Join(t.TempDir(), "copy")
	pipeline(t, slices.Concat(connect, flags), []string{"xbstream", "-x", "--prepare", "-C", dir})
	check(t, stop())
	recorded, err := os.ReadFile(filepath.Join(dir, "xtrabackup_slave_info"))
	check(t, err)
	t.Logf("%s", recorded)
	if set := strings.Contains(string(recorded), "gtid_purged"); set != bin {
		t.Errorf("a set of GTIDs: %v, want %v", set, bin)
	}
	copied := servertest.NewOn(t, dir, servertest.Options{Release: r, ServerID: 3, LogBin: bin, Args: []string{gtid}})
	for l := range strings.SplitSeq(strings.TrimSpace(string(recorded)), ";\n") {
		check(t, copied.Exec(ctx, strings.TrimSuffix(l, ";")))
	}
	check(t, copied.Exec(ctx, "START REPLICA"))
	want, err := source.String(ctx, rows)
	check(t, err)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		got, err := copied.String(ctx, rows)
		check(t, err)
		if atoi(t, got) >= atoi(t, want) || time.Now().After(deadline) {
			break
		}
	}
	for i := range 4 {
		sum := fmt.Sprintf("db0.t%d", i)
		if a, b := checksum(t, source, sum), checksum(t, copied, sum); a != b {
			t.Errorf("%s: checksum %s on the copy, %s at the source", sum, b, a)
		}
	}
	if err := copied.Exec(ctx, "STOP REPLICA"); err != nil {
		t.Error(err)
	}
}

// writeMany writes with eight sessions to four tables until stop is called.
func writeMany(t *testing.T, s *servertest.Server) (stop func() error) {
	t.Helper()
	done, ended := make(chan struct{}), make(chan error, 8)
	for i := range 8 {
		go func() {
			for {
				select {
				case <-done:
					ended <- nil
					return
				default:
				}
				if err := s.Exec(t.Context(), fmt.Sprintf("INSERT INTO db0.t%d VALUES (%d, UUID())", i%4, i)); err != nil {
					ended <- err
					return
				}
				time.Sleep(2 * time.Millisecond)
			}
		}()
	}
	return func() (err error) {
		close(done)
		for range 8 {
			if e := <-ended; e != nil {
				err = e
			}
		}
		return err
	}
}
