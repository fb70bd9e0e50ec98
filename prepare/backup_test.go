package prepare

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/internal/backupdir"
	"github.com/xbstream/xbstream/internal/runserver"
	"github.com/xbstream/xbstream/internal/servertest"
)

// peerCase is one server configuration a backup is taken of.
type peerCase struct {
	name string
	// args are the server's, beyond those every test server gets; install
	// are those that mariadb-install-db needs as well.
	args, install []string
	// setup runs before the load, tables are created by it and written to.
	setup  []string
	tables []tableKind
	// rows is how many rows each table has at first; 0 means 200.
	rows int
	// writes is how many transactions there are before the backup starts; 0: 300.
	writes int
	// ddl adds a client that creates, alters, renames and drops tables.
	ddl bool
	// during runs once, while the load is going on, before the backup.
	during func(s *server) error
	// usable says what a backup lacks that the test is about.
	usable func(t *testing.T, backup string) error
	// after runs on the server started on the result.
	after func(t *testing.T, s *server)
}

// tableKind is a table of the load: every one has columns id, a, b and c, and
// maybe more.
type tableKind struct {
	name   string
	extra  string // further columns and indexes
	option string
}

var (
	tablesPlain = []tableKind{
		{"dyn", ", KEY(a), KEY(b), KEY(c(20))", "ROW_FORMAT=DYNAMIC"},
		{"compact", ", KEY(a), UNIQUE(b, id)", "ROW_FORMAT=COMPACT"},
		{"redundant", ", KEY(a), KEY(b)", "ROW_FORMAT=REDUNDANT"},
	}
	tablesSpecial = []tableKind{
		{"pagec", ", KEY(a)", "PAGE_COMPRESSED=1"},
		{"full", ", FULLTEXT(a)", ""},
		{"geo", ", g POINT NOT NULL DEFAULT (POINT(1,1)), SPATIAL KEY(g)", ""},
		{"virt", ", v INT AS (b*2) VIRTUAL, KEY(v)", ""},
		{"part", ", KEY(a)", "PARTITION BY HASH(id) PARTITIONS 4"},
		{"keys10", ", KEY(a), KEY(a,b), KEY(b,a), UNIQUE(id,a)", "ROW_FORMAT=REDUNDANT"},
	}
)

// zipKind is a ROW_FORMAT=COMPRESSED table.
func zipKind(kbs int) tableKind {
	return tableKind{fmt.Sprintf("zip%d", kbs), ", KEY(a)", fmt.Sprintf("ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=%d", kbs)}
}

// server is a mariadbd of a test.
type server struct {
	dir, socket, errlog string
	cmd                 *exec.Cmd
	done                chan error
	db                  *sql.DB
	conf                *mysql.Config
}

// use makes every further connection start in a database: sequences such as
// seq_1_to_9 belong to the current one.
func (s *server) use(t *testing.T, name string) {
	t.Helper()
	s.db.Close()
	s.conf.DBName = name
	connector, err := mysql.NewConnector(s.conf)
	if err != nil {
		t.Fatal(err)
	}
	s.db = sql.OpenDB(connector)
	db := s.db
	t.Cleanup(func() { db.Close() })
}

// baseArgs keep test servers small and to themselves.
func baseArgs(datadir, socket string) []string {
	return []string{"--no-defaults", "--user=root", "--datadir=" + datadir, "--skip-networking", "--socket=" + socket,
		"--pid-file=" + socket + ".pid", "--innodb-buffer-pool-size=64M", "--innodb-fast-shutdown=1", "--skip-log-bin"}
}

// startTestServer runs mariadbd on datadir until stopped or the test ends.
func startTestServer(t *testing.T, datadir string, args ...string) *server {
	t.Helper()
	private, err := os.MkdirTemp("", "xbp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(private) })
	s := &server{dir: datadir, socket: filepath.Join(private, "s"), errlog: filepath.Join(private, "err"), done: make(chan error, 1)}
	binary, err := runserver.Find("", "mariadbd")
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(s.errlog)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	s.cmd = exec.Command(binary, append(baseArgs(datadir, s.socket), args...)...)
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.SysProcAttr = out, out, dieWithTest()
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.done <- s.cmd.Wait() }()
	t.Cleanup(func() { s.kill() })
	conf := mysql.NewConfig()
	conf.User, conf.Net, conf.Addr, conf.MultiStatements = "root", "unix", s.socket, true
	conf.Logger = &mysql.NopLogger{}
	connector, err := mysql.NewConnector(conf)
	if err != nil {
		t.Fatal(err)
	}
	s.db, s.conf = sql.OpenDB(connector), conf
	t.Cleanup(func() { s.db.Close() })
	for deadline := time.Now().Add(serverWait); s.db.Ping() != nil; time.Sleep(50 * time.Millisecond) {
		select {
		case err := <-s.done:
			s.done <- err
			t.Fatalf("server ended: %v\n%s", err, s.words())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("server does not answer\n%s", s.words())
		}
	}
	return s
}

