package extract

import (
	"path"
	"strings"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb/filename"
)

// Choice says which files of an archive are kept when not all are wanted: those
// that were asked for, and what they are of no use without. It is made in one
// pass over the manifest, by Survey, before Keeps can be asked.
//
// A tablespace cannot be recovered without the redo, the system tablespace and
// the undo tablespaces. The tablespaces of full-text indexes do not say to which
// table they belong, and a server ends when one is missing: all of the database
// are kept. Aria's tables need its logs. Nor does MySQL start without its
// dictionary, mysql.ibd, and the directory mysql; which tables are in a general
// tablespace only the dictionary says.
//
// The name of an .sdi file has only the first letters of its table's.
type Choice struct {
	only       func(path string) bool
	innodb     bool
	aria       bool
	dictionary bool
	// databases are those of which a tablespace was asked for.
	databases map[string]bool
	// tables are those of other engines that were asked for, as sdiName.
	tables map[string]bool
}

// NewChoice returns a Choice of the files whose final path only accepts.
func NewChoice(only func(path string) bool) *Choice {
	return &Choice{only: only, databases: map[string]bool{}, tables: map[string]bool{}}
}

// dictionaryName is the tablespace of MySQL's dictionary.
const dictionaryName = "mysql.ibd"

// Survey looks at an entry.
func (c *Choice) Survey(f *format.File) {
	c.dictionary = c.dictionary || f.Path == dictionaryName
	if !f.Arrived() || f.Kind == format.KindDir || !c.only(f.Path) {
		return
	}
	switch f.Kind {
	case format.KindTablespace:
		c.databases[path.Dir(f.Path)] = true
		c.innodb, c.aria = true, true // a server may start on it
	case format.KindSystem, format.KindUndo:
		c.innodb = true
	case format.KindFile:
		c.aria = c.aria || path.Ext(f.Path) == ".MAI"
		c.tables[sdiName(f.Path, path.Ext(f.Path))] = true
	}
}

// sdiName is the path that an .sdi file of a table has, without number and ending.
// It has the first 16 letters of the table's name, counted before they are encoded
// (MySQL dd/impl/sdi_file.cc, sdi_tablespace filename).
func sdiName(name, end string) string {
	const letters = 16
	dir, file := path.Split(strings.TrimSuffix(name, end))
	table := []rune(filename.Decode(file))
	return dir + string(table[:min(letters, len(table))])
}

// ofChosen says whether a file defines a table that was asked for.
func (c *Choice) ofChosen(name string) bool {
	stem, isSDI := strings.CutSuffix(name, ".sdi")
	number := strings.LastIndexByte(stem, '_')
	return isSDI && number > 0 && c.tables[sdiName(stem, stem[number:])]
}

// Keeps says whether an entry is kept. Directories are not, they are made for
// the files.
func (c *Choice) Keeps(f *format.File) bool {
	dir, name := path.Split(f.Path)
	switch {
	case f.Kind == format.KindDir:
		return c.innodb && c.dictionary && f.Path == strings.TrimSuffix(dictionaryName, ".ibd")
	case !f.Arrived():
		return false
	case c.only(f.Path) || c.ofChosen(f.Path):
		return true
	case f.Kind == format.KindSystem || f.Kind == format.KindUndo:
		return c.innodb
	case f.Kind == format.KindTablespace:
		if dir == "" { // the dictionary, or a general one
			return c.innodb
		}
		return strings.HasPrefix(strings.ToUpper(name), "FTS_") && c.databases[path.Clean(dir)]
	}
	return c.aria && dir == "" && strings.HasPrefix(name, "aria_log")
}

// leftOut is what the manifest beside the kept files says of one that is not
// kept; nil if it need not be mentioned.
func leftOut(f *format.File) *format.File {
	switch f.Kind {
	case format.KindLeftOut:
		return f
	case format.KindTablespace:
		return &format.File{Path: f.Path, Kind: format.KindLeftOut, Source: f.Source,
			Space: &format.Space{ID: f.Space.ID, Rebuild: f.Space.Rebuild}}
	}
	return nil
}
