package backupdir

import (
	"fmt"
	"os"

	"github.com/xbstream/xbstream/format"
)

// readManifest reads a manifest as it lies in a restored directory. Of its
// files only those of tablespaces are kept, left out or not: nothing else is
// recovered.
func readManifest(path string) (*format.Manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var files []format.File
	m, err := format.DecodeRestored(f, func(f *format.File) error {
		switch f.Kind {
		case format.KindSystem, format.KindUndo, format.KindTablespace, format.KindLeftOut:
			files = append(files, *f)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	m.Files = files
	return m, nil
}

func (s *State) useManifest(m *format.Manifest) error {
	if m.Backup == nil {
		return fmt.Errorf("%s: an archive of ordinary files, nothing to prepare: %w", format.ManifestName, ErrNotBackup)
	}
	switch d := m.Backup.Server.Dialect; d {
	case format.DialectMariaDB, format.DialectMySQL:
	default:
		return fmt.Errorf("%s: backup of a %q server: recovery is not supported", format.ManifestName, d)
	}
	s.Manifest, s.Server, s.EndLSN = m, m.Backup.Server, m.Backup.Redo.EndLSN
	if s.Server.PageSize == 0 {
		s.Server.PageSize = defaultPageSize
	}
	return nil
}
