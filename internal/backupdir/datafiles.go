package backupdir

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/xbstream/xbstream/format"
)

// DataFiles is the innodb_data_file_path of a server that is started on dir. A
// server makes the files that the value names and that are not there, wherever
// that is. So nothing of what came with a backup goes into it as it is: the names
// are those of files that lie in dir, the sizes are theirs, and the only word
// beside them is autoextend, behind the last one. Errors wrap format.ErrDamaged.
func (s *State) DataFiles(dir string) (string, error) {
	files, err := s.Server.SystemFiles()
	if err != nil {
		return "", fmt.Errorf("%w: %w", format.ErrDamaged, err)
	}
	for i, f := range files {
		st, err := os.Lstat(filepath.Join(dir, f.Path))
		if err == nil && !st.Mode().IsRegular() {
			err = fmt.Errorf("%q is no regular file", f.Path)
		}
		if err == nil && st.Size() < 1<<20 {
			err = fmt.Errorf("%q has %d bytes, and a server wants 1 MiB at least", f.Path, st.Size())
		}
		if err != nil {
			return "", fmt.Errorf("%w: system tablespace: %w", format.ErrDamaged, err)
		}
		// The server counts whole MiB.
		files[i] = format.DataFile{Path: f.Path, Size: st.Size() &^ (1<<20 - 1), Autoextend: f.Autoextend}
	}
	return format.FormatDataFiles(files), nil
}
