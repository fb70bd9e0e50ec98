package servertest

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sys/unix"
)

// Limits of the waits for a server. They are far above what is usual, because
// a test machine may be busy; they end a wait that would never end.
const (
	startTimeout = 3 * time.Minute
	stopTimeout  = 3 * time.Minute
	// answerTimeout is that of one statement.
	answerTimeout = 5 * time.Minute
)

// The account that replicas log in with; Start creates it.
const (
	replUser     = "repl"
	replPassword = "repl-secret"
)

// Options says how a server is started. The zero value is a small server
// without binary log, reachable through its socket only.
type Options struct {
	// Release is the server to run; the zero value is Usual().
	Release Release
	// LogFileSize is innodb_log_file_size in bytes, innodb_redo_log_capacity of
	// MySQL; 0 means 16 MiB.
	LogFileSize int64
	// PageSize is innodb_page_size in bytes; 0 means 16384.
	PageSize int
	// LogBin switches the binary log on, in row format, with GTIDs.
	LogBin bool
	// ServerID is server_id; 0 means 1.
	ServerID uint32
	// TCP lets the server listen on a loopback port, as a replica's source
	// must.
	TCP bool
	// Args are further arguments for the server; they win over all others.
	Args []string
	// Install are further arguments for mariadb-install-db, or for the server
	// that makes the data directory of MySQL.
	Install []string
	// Relative gives the server its data directory as a relative path.
	Relative bool
	// Arrange, if set, changes the new data directory before Start starts
	// the server on it.
	Arrange func(datadir string) error
}

// Server is one mariadbd or mysqld with its own directory.
type Server struct {
	opts    Options
	dir     string // holds socket, pid file and error log
	datadir string
	port    int
	holds   *os.File // keeps the port for this server, also while it is restarted
	db      *sql.DB

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process is gone
	state  error         // what Wait returned, valid once exited is closed
}

// New starts a server for the duration of a test.
func New(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.cleanup(t) })
	return s
}

// NewOn starts a server on an existing data directory for the duration of a
// test.
func NewOn(t testing.TB, datadir string, o Options) *Server {
	t.Helper()
	s, err := StartOn(t.Context(), datadir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.cleanup(t) })
	return s
}

