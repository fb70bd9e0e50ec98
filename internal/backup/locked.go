package backup

import (
	"cmp"
	"context"
	"path"
	"slices"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/internal/innodb/filename"
	"github.com/xbstream/xbstream/server"
)

// lockedTables returns the tables of files that stand still only while their table
// is locked.
func lockedTables(files []chunker.File) (list []server.TableName) {
	for _, f := range files {
		if f.Class != chunker.ClassLockedTable {
			continue
		}
		db, file := path.Split(f.Rel)
		db, file = path.Clean(db), file[:len(file)-len(path.Ext(file))]
		table, _ := filename.CutPartition(file)
		list = append(list, server.TableName{Database: filename.Decode(db), Table: filename.Decode(table), FileDatabase: db, FileTable: table})
	}
	slices.SortFunc(list, func(a, b server.TableName) int {
		return cmp.Or(cmp.Compare(a.FileDatabase, b.FileDatabase), cmp.Compare(a.FileTable, b.FileTable))
	})
	return slices.Compact(list)
}

// nonTransactional lists these tables before the backup, for the privileges that
// their lock takes. Directories that cannot be read are reported elsewhere.
func (b *run) nonTransactional(ctx context.Context) []server.TableName {
	files, err := b.discoverer().Others(ctx)
	if err != nil {
		return nil
	}
	return lockedTables(files)
}
