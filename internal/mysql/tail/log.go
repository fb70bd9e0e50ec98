// Package tail reads the redo log of a running MySQL 8.0.30 or later.
//
// # Files
//
// The log is a chain of files #ib_redoN in #innodb_redo, each with the LSNs after
// those of the one before. The server makes the next file, whole, before it fills
// the current one. Files that it needs no more it removes, or renames to spare
// files, #ib_redoN_tmp, and uses again. Their size changes with
// innodb_redo_log_capacity; that of a file in use does not. So the reader goes from
// file to file by number, each opened once.
//
// # What is read is what was written
//
// The server writes whole blocks of 512 bytes, the last one again and again as it
// fills. Each block has its number and a checksum: one that is read while it is
// written does not check, and is read again. Behind the last block are zeros or
// blocks of an earlier life of the file, with smaller numbers.
//
// A file that is used again while it is read shows, under the same descriptor, its
// old blocks until they are replaced by later ones. These have greater numbers, or
// the file has become shorter: then the redo is lost. Where nothing is there yet, a
// file that is no longer there under its name tells the same.
package tail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	ondisk "github.com/xbstream/xbstream/internal/mysql/redo"
	"github.com/xbstream/xbstream/internal/pause"
	"github.com/xbstream/xbstream/internal/source"
	"github.com/xbstream/xbstream/redotail"
)

// FormatName is the manifest's word for this log.
const FormatName = "mysql-8.0.30"

const (
	// readMin is read at the tip, where usually nothing is new.
	readMin = 8 << 10
	readMax = 2 << 20

	// A block that does not check is read again, this long apart, for as long as
	// tornPatience: a write may stand still half way when the disk is busy.
	tornPause    = time.Millisecond
	tornPatience = 15 * time.Second
	// Files come and go while a directory is read, and a checkpoint may be half
	// written.
	scanPause    = 5 * time.Millisecond
	scanPatience = 10 * time.Second
	// surveyEvery is how often the checkpoints of all files are looked at.
	surveyEvery = time.Second
)

// Log is a redotail.Log.
type Log struct {
	dir  string // #innodb_redo
	root *source.Root

	file ondisk.File // the one that is read
	open *os.File

	first  format.LSN // where the redo begins
	head   ondisk.Header
	newest format.LSN // checkpoint
	size   int64      // of all files
	looked time.Time  // when these two were

	written atomic.Uint64 // LSN that the server says it has flushed

	lsn   format.LSN      // of the block to be read next
	taken int             // bytes of its payload that are in rest already
	at    ondisk.Position // where rest begins
	rest  []byte          // payload that is not yet handed out

	want     int // how much to read next
	patience time.Duration
	raw      []byte
}

// Open opens the log in dir (innodb_log_group_home_dir) at its newest checkpoint. A
// log of another kind gives an error that wraps innodb.ErrUnsupportedLog.
func Open(ctx context.Context, dir string) (*Log, error) {
	l := &Log{
		dir: filepath.Join(dir, ondisk.Directory), root: source.NewRoot(dir),
		want: readMax, patience: tornPatience, raw: make([]byte, readMax),
	}
	if err := l.begin(ctx); err != nil {
		if l.open != nil {
			err = errors.Join(err, l.open.Close())
		}
		return nil, fmt.Errorf("open redo log %s: %w", l.dir, err)
	}
	return l, nil
}

// Start implements redotail.Log. The redo begins with the first mini-transaction
// that does not begin before the checkpoint.
func (l *Log) Start() format.Redo {
	return format.Redo{Format: FormatName, Creator: l.head.Creator, CheckpointLSN: l.first, CheckpointEndLSN: l.first}
}

// StartComplete implements redotail.Log: recovery needs no record at its start.
func (l *Log) StartComplete() (format.LSN, bool) { return l.first, true }

// Checkpoint implements redotail.Log.
func (l *Log) Checkpoint() format.LSN { return l.newest }

// Capacity implements redotail.Log. It counts spare files.
func (l *Log) Capacity() int64 { return l.size }

// Imported implements redotail.Log: no such log is encrypted.
func (l *Log) Imported(format.LSN) func(format.SpaceID, string, innodb.Age) (format.LSN, bool) {
	return nil
}

// Written says that the server has flushed its log up to lsn. It may be called
// from any goroutine.
func (l *Log) Written(lsn format.LSN) {
	for {
		old := l.written.Load()
		if uint64(lsn) <= old || l.written.CompareAndSwap(old, uint64(lsn)) {
			return
		}
	}
}

// Close closes the log file.
func (l *Log) Close() error { return l.open.Close() }

// Read implements redotail.Log.
func (l *Log) Read(ctx context.Context) (redotail.Piece, error) {
	if err := l.survey(time.Now()); err != nil {
		return redotail.Piece{}, err
	}
	for {
		more, err := l.fill(ctx)
		if err != nil {
			return redotail.Piece{}, err
		}
		p, err := l.take()
		if err != nil || len(p.Data) > 0 {
			return p, err
		}
		if !more {
			l.want = readMin
			return redotail.Piece{}, redotail.ErrTip
		}
	}
}

