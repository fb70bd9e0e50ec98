package spaces

import (
	"path"
	"strings"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
)

// History is what the log says of one tablespace's file.
type History struct {
	// Name is the last one the log gave, as the server wrote it.
	Name string
	// Created says that FILE_CREATE was met.
	Created bool
	// Deleted is the position of the last FILE_DELETE, 0 without one; Alive
	// says that the tablespace was mentioned after it.
	Deleted format.LSN
	Alive   bool
	// Trims are the TRIM_PAGES records, in the order of the log.
	Trims []Trim

	// former are the names before it that FILE_CREATE and FILE_RENAME gave.
	former []string
	// renamed says that the name comes from FILE_CREATE or FILE_RENAME, and is
	// not only a mention.
	renamed bool
}

// Histories are those of the tablespaces that the log names.
type Histories map[format.SpaceID]*History

// Of returns the history of a tablespace, a new one if it has none yet.
func (all Histories) Of(id format.SpaceID) *History {
	h := all[id]
	if h == nil {
		h = &History{}
		all[id] = h
	}
	return h
}

// Trim is a TRIM_PAGES record: the tablespace ended before page.
type Trim struct {
	At   format.LSN
	Page format.PageNo
}

// See takes note of a record about the file, which stands at an LSN. Records come
// in the order of the log.
func (h *History) See(at format.LSN, f redolog.FileRecord) {
	h.Name, h.Alive = f.Name, true
	switch f.Op {
	case redolog.FileCreated:
		h.Created, h.renamed = true, true
	case redolog.FileRenamed:
		h.former = append(h.former, f.Name)
		h.Name, h.renamed = f.NewName, true
	case redolog.FileDeleted:
		h.Deleted, h.Alive = at, false
	}
}

// Gone says that redo deletes the tablespace and does not mention it again.
func (h *History) Gone() bool { return h != nil && h.Deleted != 0 && !h.Alive }

// FinalPath is the path below the directory that redo says the file ends with;
// false if redo only mentions it, or gives it a name that leads nowhere.
func (h *History) FinalPath() (string, bool) {
	if h == nil || !h.renamed {
		return "", false
	}
	return localName(h.Name)
}

// localName turns a name of the log into one below the directory: database and
// file, whatever directory the source had them in. An absolute name is that of
// a table with a DATA DIRECTORY; its copy lies with the others.
func localName(name string) (string, bool) {
	name = strings.ReplaceAll(name, "\\", "/")
	file, db := path.Base(name), path.Base(path.Dir(name))
	local := db + "/" + file
	return local, strings.HasSuffix(file, ".ibd") && format.CheckPath(local) == nil
}
