package files

import (
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb/filename"
)

// This file finds out which file belongs to which table, for chunker.Filter.

// namesOf returns what the table of a file of a database may be called.
func namesOf(db, file string) chunker.Names {
	stem, _, _ := strings.Cut(file, ".") // the encoding has no dot
	table, partition := filename.CutPartition(stem)
	encoded := chunker.TableName{Database: db, Table: table, Partition: partition}
	names := chunker.Names{encoded}
	if strings.Contains(db+stem, "@") {
		names = append(names, chunker.TableName{Database: filename.Decode(db), Table: filename.Decode(table), Partition: filename.Decode(partition)})
	}
	if partition != "" {
		for _, n := range names {
			n.Partition = partitionMarks.Replace(n.Partition)
			names = append(names, n)
		}
	}
	return names
}

// partitionMarks are as in expressions for MariaDB and MySQL before 8.0.
var partitionMarks = strings.NewReplacer("#p#", "#P#", "#sp#", "#SP#")

// wants says whether a file that is not a tablespace is wanted.
func (d *Discoverer) wants(db, file string) bool {
	f := d.layout.Filter
	switch _, ext := cutExt(file); {
	case f == nil:
		return true
	case ext == ".sdi":
		return f.Table(d.defined(db, file))
	}
	return f.Table(namesOf(db, file))
}

// maxDefinition bounds what is read of a definition.
const maxDefinition = 4 << 20

// defined returns the names of the table that an .sdi file defines. The file has
// only the first 16 letters of them, and a number; the whole name is inside.
func (d *Discoverer) defined(db, file string) chunker.Names {
	stem, _ := cutExt(file)
	if at := strings.LastIndexByte(stem, '_'); at > 0 {
		stem = stem[:at]
	}
	names := namesOf(db, stem)
	abs := filepath.Join(d.layout.DataDir, db, file)
	fd, _, err := d.root.Open(abs, false)
	if err != nil {
		return names // gone, or reported when it is copied
	}
	f := os.NewFile(uintptr(fd), abs)
	defer f.Close()
	var sdi struct {
		Object struct {
			Name string `json:"name"`
		} `json:"dd_object"`
	}
	if json.NewDecoder(io.LimitReader(f, maxDefinition)).Decode(&sdi) == nil && sdi.Object.Name != "" {
		names = append(names, chunker.TableName{Database: filename.Decode(db), Table: sdi.Object.Name})
	}
	return names
}

// wantsDatabase says whether the directory of a database is wanted: with all that
// is in it, or for some tables.
func (d *Discoverer) wantsDatabase(db string, entries []fs.DirEntry) bool {
	f := d.layout.Filter
	return f == nil || f.Database(namesOf(db, "")) || slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return d.wants(db, e.Name()) })
}

// fullText are tablespaces that hold the full-text indexes of a table, which the
// name has by its id.
var fullText = regexp.MustCompile(`^fts_([0-9a-f]{16})_.*\.ibd$`)

// leaveOut marks the tablespaces of tables that are not wanted. Those in no
// database, general tablespaces and the dictionary, are always needed.
func (d *Discoverer) leaveOut(ctx context.Context, files []chunker.File) error {
	if d.layout.Filter == nil {
		return nil
	}
	owners, err := d.owners(ctx, files)
	if err != nil {
		return err
	}
	for i := range files {
		f := &files[i]
		db, file := path.Split(f.Rel)
		if f.Kind != format.KindTablespace || db == "" {
			continue
		}
		if id, ok := ownerOf(file); ok && owners[id] != "" {
			db, file = path.Split(owners[id])
		}
		f.LeftOut = !d.layout.Filter.Table(namesOf(path.Clean(db), file))
	}
	return nil
}

// owners returns the names of tables with full-text indexes.
func (d *Discoverer) owners(ctx context.Context, files []chunker.File) (map[uint64]string, error) {
	var ids []uint64
	for _, f := range files {
		if id, ok := ownerOf(path.Base(f.Rel)); ok && f.Kind == format.KindTablespace {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 || d.layout.TableNames == nil {
		return nil, nil
	}
	slices.Sort(ids)
	return d.layout.TableNames(ctx, slices.Compact(ids))
}

func ownerOf(file string) (id uint64, ok bool) {
	m := fullText.FindStringSubmatch(file)
	if m == nil {
		return 0, false
	}
	id, err := strconv.ParseUint(m[1], 16, 64)
	return id, err == nil
}

// Tally shows all databases and tables to tallies. A table is what has a file of
// its name. What belongs to a full-text index and leftovers of an ALTER TABLE are
// no tables. Views, and tables of general tablespaces, have no files.
func (d *Discoverer) Tally(ctx context.Context, to ...*chunker.Tally) error {
	return d.eachDatabase(ctx, func(db string, entries []fs.DirEntry) error {
		for _, t := range to {
			t.Database(namesOf(db, ""))
		}
		last := ""
		for _, e := range entries {
			stem, ext := cutExt(e.Name())
			_, known := classes[ext]
			if !known && ext != ".ibd" || strings.HasPrefix(stem, "#sql") || fullText.MatchString(e.Name()) {
				continue
			}
			names := namesOf(db, e.Name())
			if ext == ".sdi" {
				names = d.defined(db, e.Name())
			} else if stem == last {
				continue
			}
			last = stem
			for _, t := range to {
				t.Table(names)
			}
		}
		return nil
	})
}
