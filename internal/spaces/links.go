package spaces

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
	"github.com/xbstream/xbstream/internal/innodb"
)

// ReadLinks finds the tablespaces that extraction put where they were asked
// for, outside of the directory: those with a DATA DIRECTORY of which there is
// only a link file. Extraction makes all link files of a directory with a manifest;
// no archive may hold one. Without a manifest (nil) there is nothing to find.
// Errors wrap backupdir.ErrIncomplete if a file is not where its link says, and
// backupdir.ErrDamaged if a link says what no server writes.
func (tr *Tree) ReadLinks(m *format.Manifest) error {
	if m == nil {
		return nil
	}
	for _, f := range m.Files {
		if f.Kind != format.KindTablespace || f.Source == "" || tr.exists(f.Path) {
			continue
		}
		to, err := readLink(tr.dir, f.Path)
		if err != nil {
			return err
		}
		if to == "" {
			continue // the file is missed later
		}
		if tr.Links == nil {
			tr.Links = map[string]string{}
		}
		tr.Links[f.Path] = to
	}
	return nil
}

// readLink returns where the link file of a tablespace says that it is, "" when
// there is none. Both are regular files.
func readLink(dir, rel string) (string, error) {
	link := filepath.Join(dir, filepath.FromSlash(innodb.LinkName(rel)))
	err := mustBeRegular(link)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	content, err := os.ReadFile(link)
	if err != nil {
		return "", err
	}
	to, err := innodb.ParseLink(rel, content)
	if err != nil {
		return "", fmt.Errorf("%w: %w", err, backupdir.ErrDamaged)
	}
	if err := mustBeRegular(to); err != nil {
		return "", missing(err)
	}
	return to, nil
}

func mustBeRegular(path string) error {
	st, err := os.Lstat(path)
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file: %w", path, backupdir.ErrDamaged)
	}
	return err
}
