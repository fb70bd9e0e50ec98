// Package tail reads the redo log of a running MariaDB 10.8 or later.
//
// # Why what it returns was not overwritten
//
// The log is a ring of C payload bytes: the byte of LSN y is replaced by that
// of y + C. Between a read of data at LSN L and what the server does meanwhile
// there is no lock, so every read is judged afterwards, by the checkpoint
// blocks read again after the data. Let W be the LSN up to which the server
// had written when the data was read, c the newest checkpoint LSN on disk
// afterwards and e that checkpoint's end LSN. Checkpoints only grow; a block
// torn while we read it belongs to a checkpoint that is not finished, so the
// server does not rely on it yet, and the other block may be taken.
//
//  1. The server writes only up to c + C, and keeps a margin of far more than
//     one write block below that (InnoDB log0log.cc, log_t::set_capacity), so
//     rounding the last write up to a block does not matter either. If c ≤ L,
//     then W ≤ L + C, and nothing at or above L was replaced.
//  2. If e ≥ L + C, then W ≥ L + C, and L was replaced: the redo is lost.
//  3. If c > L and e < L + C, the reader is behind the checkpoint but perhaps
//     not lapped. Redo is written in LSN order, so before L is replaced the
//     bytes just before it are. Their content is known: they were read before.
//     If these bytes (the guard, as long as the largest write block) are read
//     again after the data and are still the same, the server had not come
//     as far as L + C, nor within a block of it. If they differ, it is about
//     to take L at the next write if it has not done so: the redo counts as
//     lost.
//
// The guard is what makes 3 a proof. Sequence bits and checksums alone are
// none: the bit is right again after two laps, and behind the last write the
// rest of a block is filled with old log of any lap.
//
// # Why what it returns was not torn
//
// The server writes its last block again and again as it fills, and behind the
// last mini-transaction that block holds old bytes of the server's buffer: whole
// mini-transactions of this lap, a few MB back. A read in the middle of such a
// write sees new bytes and then old ones. Where an old mini-transaction happens
// to begin at that very place, the chain goes on into it, with right checksums
// and sequence bits, and the reader ends up between mini-transactions for good
// (seen about once in ten backups on a crowded machine, where a server may be
// stopped in the middle of a write).
//
// So only bytes are returned that were in the file before the read began, which
// a write cannot change any more. That is known
//
//   - below the end LSN of a checkpoint on disk;
//   - below an LSN that the server says it has flushed (Log.Written);
//   - below the block into which the chain was seen to reach: writes go in LSN
//     order, old bytes do not cross a block's end, and what stands in the next
//     block before it is written is of another lap. The data is read once more
//     after that was seen, and must be the same.
//
// What lies above waits for the next read.
//
// # Where the data does not parse
//
// Where the data does not parse, L is the tip, or the read was torn, or the
// redo was lost. It cannot be the tip if e, as read before the data, was above
// L: everything below an end LSN on disk is on disk. Then it is lost or
// damaged, and said so at once, also if the server stands still and no
// checkpoint would ever show a full lap.
package tail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	ondisk "github.com/xbstream/xbstream/internal/mariadb/redo"
	"github.com/xbstream/xbstream/internal/pause"
	"github.com/xbstream/xbstream/internal/source"
	"github.com/xbstream/xbstream/redotail"
)

const (
	// logName is the only file of a log since 10.5.
	logName = "ib_logfile0"

	// readMin is read at the tip, where usually nothing is new; readMax holds
	// the largest mini-transaction with room to spare.
	readMin = 4 << 10
	readMax = 2 << 20

	// guardSize is the largest block the server writes
	// (innodb_log_write_ahead_size).
	guardSize = 4096

	// headSize covers the header and both checkpoint blocks.
	headSize = ondisk.Checkpoint2 + ondisk.CheckpointSize

	// A block that does not check is read again, this long apart, for as long
	// as tornPatience. Usually the server has written it within microseconds;
	// but a write of its whole log buffer can stand still half way when the
	// kernel makes the server wait for a busy disk, and it is seen half done
	// for as long. Redo that is really lost is noticed apart from this.
	tornPause    = time.Millisecond
	tornPatience = 15 * time.Second
	// tornHead is the same for the header and the checkpoints, which are
	// written by themselves.
	tornHead = time.Second
)

