package innodb

import (
	"errors"
	"fmt"
	"io"

	"github.com/xbstream/xbstream/format"
)

// Age is what the LSNs in a tablespace's pages say of how old they are.
type Age struct {
	// Oldest is the lowest LSN of a page, 0 if no page has one.
	Oldest format.LSN
	// Unstamped says that a page was written and has no LSN. That is how
	// ALTER TABLE … IMPORT TABLESPACE leaves pages until they change (InnoDB
	// row0import.cc, PageConverter); whatever else writes a page gives it one.
	Unstamped bool
}

// See takes note of a page, of which it needs the header.
func (a *Age) See(page []byte) {
	switch lsn := LSN(page); {
	case lsn != 0:
		a.Join(Age{Oldest: lsn})
	case !IsZero(page[:OffData]):
		a.Unstamped = true
	}
}

// Join takes note of other pages.
func (a *Age) Join(b Age) {
	if b.Oldest != 0 && (a.Oldest == 0 || b.Oldest < a.Oldest) {
		a.Oldest = b.Oldest
	}
	a.Unstamped = a.Unstamped || b.Unstamped
}

// ReadAge reads the headers of pages, which are in clear also when the pages are
// encrypted, until it meets a page that is not newer than floor: Oldest is then
// that page's, and Unstamped may be false for want of looking. A file with no
// page 0 has the zero Age. parse reads the flags of a tablespace.
func ReadAge(f io.ReaderAt, parse func(flags uint32) (PageFormat, error), floor format.LSN) (a Age, err error) {
	var head [HeaderSize]byte
	if _, err := f.ReadAt(head[:], 0); err != nil || IsZero(head[:]) {
		return a, unlessEOF(err)
	}
	pages, err := parse(Flags(head[:]))
	if err != nil {
		return a, fmt.Errorf("page 0: %w", err)
	}
	header := head[:OffData]
	for off := int64(0); a.Oldest == 0 || a.Oldest > floor; off += int64(pages.Physical) {
		if _, err := f.ReadAt(header, off); err != nil {
			return a, unlessEOF(err)
		}
		a.See(header)
	}
	return a, nil
}

func unlessEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
