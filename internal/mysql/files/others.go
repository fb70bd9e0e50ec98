package files

import (
	"cmp"
	"context"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
)

// classes tells by their ending when files of a database stand still: definitions
// while DDL is blocked, tables of MyISAM, CSV and ARCHIVE while they are locked. A
// MERGE table has only a list of others, which DDL writes.
var classes = map[string]chunker.Class{
	".sdi": chunker.ClassSchema,
	".MRG": chunker.ClassSchema,
	".MYD": chunker.ClassLockedTable,
	".MYI": chunker.ClassLockedTable,
	".CSV": chunker.ClassLockedTable,
	".CSM": chunker.ClassLockedTable,
	".ARZ": chunker.ClassLockedTable,
	".ARM": chunker.ClassLockedTable,
}

// serverTables are tables that the server itself writes at any time, and that
// nobody may lock.
var serverTables = map[string]bool{
	"mysql/general_log": true,
	"mysql/slow_log":    true,
}

// bufferPool is the list of pages that were in memory; a server with another name
// for it starts without.
const bufferPool = "ib_buffer_pool"

// Others lists the files of all engines but InnoDB, the definitions of their
// tables, of those that are wanted, and whatever else is in a database's directory:
// nobody but its owner can tell that it is not needed. The list is in the order of
// the classes.
func (d *Discoverer) Others(ctx context.Context) ([]chunker.File, error) {
	files, err := d.beforeDatabases()
	if err != nil {
		return nil, err
	}
	err = d.eachDatabase(ctx, func(db string, entries []fs.DirEntry) error {
		wanted := d.wantsDatabase(db, entries)
		for _, e := range entries {
			class, ok := d.classify(db, e)
			if !ok || !wanted || !d.wants(db, e.Name()) {
				continue
			}
			f := d.file(filepath.Join(d.layout.DataDir, db, e.Name()), path.Join(db, e.Name()), format.KindFile)
			f.Class = class
			if class == chunker.ClassServerTable && strings.HasSuffix(e.Name(), ".CSM") {
				f.Amend = closeCSV
			}
			if f.Linked = mayBeLinked(e.Name()); f.Linked && e.Type()&fs.ModeSymlink != 0 {
				f.Source, _ = filepath.EvalSymlinks(f.Abs) // one that leads nowhere is reported when it is copied
			}
			files = append(files, f)
		}
		return nil
	})
	slices.SortStableFunc(files, func(a, b chunker.File) int { return cmp.Compare(a.Class, b.Class) })
	return files, err
}

// beforeDatabases lists what is wanted of the data directory itself. All else there
// is the identity, the keys and the logs of this server.
func (d *Discoverer) beforeDatabases() ([]chunker.File, error) {
	abs := filepath.Join(d.layout.DataDir, bufferPool)
	st, err := os.Lstat(abs)
	if err != nil || !st.Mode().IsRegular() {
		return nil, nil
	}
	f := d.file(abs, bufferPool, format.KindFile)
	f.Class = chunker.ClassUnknown // the server may write it at any time, in another file first
	return []chunker.File{f}, nil
}

// closeCSV clears the mark that the CSV engine sets in a table's .CSM as long as
// the table is open for writing, and that makes the next server call the table
// crashed. A log table is open whenever the log is on, and whole all the same:
// its rows are appended. The file has 35 bytes: a check byte (254), a version (1),
// four 8-byte numbers and the mark (storage/csv/ha_tina.cc, write_meta_file).
func closeCSV(meta []byte) {
	const size, check, version = 35, 254, 1
	if len(meta) == size && meta[0] == check && meta[1] == version {
		meta[size-1] = 0
	}
}

// classify says when a file of a database stands still; ok is false for what
// is not copied here.
func (d *Discoverer) classify(db string, e fs.DirEntry) (c chunker.Class, ok bool) {
	base, ext := cutExt(e.Name())
	switch {
	case ext == ".ibd": // see InnoDB
		return 0, false
	case ext == ".TMD": // a table being repaired
		return 0, false
	case strings.HasPrefix(base, "#sql"):
		return 0, false // of an ALTER TABLE that was broken off: DDL is blocked
	case d.excluded(filepath.Join(d.layout.DataDir, db, e.Name())):
		return 0, false
	}
	c, known := classes[ext]
	if !known {
		c = chunker.ClassUnknown
		if !e.Type().IsRegular() {
			d.leftOut(filepath.Join(d.layout.DataDir, db, e.Name()), "it is no regular file and belongs to no table")
			return 0, false
		}
	}
	if serverTables[db+"/"+base] && c != chunker.ClassSchema {
		c = chunker.ClassServerTable
	}
	return c, true
}

// mayBeLinked says whether the server makes symbolic links of such a name: for
// the data and index files of MyISAM, with DATA DIRECTORY and INDEX DIRECTORY and
// the option symbolic-links. What is linked otherwise is refused when it is copied.
func mayBeLinked(name string) bool {
	switch _, ext := cutExt(name); ext {
	case ".MYD", ".MYI":
		return true
	}
	return false
}
