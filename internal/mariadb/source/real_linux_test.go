package source_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"database/sql/driver"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/xbstream/xbstream/internal/mariadb/source"
	"github.com/xbstream/xbstream/server"
)

// shared is the server of the tests that do not harm it. The first of them starts
// it: runs of other tests, and the workers that fuzz, need none.
var shared = sync.OnceValues(func() (*instance, error) {
	dir, err := os.MkdirTemp("", "xbserver")
	if err != nil {
		return nil, err
	}
	endShared = func() { os.RemoveAll(dir) }
	i, err := install(dir)
	if err != nil {
		return nil, err
	}
	if err := i.start(); err != nil {
		return nil, err
	}
	endShared = func() {
		i.kill()
		os.RemoveAll(dir)
	}
	return i, nil
})

// endShared ends what shared has begun.
var endShared = func() {}

func real(t testing.TB) *instance {
	t.Helper()
	i, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestMain(m *testing.M) {
	if socket := os.Getenv(holdEnv); socket != "" {
		os.Exit(hold(socket))
	}
	code := m.Run()
	endShared()
	os.Exit(code)
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// instance is a mariadbd of our own in a temporary directory.
type instance struct {
	dir    string
	port   int
	cmd    *exec.Cmd
	exited chan struct{}
	root   *sql.DB
}

func (i *instance) path(name string) string { return filepath.Join(i.dir, name) }

// options spread the server over directories, so that each path of a Layout is
// another one.
func (i *instance) options() []string {
	return []string{
		"--no-defaults", "--user=root",
		"--datadir=" + i.path("data"),
		"--innodb-data-home-dir=" + i.path("home"),
		"--innodb-data-file-path=ibdata1:12M;sys/ibdata2:4M:autoextend:max:1G",
		"--innodb-undo-directory=" + i.path("undo"), "--innodb-undo-tablespaces=3",
		"--innodb-log-group-home-dir=" + i.path("redo"), "--innodb-log-file-size=8M",
		"--aria-log-dir-path=" + i.path("aria"),
		"--innodb-buffer-pool-size=16M", "--innodb-fast-shutdown=2",
	}
}

func install(dir string) (*instance, error) {
	i := &instance{dir: dir}
	for _, d := range []string{"data", "home/sys", "undo", "redo", "aria"} {
		if err := os.MkdirAll(i.path(d), 0o755); err != nil {
			return nil, err
		}
	}
	args := append(i.options(), "--auth-root-authentication-method=normal", "--skip-test-db")
	if out, err := exec.Command("mariadb-install-db", args...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mariadb-install-db: %w\n%s", err, out)
	}
	return i, i.certify()
}

// scratch is a server for one test that may harm it.
func scratch(t *testing.T, options ...string) *instance {
	t.Helper()
	own, err := install(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := own.start(options...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.kill)
	return own
}

// certify makes an authority and the server's certificate for localhost.
func (i *instance) certify() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	for serial, name := range []string{"ca.pem", "other.pem"} {
		cert := &x509.Certificate{
			SerialNumber: big.NewInt(int64(serial + 1)), Subject: pkix.Name{CommonName: name},
			DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		}
		if serial > 0 {
			if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
				return err
			}
		}
		der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
		if err != nil {
			return err
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		for file, block := range map[string]*pem.Block{
			name:          {Type: "CERTIFICATE", Bytes: der},
			name + ".key": {Type: "PRIVATE KEY", Bytes: private},
		} {
			if err := os.WriteFile(i.path(file), pem.EncodeToMemory(block), 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// patience bounds every wait for a server.
const patience = 2 * time.Minute

// start runs mariadbd and waits until it answers. Nobody keeps a free port for
// it: another one is taken if somebody was faster.
func (i *instance) start(options ...string) error {
	for try := 1; ; try++ {
		err := i.run(options...)
		log, _ := os.ReadFile(i.path("log.err"))
		if err == nil || try == 5 || !strings.Contains(string(log), "Address already in use") {
			return err
		}
		if err := os.Remove(i.path("log.err")); err != nil {
			return err
		}
	}
}

func (i *instance) run(options ...string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	i.port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	args := append(i.options(),
		"--socket="+i.path("sock"), "--pid-file="+i.path("pid"), "--log-error="+i.path("log.err"),
		"--bind-address=127.0.0.1", fmt.Sprintf("--port=%d", i.port),
		"--log-bin=bin", "--server-id=7", "--general-log", "--general-log-file=queries.log",
		"--ssl-cert="+i.path("ca.pem"), "--ssl-key="+i.path("ca.pem.key"),
		"--plugin-load-add=ha_archive", "--tmpdir=/tmp:"+i.dir)
	i.cmd = exec.Command("mariadbd", append(args, options...)...)
	// The kernel ends the server should the test process be killed.
	i.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := i.cmd.Start(); err != nil {
		return err
	}
	i.exited = make(chan struct{})
	go func() { i.cmd.Wait(); close(i.exited) }()
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr, cfg.User, cfg.Logger = "unix", i.path("sock"), "root", &mysql.NopLogger{}
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		return err
	}
	i.root = sql.OpenDB(c)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if err = i.root.Ping(); err == nil {
			return nil
		}
		select {
		case <-i.exited:
			log, _ := os.ReadFile(i.path("log.err"))
			return fmt.Errorf("mariadbd ended: %s\n%s", i.cmd.ProcessState, log)
		case <-time.After(50 * time.Millisecond):
		}
	}
	i.kill()
	return fmt.Errorf("mariadbd does not answer: %w", err)
}

func (i *instance) kill() {
	i.root.Close()
	i.cmd.Process.Kill()
	<-i.exited
}

// exec runs statements as root, each on any connection.
func (i *instance) exec(t *testing.T, statements ...string) {
	t.Helper()
	for _, q := range statements {
		if _, err := i.root.ExecContext(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

func (i *instance) text(t *testing.T, query string) string {
	t.Helper()
	var v sql.NullString
	if err := i.root.QueryRowContext(t.Context(), query).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v.String
}

// account creates a user with a password and drops it after the test.
func (i *instance) account(t *testing.T, name string, grants ...string) server.Config {
	t.Helper()
	user := fmt.Sprintf("`%s`@`%%`", name)
	i.exec(t, "CREATE OR REPLACE USER "+user+" IDENTIFIED BY 'hush-hush'")
	t.Cleanup(func() {
		if _, err := i.root.Exec("DROP USER " + user); err != nil {
			t.Error(err)
		}
	})
	for _, g := range grants {
		i.exec(t, "GRANT "+g+" ON *.* TO "+user)
	}
	return server.Config{Socket: i.path("sock"), User: name, Password: "hush-hush"}
}

// backupAccount has exactly what a backup needs.
func (i *instance) backupAccount(t *testing.T) server.Config {
	t.Helper()
	return i.account(t, "xb", "RELOAD, PROCESS, BINLOG MONITOR")
}

func open(t *testing.T, c server.Config) server.Server {
	t.Helper()
	s, err := server.Open(t.Context(), c, nil, source.Dialect{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func begin(t *testing.T, s server.Server) server.Backup {
	t.Helper()
	return granted(t, s)
}

// granted returns a backup that was granted steps. Where nobody else wants the
// locks a server may still need longer than a budget of a second: then it is
// asked again.
func granted(t *testing.T, s server.Server, steps ...func(server.Backup, context.Context) error) server.Backup {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		b, err := tryGranted(t, s, steps...)
		if err == nil {
			return b
		}
		if !errors.Is(err, server.ErrLockTimeout) || time.Now().After(deadline) {
			t.Fatal(err)
		}
		t.Logf("once more: %v", err)
	}
}

func tryGranted(t *testing.T, s server.Server, steps ...func(server.Backup, context.Context) error) (server.Backup, error) {
	b, err := s.Begin(t.Context())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { b.Close() })
	for _, step := range steps {
		if err := step(b, t.Context()); err != nil {
			return nil, errors.Join(err, b.Close())
		}
	}
	return b, nil
}

// session is a connection of root's own that gives up locks at once. What it
// does must not be blocked even for a moment: a table that has rows is dropped by
// exec, for the server's purge may hold it up.
func (i *instance) session(t *testing.T) *sql.Conn {
	t.Helper()
	c, err := i.root.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var id int64
	if err := c.QueryRowContext(t.Context(), "SELECT CONNECTION_ID()").Scan(&id); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Not back to the pool: it may hold locks, until the server has seen
		// that it is closed.
		c.Raw(func(any) error { return driver.ErrBadConn })
		c.Close()
		eventually(t, "the session ends", func() bool {
			var n int
			err := i.root.QueryRow("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID=?", id).Scan(&n)
			return err == nil && n == 0
		})
	})
	run(t, c, "SET SESSION lock_wait_timeout=0")
	return c
}

func run(t *testing.T, c *sql.Conn, q string) {
	t.Helper()
	if _, err := c.ExecContext(t.Context(), q); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
}

// blocked says whether a statement runs into a lock; other errors are fatal.
func blocked(t *testing.T, c *sql.Conn, q string) bool {
	t.Helper()
	_, err := c.ExecContext(t.Context(), q)
	var e *mysql.MySQLError
	if err != nil && (!asMySQL(err, &e) || e.Number != 1205) {
		t.Fatalf("%s: %v", q, err)
	}
	return err != nil
}

// free closes the session and fails unless then no lock of a backup is held and
// no connection of the account is left.
func (i *instance) free(t *testing.T, s server.Server) {
	t.Helper()
	s.Close()
	eventually(t, "connections of the backup end", func() bool {
		return i.text(t, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER='xb'") == "0"
	})
	c := i.session(t)
	for _, q := range []string{
		"BACKUP STAGE START", "BACKUP STAGE END",
		"CREATE TABLE mysql.xb_free (a INT)", "DROP TABLE mysql.xb_free",
	} {
		if blocked(t, c, q) {
			t.Errorf("%s is blocked: a lock was left behind\n%s", q, i.processes(t))
		}
	}
}

func (i *instance) processes(t *testing.T) string {
	t.Helper()
	rows, err := server.Rows(t.Context(), i.root, "SHOW PROCESSLIST")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(rows)
}

// waiting returns the connection that runs a statement, once it does.
func (i *instance) waiting(t *testing.T, statement string) string {
	t.Helper()
	var id string
	eventually(t, statement+" waits", func() bool {
		err := i.root.QueryRowContext(t.Context(),
			"SELECT ID FROM information_schema.PROCESSLIST WHERE INFO=?", statement).Scan(&id)
		return err == nil
	})
	return id
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("not within %s: %s", patience, what)
}

// lostSoon waits for Lost, bounded, and returns Err.
func lostSoon(t *testing.T, b server.Backup) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case <-b.Lost():
		return b.Err()
	case <-ctx.Done():
		t.Fatal("the loss of the lock was not noticed")
		return nil
	}
}

func contains(t *testing.T, err error, texts ...string) {
	t.Helper()
	for _, s := range texts {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q does not say %q", err, s)
		}
	}
	if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "hush") {
		t.Errorf("not one clean line: %q", err)
	}
}