// dieWithTest makes the kernel end a process when the test dies.
func dieWithTest() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

func (s *server) words() string {
	b, _ := os.ReadFile(s.errlog)
	return string(b[max(0, len(b)-4000):])
}

func (s *server) kill() {
	if s.cmd.ProcessState == nil {
		_ = s.cmd.Process.Kill()
		err := <-s.done
		s.done <- err
	}
}

// serverWait bounds every wait for a server, commandWait for a command of its
// packages.
const (
	serverWait  = 2 * time.Minute
	commandWait = 5 * time.Minute
)

// try executes statements until one fails, or hangs.
func (s *server) try(queries ...string) error {
	for _, q := range queries {
		ctx, cancel := context.WithTimeout(context.Background(), serverWait)
		_, err := s.db.ExecContext(ctx, q)
		cancel()
		if err != nil {
			return fmt.Errorf("%.200s: %w", q, err)
		}
	}
	return nil
}

func (s *server) exec(t *testing.T, queries ...string) {
	t.Helper()
	if err := s.try(queries...); err != nil {
		t.Fatal(err)
	}
}

// command executes a command of the server's packages.
func command(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandWait)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out[max(0, len(out)-4000):])
	}
	return nil
}

func installDB(t *testing.T, args ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "source")
	if err := command("mariadb-install-db", append([]string{"--no-defaults", "--user=root", "--datadir=" + dir,
		"--auth-root-authentication-method=normal", "--skip-test-db"}, args...)...); err != nil {
		t.Fatal(err)
	}
	return dir
}

// backupTries is how often a backup is taken until there is one to test with.
const backupTries = 5

// takeBackup starts a server, writes to it, and returns what mariabackup made
// of it meanwhile. Up to here nothing of ours has run: a server that hangs, as
// 10.11.19 may when it truncates undo tablespaces, a mariabackup that fails beside
// DDL, or one so late that it misses what the test is about, say nothing of what
// is tested. It is said, and the backup taken again.
func takeBackup(t *testing.T, c peerCase) string {
	t.Helper()
	for try := 1; ; try++ {
		backup, err := tryBackup(t, c)
		if err == nil {
			return backup
		}
		if try == backupTries {
			t.Fatalf("no backup to test with, %d were tried: %v", try, err)
		}
		t.Logf("backup %d is not to be had, another is taken: %v", try, err)
	}
}

func tryBackup(t *testing.T, c peerCase) (string, error) {
	t.Helper()
	s := startTestServer(t, installDB(t, c.install...), append(c.install, c.args...)...)
	defer s.kill()
	s.exec(t, "SET GLOBAL innodb_max_dirty_pages_pct=90", "CREATE DATABASE d")
	s.use(t, "d")
	s.exec(t, c.setup...)
	for _, k := range c.tables {
		s.exec(t, fmt.Sprintf("CREATE TABLE d.%s (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(200), b INT, c LONGBLOB%s) ENGINE=InnoDB %s", k.name, k.extra, k.option))
		rows := c.rows
		if rows == 0 {
			rows = 200
		}
		s.exec(t, fmt.Sprintf("INSERT INTO d.%s (a,b,c) SELECT MD5(seq), seq%%1001, REPEAT(CHAR(65+seq%%26), seq%%300) FROM seq_1_to_%d", k.name, rows))
	}
	l := startLoad(s, c)
	defer l.stop() // before the server is killed
	if err := l.await(t.Context(), cmp.Or(c.writes, 300)); err != nil {
		return "", fmt.Errorf("%w\n%s", err, s.words())
	}
	if c.during != nil {
		if err := c.during(s); err != nil {
			return "", fmt.Errorf("%w\n%s", err, s.words())
		}
	}
	target := filepath.Join(t.TempDir(), "backup")
	if err := command("mariabackup", "--no-defaults", "--backup", "--user=root", "--socket="+s.socket, "--target-dir="+target); err != nil {
		return "", err
	}
	if err := l.stop(); err != nil {
		return "", fmt.Errorf("load: %w\n%s", err, s.words())
	}
	if c.usable == nil {
		return target, nil
	}
	return target, c.usable(t, target)
}

// load is a number of clients that write.
type load struct {
	cancel context.CancelFunc
	all    errgroup.Group
	done   atomic.Int64 // transactions
}

// await returns when the clients have done that many transactions more.
func (l *load) await(ctx context.Context, transactions int) error {
	ctx, cancel := context.WithTimeout(ctx, serverWait)
	defer cancel()
	return servertest.Await(ctx, "transactions", transactions, func() int { return int(l.done.Load()) })
}

