package servertest

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// backupVariables returns the [mysqld] settings of backup-my.cnf in dir as
// arguments of mariadbd. A directory without that file has none.
func backupVariables(dir string) ([]string, error) {
	f, err := os.Open(filepath.Join(dir, "backup-my.cnf"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read settings of the copy: %w", err)
	}
	defer f.Close()
	var args []string
	in := bufio.NewScanner(f)
	for in.Scan() {
		key, value, ok := strings.Cut(in.Text(), "=")
		if ok && !strings.HasPrefix(key, "#") {
			args = append(args, "--"+strings.TrimSpace(key)+"="+strings.Trim(strings.TrimSpace(value), `"`))
		}
	}
	return args, in.Err()
}

// RecordedGTID returns the GTID position of the backup restored in dir, as
// xtrabackup_binlog_info has it.
func RecordedGTID(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "xtrabackup_binlog_info"))
	if err != nil {
		return "", fmt.Errorf("read the backup's position: %w", err)
	}
	fields := strings.Split(strings.TrimRight(string(b), "\n"), "\t")
	if len(fields) != 3 || fields[2] == "" {
		return "", fmt.Errorf("read the backup's position: xtrabackup_binlog_info has no GTID: %q", b)
	}
	return fields[2], nil
}
