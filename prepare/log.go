package prepare

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
	"github.com/xbstream/xbstream/internal/spaces"
)

// redoName is the file of the log.
const redoName = backupdir.RedoName

// redoLog is the linear log of a backup: its payload starts at the checkpoint,
// does not wrap, and all its markers are 1.
type redoLog struct {
	f       *os.File
	payload int64 // bytes after the head
	dialect redolog.Dialect
	head    redolog.Head
	first   redolog.Position // of the first byte after the head
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

func (l *redoLog) readHead() (err error) {
	l.dialect, l.head, err = redolog.Detect(l.f)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", err, ErrIncomplete)
	}
	if err != nil {
		return err
	}
	st, err := l.f.Stat()
	if err != nil {
		return err
	}
	var ok bool
	if l.first, ok = l.dialect.Position(l.head.FirstLSN); !ok {
		return fmt.Errorf("no redo can begin at LSN %v: %w", l.head.FirstLSN, ErrDamaged)
	}
	l.payload = st.Size() - l.offset(l.first)
	return nil
}

// linear says that the log is a backup's and not one a server has written to.
func (l *redoLog) linear() bool { return l.head.Checkpoint == l.head.FirstLSN }

// end is the position after the last byte of the file.
func (l *redoLog) end() redolog.Position { return l.first + redolog.Position(l.payload) }

// offset is where in the file a position is.
func (l *redoLog) offset(at redolog.Position) int64 {
	return int64(l.dialect.HeadSize()) + int64(at-l.first)
}

// lsn is the LSN of a position.
func (l *redoLog) lsn(at redolog.Position) format.LSN { return l.dialect.LSN(at) }

// atLeast is the first position of which the LSN is not below lsn. So the LSNs of
// pages and the manifest are compared with many positions.
func atLeast(d redolog.Dialect, lsn format.LSN) redolog.Position {
	for {
		if p, ok := d.Position(lsn); ok {
			return p
		}
		lsn++ // framing is short
	}
}

func (l *redoLog) atLeast(lsn format.LSN) redolog.Position { return atLeast(l.dialect, lsn) }

// start is where recovery starts.
func (l *redoLog) start() redolog.Position { return l.atLeast(l.head.Checkpoint) }

// damaged says that the mini-transaction at a position is.
func (l *redoLog) damaged(at redolog.Position, cause error) error {
	return fmt.Errorf("%s: mini-transaction at LSN %v: %w: %w", redoName, l.lsn(at), cause, ErrDamaged)
}

// tree is that of the directory of a backup with this log.
func (l *redoLog) tree(dir string, state *backupdir.State) *spaces.Tree {
	tr := spaces.NewTree(dir, state.Server.PageSize)
	tr.ParseFlags = l.dialect.ParseFlags
	return tr
}

// completeness watches the two things that make a log whole: the end LSN and
// the FILE_CHECKPOINT that belongs to the checkpoint it starts from.
type completeness struct {
	start redolog.Head
	want  format.LSN
	mark  format.LSN // where the mark of that checkpoint was met last, or 0
	// hidden says that the log is encrypted: no mark can be seen.
	hidden bool
}

// see looks at the file records of a plain log.
func (c *completeness) see(at format.LSN, r redolog.FileRecord) {
	if r.Op == redolog.FileCheckpoint && r.Checkpoint == c.start.Checkpoint {
		c.mark = at
	}
}

// marked says that the mark is where the checkpoint says, cannot be seen, or is none.
func (c *completeness) marked() bool {
	return c.hidden || c.start.CheckpointEnd == 0 || c.mark != 0 && c.mark >= c.start.CheckpointEnd
}

// check says what is missing of a log that ends at end.
func (c *completeness) check(end format.LSN) error {
	if end < c.want {
		return fmt.Errorf("%s: ends at LSN %v, the backup at %v: %w", redoName, end, c.want, ErrIncomplete)
	}
	if !c.marked() {
		return fmt.Errorf("%s: FILE_CHECKPOINT(%v), due at LSN %v, is missing: %w", redoName, c.start.Checkpoint, c.start.CheckpointEnd, ErrIncomplete)
	}
	return nil
}
