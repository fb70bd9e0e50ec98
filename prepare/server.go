package prepare

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
	"github.com/xbstream/xbstream/internal/runserver"
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
		return rep, errors.Join(explain(state, err), spoiled(dir, state, opt, err))
	}
	rep.PreparedRolledBack = state.RolledBack
	if err := state.GiveToOwner(dir); err != nil {
		return rep, err
	}
	return rep, state.MarkPrepared(dir)
}

// spoiled removes the log for the server when one that passes over what is missing has
// failed to read what is there: it may have recovered the rest, and thrown away the
// redo. Another start would find nothing wrong.
func spoiled(dir string, state *backupdir.State, opt Options, err error) error {
	forced := func(arg string) bool {
		return strings.Contains(strings.ReplaceAll(arg, "_", "-"), "innodb-force-recovery")
	}
	if !errors.Is(err, runserver.ErrHopeless) || !slices.ContainsFunc(opt.ServerArgs, forced) {
		return nil
	}
	spoilt := errors.New("with innodb-force-recovery, the server may have lost redo: extract the backup again")
	logs := path.Dir(redolog.Named(state.Server.Dialect).LeftName())
	if logs == "." {
		return spoilt
	}
	return errors.Join(spoilt, os.RemoveAll(filepath.Join(dir, filepath.FromSlash(logs))))
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

// withServer runs a server over dir, from start to clean end, and lets work, if
// it is not nil, do something when the server has recovered.
func withServer(ctx context.Context, dir, binary string, state *backupdir.State, opt Options, work func(context.Context, *sql.DB) error) (err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return err
	}
	how := redolog.Named(state.Server.Dialect).Server()
	if binary, err = runserver.Find(binary, how.Programs...); err != nil {
		return err
	}
	if err := refuseForeign(ctx, binary, how); err != nil {
		return err
	}
	before, err := namesIn(dir)
	if err != nil {
		return err
	}
	runner, err := runserver.New(binary, dir)
	if err != nil {
		return err
	}
	defer runner.Close()
	bringBack, err := setAside(dir, state)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bringBack()) }()
	err = recoverOnce(ctx, runner, state, opt, work)
	var found *preparedError
	if errors.As(err, &found) {
		if err := rollBackWithServer(ctx, runner, state, opt, found.transactions); err != nil {
			return err
		}
		err = recoverOnce(ctx, runner, state, opt, work)
	}
	if err != nil {
		return err
	}
	return removeTraces(dir, before, how.Traces)
}

// refuseForeign refuses a server of another family. A program that does not say what
// it is says so when it is started.
func refuseForeign(ctx context.Context, binary string, how redolog.Server) error {
	version, err := exec.CommandContext(ctx, binary, "--version").Output()
	if err == nil && how.Foreign(string(version)) {
		return fmt.Errorf("%s is %s, and the backup is of another family of servers; name the right one: --with-server=PATH", binary, strings.TrimSpace(string(version)))
	}
	return nil
}

// setAside hides from a server the files that bear the ending of a tablespace and
// are none, until they are brought back.
func setAside(dir string, state *backupdir.State) (bringBack func() error, err error) {
	if state.Manifest == nil || state.Prepared() { // a server may have made tables there since
		return func() error { return nil }, nil
	}
	return spaces.NewTree(dir, state.Server.PageSize).SetAside(state.Manifest.Files)
}

// recoverOnce runs the server once.
func recoverOnce(ctx context.Context, runner *runserver.Runner, state *backupdir.State, opt Options, work func(context.Context, *sql.DB) error) error {
	s, err := startRecovery(runner, state, opt)
	if err != nil {
		return err
	}
	opt.Log.Info("server started on the copy", "binary", runner.Binary, "pid", s.PID())
	err = awaitRecovery(ctx, s, state, opt.ServerWait, work)
	if stopErr := s.Stop(err == nil); err == nil {
		err = stopErr
	}
	if err == nil {
		err = damageIn(s, redolog.Named(state.Server.Dialect).Server().Damage)
	}
	if found := preparedIn(s); err != nil && found != nil {
		err = fmt.Errorf("%w: %w", err, found)
	}
	if err != nil {
		return fmt.Errorf("%w: %w%s", ErrServer, err, s.LastWords())
	}
	return nil
}

