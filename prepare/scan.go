package prepare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/xbstream/xbstream/internal/innodb/redolog"
)

// mtr is a mini-transaction whose framing and checksum were checked. It is
// valid until the next call of next.
type mtr struct {
	start, end redolog.Position
	records    []byte
}

// scanner hands out mini-transactions in order. Reading and checking them goes
// on in a goroutine of its own, a few blocks ahead.
type scanner struct {
	log         *redoLog
	mem         *segments
	ready, free chan *block
	cancel      context.CancelFunc
	done        sync.WaitGroup
	err         error // of the last block taken
	cur         *block
	i           int
	at          redolog.Position
	// progress, if set, is told of the bytes of each block.
	progress func(n int64)
}

// block is a piece of the log and the mini-transactions in it.
type block struct {
	buf  []byte // within a segment
	base redolog.Position
	mtrs []span
	runs redolog.Scan
	// err is what comes after the last mini-transaction; io.EOF at the end.
	err error
}

// span is a mini-transaction within a block: where it starts, its records end and
// it ends, in bytes, and its runs in block.runs.Starts.
type span struct {
	from, records, to uint32
	firstRun, lastRun uint32
}

// A block holds the mini-transactions that start in its first blockSize bytes:
// what one goroutine reads of it is still in the caches for the next.
const (
	blockSize   = 256 << 10
	blocksAhead = 4
)

// scan starts reading at from, a boundary of mini-transactions. It ends at the
// first boundary not below until, or where the file ends. The caller closes
// the scanner.
func (l *redoLog) scan(ctx context.Context, from, until redolog.Position) *scanner {
	ctx, cancel := context.WithCancel(ctx)
	s := &scanner{log: l, mem: newSegments(l.f), ready: make(chan *block, blocksAhead), free: make(chan *block, blocksAhead), cancel: cancel, at: from}
	for range blocksAhead {
		s.free <- &block{}
	}
	s.done.Go(func() {
		defer close(s.ready)
		s.read(ctx, from, until)
	})
	return s
}

// stop ends reading and waits until the file is no longer in use. What was read
// stays in memory.
func (s *scanner) stop() {
	s.cancel()
	s.done.Wait()
}

// close frees what was read.
func (s *scanner) close() error {
	s.stop()
	return s.mem.drop(0, math.MaxInt64)
}

// position is the one after the last mini-transaction handed out.
func (s *scanner) position() redolog.Position { return s.at }

// next returns the next mini-transaction; io.EOF after the last one.
func (s *scanner) next() (mtr, error) {
	for s.cur == nil || s.i == len(s.cur.mtrs) {
		if s.cur != nil {
			s.release(s.cur)
		}
		var err error
		if s.cur, err = s.nextBlock(); err != nil {
			s.cur = nil
			return mtr{}, err
		}
		if err := s.mem.drop(0, segmentOf(s.log.offset(s.cur.base))); err != nil {
			return mtr{}, err
		}
		s.i = 0
	}
	t := s.cur.mtr(s.cur.mtrs[s.i])
	s.i++
	s.at = t.end
	return t, nil
}

// nextBlock returns the next block; io.EOF after the last one. The caller
// releases it.
func (s *scanner) nextBlock() (*block, error) {
	if s.err != nil {
		return nil, s.err
	}
	b, ok := <-s.ready
	if !ok {
		return nil, context.Canceled
	}
	if s.err = b.err; len(b.mtrs) == 0 && s.err != nil {
		return nil, s.err
	}
	if n := len(b.mtrs); n > 0 && s.progress != nil {
		s.progress(int64(b.mtrs[n-1].to - b.mtrs[0].from))
	}
	return b, nil
}

// release gives a block back. It never blocks: there are as many places as
// blocks.
func (s *scanner) release(b *block) { s.free <- b }

// mtr returns one of the block's mini-transactions.
func (b *block) mtr(m span) mtr {
	return mtr{start: b.base + redolog.Position(m.from), end: b.base + redolog.Position(m.to), records: b.buf[m.from:m.records]}
}

// read fills blocks until the log ends or nobody wants them.
func (s *scanner) read(ctx context.Context, from, until redolog.Position) {
	for {
		var b *block
		select {
		case b = <-s.free:
		case <-ctx.Done():
			return
		}
		s.fill(ctx, b, from, until)
		if n := len(b.mtrs); n > 0 {
			from = b.base + redolog.Position(b.mtrs[n-1].to)
		}
		select {
		case s.ready <- b:
		case <-ctx.Done():
			return
		}
		if b.err != nil {
			return
		}
	}
}

// fill finds the mini-transactions of the block that starts at from.
func (s *scanner) fill(ctx context.Context, b *block, from, until redolog.Position) {
	b.base, b.mtrs, b.runs = from, b.mtrs[:0], redolog.Scan{Starts: b.runs.Starts[:0]}
	b.err = readable(func() error {
		at := int64(from - s.log.first)
		have, err := s.log.await(ctx, at+overlap)
		if err != nil {
			return err
		}
		n := min(have-at, overlap)
		if b.buf, err = s.mem.view(s.log.offset(from), int(n)); err != nil {
			return fmt.Errorf("read redo at LSN %v: %w", s.log.lsn(from), err)
		}
		return b.split(s.log, until, n < overlap)
	})
}

// split finds the mini-transactions that start in the first blockSize bytes and
// lie in the block; last says that the log ends with it. If it does not, there is
// room for at least one, whatever its size.
func (b *block) split(l *redoLog, until redolog.Position, last bool) error {
	for used, n := 0, len(b.buf); used < blockSize; {
		at := b.base + redolog.Position(used)
		if at >= until || last && used == n {
			return io.EOF
		}
		firstRun := uint32(len(b.runs.Starts))
		if err := l.dialect.Next(&b.runs, b.buf[used:], l.head.Encrypted); err != nil {
			return l.failed(err, at, used, last)
		}
		from := uint32(used)
		used += b.runs.Size
		b.mtrs = append(b.mtrs, span{from, from + uint32(b.runs.RecordsEnd), uint32(used), firstRun, uint32(len(b.runs.Starts))})
	}
	return nil
}

// failed says what it means that no mini-transaction was found, used bytes into a
// block.
func (l *redoLog) failed(err error, at redolog.Position, used int, last bool) error {
	switch {
	case errors.Is(err, redolog.ErrShort) && last:
		return fmt.Errorf("%s: ends inside the mini-transaction at LSN %v: %w", redoName, l.lsn(at), ErrIncomplete)
	case errors.Is(err, redolog.ErrShort) && used > 0:
		return nil // the next block starts here
	}
	return l.damaged(at, err)
}