// take hands out the whole mini-transactions there are.
func (l *Log) take() (redotail.Piece, error) {
	p := redotail.Piece{LSN: l.at.LSN()}
	n := 0
	for n < len(l.rest) {
		m, err := ondisk.ScanMTR(l.rest[n:])
		if err == ondisk.ErrShort {
			break
		}
		at := (l.at + ondisk.Position(n)).LSN()
		if err == nil {
			p.Files, err = appendFiles(p.Files, m.Records, at)
		}
		if err != nil {
			return redotail.Piece{}, &redotail.DamagedError{LSN: at, Cause: err}
		}
		n += m.Size
	}
	p.Data, l.rest = l.rest[:n:n], l.rest[n:]
	l.at += ondisk.Position(n)
	p.Framing = int(l.at.LSN()-p.LSN) - n
	return p, nil
}

// appendFiles appends what a mini-transaction says of files.
func appendFiles(dst []redotail.FileRecord, records []byte, lsn format.LSN) ([]redotail.FileRecord, error) {
	for len(records) > 0 {
		r, n, err := ondisk.Next(records)
		if err != nil {
			return dst, err
		}
		records = records[n:]
		out := redotail.FileRecord{LSN: lsn, Space: r.Space}
		switch r.Type {
		case ondisk.FileCreate:
			out.Op = redotail.FileCreated
		case ondisk.FileDelete:
			out.Op = redotail.FileDeleted
		case ondisk.FileRename:
			out.Op = redotail.FileRenamed
		case ondisk.IndexLoad:
			out.Op = redotail.FileLoaded
			dst = append(dst, out)
			continue
		case ondisk.WriteString:
			// An encrypted page that was copied before that can be read no more: the
			// copy of page 0 may lack the key already, and if the tablespace is encrypted
			// again, it is with another key, which is the one that recovery uses for all
			// pages (InnoDB log0recv.cc: the last key in the redo).
			if r.ErasesKey() {
				out.Op = redotail.FileLoaded
				dst = append(dst, out)
			}
			continue
		default:
			continue
		}
		f, err := r.ParseFile()
		if err != nil {
			return dst, fmt.Errorf("file record: %w", err)
		}
		if out.Name = f.Name; r.Type == ondisk.FileRename {
			out.OldName, out.Name = f.Name, f.NewName
		}
		dst = append(dst, out)
	}
	return dst, nil
}

// Cut implements redotail.Log.
func (l *Log) Cut(p redotail.Piece, at format.LSN) redotail.Piece {
	start, ok := ondisk.PositionOf(p.LSN)
	if !ok {
		return p // not a piece of ours: do not cut it
	}
	n := 0
	for (start + ondisk.Position(n)).LSN() < at {
		m, err := ondisk.ScanMTR(p.Data[n:])
		if err != nil {
			return p
		}
		n += m.Size
	}
	p.Data = p.Data[:n]
	p.Framing = int((start+ondisk.Position(n)).LSN()-p.LSN) - n
	return p
}

// fill reads blocks; more is false when the server has written no more.
func (l *Log) fill(ctx context.Context) (more bool, err error) {
	var torn time.Time // since when
	for {
		if err := ctx.Err(); err != nil {
			return false, context.Cause(ctx)
		}
		if l.lsn >= l.file.End() {
			switched, err := l.nextFile(ctx)
			if err != nil || !switched {
				return false, err
			}
		}
		proven := format.LSN(l.written.Load()) // before the data is read
		n := min(int64(l.want), int64(l.file.End()-l.lsn))
		got, err := l.open.ReadAt(l.raw[:n], l.file.Offset(l.lsn))
		if err != nil && !errors.Is(err, io.EOF) {
			return false, l.failed("read", err)
		}
		took, state, err := l.blocks(l.raw[:got/ondisk.BlockSize*ondisk.BlockSize])
		if err != nil {
			return false, err
		}
		if took {
			l.want = min(l.want*4, readMax)
			return true, nil
		}
		lost := state == ondisk.Overtaken
		if state == ondisk.Unwritten && l.lsn+ondisk.BlockSize <= proven {
			if lost, err = l.replaced(); err != nil {
				return false, err
			}
		}
		switch {
		case lost:
			return false, l.overrun()
		case state == ondisk.Partial && proven < l.lsn+ondisk.BlockSize || state == ondisk.Unwritten && proven <= l.lsn:
			return false, nil
		case torn.IsZero():
			torn = time.Now()
		case time.Since(torn) > l.patience:
			return false, l.damaged(fmt.Errorf("no valid block, and the server has written up to LSN %v", proven))
		}
		if err := l.freshRead(ctx); err != nil {
			return false, err
		}
	}
}