// stop ends the clients and returns the first error that none of them expects.
func (l *load) stop() error {
	l.cancel()
	return l.all.Wait()
}

func startLoad(s *server, c peerCase) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel}
	for w := range 3 {
		l.all.Go(func() error { return l.writeRows(ctx, s.db, c.tables, rand.New(rand.NewPCG(1, uint64(w)))) })
	}
	if c.ddl {
		l.all.Go(func() error { return changeTables(ctx, s.db) })
	}
	return l
}

// expected errors of concurrent writers; everything else ends the load.
func expected(ctx context.Context, err error) bool {
	var e *mysql.MySQLError
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return true
	}
	// Deadlock, lock wait, duplicate key, record changed; a deadlock while
	// the auto-increment value is read.
	return errors.As(err, &e) && (e.Number == 1213 || e.Number == 1205 || e.Number == 1062 || e.Number == 1020 || e.Number == 1467)
}

func (l *load) writeRows(ctx context.Context, db *sql.DB, tables []tableKind, r *rand.Rand) error {
	for ctx.Err() == nil {
		name := "d." + tables[r.IntN(len(tables))].name
		if err := writeTransaction(ctx, db, name, r); err != nil && !expected(ctx, err) {
			return fmt.Errorf("%s: %w", name, err)
		}
		l.done.Add(1)
	}
	return nil
}

func writeTransaction(ctx context.Context, db *sql.DB, table string, r *rand.Rand) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	for range 1 + r.IntN(4) {
		if _, err = tx.ExecContext(ctx, randomWrite(table, r)); err != nil {
			break
		}
	}
	if err != nil || r.IntN(6) == 0 {
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

func randomWrite(table string, r *rand.Rand) string {
	from := r.IntN(3000)
	switch r.IntN(8) {
	case 0, 1, 2:
		return fmt.Sprintf("INSERT INTO %s (a,b,c) SELECT MD5(RAND()), seq*7%%997, REPEAT('x', seq*13%%400) FROM seq_1_to_%d", table, 1+r.IntN(80))
	case 3:
		return fmt.Sprintf("INSERT INTO %s (a,b,c) VALUES (MD5(RAND()), %d, REPEAT('blob', %d))", table, from, r.IntN(12000))
	case 4:
		return fmt.Sprintf("DELETE FROM %s WHERE id BETWEEN %d AND %d", table, from, from+r.IntN(120))
	case 5:
		return fmt.Sprintf("DELETE FROM %s ORDER BY id DESC LIMIT %d", table, r.IntN(60))
	case 6:
		return fmt.Sprintf("UPDATE %s SET a=MD5(a), b=b+1 WHERE id BETWEEN %d AND %d", table, from, from+r.IntN(60))
	default:
		return fmt.Sprintf("UPDATE %s SET c=REPEAT('y', %d), a=NULL WHERE id BETWEEN %d AND %d", table, r.IntN(900), from, from+r.IntN(30))
	}
}

// changeTables runs through the ways a tablespace is made, renamed and lost. It
// goes on to other tables where a statement fails that others may make fail.
func changeTables(ctx context.Context, db *sql.DB) error {
	for i := 0; ctx.Err() == nil; i++ {
		name := fmt.Sprintf("d.ddl%d", i%7)
		for _, q := range []string{
			"DROP TABLE IF EXISTS %[1]s, %[1]s_r",
			"CREATE TABLE %[1]s (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(100), b INT) " + []string{"", "ROW_FORMAT=REDUNDANT", "ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4", "PAGE_COMPRESSED=1"}[i%4],
			"INSERT INTO %[1]s (a,b) SELECT MD5(seq), seq FROM seq_1_to_300",
			"ALTER TABLE %[1]s ADD KEY(a), ALGORITHM=INPLACE",
			"ALTER TABLE %[1]s ADD COLUMN z INT DEFAULT 5",
			"UPDATE %[1]s SET b=b+1 WHERE id<50",
			"RENAME TABLE %[1]s TO %[1]s_r",
			"ALTER TABLE %[1]s_r FORCE, ALGORITHM=COPY",
			"DROP TABLE IF EXISTS %[1]s_k",
			"RENAME TABLE %[1]s_r TO %[1]s_k",
			"TRUNCATE TABLE %[1]s_k",
			"INSERT INTO %[1]s_k (a,b) SELECT MD5(seq), seq FROM seq_1_to_100",
			"CREATE TABLE %[1]s LIKE %[1]s_k",
			"OPTIMIZE TABLE %[1]s_k",
		} {
			_, err := db.ExecContext(ctx, fmt.Sprintf(q, name))
			if err != nil && !expected(ctx, err) {
				return fmt.Errorf("%s of %s: %w", q, name, err)
			}
			if err != nil {
				break
			}
		}
	}
	return nil
}

// copyTree copies a directory, so that each test may spoil its own.
func copyTree(t *testing.T, src string) string {
	t.Helper()
	return copyTreeWith(t, src, copyFile)
}

// copySpaces copies only the files that a preparation writes to, and links the
// others, the log among them: it is replaced, never written to.
func copySpaces(t *testing.T, src string) string {
	t.Helper()
	return copyTreeWith(t, src, func(src, dst string) error {
		name := filepath.Base(src)
		for _, pattern := range []string{"ibdata*", "undo*", "*.ibd", "*.new"} {
			if ok, _ := filepath.Match(pattern, name); ok {
				return copyFile(src, dst)
			}
		}
		return os.Link(src, dst)
	})
}

func copyTreeWith(t *testing.T, src string, copyOne func(src, dst string) error) string {
	t.Helper()
	dst := filepath.Join(t.TempDir(), "copy")
	err := filepath.WalkDir(src, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(dst, rel), 0o700)
		}
		return copyOne(path, filepath.Join(dst, rel))
	})
	if err != nil {
		t.Fatal(err)
	}
	return dst
}

