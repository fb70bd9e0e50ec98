package prepare

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/mariadb/redo"
)

// redoLog is the linear log of a backup: its payload starts at the checkpoint,
// does not wrap, and all its markers are 1.
type redoLog struct {
	f       *os.File
	payload int64 // bytes after the head
	header  redo.Header
	start   redo.Checkpoint
	// growing, if set, says in payload's place how much there is of a log that
	// still arrives.
	growing *growth
}

// openRedo opens the log of dir.
func openRedo(dir string) (*redoLog, error) {
	f, err := os.Open(filepath.Join(dir, redoName))
	if err != nil {
		return nil, fmt.Errorf("open redo log: %w", err)
	}
	l := &redoLog{f: f}
	if err := l.readHead(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", redoName, err)
	}
	return l, nil
}

func (l *redoLog) Close() error { return l.f.Close() }

func (l *redoLog) readHead() error {
	head := make([]byte, redo.StartOffset)
	if n, err := io.ReadFull(l.f, head); err != nil {
		return fmt.Errorf("%d bytes where the head has %d: %w", n, len(head), ErrIncomplete)
	}
	var err error
	if l.header, err = redo.ParseHeader(head); err != nil {
		return err
	}
	if l.start, err = redo.NewestCheckpoint(head, l.header.FirstLSN); err != nil {
		return err
	}
	st, err := l.f.Stat()
	if err != nil {
		return err
	}
	l.payload = st.Size() - redo.StartOffset
	return nil
}

// linear says that the log is a backup's and not one a server has written to.
func (l *redoLog) linear() bool { return l.start.LSN == l.header.FirstLSN }

// end is the LSN after the last byte of the file.
func (l *redoLog) end() format.LSN { return l.header.FirstLSN + format.LSN(l.payload) }

// offset is where in the file an LSN stands.
func (l *redoLog) offset(at format.LSN) int64 {
	return redo.StartOffset + int64(at-l.header.FirstLSN)
}

// completeness watches the two things that make a log whole: the end LSN and
// the FILE_CHECKPOINT that belongs to the checkpoint it starts from.
type completeness struct {
	start redo.Checkpoint
	want  format.LSN
	mark  format.LSN // where FILE_CHECKPOINT(start.LSN) was met last, or 0
	// hidden says that the log is encrypted: no mark can be seen.
	hidden bool
}

// see looks at the file records of a plain log.
func (c *completeness) see(at format.LSN, r redo.FileRecord) {
	if r.Op == redo.FileCheckpoint && r.Checkpoint == c.start.LSN {
		c.mark = at
	}
}

// marked says that the mark is where the checkpoint says, or cannot be seen.
func (c *completeness) marked() bool {
	return c.hidden || c.mark != 0 && c.mark >= c.start.EndLSN
}

// check says what is missing of a log that ends at end.
func (c *completeness) check(end format.LSN) error {
	if end < c.want {
		return fmt.Errorf("%s: ends at LSN %v, the backup at %v: %w", redoName, end, c.want, ErrIncomplete)
	}
	if !c.marked() {
		return fmt.Errorf("%s: FILE_CHECKPOINT(%v), due at LSN %v, is missing: %w", redoName, c.start.LSN, c.start.EndLSN, ErrIncomplete)
	}
	return nil
}