func (s *Server) cleanup(t testing.TB) {
	if t.Failed() {
		t.Logf("error log of the server on %s:\n%s", s.datadir, s.ErrorLog())
		t.Logf("what it is doing:\n%s", s.processList())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// processList lists what sessions of the server have not ended, a line each.
func (s *Server) processList() string {
	if s.Pid() == 0 {
		return "(it does not run)"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	list, err := s.String(ctx, `SELECT GROUP_CONCAT(CONCAT_WS(' | ', ID, TIME, STATE, LEFT(INFO, 200)) SEPARATOR '\n')
		FROM information_schema.PROCESSLIST WHERE COMMAND NOT IN ('Sleep', 'Daemon')`)
	if err != nil {
		return "(" + err.Error() + ")"
	}
	return list
}

// Start installs a data directory and starts a server on it. The caller calls
// Close.
func Start(ctx context.Context, o Options) (*Server, error) {
	s, err := newServer(o)
	if err != nil {
		return nil, err
	}
	tmpl, err := template(ctx, s.opts.Release, append([]string{"--innodb-page-size=" + strconv.Itoa(s.opts.PageSize)}, o.Install...)...)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.datadir = filepath.Join(s.dir, "data")
	if err := copyTree(ctx, tmpl, s.datadir); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if s.opts.Release.MySQL() {
		if err := forgetIdentity(s.datadir); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	if o.Arrange != nil {
		if err := o.Arrange(s.datadir); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.createAccounts(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// StartOn starts a server on an existing data directory, such as a restored
// backup: with the values of its backup-my.cnf, replication not started and
// the event scheduler off. Close leaves the directory where it is.
func StartOn(ctx context.Context, datadir string, o Options) (*Server, error) {
	s, err := newServer(o)
	if err != nil {
		return nil, err
	}
	s.datadir = datadir
	restored, err := backupVariables(datadir)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	skip := "--skip-slave-start"
	if s.opts.Release.MySQL() {
		skip = "--skip-replica-start"
	}
	s.opts.Args = slices.Concat(restored, []string{skip, "--event-scheduler=OFF"}, s.opts.Args)
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func newServer(o Options) (*Server, error) {
	o.Release = cmp.Or(o.Release, Usual())
	if o.LogFileSize == 0 {
		o.LogFileSize = 16 << 20
	}
	if o.PageSize == 0 {
		o.PageSize = 16384
	}
	if o.ServerID == 0 {
		o.ServerID = 1
	}
	dir, err := scratchDir("server")
	if err != nil {
		return nil, err
	}
	s := &Server{opts: o, dir: dir}
	if s.db, err = openDB(s.Socket()); err != nil {
		return nil, err
	}
	return s, nil
}

// openDB makes a pool of root connections. It does not connect yet.
func openDB(socket string) (*sql.DB, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr = "root", "unix", socket
	cfg.Collation = "utf8mb4_general_ci"
	cfg.Timeout = 10 * time.Second
	cfg.ReadTimeout = answerTimeout
	// A killed server makes the driver complain on standard error, in
	// addition to the error it returns.
	cfg.Logger = &mysql.NopLogger{}
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", socket, err)
	}
	return sql.OpenDB(c), nil
}

// createAccounts drops the anonymous users of a new data directory and creates
// the one that replicas use. It is not in the binary log: a copy has it from
// the files.
func (s *Server) createAccounts(ctx context.Context) error {
	if s.opts.Release.MySQL() {
		return s.createMySQLAccounts(ctx)
	}
	return s.Exec(ctx,
		"SET SESSION sql_log_bin = 0",
		"DELETE FROM mysql.global_priv WHERE user = ''",
		"FLUSH PRIVILEGES",
		"CREATE USER "+replUser+"@'127.0.0.1' IDENTIFIED BY '"+replPassword+"'",
		"GRANT REPLICATION SLAVE ON *.* TO "+replUser+"@'127.0.0.1'",
	)
}

// args is the command line without Options.Args.
func (s *Server) args() []string {
	if s.opts.Release.MySQL() {
		return s.mysqlArgs()
	}
	a := []string{
		"--no-defaults",
		"--datadir=" + s.datadirArg(),
		"--socket=" + s.Socket(),
		"--pid-file=" + filepath.Join(s.dir, "pid"),
		"--tmpdir=" + s.dir,
		"--log-error=" + s.errorLogPath(),
		"--skip-name-resolve",
		"--character-set-server=utf8mb4",
		"--innodb-page-size=" + strconv.Itoa(s.opts.PageSize),
		"--innodb-buffer-pool-size=128M",
		"--innodb-log-file-size=" + strconv.FormatInt(s.opts.LogFileSize, 10),
		"--key-buffer-size=8M",
		"--aria-pagecache-buffer-size=8M",
		"--table-open-cache=500",
		"--performance-schema=OFF",
		// ARCHIVE is a loadable engine; the load has a table of it.
		"--plugin-load-add=ha_archive",
		// No commit may wait for a disk that six test runs share. The
		// redo and the binary log reach the kernel at every commit, so
		// that kill -9 of the server loses nothing.
		"--innodb-flush-log-at-trx-commit=2",
		"--sync-binlog=0",
		"--server-id=" + strconv.FormatUint(uint64(s.opts.ServerID), 10),
	}
	a = append(a, asUser()...)
	if s.opts.Release.ofSystem() {
		a = append(a, "--lc-messages-dir=/usr/share/mysql") // others find theirs
	}
	if s.opts.LogBin {
		a = append(a, "--log-bin=binlog", "--binlog-format=ROW", "--log-bin-trust-function-creators=1")
	}
	if s.opts.TCP {
		return append(a, "--bind-address=127.0.0.1", "--port="+strconv.Itoa(s.port))
	}
	return append(a, "--skip-networking")
}

func (s *Server) datadirArg() string {
	if s.opts.Relative {
		return "./" + filepath.Base(s.datadir) // without the dot it is below basedir
	}
	return s.datadir
}

// start runs the server and waits until it answers.
func (s *Server) start(ctx context.Context) error {
	if err := s.opts.Release.check(); err != nil {
		return err
	}
	if s.opts.TCP && s.port == 0 {
		if err := s.reservePort(); err != nil {
			return err
		}
	}
	cmd := exec.Command(s.opts.Release.Command(s.opts.Release.program()), slices.Concat(s.args(), s.opts.Args)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// A group of its own, so that Ctrl-C reaches us and not the
		// server; the kernel kills it if we die without Close.
		Setpgid:   true,
		Pdeathsig: syscall.SIGKILL,
	}
	if s.opts.Relative {
		cmd.Dir = filepath.Dir(s.datadir)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the server on %s: %w", s.datadir, err)
	}
	exited := make(chan struct{})
	s.mu.Lock()
	s.cmd, s.exited = cmd, exited
	s.mu.Unlock()
	register(s)
	go func() {
		s.state = cmd.Wait()
		close(exited)
	}()
	return s.waitReady(ctx, exited)
}

// reservePort takes a loopback port that nobody uses. The socket bound to it does
// not listen, so the server may, which reuses addresses; but the kernel gives the
// port to no other server and to no connection.
func (s *Server) reservePort() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("reserve a port: %w", os.NewSyscallError("socket", err))
	}
	s.holds = os.NewFile(uintptr(fd), "reserved port")
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fmt.Errorf("reserve a port: %w", os.NewSyscallError("setsockopt", err))
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return fmt.Errorf("reserve a port: %w", os.NewSyscallError("bind", err))
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("reserve a port: %w", os.NewSyscallError("getsockname", err))
	}
	s.port = at.(*unix.SockaddrInet4).Port
	return nil
}

func (s *Server) waitReady(ctx context.Context, exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if s.db.PingContext(ctx) == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-exited:
			unregister(s)
			return fmt.Errorf("start the server on %s: it ended: %v\n%s", s.datadir, s.state, s.ErrorLog())
		case <-ctx.Done():
			return fmt.Errorf("start the server on %s: %w\n%s", s.datadir, ctx.Err(), s.ErrorLog())
		}
	}
}

// process returns the running process, or nil.
func (s *Server) process() (*os.Process, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return nil, nil
	}
	select {
	case <-s.exited:
		return nil, nil
	default:
		return s.cmd.Process, s.exited
	}
}

// Stop shuts the server down cleanly; one that does not end in time is killed,
// and that is an error.
func (s *Server) Stop() error {
	p, exited := s.process()
	if p == nil {
		return nil
	}
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the server on %s: %w", s.datadir, err)
	}
	select {
	case <-exited:
		unregister(s)
		return nil
	case <-time.After(stopTimeout):
		s.Kill()
		return fmt.Errorf("stop the server on %s: still there after %v\n%s", s.datadir, stopTimeout, s.ErrorLog())
	}
}