// Log is a redotail.Log.
type Log struct {
	path   string
	file   *os.File
	info   os.FileInfo // of file
	header ondisk.Header
	ring   ondisk.Ring

	start  ondisk.Checkpoint // where the redo begins
	newest ondisk.Checkpoint // newest seen on disk

	written atomic.Uint64 // LSN that the server says it has flushed

	lsn   format.LSN // where the next piece begins
	guard []byte     // the bytes before lsn, as they are on disk
	begun startMark
	// traces are those of an encrypted log, as far as it was read.
	traces []ondisk.Trace

	size     int           // how much to read next
	patience time.Duration // tornPatience, but in tests
	buf      []byte        // readMax
	again    []byte        // what was read, once more
	mtrs     []extent
	head     []byte // headSize
}

// extent is the shape of one mini-transaction in the buffer.
type extent struct{ markerAt, size int32 }

// Open opens the log in dir (innodb_log_group_home_dir) at its newest
// checkpoint. A log of another kind gives an *UnsupportedError of package
// internal/mariadb/redo.
func Open(ctx context.Context, dir string) (*Log, error) {
	l := &Log{
		path:     filepath.Join(dir, logName),
		size:     readMax,
		patience: tornPatience,
		buf:      make([]byte, readMax),
		again:    make([]byte, readMax),
		head:     make([]byte, headSize),
		guard:    make([]byte, guardSize),
	}
	if err := l.openNewest(ctx); err != nil {
		return nil, fmt.Errorf("open redo log %s: %w", l.path, err)
	}
	return l, nil
}

func (l *Log) openNewest(ctx context.Context) error {
	f, err := l.openFile()
	if errors.Is(err, fs.ErrNotExist) {
		if named := archived(filepath.Dir(l.path)); named != nil {
			return named
		}
	}
	if err != nil {
		return err
	}
	if err := l.adopt(ctx, f); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := l.begin(ctx); err != nil {
		return errors.Join(err, f.Close())
	}
	return nil
}

// openFile opens the log, which may be a link to another disk.
func (l *Log) openFile() (*os.File, error) {
	fd, _, err := source.NewRoot(filepath.Dir(l.path)).Open(l.path, true)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), l.path), nil
}

// archived explains why there is no log of the known name.
func archived(dir string) error {
	name, err := archivedLog(dir)
	if err != nil || name == "" {
		return err
	}
	return &ondisk.UnsupportedError{Series: "MariaDB 13.0 or later with innodb_log_archive: " + name}
}

// archivedLog returns the name of a log file as innodb_log_archive=ON keeps it,
// or nothing.
func archivedLog(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if ok, _ := filepath.Match("ib_*.log", e.Name()); ok {
			return e.Name(), nil
		}
	}
	return "", nil
}

// switched explains an error of a log that lost its name: SET GLOBAL
// innodb_log_archive=ON renames it, then writes another header into it.
func (l *Log) switched(err error) error {
	if _, gone := os.Lstat(l.path); !errors.Is(gone, fs.ErrNotExist) {
		return err
	}
	name, none := archivedLog(filepath.Dir(l.path))
	if none != nil || name == "" {
		return err
	}
	return fmt.Errorf("innodb_log_archive was switched ON during the backup: redo from LSN %v on is in %s: %w; switch it OFF and start the backup again",
		l.lsn, name, ondisk.ErrUnsupported)
}

// adopt makes f the file that is read, and reads its header and newest
// checkpoint.
func (l *Log) adopt(ctx context.Context, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() <= ondisk.StartOffset {
		// Old formats have small files too: name them rather than the size.
		short := make([]byte, min(info.Size(), 512))
		if _, err := f.ReadAt(short, 0); err != nil {
			return err
		}
		if _, err := ondisk.ParseHeader(short); err != nil {
			return err
		}
	}
	header, cp, err := readHead(ctx, f, l.head)
	if err != nil {
		return err
	}
	ring, err := ondisk.NewRing(header, info.Size())
	if err != nil {
		return err
	}
	if ring.Capacity < guardSize*2 {
		return fmt.Errorf("redo log of %d bytes is too small to be a server's", info.Size())
	}
	l.file, l.info, l.header, l.ring, l.newest = f, info, header, ring, cp
	return nil
}

// begin sets the position to the newest checkpoint. The guard must be read
// while that checkpoint is the newest one: only then does (1) of the package
// comment say that it holds what belongs there.
func (l *Log) begin(ctx context.Context) error {
	for {
		l.start, l.lsn = l.newest, l.newest.LSN
		if err := l.readBack(l.guard); err != nil {
			return err
		}
		_, cp, err := readHead(ctx, l.file, l.head)
		if err != nil {
			return err
		}
		l.newest = cp
		if cp.LSN == l.lsn {
			l.begun = startMark{checkpoint: l.start, encrypted: l.header.Encrypted()}
			return nil
		}
	}
}

