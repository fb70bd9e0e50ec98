package backupdir

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/xbstream/xbstream/format"
)

// RedoName is the file with the redo log, as MariaDB calls it.
const RedoName = "ib_logfile0"

// State is what a directory says of the backup in it.
type State struct {
	// EndLSN is where the redo must reach.
	EndLSN format.LSN
	// Server holds what recovery must know of the source. Its page size, in
	// bytes, is set, and its DataFilePath was checked.
	Server format.Server
	// Manifest is nil in a directory that mariabackup wrote. Of its files it has
	// only those of tablespaces, left out or not.
	Manifest *format.Manifest
	// RolledBack counts the transactions that the source had prepared itself and
	// that preparing had rolled back. MarkPrepared keeps it in the state file for
	// who asks later.
	RolledBack int

	// checkpoints is the name of the state file found.
	checkpoints string
	// lines are its content, in order, but for the one that is ours.
	lines []setting
}

// Read reads manifest and state files of dir. Errors wrap ErrNotBackup if there
// are none, and format.ErrDamaged if they make no sense.
func Read(dir string) (*State, error) {
	s := &State{}
	if err := s.readCheckpoints(dir); err != nil {
		return nil, err
	}
	m, err := readManifest(filepath.Join(dir, format.ManifestName))
	switch {
	case err == nil:
		return s, s.useManifest(m)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read %s: %w", format.ManifestName, err)
	}
	if len(s.lines) == 0 {
		return nil, fmt.Errorf("neither %s nor %s found: %w", format.ManifestName, checkpointsNames[0], ErrNotBackup)
	}
	return s, s.useMariabackup(dir)
}

// SystemFiles returns the names of the files of the system tablespace, in order.
func (s *State) SystemFiles() []string {
	files, err := s.Server.SystemFiles()
	if err != nil {
		return nil // it was checked when it was read
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Path)
	}
	return names
}
