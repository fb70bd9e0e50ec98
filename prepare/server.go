package prepare

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
	"github.com/xbstream/xbstream/internal/spaces"
)

// WithServer prepares dir by starting the server binary on it, with networking
// off, letting its own crash recovery run, and stopping it cleanly. An empty
// binary means mariadbd or mysqld of this machine.
//
// It proves less than Run: that the redo was whole to the end LSN before the
// start, that none of it is what a server is known to recover wrongly, and that
// the server went past that LSN. A server that finds transactions which the
// source had prepared by itself is started twice more: to roll them back, and to
// recover. Errors of the server wrap ErrServer and carry
// the last lines of its log; ErrImported is wrapped where an encrypted log may
// hold an import.
func WithServer(ctx context.Context, dir, binary string, opt Options) (Report, error) {
	opt = opt.withDefaults()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Report{}, err
	}
	state, err := backupdir.Read(dir)
	if err != nil {
		return Report{}, err
	}
	rep := Report{EndLSN: state.EndLSN}
	if state.Prepared() {
		rep.AlreadyPrepared, rep.PreparedRolledBack = true, state.RolledBack
		return rep, nil
	}
	if err := checkNoneElsewhere(dir, state); err != nil {
		return rep, err
	}
	if err := readyRedo(ctx, dir, state, opt, &rep); err != nil {
		return rep, err
	}
	if err := withServer(ctx, dir, binary, state, opt, nil); err != nil {
		return rep, explain(state, err)
	}
	rep.PreparedRolledBack = state.RolledBack
	if err := state.GiveToOwner(dir); err != nil {
		return rep, err
	}
	return rep, state.MarkPrepared(dir)
}

// explain adds to the error of a server what it cannot know: why a tablespace is
// missing.
func explain(state *backupdir.State, err error) error {
	if state.Manifest == nil || !slices.ContainsFunc(state.Manifest.Files, func(f format.File) bool { return !f.Arrived() }) {
		return err
	}
	return fmt.Errorf("tablespaces were left out, and a server passes over their redo only with --server-option=innodb-force-recovery=1, then also over that of any other that is missing: %w", err)
}

// checkNoneElsewhere refuses tables with DATA DIRECTORY. The redo names them by
// the path at the source, and a server's recovery would change the file it finds
// there, perhaps that of the source, and not the copy. So it would one that was
// left out.
func checkNoneElsewhere(dir string, state *backupdir.State) error {
	refuse := func(name, source string) error {
		return fmt.Errorf("%s was made with DATA DIRECTORY (%s), where a server would look for it instead of here; only prepare without a server can recover it", name, source)
	}
	if state.Manifest == nil {
		return spaces.NewTree(dir, state.Server.PageSize).Each("*.isl", func(rel string) error {
			return refuse(strings.TrimSuffix(rel, ".isl")+".ibd", rel)
		})
	}
	for _, f := range state.Manifest.Files {
		switch {
		case f.Source == "":
		case f.Kind == format.KindTablespace, f.Kind == format.KindLeftOut && there(f.Source):
			return refuse(f.Path, f.Source)
		}
	}
	return nil
}