// Start implements redotail.Log.
func (l *Log) Start() format.Redo {
	return format.Redo{
		Format:           ondisk.FormatName,
		Creator:          l.header.Creator,
		CheckpointLSN:    l.start.LSN,
		CheckpointEndLSN: l.start.EndLSN,
		Encryption:       l.header.Encryption.String(),
	}
}

// StartComplete implements redotail.Log: recovery needs the FILE_CHECKPOINT
// of the checkpoint it starts from.
func (l *Log) StartComplete() (format.LSN, bool) { return l.begun.end, l.begun.end != 0 }

// Checkpoint implements redotail.Log.
func (l *Log) Checkpoint() format.LSN { return l.newest.LSN }

// Capacity implements redotail.Log.
func (l *Log) Capacity() int64 { return l.ring.Capacity }

// Close closes the log file.
func (l *Log) Close() error { return l.file.Close() }

// Read implements redotail.Log.
func (l *Log) Read(ctx context.Context) (redotail.Piece, error) {
	p, err := l.read(ctx)
	if err != nil && !errors.Is(err, redotail.ErrTip) && ctx.Err() == nil {
		err = l.switched(err)
	}
	return p, err
}

func (l *Log) read(ctx context.Context) (redotail.Piece, error) {
	drained := false
	var torn time.Time // since when
	for {
		if err := ctx.Err(); err != nil {
			return redotail.Piece{}, context.Cause(ctx)
		}
		// Both before the data is read.
		onDisk := l.newest.EndLSN
		proven := max(onDisk, format.LSN(l.written.Load()))
		if drained {
			proven = math.MaxUint64 // nobody writes to the old file any more
		}
		data := l.buf[:min(l.size, int(min(l.ring.Capacity, readMax)))]
		if err := l.readRing(data, l.ring.Offset(l.lsn)); err != nil {
			return redotail.Piece{}, l.failed("read", err)
		}
		used, why := l.whole(data)
		sure, err := l.prove(data, used, proven)
		if err != nil {
			return redotail.Piece{}, l.failed("read again", err)
		}
		if err := l.checkNotLapped(ctx); err != nil {
			return redotail.Piece{}, err
		}
		if sure > 0 {
			return l.accept(data[:sure])
		}
		if errors.Is(why, ondisk.ErrShort) && l.size < readMax {
			l.size = min(l.size*16, readMax)
			continue
		}
		replaced, err := l.replaced()
		switch {
		case err != nil:
			return redotail.Piece{}, l.failed("look for", err)
		case replaced && !drained:
			// The last writes to the old file may have come after the
			// data was read, but not after it was replaced.
			drained = true
		case replaced:
			if err := l.switchFile(ctx); err != nil {
				return redotail.Piece{}, err
			}
			drained = false
		case used > 0: // but nothing of it is sure to be whole
			l.size = readMin
			return redotail.Piece{}, redotail.ErrTip
		case onDisk <= l.lsn:
			l.size = readMin
			return redotail.Piece{}, redotail.ErrTip
		case !torn.IsZero() && time.Since(torn) > l.patience:
			return redotail.Piece{}, l.damaged(fmt.Errorf("no valid mini-transaction, but the log reaches to LSN %v: %w", onDisk, why))
		default:
			if torn.IsZero() {
				torn = time.Now()
			}
			if err := l.freshRead(ctx); err != nil {
				return redotail.Piece{}, l.failed("read", err)
			}
		}
	}
}

// whole returns how many bytes at the start of data are whole
// mini-transactions of this lap, and leaves their extents in l.mtrs. The error
// says why there are no more; ErrShort, that data is too short for the next.
func (l *Log) whole(data []byte) (used int, why error) {
	l.mtrs = l.mtrs[:0]
	for used < len(data) {
		m, err := ondisk.ScanMTR(data[used:], l.header.Encrypted())
		if err != nil {
			return used, err
		}
		if m.Marker != l.ring.SeqBit(l.lsn+format.LSN(used+m.MarkerAt)) {
			return used, errOtherLap
		}
		l.mtrs = append(l.mtrs, extent{int32(m.MarkerAt), int32(m.Size)})
		used += m.Size
	}
	return used, ondisk.ErrShort
}

