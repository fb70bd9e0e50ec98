package prepare

import (
	"context"
	"errors"
	"io"
	"math"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
	"github.com/xbstream/xbstream/internal/spaces"
)

// gatherer reads redo and keeps what applying needs: the runs of the batch at
// hand, and of the log as a whole what decides whether they count.
type gatherer struct {
	dialect redolog.Dialect
	log     *scanner
	// held is where the batch's part of the log is in memory.
	held  *segments
	limit int64 // of the batch's memory, in bytes
	// base and end are where the batch starts and ends in the log; pos is
	// where the gatherer is.
	base, end, pos redolog.Position
	batch          *batch
	spaces         spaces.Histories
	whole          completeness
	records        int64
	// voids holds, once the log turned out too long for one batch, the
	// position of the last INIT_PAGE or FREE_PAGE of each page behind the
	// first batch: what came before is void and may not even be applicable,
	// as the server does not write freed pages back.
	voids     keyIndex
	positions []redolog.Position
	// surveyed says that the whole log was seen once.
	surveyed bool
	kept     kept
	release  func() // gives the batch's memory back
}

// gather reads a log from its start to until, or to its end, and keeps the
// first batch. The caller closes the gatherer.
func gather(ctx context.Context, l *redoLog, until redolog.Position, opt Options, progress func(n int64)) (*gatherer, error) {
	g, err := reserveGatherer(l, opt)
	if err != nil {
		return nil, err
	}
	g.log = l.scan(ctx, l.start(), until)
	g.log.progress = progress
	if _, err = g.next(); err == nil {
		err = g.survey()
	}
	g.log.stop()
	if !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, g.close())
	}
	g.surveyed = true
	return g, nil
}

// reserveGatherer takes the memory for a batch.
func reserveGatherer(l *redoLog, opt Options) (*gatherer, error) {
	g := &gatherer{
		dialect: l.dialect,
		limit:   min(opt.Memory-reserved(opt), maxBatch),
		spaces:  spaces.Histories{},
		whole:   completeness{start: l.head},
		pos:     l.start(),
	}
	mem, release, err := reserve(g.limit + spill)
	if err != nil {
		return nil, err
	}
	g.batch, g.release = &batch{mem: mem}, release
	return g, nil
}

// reserved is the part of Options.Memory that workers take.
func reserved(opt Options) int64 {
	return min(int64(opt.Parallel)*(window+256<<10)+blocksAhead*blockSize+segmentSize+overlap, opt.Memory/2)
}

// close gives everything back.
func (g *gatherer) close() error {
	g.release()
	err := g.log.close()
	if g.held != nil {
		err = errors.Join(err, g.held.drop(0, math.MaxInt64))
	}
	return err
}

// next fills the batch with what comes next in the log; more is false when the
// log's end was reached. The scanner walks over what comes next meanwhile.
func (g *gatherer) next() (more bool, err error) {
	if err := g.dropBatch(); err != nil {
		return false, err
	}
	more, err = g.fill()
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	log, failed := g.held.hold(g.log.log.offset(g.base), g.log.log.offset(g.end))
	if failed != nil {
		return false, failed
	}
	g.batch.log = log
	return more, err
}

// dropBatch frees the part of the log that only the last batch needed.
func (g *gatherer) dropBatch() error {
	last := int64(math.MaxInt64)
	if g.held == g.log.mem {
		last = segmentOf(g.log.log.offset(g.pos))
	}
	before := g.held
	g.held = g.log.mem
	if before == nil {
		return nil
	}
	return before.drop(0, last)
}

// fill lists the runs of the batch.
func (g *gatherer) fill() (more bool, err error) {
	g.base, g.end = g.pos, g.pos
	g.batch.reset(g.base, g.log.log.offset(g.base))
	for g.size() < g.limit && g.pos-g.base < maxBatch {
		b, err := g.log.nextBlock()
		if err != nil {
			return false, err
		}
		if err := g.takeBlock(b, true); err != nil {
			return false, err
		}
		g.end = g.pos
		g.log.release(b)
	}
	return true, nil
}

// size is the memory in use by the batch, log included.
func (g *gatherer) size() int64 { return int64(g.pos-g.base) + g.batch.size() }