// Kill ends the server with SIGKILL and waits until it is gone.
func (s *Server) Kill() {
	p, exited := s.process()
	if p == nil {
		return
	}
	_ = p.Kill() // it can only fail because the process is gone already
	<-exited
	unregister(s)
}

// Restart starts the server again after Stop or Kill, or stops it first.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(); err != nil {
		return err
	}
	return s.start(ctx)
}

// RestartWith is Restart with further arguments for the server.
func (s *Server) RestartWith(ctx context.Context, args ...string) error {
	if err := s.Stop(); err != nil {
		return err
	}
	s.opts.Args = append(s.opts.Args, args...)
	return s.start(ctx)
}

// Close stops the server and removes its directory; the data directory given
// to StartOn stays.
func (s *Server) Close() error {
	// A connection to a server that was killed cannot be closed politely.
	_ = s.db.Close()
	err := s.Stop()
	if s.holds != nil {
		_ = s.holds.Close()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// Release is what the server was started as.
func (s *Server) Release() Release { return s.opts.Release }

// PID is the process id, 0 if it does not run.
func (s *Server) PID() int {
	if p, _ := s.process(); p != nil {
		return p.Pid
	}
	return 0
}

// Datadir is the server's data directory.
func (s *Server) Datadir() string { return s.datadir }

// Socket is the path of the server's unix socket.
func (s *Server) Socket() string { return filepath.Join(s.dir, "sock") }

// Port is the loopback port, or 0 without Options.TCP.
func (s *Server) Port() int { return s.port }

// DB is a pool of root connections that lives as long as the server.
func (s *Server) DB() *sql.DB { return s.db }

// Pid is the server's process id, or 0 when it does not run.
func (s *Server) Pid() int {
	p, _ := s.process()
	if p == nil {
		return 0
	}
	return p.Pid
}

// Exec runs statements one after the other on one connection.
func (s *Server) Exec(ctx context.Context, statements ...string) error {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", s.Socket(), err)
	}
	// The statements may have changed the session.
	defer discard(conn)
	for _, q := range statements {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("%.200s: %w", q, err)
		}
	}
	return nil
}

// String queries one value; NULL is the empty string.
func (s *Server) String(ctx context.Context, query string, args ...any) (string, error) {
	var v sql.NullString
	if err := s.db.QueryRowContext(ctx, query, args...).Scan(&v); err != nil {
		return "", fmt.Errorf("%.200s: %w", query, err)
	}
	return v.String, nil
}

func (s *Server) errorLogPath() string { return filepath.Join(s.dir, "error.log") }

// ErrorLog returns the last part of the server's error log.
func (s *Server) ErrorLog() string {
	const most = 8 << 10
	b, err := os.ReadFile(s.errorLogPath())
	if err != nil {
		return "(no error log: " + err.Error() + ")"
	}
	return string(b[max(0, len(b)-most):])
}