// prove returns how many of the used bytes at the start of data surely were in
// the file before they were read; what is below proven was. It leaves only the
// extents of those in l.mtrs.
func (l *Log) prove(data []byte, used int, proven format.LSN) (sure int, err error) {
	if used == 0 {
		return 0, nil
	}
	n, sure := l.upTo(proven)
	if sure < used {
		m, more := l.upTo(l.blockOf(l.lsn + format.LSN(used) - 1))
		if more > sure {
			again := l.again[:more]
			if err := l.readRing(again, l.ring.Offset(l.lsn)); err != nil {
				return 0, err
			}
			if bytes.Equal(again, data[:more]) {
				n, sure = m, more
			}
		}
	}
	l.mtrs = l.mtrs[:n]
	return sure, nil
}

// upTo returns how many mini-transactions end at lsn or before, and their size.
func (l *Log) upTo(lsn format.LSN) (mtrs, size int) {
	for _, m := range l.mtrs {
		if l.lsn+format.LSN(size)+format.LSN(m.size) > lsn {
			break
		}
		mtrs++
		size += int(m.size)
	}
	return mtrs, size
}

// blockOf returns the LSN at which the write block that holds lsn begins.
func (l *Log) blockOf(lsn format.LSN) format.LSN {
	return lsn - format.LSN(l.ring.Offset(lsn)%guardSize)
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

// errOtherLap says that a mini-transaction was written on another lap around
// the ring.
var errOtherLap = errors.New("mini-transaction of another lap")

// accept moves the position behind data, which is whole and was not
// overwritten, and makes a piece of it.
func (l *Log) accept(data []byte) (redotail.Piece, error) {
	l.moveGuard(data)
	p := redotail.Piece{LSN: l.lsn, Data: data}
	at := int32(0)
	for _, m := range l.mtrs {
		if err := l.look(&p, data[at:at+m.markerAt], at, m.size); err != nil {
			return redotail.Piece{}, &redotail.DamagedError{LSN: p.LSN + format.LSN(at), Cause: err}
		}
		data[at+m.markerAt] = 1 // the copy is a log that never wraps
		at += m.size
	}
	l.lsn = p.End()
	if len(data) > l.size/2 {
		l.size = min(l.size*4, readMax)
	}
	return p, nil
}

// Imported implements redotail.Log.
func (l *Log) Imported(end format.LSN) func(format.SpaceID, string, innodb.Age) (format.LSN, bool) {
	list := slices.DeleteFunc(slices.Clone(l.traces), func(t ondisk.Trace) bool { return t.At >= end })
	if !slices.ContainsFunc(list, func(t ondisk.Trace) bool { return t.Op == ondisk.FileDelete }) {
		return nil
	}
	traces := ondisk.NewTraces(list)
	return func(id format.SpaceID, path string, age innodb.Age) (format.LSN, bool) {
		at, may, err := traces.Imported(id, "./"+path, func(format.LSN) (innodb.Age, error) { return age, nil })
		return at, may && err == nil
	}
}

// look takes notice of the file records in a mini-transaction.
func (l *Log) look(p *redotail.Piece, records []byte, at, size int32) error {
	lsn := p.LSN + format.LSN(at)
	if err := l.begun.pass(records, lsn, lsn+format.LSN(size)); err != nil {
		return err
	}
	var err error
	if l.header.Encrypted() {
		l.traces, err = ondisk.AppendTraces(l.traces, records, lsn, lsn+format.LSN(size))
		return err
	}
	p.Files, err = appendFiles(p.Files, records, lsn)
	return err
}

// moveGuard makes the guard the bytes before the end of data.
func (l *Log) moveGuard(data []byte) {
	if len(data) >= guardSize {
		copy(l.guard, data[len(data)-guardSize:])
		return
	}
	keep := copy(l.guard, l.guard[len(data):])
	copy(l.guard[keep:], data)
}

// checkNotLapped reads the checkpoints again and applies (1) to (3) of the
// package comment to data at the position, read before.
func (l *Log) checkNotLapped(ctx context.Context) error {
	header, cp, err := readHead(ctx, l.file, l.head)
	if err != nil {
		return l.failed("read again", err)
	}
	if header != l.header {
		return l.damaged(fmt.Errorf("its header changed: first LSN was %v, is %v", l.header.FirstLSN, header.FirstLSN))
	}
	l.newest = cp
	if cp.LSN <= l.lsn {
		return nil
	}
	if cp.EndLSN >= l.lsn+format.LSN(l.ring.Capacity) {
		return l.overrun()
	}
	now := make([]byte, guardSize)
	if err := l.readBack(now); err != nil {
		return l.failed("read", err)
	}
	if !bytes.Equal(now, l.guard) {
		return l.overrun()
	}
	return nil
}

func (l *Log) overrun() error {
	return &redotail.OverrunError{Lost: l.lsn, Checkpoint: l.newest.LSN, Capacity: l.ring.Capacity}
}

func (l *Log) damaged(cause error) error { return &redotail.DamagedError{LSN: l.lsn, Cause: cause} }

func (l *Log) failed(what string, err error) error {
	return fmt.Errorf("%s redo log %s at LSN %v: %w", what, l.path, l.lsn, err)
}

// readRing fills b from a file offset on, around the end of the file.
func (l *Log) readRing(b []byte, off int64) error {
	n := min(int64(len(b)), ondisk.StartOffset+l.ring.Capacity-off)
	if _, err := l.file.ReadAt(b[:n], off); err != nil {
		return err
	}
	if n == int64(len(b)) {
		return nil
	}
	_, err := l.file.ReadAt(b[n:], ondisk.StartOffset)
	return err
}

// readBack fills b with the bytes before the position. A lap is added because
// the position may be near the file's first LSN, below which there is none.
func (l *Log) readBack(b []byte) error {
	back := l.lsn + format.LSN(l.ring.Capacity) - format.LSN(len(b))
	return l.readRing(b, l.ring.Offset(back))
}

// freshRead waits a little and drops what the kernel cached of the log: the
// server writes around that cache.
func (l *Log) freshRead(ctx context.Context) error {
	if err := unix.Fadvise(int(l.file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("drop cached pages: %w", err)
	}
	return pause.For(ctx, tornPause)
}

// replaced says whether the path has become another file: the server has
// finished an online resize.
func (l *Log) replaced() (bool, error) {
	there, err := os.Stat(l.path)
	if err != nil {
		return false, err
	}
	return !os.SameFile(there, l.info), nil
}

// switchFile goes on in the file that replaced the one just read to its end.
// It has a first LSN, a capacity and sequence bits of its own (InnoDB
// log0log.cc, log_t::resize_start).
func (l *Log) switchFile(ctx context.Context) error {
	f, err := l.openFile()
	if err != nil {
		return l.failed("open resized", err)
	}
	old, header, capacity := l.file, l.header, l.ring.Capacity
	if err := l.adopt(ctx, f); err != nil {
		return errors.Join(l.damaged(fmt.Errorf("%s was replaced: %w", l.path, err)), f.Close())
	}
	if l.header == header && l.ring.Capacity == capacity {
		// A resized log has a size of its own. The server goes on in the
		// file that has no name any more.
		return errors.Join(l.damaged(fmt.Errorf("%s was replaced by another file, but not by the server", l.path)), f.Close())
	}
	if err := old.Close(); err != nil {
		return l.failed("close", err)
	}
	if l.header.Magic != header.Magic || l.header.Encryption != header.Encryption {
		return l.damaged(errors.New("its encryption changed while it was resized"))
	}
	if l.header.FirstLSN > l.lsn {
		return l.overrun()
	}
	// The same redo, but with the sequence bits of the new ring. The server
	// keeps all from FirstLSN on until it has finished the resize, which it
	// does with a checkpoint we are usually ahead of. Where we are not, a
	// guard that is wrong from the start cannot be told: then sequence bit,
	// checksum and the end LSN have to do until the next piece.
	return l.readBack(l.guard)
}

// readHead reads header and newest checkpoint, again if they are torn.
func readHead(ctx context.Context, f *os.File, b []byte) (ondisk.Header, ondisk.Checkpoint, error) {
	for began := time.Now(); ; {
		h, cp, err := readHeadOnce(f, b)
		if !errors.Is(err, ondisk.ErrChecksum) && !errors.Is(err, ondisk.ErrNoCheckpoint) || time.Since(began) > tornHead {
			return h, cp, err
		}
		if err := pause.For(ctx, tornPause); err != nil {
			return h, cp, err
		}
	}
}

func readHeadOnce(f *os.File, b []byte) (ondisk.Header, ondisk.Checkpoint, error) {
	if _, err := f.ReadAt(b, 0); err != nil {
		return ondisk.Header{}, ondisk.Checkpoint{}, err
	}
	h, err := ondisk.ParseHeader(b)
	if err != nil {
		return h, ondisk.Checkpoint{}, err
	}
	cp, err := ondisk.NewestCheckpoint(b, h.FirstLSN)
	return h, cp, err
}

// Cut implements redotail.Log.
func (l *Log) Cut(p redotail.Piece, at format.LSN) redotail.Piece {
	n := 0
	for p.LSN+format.LSN(n) < at {
		m, err := ondisk.ScanMTR(p.Data[n:], l.header.Encrypted())
		if err != nil {
			return p // not a piece of ours: do not cut it
		}
		n += m.Size
	}
	p.Data = p.Data[:n]
	return p
}
