package prepare

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/xbstream/xbstream/internal/backupdir"
	"github.com/xbstream/xbstream/internal/spaces"
)

// journalName is the file of the journal, in the directory while it is being
// prepared.
const journalName = "xbstream_prepare.journal"

// journal keeps pages whole when the process is killed while it writes them: a
// write that is killed stops at any 4 KiB (measured on ext4: half of 100 kills
// during writes left a torn page of 16 KiB), and neither the page before nor
// the one after can be made from the halves. Each worker has one slot; pages go there first and to their place
// second, so that at any moment one of the two is whole.
//
// It is not synced and so does not hold when the machine fails: the backup is
// extracted again then.
type journal struct{ f *os.File }

// A slot is a header and up to window bytes of pages:
//
//	0 u32 crc32c of the rest of the header and the pages
//	4 u32 length of the pages
//	8 u64 their offset in the file
//	16 u16 length of the path, with slotSparse when zeros are holes in the
//	   file; then the path
const (
	slotHeader    = 4096
	slotLength    = slotHeader + window
	slotPathStart = 18
	slotSparse    = 1 << 15
)

// startJournal makes an empty journal; what an earlier one holds must have been
// replayed.
func startJournal(dir string) (*journal, error) {
	f, err := os.OpenFile(filepath.Join(dir, journalName), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o660)
	if err != nil {
		return nil, err
	}
	return &journal{f}, nil
}

// remove ends the journal, when all data are where they belong, for good: were it
// still there once the log is replaced, its pages could no more be brought up to
// date.
func (j *journal) remove(dir string) error {
	return errors.Join(j.f.Close(), os.Remove(j.f.Name()), backupdir.SyncDir(dir))
}

// slot is the part of the journal that belongs to one worker.
type slot struct {
	f      *os.File
	at     int64
	header [slotHeader]byte
}

// slot returns the slot of worker i; without a journal there is none.
func (j *journal) slot(i int) *slot {
	if j == nil {
		return nil
	}
	return &slot{f: j.f, at: int64(i) * slotLength}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// keep notes that pages are about to be written at off in the file.
func (s *slot) keep(rel string, off int64, pages []byte) error {
	return s.note(rel, off, pages, 0)
}

// keepSparse notes that they are about to be written with holes for zeros.
func (s *slot) keepSparse(rel string, off int64, pages []byte) error {
	return s.note(rel, off, pages, slotSparse)
}

func (s *slot) note(rel string, off int64, pages []byte, how uint16) error {
	if s == nil {
		return nil
	}
	n := slotPathStart + len(rel)
	if n > slotHeader || len(pages) > window {
		return fmt.Errorf("%s: %d bytes of pages do not fit into the journal", rel, len(pages))
	}
	h := s.header[:n]
	binary.BigEndian.PutUint32(h[4:], uint32(len(pages)))
	binary.BigEndian.PutUint64(h[8:], uint64(off))
	binary.BigEndian.PutUint16(h[16:], uint16(len(rel))|how)
	copy(h[slotPathStart:], rel)
	binary.BigEndian.PutUint32(h, slotSum(h, pages))
	if _, err := s.f.WriteAt(pages, s.at+slotHeader); err != nil {
		return err
	}
	_, err := s.f.WriteAt(h, s.at)
	return err
}

func slotSum(header, pages []byte) uint32 {
	return crc32.Update(crc32.Checksum(header[4:], castagnoli), castagnoli, pages)
}

// replayJournal finishes what an interrupted run was writing: the pages of every
// whole slot go to their place. A slot
// that is not whole was being written, so that its pages' place was not yet.
// A slot may be older than the page: then the page goes back to how it was
// after an earlier batch, and redo applies to it once more.
func replayJournal(dir string, tr *spaces.Tree) error {
	f, err := os.Open(filepath.Join(dir, journalName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, slotLength)
	for at := int64(0); ; at += slotLength {
		n, err := f.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n < slotHeader {
			return nil
		}
		if err := replaySlot(tr, buf[:n]); err != nil {
			return err
		}
	}
}

func replaySlot(tr *spaces.Tree, b []byte) error {
	pages, n := b[slotHeader:], int(binary.BigEndian.Uint32(b[4:]))
	length := binary.BigEndian.Uint16(b[16:])
	end := slotPathStart + int(length&^slotSparse)
	if n == 0 || n > len(pages) || end > slotHeader || slotSum(b[:end], pages[:n]) != binary.BigEndian.Uint32(b) {
		return nil
	}
	rel := string(b[slotPathStart:end])
	if !filepath.IsLocal(filepath.FromSlash(rel)) {
		return fmt.Errorf("path %q: %w", rel, ErrDamaged)
	}
	f, err := os.OpenFile(tr.Path(rel), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	off := int64(binary.BigEndian.Uint64(b[8:]))
	if length&slotSparse != 0 {
		err = writeSparse(f, pages[:n], off)
	} else {
		_, err = f.WriteAt(pages[:n], off)
	}
	return errors.Join(err, f.Close())
}