func copyFile(src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// checkStartsClean starts a server on a prepared directory and checks that it
// had nothing to recover and that every table of database d is sound.
func checkStartsClean(t *testing.T, dir, backup string, args ...string) *server {
	t.Helper()
	state, err := backupdir.Read(backup)
	if err != nil {
		t.Fatal(err)
	}
	args = append(args, fmt.Sprintf("--innodb-page-size=%d", state.Server.PageSize), "--innodb-data-file-path="+state.Server.DataFilePath,
		fmt.Sprintf("--innodb-undo-tablespaces=%d", state.Server.UndoTablespaces))
	s := startTestServer(t, dir, args...)
	log, err := os.ReadFile(s.errlog)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"Starting crash recovery", "Starting a batch", "[ERROR]", "corrupt"} {
		if strings.Contains(string(log), bad) {
			t.Errorf("server log has %q:\n%s", bad, s.words())
		}
	}
	waitQuiet(t, s)
	rows, err := s.db.Query("SELECT CONCAT('`', table_schema, '`.`', table_name, '`') FROM information_schema.tables WHERE table_schema='d' AND table_type='BASE TABLE'")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for rows.Next() {
		var n string
		if err := rows.Scan(&n); err != nil {
			t.Fatal(err)
		}
		names = append(names, n)
	}
	if err := rows.Err(); err != nil || len(names) == 0 {
		t.Fatalf("no tables to check: %v", err)
	}
	for _, n := range names {
		checkTable(t, s.db, n)
	}
	return s
}

// waitQuiet waits until the server has rolled back what was not committed and
// purged what was deleted. Before, CHECK TABLE counts entries of a spatial index
// whose rows are gone, and calls it corrupt. A prepared XA transaction holds
// purge up for ever.
func waitQuiet(t *testing.T, s *server) {
	t.Helper()
	var prepared bool
	// The server looks again only for who has not asked for a tenth of a second.
	for deadline := time.Now().Add(serverWait); ; time.Sleep(250 * time.Millisecond) {
		var recovered int
		if err := s.db.QueryRow("SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_mysql_thread_id = 0").Scan(&recovered); err != nil {
			t.Fatal(err)
		}
		rows, err := s.db.Query("XA RECOVER")
		if err != nil {
			t.Fatal(err)
		}
		prepared = rows.Next()
		rows.Close()
		if recovered == 0 || prepared && recovered == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d transactions are not rolled back\n%s", recovered, s.words())
		}
	}
	if !prepared {
		s.exec(t, "SET GLOBAL innodb_max_purge_lag_wait=0")
	}
}

// checkTable runs CHECK TABLE … EXTENDED. It may warn of a delete-marked entry
// (info_bits=32) that purge has not come to yet, or in an index on a virtual
// column, where it leaves some for good, also in servers that were never copied.
// An entry that is not marked would be damage.
func checkTable(t *testing.T, db *sql.DB, name string) {
	t.Helper()
	rows, err := db.Query("CHECK TABLE " + name + " EXTENDED")
	if err != nil {
		t.Errorf("check %s: %v", name, err)
		return
	}
	defer rows.Close()
	for rows.Next() {
		var table, op, kind, text string
		if err := rows.Scan(&table, &op, &kind, &text); err != nil {
			t.Errorf("check %s: %v", name, err)
			return
		}
		left := strings.Contains(text, "info_bits=32") &&
			(strings.Contains(text, "Clustered index record not found") || strings.Contains(text, "Unpurged clustered index record"))
		if text != "OK" && !left {
			t.Errorf("check %s: %s %s", name, kind, text)
		}
	}
	if err := rows.Err(); err != nil {
		t.Errorf("check %s: %v", name, err)
	}
}
