package backupdir

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/xbstream/xbstream/format"
)

// optionsName is the option file with the source's settings.
const optionsName = "backup-my.cnf"

// defaultPageSize is that of a server that was not told otherwise.
const defaultPageSize = 16384

// xtrabackupNames are files that XtraBackup writes, and mariabackup does not: its redo
// log, and the dictionary of MySQL.
var xtrabackupNames = []string{"xtrabackup_logfile", "mysql.ibd"}

// useMariabackup takes from mariabackup's files what the manifest would say.
func (s *State) useMariabackup(dir string) error {
	for _, name := range xtrabackupNames {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return fmt.Errorf("%s is there: this is a backup of MySQL by XtraBackup, which only the xtrabackup of its version can prepare", name)
		}
	}
	switch t := s.get("backup_type"); t {
	case "full-backuped", "full-prepared", typePrepared:
	default:
		return fmt.Errorf("%s: backup_type %q cannot be prepared by itself: %w", s.checkpoints, t, ErrNotBackup)
	}
	end, err := strconv.ParseUint(s.get("last_lsn"), 10, 64)
	if err != nil {
		return fmt.Errorf("%s: last_lsn: %w", s.checkpoints, err)
	}
	s.EndLSN = format.LSN(end)
	conf, err := readSettings(filepath.Join(dir, optionsName))
	if err != nil {
		return fmt.Errorf("read %s: %w", optionsName, err)
	}
	s.Server = format.Server{Dialect: "mariadb", PageSize: defaultPageSize, DataFilePath: "ibdata1:12M:autoextend"}
	for _, line := range conf {
		if err := s.useOption(line); err != nil {
			return fmt.Errorf("%w: %s: %s: %w", format.ErrDamaged, optionsName, line.key, err)
		}
	}
	if err := s.Server.Check(); err != nil {
		return fmt.Errorf("%w: %s: %w", format.ErrDamaged, optionsName, err)
	}
	return nil
}

func (s *State) useOption(line setting) (err error) {
	switch line.key {
	case "innodb_checksum_algorithm":
		s.Server.ChecksumAlgorithm = line.value
	case "innodb_data_file_path":
		// mariabackup writes the source's value and puts all files side by side.
		var files []format.DataFile
		files, err = format.ParseDataFiles(line.value)
		s.Server.DataFilePath = format.FormatDataFiles(files)
	case "innodb_page_size":
		s.Server.PageSize, err = strconv.Atoi(line.value)
	case "innodb_undo_tablespaces":
		s.Server.UndoTablespaces, err = strconv.Atoi(line.value)
	case "innodb_log_file_size":
		s.Server.LogFileSize, err = strconv.ParseInt(line.value, 10, 64)
	case "innodb_compression_level":
		s.Server.CompressionLevel, err = strconv.Atoi(line.value)
	}
	return err
}

// setting is one "key = value" line.
type setting struct{ key, value string }

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
