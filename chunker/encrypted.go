package chunker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/pause"
)

// The checksum of an encrypted page of MySQL is that of the plain page. Without the
// key, nothing tells a page from one that was read while the server wrote it. So such
// pages are read twice, and again until two reads agree.
//
// Two reads may agree on a torn page, if the server stands still in the middle of a
// write. The backup is then refused later, and not wrong: a page that is written
// while it is copied was dirty at the checkpoint where the redo of the archive
// begins, or became so later. So the redo changes it, and the recovery of a server
// has to read it, decrypts it, finds that the checksum of the plain page is wrong, and
// does not pass over it: prepare fails. (What is written without redo, as new indexes
// are, is copied again: see Reconcile.) Reading twice makes that rare.

// rereadPause is between the two reads of a chunk: longer than a page is usually
// under way, and short beside what reading the chunk takes.
const rereadPause = 2 * time.Millisecond

// errUnsettled says that a page without a check is not the same when it is read again.
var errUnsettled = errors.New("no two reads of it agree")

// readTwice reads the pages of p, which starts at off, a second time and returns
// them, if there are any that only their key can check, and nil if not: then it costs
// nothing. What the file does not have any more is zero.
func (r *run) readTwice(ctx context.Context, s *space, p []byte, off int64) (*format.Buffer, error) {
	if !s.anyUnchecked(p) {
		return nil, nil
	}
	if err := pause.For(ctx, rereadPause); err != nil {
		return nil, err
	}
	if err := r.pace(ctx, int64(len(p))); err != nil {
		return nil, err
	}
	s.src.Forget(off, int64(len(p)))
	b := format.GetBuffer()
	again := b.Space()[:len(p)]
	got, err := readAt(s.src, again, off)
	if err != nil {
		b.Release()
		return nil, fmt.Errorf("read %s at %d again: %w", s.file.Abs, off, err)
	}
	clear(again[got-got%s.pages.Physical:])
	b.SetLen(len(p))
	return b, nil
}

// anyUnchecked says whether only a key can check some of the pages.
func (s *space) anyUnchecked(p []byte) bool {
	if !s.pages.MySQL {
		return false
	}
	for size := s.pages.Physical; len(p) > 0; p = p[size:] {
		if s.pages.Unchecked(p[:size]) {
			return true
		}
	}
	return false
}

// agree compares two reads of a page.
func agree(page, other []byte, no format.PageNo) error {
	if bytes.Equal(page, other) {
		return nil
	}
	return &innodb.ChecksumError{PageNo: no, LSN: innodb.LSN(page), Problem: "encrypted page", Cause: errUnsettled}
}

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
