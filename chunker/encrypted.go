package chunker

import (
	"errors"
	"fmt"

	"github.com/xbstream/xbstream/internal/innodb"
)

// FirstEncrypted returns the first of the files of tablespaces whose pages may be
// encrypted, by what page 0 says; nil if there is none. Files that are gone, or
// have no page 0, are passed over. parse reads the flags of a tablespace.
func FirstEncrypted(files []File, parse func(flags uint32) (innodb.PageFormat, error)) (*File, error) {
	page := make([]byte, innodb.MaxPageSize)
	for i := range files {
		if files[i].firstPage() != 0 {
			continue
		}
		yes, err := isEncrypted(files[i], page, parse)
		if err != nil && !isGone(err) {
			return nil, fmt.Errorf("look for encryption: %w", err)
		}
		if yes {
			return &files[i], nil
		}
	}
	return nil, nil
}

// isEncrypted reads the first page, which is never encrypted itself, into page.
func isEncrypted(file File, page []byte, parse func(flags uint32) (innodb.PageFormat, error)) (bool, error) {
	f, err := openDisk(file)
	if err != nil {
		return false, err
	}
	n, err := readAt(f, page, 0)
	if err = errors.Join(err, f.Close()); err != nil || n < innodb.MinPhysicalSize || innodb.IsZero(page[:innodb.MinPhysicalSize]) {
		return false, err
	}
	pages, err := parse(innodb.Flags(page))
	if err != nil {
		return false, nil // the copy reads it again, and says what is wrong
	}
	return pages.SaysEncrypted(page[:n]), nil
}