// survey reads the rest of the log without keeping records, up to an error,
// io.EOF at the end.
func (g *gatherer) survey() error {
	for {
		b, err := g.log.nextBlock()
		if err != nil {
			return err
		}
		if err := g.takeBlock(b, false); err != nil {
			return err
		}
		from, to := g.log.log.offset(g.end), g.log.log.offset(b.base)
		if err := g.log.mem.drop(segmentOf(from)+1, segmentOf(to)); err != nil {
			return err
		}
		g.log.release(b)
	}
}

func (g *gatherer) takeBlock(b *block, keep bool) error {
	return readable(func() error {
		for _, m := range b.mtrs {
			if err := g.take(b, m, keep); err != nil {
				return g.log.log.damaged(b.base+redolog.Position(m.from), err)
			}
			g.pos = b.base + redolog.Position(m.to)
		}
		g.records += int64(b.runs.Records)
		return nil
	})
}

// take spreads the runs of a mini-transaction. Only the first record of a run is
// looked into.
func (g *gatherer) take(b *block, m span, keep bool) error {
	runs := b.runs.Starts[m.firstRun:m.lastRun]
	for i, start := range runs {
		at, to := m.from+start, m.records
		if i+1 < len(runs) {
			to = m.from + runs[i+1]
		}
		first, err := g.dialect.Run(b.buf[at:to])
		if err != nil {
			return err
		}
		if first.Kind == redolog.Keeps {
			if err := g.keep(b.buf[at:to]); err != nil {
				return err
			}
			continue
		}
		if first.File {
			if err := g.takeFile(b.buf[at:to], g.dialect.LSN(b.base+redolog.Position(at))); err != nil {
				return err
			}
			continue
		}
		r := run{at: b.base + redolog.Position(at), size: to - at, start: b.base + redolog.Position(m.from), end: b.base + redolog.Position(m.to)}
		g.takeRun(r, first, keep)
	}
	return nil
}

// takeRun looks into the first record of a run. Only what comes after a page's
// last INIT_PAGE or FREE_PAGE counts, by order of records, also within one
// mini-transaction (InnoDB log0recv.cc, recv_sys_t::add).
func (g *gatherer) takeRun(r run, first redolog.Run, keep bool) {
	key := keyOf(first.Space, first.Page)
	void, add := first.Kind == redolog.Frees || first.Kind == redolog.Makes, first.Kind != redolog.Frees
	if first.Kind == redolog.Trims {
		add = false
		if !g.surveyed {
			h := g.spaces.Of(key.space())
			h.Trims = append(h.Trims, spaces.Trim{At: g.dialect.LSN(r.at), Page: key.page()})
		}
	}
	switch {
	case !keep && void:
		g.noteVoid(key, r.at)
	case keep && void:
		g.batch.void(key)
	}
	if keep && add {
		g.batch.add(key, r)
	}
}

func (g *gatherer) noteVoid(k pageKey, at redolog.Position) {
	i, added := g.voids.find(k)
	if added {
		g.positions = append(g.positions, 0)
	}
	g.positions[i] = at
}

// voided says whether everything gathered for the page is void because of a
// record in a later batch.
func (g *gatherer) voided(k pageKey) bool {
	i, ok := g.voids.get(k)
	return ok && g.positions[i] >= g.end
}

func (g *gatherer) takeFile(record []byte, at format.LSN) error {
	f, err := g.dialect.File(record)
	if err != nil || g.surveyed {
		return err
	}
	g.whole.see(at, f)
	if f.Op == redolog.FileCheckpoint {
		return nil
	}
	g.spaces.Of(f.Space).See(at, f)
	return nil
}

// voidBefore is the LSN before which records for a page do not count,
// because the tablespace was made anew or ended before the page.
func voidBefore(h *spaces.History, k pageKey) format.LSN {
	if h == nil {
		return 0
	}
	before := h.Deleted
	for _, t := range h.Trims {
		// An undo tablespace is emptied by TRIM_PAGES; the system
		// tablespace only loses its end.
		if t.At > before && (k.space() != 0 || k.page() >= t.Page) {
			before = t.At
		}
	}
	return before
}
