package prepare

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"sync"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
)

// Feed reads a log while it still arrives, checks it and gathers the first
// batch, so that Run, which gets it by Options.Feed, has only to apply that.
//
// It is no more than a head start. Run looks at the log as it does without a
// Feed, and takes what was gathered only if it comes from that very file, from
// its first byte to the last; else, and when the Feed met anything that it could
// not read, Run reads the log itself and says what is wrong with it.
//
// Follow, the function it returns, Run and Close are called one after the other.
type Feed struct {
	opt  Options
	ctx  context.Context // ends when nobody wants what is gathered
	stop context.CancelFunc
	log  *redoLog      // nil before Follow
	done chan struct{} // closed when redo and err are set
	redo *gatherer     // nil after an error, and once Run has it
	err  error
}

// NewFeed returns a Feed that has yet to Follow a log. Of the options those
// that say how much memory and how many workers count: the memory is the same
// that Run will use, and is taken as redo arrives. The caller closes the Feed.
func NewFeed(ctx context.Context, opt Options) *Feed {
	f := &Feed{opt: opt.withDefaults()}
	f.ctx, f.stop = context.WithCancel(ctx)
	return f
}

// Follow starts reading log, a plain one whose redo starts at position first and at
// offset HeadSize, which is the same in all dialects; what is in front of that is not
// read. The Feed closes log. The function returned is told up to which position redo
// has been written; it never waits. Follow is called once.
func (f *Feed) Follow(log *os.File, first format.RedoPosition) (arrived func(end format.RedoPosition)) {
	f.log = &redoLog{f: log, dialect: redolog.First(), first: first, growing: newGrowth()}
	f.done = make(chan struct{})
	go func() {
		defer close(f.done)
		if f.err = f.log.recognise(f.ctx); f.err != nil {
			return
		}
		f.redo, f.err = gather(f.ctx, f.log, math.MaxUint64, f.opt, nil)
	}()
	return func(end format.RedoPosition) { f.log.growing.reach(int64(end - first)) }
}

// recognise finds the dialect of a log of which the head is not there yet: the first
// in which a mini-transaction is where one must be.
func (l *redoLog) recognise(ctx context.Context) error {
	for want := int64(1); ; want *= 2 {
		have, err := l.await(ctx, want)
		if err != nil {
			return err
		}
		b := make([]byte, min(have, redolog.MaxMTR))
		if _, err := l.f.ReadAt(b, l.offset(l.first)); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		short := false
		for _, d := range redolog.All() {
			err := d.Next(new(redolog.Scan), b, false)
			if short = short || errors.Is(err, redolog.ErrShort); err == nil {
				l.dialect = d
				l.head = redolog.Head{FirstLSN: d.LSN(l.first), Checkpoint: d.LSN(l.first)}
				return nil
			}
			if errors.Is(err, redolog.ErrShort) {
				break // the next one would take it for something else
			}
		}
		if !short || have < want || len(b) == redolog.MaxMTR {
			return errNoDialect
		}
	}
}

var errNoDialect = errors.New("the redo starts with no mini-transaction of MariaDB or MySQL")

// Close ends reading and frees what Run has not taken.
func (f *Feed) Close() {
	f.stop()
	if f.log == nil {
		return
	}
	<-f.done
	f.log.Close()
	if f.redo != nil {
		f.redo.close()
		f.redo = nil
	}
}

// take hands over what was gathered of l up to until. It returns nil, and keeps
// no memory, if that is not what was gathered.
func (f *Feed) take(ctx context.Context, l *redoLog, until redolog.Position) *gatherer {
	if f == nil || f.log == nil {
		return nil
	}
	defer f.Close()
	f.log.growing.complete()
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil
	}
	if f.redo == nil {
		f.opt.Log.Debug("redo is read again", "reason", f.err)
		return nil
	}
	if f.redo.pos != until || !f.followed(l) {
		f.opt.Log.Debug("redo is read again", "reason", "what was followed is not this log")
		return nil
	}
	g := f.redo
	f.redo = nil
	f.opt.Log.Debug("redo was gathered while it arrived", "end_lsn", l.lsn(g.pos))
	return g
}

// followed says whether l is the log that was read, from its start to its end.
func (f *Feed) followed(l *redoLog) bool {
	ours, err1 := f.log.f.Stat()
	theirs, err2 := l.f.Stat()
	payload, _ := f.log.growing.look()
	return err1 == nil && err2 == nil && os.SameFile(ours, theirs) && l.dialect == f.log.dialect &&
		l.head.Checkpoint == f.log.head.Checkpoint && l.head.FirstLSN == f.log.head.FirstLSN && l.payload == payload
}

// growth is how much there is of a log that still arrives. One goroutine waits
// for more.
type growth struct {
	mu      sync.Mutex
	payload int64
	whole   bool          // no more will come
	changed chan struct{} // has room for one notice
}

func newGrowth() *growth { return &growth{changed: make(chan struct{}, 1)} }

func (w *growth) reach(payload int64) {
	w.mu.Lock()
	w.payload = payload
	w.mu.Unlock()
	w.notify()
}

func (w *growth) complete() {
	w.mu.Lock()
	w.whole = true
	w.mu.Unlock()
	w.notify()
}

func (w *growth) notify() {
	select {
	case w.changed <- struct{}{}:
	default: // the notice before was not yet seen
	}
}

// look returns what there is now.
func (w *growth) look() (payload int64, whole bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.payload, w.whole
}

// await returns the payload as soon as it is at least want bytes, or all there
// is: a log is read in whole blocks also if it comes in small pieces.
func (l *redoLog) await(ctx context.Context, want int64) (payload int64, err error) {
	if l.growing == nil {
		return l.payload, nil
	}
	for {
		payload, whole := l.growing.look()
		if payload >= want || whole {
			return payload, nil
		}
		select {
		case <-l.growing.changed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}