// damageIn looks in the server's log for what it does not say otherwise: it waits, or
// goes on without. For that, innodb_force_recovery is not meant, but for redo of
// tablespaces that were left out.
func damageIn(s *runserver.Server, marks map[string]string) error {
	if len(marks) == 0 {
		return nil
	}
	text, err := s.Log()
	if err != nil {
		return err
	}
	for mark, means := range marks {
		if bytes.Contains(text, []byte(mark)) {
			return fmt.Errorf("%w: %s", runserver.ErrHopeless, means)
		}
	}
	return nil
}

// startRecovery starts a server that recovers, with the settings of the source that
// recovery depends on, and does nothing else.
func startRecovery(runner *runserver.Runner, state *backupdir.State, opt Options) (*runserver.Server, error) {
	dataFiles, err := state.DataFiles(runner.Dir)
	if err != nil {
		return nil, err
	}
	args := []string{
		"--innodb-fast-shutdown=1",
		"--innodb-buffer-pool-load-at-startup=OFF",
		"--innodb-buffer-pool-dump-at-shutdown=OFF",
		"--innodb-buffer-pool-size=" + strconv.FormatInt(max(opt.Memory, 64<<20), 10),
		"--innodb-page-size=" + strconv.Itoa(state.Server.PageSize),
		"--innodb-data-file-path=" + dataFiles,
		"--innodb-data-home-dir=",
		"--innodb-undo-directory=./",
		"--lower-case-table-names=" + strconv.Itoa(state.Server.LowerCaseTableNames),
	}
	args = append(args, redolog.Named(state.Server.Dialect).Server().Args(&state.Server)...)
	if a := state.Server.ChecksumAlgorithm; a != "" {
		args = append(args, "--innodb-checksum-algorithm="+a)
	}
	return runner.Start(append(args, opt.ServerArgs...))
}

// awaitRecovery returns when the server accepts clients, is past the LSN, and
// work, if it is not nil, is done.
func awaitRecovery(ctx context.Context, s *runserver.Server, state *backupdir.State, wait time.Duration, work func(context.Context, *sql.DB) error) error {
	end, how := state.EndLSN, redolog.Named(state.Server.Dialect).Server()
	var lsn format.LSN
	answers := func(ctx context.Context, db *sql.DB) (err error) {
		if err := damageIn(s, how.Damage); err != nil {
			return err
		}
		lsn, err = currentLSN(ctx, db, how.LSN)
		return err
	}
	return s.Use(ctx, wait, answers, func(ctx context.Context, db *sql.DB) error {
		if lsn < end {
			return fmt.Errorf("recovery ended at LSN %v, before the backup's end LSN %v", lsn, end)
		}
		if work == nil {
			return nil
		}
		return work(ctx, db)
	})
}

func currentLSN(ctx context.Context, db *sql.DB, variable string) (format.LSN, error) {
	var name string
	var lsn uint64
	err := db.QueryRowContext(ctx, "SHOW GLOBAL STATUS LIKE '"+variable+"'").Scan(&name, &lsn)
	return format.LSN(lsn), err
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

// removeTraces removes what the server's start left that a copy did not have and does
// not need. Aria's log and control file stay: Aria tables are recovered and refer to
// them.
func removeTraces(dir string, before map[string]bool, traces []string) error {
	after, err := namesIn(dir)
	if err != nil {
		return err
	}
	for name := range after {
		ours := slices.ContainsFunc(traces, func(pattern string) bool {
			match, err := path.Match(pattern, name)
			return err == nil && match
		})
		if !ours || before[name] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return backupdir.SyncDir(dir)
}