// there says whether there is a file, or may be.
func there(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// serverPlaces are where packages put the server when PATH does not name it.
var serverPlaces = []string{"/usr/sbin", "/usr/libexec", "/usr/local/sbin", "/usr/local/bin", "/usr/local/mysql/bin", "/usr/bin"}

// FindServer returns the path of the server that WithServer and Export start.
func FindServer(binary string) (string, error) {
	if binary != "" {
		path, err := exec.LookPath(binary)
		if err != nil {
			return "", fmt.Errorf("find server: %w", err)
		}
		return path, nil
	}
	for _, name := range []string{"mariadbd", "mysqld"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
		for _, place := range serverPlaces {
			if path, err := exec.LookPath(filepath.Join(place, name)); err == nil {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("find server: no mariadbd or mysqld in PATH or %s", strings.Join(serverPlaces, ", "))
}

// withServer runs a server over dir, from start to clean end, and lets work, if
// it is not nil, do something when the server has recovered.
func withServer(ctx context.Context, dir, binary string, state *backupdir.State, opt Options, work func(context.Context, *sql.DB) error) (err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return err
	}
	if binary, err = FindServer(binary); err != nil {
		return err
	}
	before, err := namesIn(dir)
	if err != nil {
		return err
	}
	// Unix socket paths end at about 100 bytes, so not below dir.
	private, err := os.MkdirTemp("", "xbstream-prepare-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(private)
	bringBack, err := setAside(dir, state)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bringBack()) }()
	err = runServer(ctx, dir, private, binary, state, opt, work)
	var found *preparedError
	if errors.As(err, &found) {
		if err := rollBackWithServer(ctx, dir, private, binary, state, opt, found.transactions); err != nil {
			return err
		}
		err = runServer(ctx, dir, private, binary, state, opt, work)
	}
	if err != nil {
		return err
	}
	return removeTraces(dir, before)
}

// setAside hides from a server the files that bear the ending of a tablespace and
// are none, until they are brought back.
func setAside(dir string, state *backupdir.State) (bringBack func() error, err error) {
	if state.Manifest == nil || state.Prepared() { // a server may have made tables there since
		return func() error { return nil }, nil
	}
	return spaces.NewTree(dir, state.Server.PageSize).SetAside(state.Manifest.Files)
}

// runServer runs the server once.
func runServer(ctx context.Context, dir, private, binary string, state *backupdir.State, opt Options, work func(context.Context, *sql.DB) error) error {
	s, err := startServer(dir, private, binary, state, opt)
	if err != nil {
		return err
	}
	opt.Log.Info("server started on the copy", "binary", binary, "pid", s.cmd.Process.Pid)
	err = s.awaitRecovery(ctx, state.EndLSN, opt.ServerWait, work)
	if stopErr := s.stop(err == nil); err == nil {
		err = stopErr
	}
	if found := s.preparedError(); err != nil && found != nil {
		err = fmt.Errorf("%w: %w", err, found)
	}
	if err != nil {
		return fmt.Errorf("%w: %w%s", ErrServer, err, s.lastWords())
	}
	return nil
}

// recoveryServer is the server while it recovers.
type recoveryServer struct {
	cmd     *exec.Cmd
	socket  string
	log     string
	done    chan struct{} // closed after the process ended
	exitErr error         // valid after done
}

// Bounds of waiting for a server.
const (
	pollServer = 50 * time.Millisecond
	// stopWait is generous: a shutdown writes the whole buffer pool.
	stopWait = 10 * time.Minute
	killWait = 30 * time.Second
)

func startServer(dir, private, binary string, state *backupdir.State, opt Options) (*recoveryServer, error) {
	s := &recoveryServer{
		socket: filepath.Join(private, "socket"),
		log:    filepath.Join(private, "error.log"),
		done:   make(chan struct{}),
	}
	out, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	args, err := serverArgs(dir, private, s.socket, state, opt)
	if err != nil {
		return nil, err
	}
	// Not CommandContext: that would kill a server that may still be stopped
	// cleanly.
	s.cmd = exec.Command(binary, args...)
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Dir = out, out, private
	s.cmd.SysProcAttr = dieWithParent()
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	go func() {
		s.exitErr = s.cmd.Wait()
		close(s.done)
	}()
	return s, nil
}

// serverArgs are the arguments of a server that recovers and does nothing
// else: nobody can connect but us, nothing it starts by itself runs.
func serverArgs(dir, private, socket string, state *backupdir.State, opt Options) ([]string, error) {
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	dataFiles, err := state.DataFiles(dir)
	if err != nil {
		return nil, err
	}
	args := []string{
		"--no-defaults",
		"--datadir=" + dir,
		"--tmpdir=" + private,
		"--socket=" + socket,
		"--pid-file=" + filepath.Join(private, "pid"),
		"--user=" + me.Username,
		"--skip-networking",
		"--skip-grant-tables",
		"--skip-log-bin",
		"--skip-slave-start",
		"--event-scheduler=OFF",
		"--innodb-fast-shutdown=1",
		"--innodb-buffer-pool-load-at-startup=OFF",
		"--innodb-buffer-pool-dump-at-shutdown=OFF",
		"--innodb-buffer-pool-size=" + strconv.FormatInt(max(opt.Memory, 64<<20), 10),
		"--innodb-page-size=" + strconv.Itoa(state.Server.PageSize),
		"--innodb-data-file-path=" + dataFiles,
		"--innodb-data-home-dir=",
		"--innodb-undo-directory=./",
		"--innodb-undo-tablespaces=" + strconv.Itoa(state.Server.UndoTablespaces),
		"--lower-case-table-names=" + strconv.Itoa(state.Server.LowerCaseTableNames),
	}
	if a := state.Server.ChecksumAlgorithm; a != "" {
		args = append(args, "--innodb-checksum-algorithm="+a)
	}
	return append(args, opt.ServerArgs...), nil
}

// awaitRecovery returns when the server accepts clients, is past the LSN, and
// work is done.
func (s *recoveryServer) awaitRecovery(ctx context.Context, end format.LSN, wait time.Duration, work func(context.Context, *sql.DB) error) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	conf := mysql.NewConfig()
	conf.User, conf.Net, conf.Addr = "root", "unix", s.socket
	conf.Logger = &mysql.NopLogger{}
	connector, err := mysql.NewConnector(conf)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	for {
		lsn, err := currentLSN(ctx, db)
		if err == nil {
			if err = checkReached(lsn, end); err == nil && work != nil {
				err = work(ctx, db)
			}
			return err
		}
		select {
		case <-s.done:
			return fmt.Errorf("server ended during recovery: %w", exitCause(s.exitErr))
		case <-ctx.Done():
			return fmt.Errorf("wait for recovery: %w (last answer: %w)", ctx.Err(), err)
		case <-time.After(pollServer):
		}
	}
}

func checkReached(lsn, end format.LSN) error {
	if lsn < end {
		return fmt.Errorf("recovery ended at LSN %v, before the backup's end LSN %v", lsn, end)
	}
	return nil
}

func exitCause(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

func currentLSN(ctx context.Context, db *sql.DB) (format.LSN, error) {
	var name string
	var lsn uint64
	err := db.QueryRowContext(ctx, "SHOW GLOBAL STATUS LIKE 'Innodb_lsn_current'").Scan(&name, &lsn)
	return format.LSN(lsn), err
}

// stop ends the server: cleanly after a good recovery, at once otherwise, so
// that a failed one can be tried again on what is there.
func (s *recoveryServer) stop(clean bool) error {
	if clean {
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			clean = false
		}
	}
	if clean {
		select {
		case <-s.done:
			if s.exitErr != nil {
				return fmt.Errorf("server shutdown: %w", s.exitErr)
			}
			return nil
		case <-time.After(stopWait):
		}
	}
	_ = s.cmd.Process.Kill() // it may have ended already
	select {
	case <-s.done:
		return errors.New("server was killed: it did not stop by itself")
	case <-time.After(killWait):
		return fmt.Errorf("server with pid %d does not end", s.cmd.Process.Pid)
	}
}

// lastLines is how much of a server's log goes into an error.
const lastLines = 8

// lastWords returns the end of the server's log, lines that say nothing of a
// failure left out when there are others.
func (s *recoveryServer) lastWords() string {
	text, err := os.ReadFile(s.log)
	if err != nil || len(text) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if bad := slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return !strings.Contains(l, "[ERROR]") }); len(bad) > 0 {
		lines = bad
	}
	if len(lines) > lastLines {
		lines = lines[len(lines)-lastLines:]
	}
	return "\nserver log: " + strings.Join(lines, "\nserver log: ")
}

func namesIn(dir string) (map[string]bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool, len(entries))
	for _, e := range entries {
		names[e.Name()] = true
	}
	return names, nil
}

// traces are files a start leaves in the data directory that a copy did not
// have and does not need.
var traces = []string{"ibtmp1", "ib_buffer_pool", "ddl_recovery.log", "ddl_recovery-backup.log", "multi-master.info", "tc.log", "ib_logfile101", "undo_trunc.log"}

// removeTraces removes what the server's start left. Aria's log and control
// file stay: Aria tables are recovered and refer to them.
func removeTraces(dir string, before map[string]bool) error {
	for _, name := range traces {
		if before[name] {
			continue
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return backupdir.SyncDir(dir)
}