// blocks takes what is new in blocks that were read. Without any, state says what
// the first one is. The server begins to encrypt blocks in the middle of a file when
// it is told to.
func (l *Log) blocks(raw []byte) (took bool, state ondisk.BlockState, err error) {
	state = ondisk.Unwritten // of a file that ends too early
	for first := true; len(raw) > 0; first = false {
		var b ondisk.Block
		if b, state = ondisk.ParseBlock(raw, l.lsn); state != ondisk.Complete && state != ondisk.Partial {
			return !first, state, nil
		}
		if b.Encrypted && first {
			return false, state, errEncrypted
		}
		if b.Encrypted { // next time, if it is still wanted
			return took, state, nil
		}
		payload := b.Payload(raw)
		if len(payload) < l.taken { // it was longer before
			return false, ondisk.Torn, nil
		}
		took = took || len(payload) > l.taken || state == ondisk.Complete
		l.rest = append(l.rest, payload[l.taken:]...)
		l.taken = len(payload)
		if state == ondisk.Partial {
			return took, state, nil
		}
		l.lsn, l.taken, raw = l.lsn+ondisk.BlockSize, 0, raw[ondisk.BlockSize:]
	}
	return took, state, nil
}

// nextFile goes on in the file after the one that was read to its end. The server
// makes it before it needs it; until then, this is the tip.
func (l *Log) nextFile(ctx context.Context) (bool, error) {
	for began := time.Now(); ; {
		f, open, err := l.openFile(l.file.ID + 1)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			lost := format.LSN(l.written.Load()) > l.lsn
			if lost {
				if lost, err = l.passed(); err != nil {
					return false, err
				}
			}
			if lost {
				return false, l.overrun()
			}
			return false, nil
		case err == nil && f.Header.Start == l.lsn:
			if f.Header.UUID != l.head.UUID {
				open.Close()
				return false, l.damaged(errors.New("the next file is of another log"))
			}
			old := l.open
			l.file, l.open = f, open
			if err := old.Close(); err != nil {
				return false, l.failed("close", err)
			}
			return true, l.usable(f)
		case err == nil && f.Header.Start > l.lsn:
			open.Close()
			return false, l.overrun()
		case err == nil:
			open.Close()
			err = fmt.Errorf("%s begins at LSN %v", ondisk.FileName(f.ID), f.Header.Start)
			fallthrough
		default:
			if time.Since(began) > scanPatience {
				return false, l.damaged(err)
			}
		}
		if err := pause.For(ctx, scanPause); err != nil {
			return false, err
		}
	}
}

// passed says whether the server has files after the next one, which is not there.
func (l *Log) passed() (bool, error) {
	ids, _, err := l.list()
	if err != nil {
		return false, err
	}
	for _, id := range ids {
		if id == l.file.ID+1 {
			return false, nil // made just now
		}
		if id > l.file.ID+1 {
			return true, nil
		}
	}
	return false, nil
}

// replaced says whether the file that is read has lost its name.
func (l *Log) replaced() (bool, error) {
	there, err := os.Lstat(filepath.Join(l.dir, ondisk.FileName(l.file.ID)))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, l.failed("look for", err)
	}
	mine, err := l.open.Stat()
	if err != nil {
		return false, l.failed("look for", err)
	}
	return !os.SameFile(there, mine), nil
}

// openFile opens a file and reads its head.
func (l *Log) openFile(id uint64) (ondisk.File, *os.File, error) {
	name := filepath.Join(l.dir, ondisk.FileName(id))
	fd, st, err := l.root.Open(name, false)
	if err != nil {
		return ondisk.File{}, nil, err
	}
	open := os.NewFile(uintptr(fd), name)
	f, err := ondisk.ReadFile(open, id, st.Size)
	if err != nil {
		open.Close()
		return ondisk.File{}, nil, err
	}
	return f, open, nil
}

// errEncrypted refuses a log with a key, and encrypted blocks.
var errEncrypted = fmt.Errorf("%w: innodb_redo_log_encrypt is or was ON, which is not supported", innodb.ErrUnsupportedLog)

// usable refuses a log that a backup cannot follow.
func (l *Log) usable(f ondisk.File) error {
	switch {
	case f.Encrypted:
		return errEncrypted
	case f.Header.Flags&ondisk.NoLogging != 0:
		return fmt.Errorf("%w: ALTER INSTANCE DISABLE INNODB REDO_LOG was run, and pages have changed without redo", innodb.ErrUnsupportedLog)
	}
	return nil
}

// freshRead waits a little and drops what the kernel cached of the file.
func (l *Log) freshRead(ctx context.Context) error {
	if err := unix.Fadvise(int(l.open.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return l.failed("read", fmt.Errorf("drop cached pages: %w", err))
	}
	return pause.For(ctx, tornPause)
}

// lost is the first LSN that cannot be read any more.
func (l *Log) lost() format.LSN { return l.at.LSN() }

func (l *Log) overrun() error {
	return &redotail.OverrunError{Lost: l.lost(), Checkpoint: l.newest, Capacity: l.size, Variable: "innodb_redo_log_capacity"}
}

func (l *Log) damaged(cause error) error { return &redotail.DamagedError{LSN: l.lsn, Cause: cause} }

func (l *Log) failed(what string, err error) error {
	return fmt.Errorf("%s redo log %s at LSN %v: %w", what, l.dir, l.lsn, err)
}
