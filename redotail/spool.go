package redotail

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/xbstream/xbstream/format"
)

// pieceSize is the size up to which small pieces are joined in memory.
const pieceSize = 1 << 20

// recordHeader precedes each piece in the spool file: LSN, length and framing.
const recordHeader = 8 + 4 + 4

// spool is a queue of pieces between one goroutine that puts and one that
// takes. Pieces go to memory while there is room, then to an unlinked file,
// which is a ring of at most fileLimit bytes; once the file is in use, later
// pieces follow into it until it is empty again, so order is kept.
//
// put never waits for take: the file is read and written outside the lock,
// each end moving its own position.
type spool struct {
	dir       string
	memLimit  int64
	fileLimit int64

	wake chan struct{} // holds one token when there may be news for take

	mu       sync.Mutex
	mem      []Piece
	memBytes int64
	file     *os.File // nil until first needed
	written  int64    // bytes ever put to the file, since it was last empty
	taken    int64    // of those, bytes already taken
	peak     int64    // most bytes the file held
	end      error    // io.EOF or the failure, once put ended
}

func newSpool(dir string, memLimit, fileLimit int64) *spool {
	return &spool{dir: dir, memLimit: memLimit, fileLimit: fileLimit, wake: make(chan struct{}, 1)}
}

// put appends a copy of p, which must not be empty.
func (s *spool) put(p Piece) error {
	defer s.signal()
	if s.putMemory(p) {
		return nil
	}
	return s.putFile(p)
}

func (s *spool) putMemory(p Piece) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken < s.written || s.memBytes+int64(len(p.Data)) > s.memLimit {
		return false
	}
	s.memBytes += int64(len(p.Data))
	// At the tip of a busy log pieces are tiny; joined they cost the archive
	// one frame instead of thousands.
	if n := len(s.mem); n > 0 && len(s.mem[n-1].Data)+len(p.Data) <= pieceSize {
		s.mem[n-1].Data = append(s.mem[n-1].Data, p.Data...)
		s.mem[n-1].Framing += p.Framing
		return true
	}
	s.mem = append(s.mem, Piece{LSN: p.LSN, Data: append([]byte(nil), p.Data...), Framing: p.Framing})
	return true
}

func (s *spool) putFile(p Piece) error {
	size := int64(recordHeader + len(p.Data))
	at, err := s.reserve(size)
	if err != nil {
		return err
	}
	head := binary.BigEndian.AppendUint64(nil, uint64(p.LSN))
	head = binary.BigEndian.AppendUint32(head, uint32(len(p.Data)))
	head = binary.BigEndian.AppendUint32(head, uint32(p.Framing))
	if err := s.writeRing(at, head); err != nil {
		return err
	}
	if err := s.writeRing(at+recordHeader, p.Data); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written += size
	s.peak = max(s.peak, s.written-s.taken)
	return nil
}

// reserve makes sure that there is a file with room for size bytes, and
// returns the position they go to.
func (s *spool) reserve(size int64) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.written-s.taken+size > s.fileLimit {
		return 0, fmt.Errorf("%w: %d bytes wait in memory and %d in %s (limit %d)",
			ErrSpoolFull, s.memBytes, s.written-s.taken, s.dir, s.fileLimit)
	}
	if s.file == nil {
		f, err := openUnlinked(s.dir)
		if err != nil {
			return 0, err
		}
		s.file = f
	}
	if s.taken == s.written && s.written > 0 {
		s.written, s.taken = 0, 0
		if err := s.file.Truncate(0); err != nil { // gives the space back
			return 0, fmt.Errorf("empty redo spool in %s: %w", s.dir, err)
		}
	}
	return s.written, nil
}

// CheckSpoolDir says whether redo could wait in dir, empty for the default. A
// backup asks before it begins: the spool itself is not needed before the
// receiver has become slow.
func CheckSpoolDir(dir string) error {
	f, err := openUnlinked(Options{SpoolDir: dir}.withDefaults().SpoolDir)
	if err != nil {
		return err
	}
	return f.Close()
}

// openUnlinked creates a file without a name, so that nothing can be left
// behind however the process ends. Where the file system cannot do that, the
// name is there for a moment.
func openUnlinked(dir string) (*os.File, error) {
	if f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600); err == nil {
		return f, nil
	}
	f, err := os.CreateTemp(dir, ".xbsend-redo-*")
	if err != nil {
		return nil, fmt.Errorf("create redo spool: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("unlink redo spool: %w", err), f.Close())
	}
	return f, nil
}

// take returns the next piece and makes the caller its owner. After the last
// one it returns io.EOF. A failure of the other end is returned at once, also
// when pieces are left: they are of no use any more.
func (s *spool) take(ctx context.Context) (Piece, error) {
	for {
		p, inFile, err := s.takeMemory()
		if err != nil || p.Data != nil {
			return p, err
		}
		if inFile {
			return s.takeFile()
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return Piece{}, context.Cause(ctx)
		}
	}
}

func (s *spool) takeMemory() (p Piece, inFile bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil && s.end != io.EOF {
		return Piece{}, false, s.end
	}
	if len(s.mem) > 0 {
		p, s.mem[0] = s.mem[0], Piece{}
		s.mem = s.mem[1:]
		s.memBytes -= int64(len(p.Data))
		return p, false, nil
	}
	if s.taken < s.written {
		return Piece{}, true, nil
	}
	return Piece{}, false, s.end
}

func (s *spool) takeFile() (Piece, error) {
	s.mu.Lock()
	at := s.taken
	s.mu.Unlock()
	head := make([]byte, recordHeader)
	if err := s.readRing(at, head); err != nil {
		return Piece{}, err
	}
	p := Piece{
		LSN:     format.LSN(binary.BigEndian.Uint64(head)),
		Data:    make([]byte, binary.BigEndian.Uint32(head[8:])),
		Framing: int(binary.BigEndian.Uint32(head[12:])),
	}
	if err := s.readRing(at+recordHeader, p.Data); err != nil {
		return Piece{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken += int64(recordHeader + len(p.Data))
	return p, nil
}

// writeRing writes b at a position of the ring; b is not longer than the ring.
func (s *spool) writeRing(at int64, b []byte) error {
	at %= s.fileLimit
	n := min(int64(len(b)), s.fileLimit-at)
	if _, err := s.file.WriteAt(b[:n], at); err != nil {
		return fmt.Errorf("write redo spool in %s: %w", s.dir, err)
	}
	if n < int64(len(b)) {
		return s.writeRing(0, b[n:])
	}
	return nil
}

func (s *spool) readRing(at int64, b []byte) error {
	at %= s.fileLimit
	n := min(int64(len(b)), s.fileLimit-at)
	if _, err := s.file.ReadAt(b[:n], at); err != nil {
		return fmt.Errorf("read redo spool in %s: %w", s.dir, err)
	}
	if n < int64(len(b)) {
		return s.readRing(0, b[n:])
	}
	return nil
}

// finish says that nothing more is put: err is nil after the last piece. Only
// the first call counts.
func (s *spool) finish(err error) {
	if err == nil {
		err = io.EOF
	}
	s.mu.Lock()
	if s.end == nil {
		s.end = err
	}
	s.mu.Unlock()
	s.signal()
}

func (s *spool) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// close gives the file's space back. Neither end may be in a call.
func (s *spool) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mem, s.memBytes = nil, 0
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

// held returns how many bytes wait in memory and in the file, and the most
// the file ever held.
func (s *spool) held() (mem, file, peak int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.memBytes, s.written - s.taken, s.peak
}
