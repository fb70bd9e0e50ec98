package prepare

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/xbstream/xbstream/format"
)

// Names of the files that tell what a directory holds.
const (
	manifestName = "xbstream_manifest.json"
	optionsName  = "backup-my.cnf"
	redoName     = "ib_logfile0"
)

// checkpointsNames are the names mariabackup gives its state file, by release.
var checkpointsNames = []string{"xtrabackup_checkpoints", "mariadb_backup_checkpoints"}

// keyPreparedRolledBack is the line of the state file, after mariabackup's own,
// with the number of transactions that the source had prepared itself and that
// preparing had rolled back. It is there if there were any.
const keyPreparedRolledBack = "prepared_rolled_back"

// PreparedRolledBack returns what Report.PreparedRolledBack was when dir was
// prepared; 0 if it was not.
func PreparedRolledBack(dir string) (int, error) {
	var o origin
	if err := o.readState(dir); err != nil {
		return 0, err
	}
	return o.rolledBack, nil
}

// typePrepared is the backup_type of a directory that needs no recovery.
const typePrepared = "log-applied"

// origin is what the directory says of the backup in it.
type origin struct {
	// checkpoints is the name of the state file found.
	checkpoints string
	// state is its content, in order.
	state []setting
	// endLSN is where the redo must reach.
	endLSN format.LSN
	// server holds what recovery must know of the source.
	server format.Server
	// manifest is nil in a directory that mariabackup wrote.
	manifest *format.Manifest
	// rolledBack is Report.PreparedRolledBack, kept in the state file for who
	// asks later.
	rolledBack int
}

// setting is one "key = value" line.
type setting struct{ key, value string }

func (o *origin) get(key string) string {
	for _, s := range o.state {
		if s.key == key {
			return s.value
		}
	}
	return ""
}

func (o *origin) prepared() bool { return o.get("backup_type") == typePrepared }

// Prepared says whether the backup in dir was prepared, by us or by mariabackup.
func Prepared(dir string) (bool, error) {
	o := &origin{}
	err := o.readState(dir)
	return o.prepared(), err
}

// readOrigin reads manifest and state files of dir.
func readOrigin(dir string) (*origin, error) {
	o := &origin{}
	if err := o.readState(dir); err != nil {
		return nil, err
	}
	m, err := readManifest(filepath.Join(dir, manifestName))
	switch {
	case err == nil:
		return o, o.useManifest(m)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read %s: %w", manifestName, err)
	}
	if len(o.state) == 0 {
		return nil, fmt.Errorf("neither %s nor %s found: %w", manifestName, checkpointsNames[0], ErrNotBackup)
	}
	return o, o.useMariabackup(dir)
}

