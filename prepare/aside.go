package prepare

import (
	"errors"

	"github.com/xbstream/xbstream/internal/backupdir"
)

// asideSuffix ends the names of files that a server must not see.
const asideSuffix = ".xbstream-aside"

// setAside renames the files that bear the ending of a tablespace and are none:
// one that waits for IMPORT TABLESPACE, a copy beside a table. A server opens in
// recovery what its redo names, finds the space id of another table in such a
// file, and ends (seen with 10.11.19 after DISCARD TABLESPACE, not yet IMPORT).
// What is returned gives them their names back; a killed one is made up for.
func setAside(dir string, state *backupdir.State) (bringBack func() error, err error) {
	if state.Manifest == nil || state.Prepared() { // a server may have made tables there since
		return func() error { return nil }, nil
	}
	tablespaces := map[string]bool{}
	for _, f := range state.Manifest.Files {
		tablespaces[f.Path] = true
	}
	tr := newTree(dir, state.Server.PageSize)
	bringBack = func() error {
		return errors.Join(tr.finishMoves(asideSuffix), tr.syncChanged())
	}
	err = tr.each("*.ibd", func(rel string) error {
		if tablespaces[rel] {
			return nil
		}
		return tr.rename(rel, rel+asideSuffix)
	})
	if err == nil {
		err = tr.syncChanged()
	}
	if err != nil {
		return nil, errors.Join(err, bringBack())
	}
	return bringBack, nil
}
