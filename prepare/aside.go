package prepare

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// asideSuffix ends the names of files that a server must not see.
const asideSuffix = ".xbstream-aside"

// setAside renames the files that bear the ending of a tablespace and are none:
// one that waits for IMPORT TABLESPACE, a copy beside a table. A server opens in
// recovery what its redo names, finds the space id of another table in such a
// file, and ends (seen with 10.11.19 after DISCARD TABLESPACE, not yet IMPORT).
// What is returned gives them their names back; a killed one is made up for.
func (o *origin) setAside(dir string) (bringBack func() error, err error) {
	if o.manifest == nil || o.prepared() { // a server may have made tables there since
		return func() error { return nil }, nil
	}
	tablespaces := map[string]bool{}
	for _, f := range o.manifest.Files {
		tablespaces[f.Path] = true
	}
	tree := newTree(dir, o.server.PageSize)
	bringBack = func() error {
		var strays []string
		for _, rel := range tree.glob("*.ibd" + asideSuffix) {
			strays = append(strays, tree.path(strings.TrimSuffix(rel, asideSuffix)))
		}
		return renameAll(strays, asideSuffix, "")
	}
	var strays []string
	for _, rel := range tree.glob("*.ibd") {
		if !tablespaces[rel] {
			strays = append(strays, tree.path(rel))
		}
	}
	if err := renameAll(strays, "", asideSuffix); err != nil {
		return nil, errors.Join(err, bringBack())
	}
	return bringBack, nil
}

// renameAll exchanges one ending of the names for another, of those that have
// it, and makes that durable.
func renameAll(paths []string, from, to string) error {
	for _, p := range paths {
		if err := os.Rename(p+from, p+to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := syncDir(filepath.Dir(p)); err != nil {
			return err
		}
	}
	return nil
}