func (o *origin) readState(dir string) error {
	o.checkpoints = checkpointsNames[0]
	for _, name := range checkpointsNames {
		s, err := readSettings(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		o.checkpoints = name
		return o.useState(s)
	}
	return nil
}

// useState takes the lines of a state file; the one that is ours apart.
func (o *origin) useState(lines []setting) (err error) {
	for _, s := range lines {
		if s.key != keyPreparedRolledBack {
			o.state = append(o.state, s)
			continue
		}
		if o.rolledBack, err = strconv.Atoi(s.value); err != nil || o.rolledBack < 0 {
			return fmt.Errorf("%s: %s: %q is not a number of transactions", o.checkpoints, s.key, s.value)
		}
	}
	return nil
}

func (o *origin) useManifest(m *format.Manifest) error {
	if m.Backup == nil {
		return fmt.Errorf("%s: an archive of ordinary files, nothing to prepare: %w", manifestName, ErrNotBackup)
	}
	if d := m.Backup.Server.Dialect; d != "mariadb" {
		return fmt.Errorf("%s: backup of a %q server: recovery is not supported", manifestName, d)
	}
	o.manifest, o.server, o.endLSN = m, m.Backup.Server, m.Backup.Redo.EndLSN
	if o.server.PageSize == 0 {
		o.server.PageSize = defaultPageSize
	}
	return nil
}

// useMariabackup takes from mariabackup's files what the manifest would say.
func (o *origin) useMariabackup(dir string) error {
	switch t := o.get("backup_type"); t {
	case "full-backuped", "full-prepared", typePrepared:
	default:
		return fmt.Errorf("%s: backup_type %q cannot be prepared by itself: %w", o.checkpoints, t, ErrNotBackup)
	}
	end, err := strconv.ParseUint(o.get("last_lsn"), 10, 64)
	if err != nil {
		return fmt.Errorf("%s: last_lsn: %w", o.checkpoints, err)
	}
	o.endLSN = format.LSN(end)
	conf, err := readSettings(filepath.Join(dir, optionsName))
	if err != nil {
		return fmt.Errorf("read %s: %w", optionsName, err)
	}
	o.server = format.Server{Dialect: "mariadb", PageSize: defaultPageSize, DataFilePath: "ibdata1:12M:autoextend"}
	for _, s := range conf {
		if err := o.useOption(s); err != nil {
			return fmt.Errorf("%w: %s: %s: %w", format.ErrDamaged, optionsName, s.key, err)
		}
	}
	if err := o.server.Check(); err != nil {
		return fmt.Errorf("%w: %s: %w", format.ErrDamaged, optionsName, err)
	}
	return nil
}

// defaultPageSize is that of a server that was not told otherwise.
const defaultPageSize = 16384

func (o *origin) useOption(s setting) (err error) {
	switch s.key {
	case "innodb_checksum_algorithm":
		o.server.ChecksumAlgorithm = s.value
	case "innodb_data_file_path":
		// mariabackup writes the source's value and puts all files side by side.
		var files []format.DataFile
		files, err = format.ParseDataFiles(s.value)
		o.server.DataFilePath = format.FormatDataFiles(files)
	case "innodb_page_size":
		o.server.PageSize, err = strconv.Atoi(s.value)
	case "innodb_undo_tablespaces":
		o.server.UndoTablespaces, err = strconv.Atoi(s.value)
	case "innodb_log_file_size":
		o.server.LogFileSize, err = strconv.ParseInt(s.value, 10, 64)
	case "innodb_compression_level":
		o.server.CompressionLevel, err = strconv.Atoi(s.value)
	}
	return err
}

// readSettings reads a file of "key = value" lines; sections and comments are
// left out.
func readSettings(path string) ([]setting, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []setting
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), "=")
		if key = strings.TrimSpace(key); !ok || strings.HasPrefix(key, "#") {
			continue
		}
		out = append(out, setting{key, strings.TrimSpace(value)})
	}
	return out, lines.Err()
}

// markPrepared rewrites the state file to say that recovery is done.
func (o *origin) markPrepared(dir string) error {
	seen := false
	for i := range o.state {
		if o.state[i].key == "backup_type" {
			o.state[i].value, seen = typePrepared, true
		}
	}
	if !seen {
		head := []setting{{"backup_type", typePrepared}}
		if len(o.state) == 0 && o.manifest != nil {
			r := o.manifest.Backup.Redo
			head = append(head, setting{"from_lsn", "0"}, setting{"to_lsn", r.LastCheckpointLSN.String()}, setting{"last_lsn", r.EndLSN.String()})
		}
		o.state = append(head, o.state...)
	}
	return o.writeState(dir)
}

// noteRolledBack keeps a number of transactions that are about to be rolled back,
// without saying that recovery is done. An earlier attempt may have got part of
// the way and left fewer.
func (o *origin) noteRolledBack(dir string, transactions int) error {
	o.rolledBack = max(o.rolledBack, transactions)
	if len(o.state) == 0 {
		return nil // markPrepared will write it, with what else a state file needs
	}
	return o.writeState(dir)
}

func (o *origin) writeState(dir string) error {
	var b strings.Builder
	for _, s := range o.state {
		fmt.Fprintf(&b, "%s = %s\n", s.key, s.value)
	}
	if o.rolledBack > 0 {
		// Behind mariabackup's lines, which it reads in their order.
		fmt.Fprintf(&b, "%s = %d\n", keyPreparedRolledBack, o.rolledBack)
	}
	return replaceFile(filepath.Join(dir, o.checkpoints), []byte(b.String()))
}

// replaceFile puts content in the place of path so that a crash leaves the old
// file or the new one: written beside it, synced, renamed, directory synced.
func replaceFile(path string, content []byte) error {
	return replaceWith(path, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// replaceWith is replaceFile of what write writes.
func replaceWith(path string, write func(io.Writer) error) error {
	old, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	temp := path + tempSuffix
	if err := writeSynced(temp, write, old); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// tempSuffix ends the names of files that are not yet what they will be.
const tempSuffix = ".xbstream-tmp"

// writeSynced gives the file mode and owner of old, which may be nil.
func writeSynced(path string, write func(io.Writer) error, old fs.FileInfo) error {
	mode := fs.FileMode(0o640)
	if old != nil {
		mode = old.Mode().Perm()
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil && old != nil {
		err = keepOwner(f, old)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
