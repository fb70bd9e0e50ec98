package files

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
)

// classes tells by their ending when files of a database stand still.
var classes = map[string]chunker.Class{
	".frm": chunker.ClassSchema,
	".par": chunker.ClassSchema,
	".TRG": chunker.ClassSchema,
	".TRN": chunker.ClassSchema,
	".opt": chunker.ClassSchema,
	".MYD": chunker.ClassTable,
	".MYI": chunker.ClassTable,
	".MRG": chunker.ClassTable,
	".CSV": chunker.ClassTable,
	".CSM": chunker.ClassTable,
	".ARZ": chunker.ClassTable,
	".ARM": chunker.ClassTable,
	".MAD": chunker.ClassAria,
	".MAI": chunker.ClassAria,
}

// serverTables are tables that the server itself writes at any time.
var serverTables = map[string]bool{
	"mysql/general_log":  true,
	"mysql/slow_log":     true,
	"mysql/table_stats":  true,
	"mysql/column_stats": true,
	"mysql/index_stats":  true,
}

// Others lists the files of all engines but InnoDB, the definitions of all
// tables, of those that are wanted, and whatever else is in a database's directory: nobody but its owner
// can tell that it is not needed. The list is in the order of the classes.
func (d *Discoverer) Others(ctx context.Context) ([]chunker.File, error) {
	files, err := d.ariaLogs()
	if err != nil {
		return nil, err
	}
	err = d.eachDatabase(ctx, func(db string, entries []fs.DirEntry) error {
		wanted := d.wantsDatabase(db, entries)
		for _, e := range entries {
			class, ok := d.classify(db, e)
			if !ok || !wanted || e.Name() != databaseOptions && !d.wants(db, e.Name()) {
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
	case ext == ".ibd" || ext == ".isl": // see InnoDB
		return 0, false
	case ext == ".TMD" || ext == ".TMM": // a table being repaired
		return 0, false
	case strings.HasPrefix(base, "#sql"):
		// A running ALTER TABLE, which cannot go on in the copy. A server
		// drops InnoDB's part of it when it starts; a definition would stay
		// for ever.
		return 0, false
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
// the data and index files of MyISAM and Aria, with DATA DIRECTORY and INDEX
// DIRECTORY (mysys/my_symlink2.c, my_create_with_symlink). What is linked
// otherwise is refused when it is copied.
func mayBeLinked(name string) bool {
	switch _, ext := cutExt(name); ext {
	case ".MYD", ".MYI", ".MAD", ".MAI":
		return true
	}
	return false
}

const ariaControl = "aria_log_control"

var ariaLog = regexp.MustCompile(`^aria_log\.[0-9]{8}$`)

// ariaLogs lists the control file and the logs of Aria.
func (d *Discoverer) ariaLogs() ([]chunker.File, error) {
	entries, err := os.ReadDir(d.layout.AriaLogDir)
	if err != nil {
		return nil, fmt.Errorf("logs of Aria: %w", err)
	}
	var files []chunker.File
	for _, e := range entries {
		f := d.named(filepath.Join(d.layout.AriaLogDir, e.Name()), e.Name(), format.KindFile)
		switch {
		case e.Name() == ariaControl:
			f.Class = chunker.ClassAriaControl
		case ariaLog.MatchString(e.Name()):
			f.Class = chunker.ClassAriaLog
		default:
			continue
		}
		files = append(files, f)
	}
	return files, nil
}
