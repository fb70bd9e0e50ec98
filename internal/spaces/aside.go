package spaces

import (
	"errors"

	"github.com/xbstream/xbstream/format"
)

// asideSuffix ends the names of files that a server must not see.
const asideSuffix = ".xbstream-aside"

// SetAside renames the files that bear the ending of a tablespace and are none of
// those listed: one that waits for IMPORT TABLESPACE, a copy beside a table. A
// server opens in recovery what its redo names, finds the space id of another table
// in such a file, and ends (seen with 10.11.19 after DISCARD TABLESPACE, not yet
// IMPORT). What is returned gives them their names back; a killed one is made up for.
func (tr *Tree) SetAside(listed []format.File) (bringBack func() error, err error) {
	tablespaces := map[string]bool{}
	for _, f := range listed {
		tablespaces[f.Path] = true
	}
	bringBack = func() error {
		return errors.Join(tr.finishMoves(asideSuffix), tr.SyncNames())
	}
	err = tr.Each("*.ibd", func(rel string) error {
		if tablespaces[rel] {
			return nil
		}
		return tr.rename(rel, rel+asideSuffix)
	})
	if err == nil {
		err = tr.SyncNames()
	}
	if err != nil {
		return nil, errors.Join(err, bringBack())
	}
	return bringBack, nil
}
