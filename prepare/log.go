package prepare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/xbstream/xbstream/format"
	redo "github.com/xbstream/xbstream/internal/innodb/mariadb"
)

// redoLog is the linear log of a backup: its payload starts at the checkpoint,
// does not wrap, and all its markers are 1.
type redoLog struct {
	f       *os.File
	payload int64 // bytes after the head
	header  redo.Header
	start   redo.Checkpoint
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

// mtrs reads the log's mini-transactions in order, each checked, into a buffer
// where they stay until the caller calls Discard.
type mtrs struct {
	log *redoLog
	buf []byte // buf[:n] holds the payload from base on
	n   int
	// base is the LSN of buf[0], at the offset of the next mini-transaction.
	base format.LSN
	at   int
}

// errBufferFull means that Discard must make room.
var errBufferFull = errors.New("redo buffer is full")

// newMTRs starts at the log's first byte. size is at least redo.MaxMTR.
func (l *redoLog) newMTRs(buf []byte) *mtrs {
	return &mtrs{log: l, buf: buf, base: l.header.FirstLSN}
}

// fork returns a reader that goes on from the same place in a buffer of its own.
func (m *mtrs) fork(buf []byte) *mtrs {
	return &mtrs{log: m.log, buf: buf, base: m.position()}
}

// position is the LSN of the next mini-transaction.
func (m *mtrs) position() format.LSN { return m.base + format.LSN(m.at) }

// discard forgets the mini-transactions read so far.
func (m *mtrs) discard() {
	copy(m.buf, m.buf[m.at:m.n])
	m.base += format.LSN(m.at)
	m.n -= m.at
	m.at = 0
}

// readSize is how much of the log one read takes.
const readSize = 1 << 20

// next returns the next mini-transaction and its offset in the buffer; io.EOF
// at the end of the file, errBufferFull when there is no room.
func (m *mtrs) next() (t redo.MTR, off int, err error) {
	for {
		t, err = redo.ScanMTR(m.buf[m.at:m.n], m.log.header.Encrypted())
		if err == nil {
			break
		}
		if !errors.Is(err, redo.ErrShort) {
			return t, 0, m.damaged(err)
		}
		if err := m.fill(); err != nil {
			return t, 0, err
		}
	}
	if t.Marker != 1 {
		return t, 0, m.damaged(errors.New("end marker is not 1"))
	}
	off = m.at
	m.at += t.Size
	return t, off, nil
}

func (m *mtrs) damaged(cause error) error {
	return fmt.Errorf("%s: mini-transaction at LSN %v: %w: %w", redoName, m.position(), cause, ErrDamaged)
}

// fill reads on.
func (m *mtrs) fill() error {
	if m.n == len(m.buf) {
		return errBufferFull
	}
	done := int64(m.base-m.log.header.FirstLSN) + int64(m.n)
	want := min(int64(readSize), int64(len(m.buf)-m.n), m.log.payload-done)
	if want <= 0 {
		if m.at < m.n {
			return fmt.Errorf("%s: ends inside the mini-transaction at LSN %v: %w", redoName, m.position(), ErrIncomplete)
		}
		return io.EOF
	}
	n, err := m.log.f.ReadAt(m.buf[m.n:m.n+int(want)], redo.StartOffset+done)
	m.n += n
	if int64(n) < want {
		return fmt.Errorf("read redo at LSN %v: %w", m.position(), err)
	}
	return nil
}

// completeness watches the two things that make a log whole: the end LSN and
// the FILE_CHECKPOINT that belongs to the checkpoint it starts from.
type completeness struct {
	start  redo.Checkpoint
	want   format.LSN
	marked bool // FILE_CHECKPOINT(start.LSN) was met
}

// see looks at the file records of a plain log.
func (c *completeness) see(at format.LSN, r redo.FileRecord) {
	if r.Op == redo.FileCheckpoint && r.Checkpoint == c.start.LSN && at >= c.start.EndLSN {
		c.marked = true
	}
}

// check says what is missing of a log that ends at end.
func (c *completeness) check(end format.LSN) error {
	if end < c.want {
		return fmt.Errorf("%s: ends at LSN %v, the backup at %v: %w", redoName, end, c.want, ErrIncomplete)
	}
	if !c.marked {
		return fmt.Errorf("%s: FILE_CHECKPOINT(%v), due at LSN %v, is missing: %w", redoName, c.start.LSN, c.start.EndLSN, ErrIncomplete)
	}
	return nil
}

// checkRedoForServer reads the whole log, as a server does not tell a log that
// was cut from one that ends. A log that a server has already written to (an
// interrupted WithServer) is the server's to judge.
func checkRedoForServer(ctx context.Context, dir string, o *origin, rep *Report) error {
	l, err := openRedo(dir)
	if err != nil {
		return err
	}
	defer l.Close()
	rep.CheckpointLSN = l.start.LSN
	if !l.linear() {
		return nil
	}
	c := completeness{start: l.start, want: o.endLSN, marked: l.header.Encrypted()}
	m := l.newMTRs(make([]byte, 2*redo.MaxMTR))
	for m.position() < o.endLSN {
		t, off, err := m.next()
		switch {
		case errors.Is(err, errBufferFull):
			if err := ctx.Err(); err != nil {
				return err
			}
			m.discard()
			continue
		case errors.Is(err, io.EOF):
			return c.check(m.position())
		case err != nil:
			return err
		}
		rep.RedoBytes += int64(t.Size)
		if err := c.seeAll(m.base+format.LSN(off), t); err != nil {
			return m.damaged(err)
		}
	}
	return c.check(m.position())
}

func (c *completeness) seeAll(at format.LSN, t redo.MTR) error {
	if c.marked {
		return nil
	}
	files, err := redo.FileRecords(t.Records)
	for _, f := range files {
		c.see(at, f)
	}
	return err
}
