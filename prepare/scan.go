package prepare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/xbstream/xbstream/format"
	redo "github.com/xbstream/xbstream/internal/innodb/mariadb"
)

// mtr is a mini-transaction whose framing and checksum were checked. It is
// valid until the next call of next.
type mtr struct {
	start, end format.LSN
	records    []byte
}

func (t *mtr) damaged(cause error) error {
	return fmt.Errorf("%s: mini-transaction at LSN %v: %w: %w", redoName, t.start, cause, ErrDamaged)
}

// scanner hands out mini-transactions in order. Reading and checking them goes
// on in a goroutine of its own, a few blocks ahead.
type scanner struct {
	ready, free chan *block
	stop        context.CancelFunc
	done        sync.WaitGroup
	err         error // of the last block taken
	cur         *block
	i           int
	at          format.LSN
	// progress, if set, is told of the bytes of each block.
	progress func(n int64)
}

// block is a piece of the log and the mini-transactions in it.
type block struct {
	buf  []byte
	base format.LSN
	mtrs []span
	// err is what comes after the last mini-transaction; io.EOF at the end.
	err error
	// ops are the runs in it, by shard, and readers the shards that have not
	// yet taken theirs.
	ops     [maxShards][]op
	readers atomic.Int32
}

// span is a mini-transaction within a block, as offsets.
type span struct{ from, records, to uint32 }

const (
	blockSize   = 1 << 20
	blocksAhead = 4
)

// scan starts reading at from, a boundary of mini-transactions. It ends at the
// first boundary not below until, or where the file ends. The caller closes
// the scanner.
func (l *redoLog) scan(ctx context.Context, from, until format.LSN) *scanner {
	ctx, stop := context.WithCancel(ctx)
	s := &scanner{ready: make(chan *block, blocksAhead), free: make(chan *block, blocksAhead), stop: stop, at: from}
	for range blocksAhead {
		s.free <- &block{buf: make([]byte, blockSize+redo.MaxMTR)}
	}
	s.done.Go(func() {
		defer close(s.ready)
		s.read(ctx, l, from, until)
	})
	return s
}

// close stops reading and waits until the log is no longer in use.
func (s *scanner) close() {
	s.stop()
	s.done.Wait()
}

// position is the LSN after the last mini-transaction handed out.
func (s *scanner) position() format.LSN { return s.at }

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
	return mtr{start: b.base + format.LSN(m.from), end: b.base + format.LSN(m.to), records: b.buf[m.from:m.records]}
}

// read fills blocks until the log ends or nobody wants them.
func (s *scanner) read(ctx context.Context, l *redoLog, from, until format.LSN) {
	var rest []byte
	for {
		var b *block
		select {
		case b = <-s.free:
		case <-ctx.Done():
			return
		}
		rest = b.fill(ctx, l, from, until, rest)
		if n := len(b.mtrs); n > 0 {
			from = b.base + format.LSN(b.mtrs[n-1].to)
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

// fill reads a block that starts at LSN from with the bytes rest, and returns
// those after its last mini-transaction.
func (b *block) fill(ctx context.Context, l *redoLog, from, until format.LSN, rest []byte) []byte {
	b.base, b.mtrs, b.err = from, b.mtrs[:0], nil
	n := copy(b.buf, rest)
	at := int64(from-l.header.FirstLSN) + int64(n)
	want := min(int64(len(b.buf)-n), blockSize)
	have, err := l.await(ctx, at+want)
	if err != nil {
		b.err = err
		return nil
	}
	want = min(want, have-at)
	got, err := l.f.ReadAt(b.buf[n:n+int(max(want, 0))], redo.StartOffset+at)
	if int64(got) < want {
		b.err = fmt.Errorf("read redo at LSN %v: %w", from, err)
		return nil
	}
	n += got
	used := b.split(l, until, n, want <= 0)
	return append(rest[:0:0], b.buf[used:n]...)
}

// split finds the mini-transactions in the first n bytes; last says that no
// more follow.
func (b *block) split(l *redoLog, until format.LSN, n int, last bool) (used int) {
	for {
		at := b.base + format.LSN(used)
		if at >= until || last && used == n {
			b.err = io.EOF
			return used
		}
		t, err := redo.ScanMTR(b.buf[used:n], l.header.Encrypted())
		switch {
		case errors.Is(err, redo.ErrShort) && last:
			b.err = fmt.Errorf("%s: ends inside the mini-transaction at LSN %v: %w", redoName, at, ErrIncomplete)
			return used
		case errors.Is(err, redo.ErrShort):
			return used
		case err == nil && t.Marker != 1:
			err = errors.New("end marker is not 1")
		}
		if err != nil {
			b.err = (&mtr{start: at}).damaged(err)
			return used
		}
		b.mtrs = append(b.mtrs, span{uint32(used), uint32(used + t.MarkerAt), uint32(used + t.Size)})
		used += t.Size
	}
}
