package backupdir

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
)

// checkpointsNames are the names mariabackup gives its state file, by release.
var checkpointsNames = []string{"xtrabackup_checkpoints", "mariadb_backup_checkpoints"}

// typePrepared is the backup_type of a directory that needs no recovery.
const typePrepared = "log-applied"

// keyPreparedRolledBack is the line of the state file, after mariabackup's own,
// with State.RolledBack. It is there if there were any.
const keyPreparedRolledBack = "prepared_rolled_back"

// Prepared says whether the backup in dir was prepared, by us or by mariabackup,
// and what State.RolledBack was then. It reads the state file only; without one the
// answer is no.
func Prepared(dir string) (yes bool, rolledBack int, err error) {
	var s State
	err = s.readCheckpoints(dir)
	return s.Prepared(), s.RolledBack, err
}

// Prepared says whether the backup was prepared, by us or by mariabackup.
func (s *State) Prepared() bool { return s.get("backup_type") == typePrepared }

func (s *State) get(key string) string {
	for _, line := range s.lines {
		if line.key == key {
			return line.value
		}
	}
	return ""
}

func (s *State) readCheckpoints(dir string) error {
	s.checkpoints = checkpointsNames[0]
	for _, name := range checkpointsNames {
		lines, err := readSettings(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		s.checkpoints = name
		return s.useCheckpoints(lines)
	}
	return nil
}

// useCheckpoints takes the lines of a state file; the one that is ours apart.
func (s *State) useCheckpoints(lines []setting) (err error) {
	for _, line := range lines {
		if line.key != keyPreparedRolledBack {
			s.lines = append(s.lines, line)
			continue
		}
		if s.RolledBack, err = strconv.Atoi(line.value); err != nil || s.RolledBack < 0 {
			return fmt.Errorf("%s: %s: %q is not a number of transactions", s.checkpoints, line.key, line.value)
		}
	}
	return nil
}

// MarkPrepared rewrites the state file of dir to say that recovery is done, and
// makes one where there is none.
func (s *State) MarkPrepared(dir string) error {
	seen := false
	for i := range s.lines {
		if s.lines[i].key == "backup_type" {
			s.lines[i].value, seen = typePrepared, true
		}
	}
	if !seen {
		head := []setting{{"backup_type", typePrepared}}
		if len(s.lines) == 0 && s.Manifest != nil {
			r := s.Manifest.Backup.Redo
			head = append(head, setting{"from_lsn", "0"}, setting{"to_lsn", r.LastCheckpointLSN.String()}, setting{"last_lsn", r.EndLSN.String()})
		}
		s.lines = append(head, s.lines...)
	}
	return s.writeCheckpoints(dir)
}

// NoteRolledBack keeps a number of transactions that are about to be rolled back,
// without saying that recovery is done. An earlier attempt may have got part of
// the way and left fewer.
func (s *State) NoteRolledBack(dir string, transactions int) error {
	s.RolledBack = max(s.RolledBack, transactions)
	if len(s.lines) == 0 {
		return nil // MarkPrepared will write it, with what else a state file needs
	}
	return s.writeCheckpoints(dir)
}

func (s *State) writeCheckpoints(dir string) error {
	var b strings.Builder
	for _, line := range s.lines {
		fmt.Fprintf(&b, "%s = %s\n", line.key, line.value)
	}
	if s.RolledBack > 0 {
		// Behind mariabackup's lines, which it reads in their order.
		fmt.Fprintf(&b, "%s = %d\n", keyPreparedRolledBack, s.RolledBack)
	}
	return ReplaceFile(filepath.Join(dir, s.checkpoints), []byte(b.String()))
}
