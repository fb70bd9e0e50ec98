package spaces

import (
	"fmt"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
)

// Tablespace is a tablespace of the directory.
type Tablespace struct {
	ID format.SpaceID
	// Files has at least one, in the order of their pages.
	Files []File
	// Pages is the form of its pages; Known says that it is set. It is not
	// for one whose page 0 was never written, until redo tells.
	Pages innodb.PageFormat
	Known bool
	// Fresh says that page 0 was not yet written when the file was copied,
	// or that there is no file: the tablespace comes from redo alone.
	Fresh bool

	// The rest is for who applies redo.

	// History is what redo says of it; nil when redo has no file records of it.
	History *History
	// Touched says that pages were or will be written.
	Touched bool
}

// File is one file of a tablespace; only the system tablespace has several.
type File struct {
	Path  string        // relative, slash separated
	First format.PageNo // the number of its first page
	Size  int64         // in bytes, when it was found
}

func (t *Tablespace) String() string {
	return fmt.Sprintf("%s (space %v)", t.Files[0].Path, t.ID)
}

// File returns the file that holds a page, as an index of Files, and the page's
// offset in it, in bytes.
func (t *Tablespace) File(no format.PageNo) (i int, off int64) {
	for i = len(t.Files) - 1; i > 0 && no < t.Files[i].First; i-- {
	}
	return i, int64(no-t.Files[i].First) * int64(t.Pages.Physical)
}

// PagesAfter returns how many pages starting at no lie in the same file.
func (t *Tablespace) PagesAfter(no format.PageNo) int64 {
	i, _ := t.File(no)
	if i+1 < len(t.Files) {
		return int64(t.Files[i+1].First - no)
	}
	return 1 << 32
}
