package prepare

import (
	"errors"
	"fmt"

	"github.com/xbstream/xbstream/format"
	redo "github.com/xbstream/xbstream/internal/innodb/mariadb"
	"github.com/xbstream/xbstream/prepare/mariadb"
)

// pageKey names a page: tablespace in the upper half, page number in the lower,
// so that keys sort in the order of the files.
type pageKey uint64

func keyOf(space format.SpaceID, page format.PageNo) pageKey {
	return pageKey(space)<<32 | pageKey(page)
}

func (k pageKey) space() format.SpaceID { return format.SpaceID(k >> 32) }
func (k pageKey) page() format.PageNo   { return format.PageNo(k & 0xFFFFFFFF) }

// run is a sequence of records for one page in one mini-transaction, as offsets
// in the batch's redo: the records stay where they were read.
type run struct {
	at       uint32 // first record
	mtr, end uint32 // the mini-transaction's start and end
	next     uint32 // number of the page's next run, 0 after the last
}

const (
	runSize    = 16
	runsInSlab = 1 << 15
	// maxBatch keeps offsets within 32 bits.
	maxBatch = 3 << 30
)

// chain is the list of a page's runs, by number from 1; head is 0 when nothing
// is left to apply.
type chain struct{ head, tail uint32 }

// batch is as much redo as fits in memory, spread by page.
type batch struct {
	base, end format.LSN // LSN of redo[0] and after the last run
	redo      []byte
	slabs     [][]run
	runs      uint32
	pages     keyIndex
	chains    []chain
}

func (b *batch) reset(base format.LSN) {
	b.base, b.end, b.runs = base, base, 0
	b.pages.reset()
	b.chains = b.chains[:0]
}

// size is the memory in use besides the redo itself.
func (b *batch) size() int64 {
	return int64(b.runs)*runSize + int64(len(b.chains))*(8+pageCost)
}

func (b *batch) run(n uint32) *run {
	n--
	return &b.slabs[n/runsInSlab][n%runsInSlab]
}

// page returns the number of the page's chain.
func (b *batch) page(k pageKey) int {
	i, added := b.pages.find(k)
	if added {
		b.chains = append(b.chains, chain{})
	}
	return i
}

// void forgets what was gathered for a page.
func (b *batch) void(k pageKey) { b.chains[b.page(k)] = chain{} }

func (b *batch) add(k pageKey, r run) {
	if int(b.runs/runsInSlab) == len(b.slabs) {
		b.slabs = append(b.slabs, make([]run, runsInSlab))
	}
	b.slabs[b.runs/runsInSlab][b.runs%runsInSlab] = r
	b.runs++
	c := &b.chains[b.page(k)]
	if c.head == 0 {
		c.head = b.runs
	} else {
		b.run(c.tail).next = b.runs
	}
	c.tail = b.runs
}

// gatherer reads redo and keeps what applying needs: the runs of the batch at
// hand, and of the log as a whole what decides whether they count.
type gatherer struct {
	mtrs    *mtrs
	limit   int64 // of memory, in bytes
	batch   batch
	spaces  map[format.SpaceID]*history
	whole   completeness
	records int64
	// voids holds, once the log turned out too long for one batch, the
	// position of the last INIT_PAGE or FREE_PAGE of each page behind the
	// first batch: what came before is void and may not even be applicable,
	// as the server does not write freed pages back.
	voids     keyIndex
	positions []format.LSN
	// surveyed says that the whole log was seen once.
	surveyed bool
	progress func(done int64)
}

// history is what the log says of one tablespace's file.
type history struct {
	// name is the last one the log gave, as the server wrote it.
	name string
	// created says that FILE_CREATE was met; renamed that the name comes from
	// it or from FILE_RENAME, and is not only a mention.
	created, renamed bool
	// deleted is the position of the last FILE_DELETE, 0 without one; alive
	// says that the tablespace was mentioned after it.
	deleted format.LSN
	alive   bool
	trims   []trim
}

// trim is a TRIM_PAGES record: the tablespace ended before page.
type trim struct {
	at   format.LSN
	page format.PageNo
}

func (g *gatherer) history(id format.SpaceID) *history {
	h := g.spaces[id]
	if h == nil {
		h = &history{}
		g.spaces[id] = h
	}
	return h
}

// next fills the batch with what comes next in the log; more is false when the
// log's end was reached.
func (g *gatherer) next(until format.LSN) (more bool, err error) {
	g.mtrs.discard()
	g.batch.reset(g.mtrs.base)
	g.batch.redo = g.mtrs.buf
	for g.mtrs.position() < until {
		if int64(g.mtrs.at)+g.batch.size() > g.limit {
			return true, nil
		}
		err := g.step(true)
		if errors.Is(err, errBufferFull) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// survey reads the rest of the log without keeping records, and leaves the
// batch and the position behind it as they are. It returns the log's end.
func (g *gatherer) survey(until format.LSN) (end format.LSN, err error) {
	kept := g.mtrs
	g.mtrs = kept.fork(make([]byte, 2*redo.MaxMTR))
	defer func() { end, g.mtrs = g.mtrs.position(), kept }()
	for g.mtrs.position() < until {
		err := g.step(false)
		if errors.Is(err, errBufferFull) {
			g.mtrs.discard()
			continue
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// step takes one mini-transaction.
func (g *gatherer) step(keep bool) error {
	t, off, err := g.mtrs.next()
	if err != nil {
		return err
	}
	if err := g.take(t, uint32(off), keep); err != nil {
		return fmt.Errorf("%s: mini-transaction at LSN %v: %w: %w", redoName, g.mtrs.base+format.LSN(off), err, ErrDamaged)
	}
	if keep {
		g.batch.end = g.mtrs.position()
	}
	if g.progress != nil {
		g.progress(int64(t.Size))
	}
	return nil
}

// take spreads the records of a mini-transaction at offset off. It walks over
// them once; only the first record of a run is looked into.
func (g *gatherer) take(t redo.MTR, off uint32, keep bool) error {
	end := off + uint32(t.Size)
	onPage := false
	for rest := t.Records; len(rest) > 0; {
		at := off + uint32(len(t.Records)-len(rest))
		first, body, after, err := redo.NextRecord(rest)
		if err != nil {
			return err
		}
		whole := rest[:len(rest)-len(after)]
		rest = after
		kind := redo.RecordType(first & 0x70)
		if first&0x80 != 0 && onPage {
			if kind == redo.FreePage || kind == redo.InitPage {
				return redo.ErrMalformed
			}
			g.records++
			continue
		}
		if onPage = first&0x80 == 0; !onPage {
			if err := g.takeFile(whole, g.mtrs.base+format.LSN(at)); err != nil {
				return err
			}
			continue
		}
		g.records++
		key, payload, err := splitKey(body)
		if err != nil {
			return err
		}
		g.takePage(key, kind, payload, run{at: at, mtr: off, end: end}, keep)
	}
	return nil
}

// splitKey reads the page id at the start of a record's body.
func splitKey(body []byte) (pageKey, []byte, error) {
	space, n := redo.Varint(body)
	if n <= 0 {
		return 0, nil, redo.ErrMalformed
	}
	page, k := redo.Varint(body[n:])
	if k <= 0 {
		return 0, nil, redo.ErrMalformed
	}
	return keyOf(format.SpaceID(space), format.PageNo(page)), body[n+k:], nil
}

// takePage takes the first record of a run. Only what comes after a page's last
// INIT_PAGE or FREE_PAGE counts, by order of records, also within one
// mini-transaction (InnoDB log0recv.cc, recv_sys_t::add).
func (g *gatherer) takePage(k pageKey, kind redo.RecordType, payload []byte, r run, keep bool) {
	at := g.mtrs.base + format.LSN(r.at)
	switch {
	case kind == redo.Extended && mariadb.TrimPages(payload):
		if !g.surveyed {
			h := g.history(k.space())
			h.trims = append(h.trims, trim{at, k.page()})
		}
	case !keep:
		if kind == redo.FreePage || kind == redo.InitPage {
			g.noteVoid(k, at)
		}
	case kind == redo.FreePage:
		g.batch.void(k)
	case kind == redo.InitPage:
		g.batch.void(k)
		g.batch.add(k, r)
	default:
		g.batch.add(k, r)
	}
}

func (g *gatherer) noteVoid(k pageKey, at format.LSN) {
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
	return ok && g.positions[i] >= g.batch.end
}

func (g *gatherer) takeFile(record []byte, at format.LSN) error {
	walk := redo.NewRecords(record)
	if !walk.Next() {
		return walk.Err()
	}
	f, err := walk.Record().ParseFile()
	if err != nil || g.surveyed {
		return err
	}
	g.whole.see(at, f)
	if f.Op == redo.FileCheckpoint {
		return nil
	}
	h := g.history(f.Space)
	h.name, h.alive = f.Name, true
	switch f.Op {
	case redo.FileCreate:
		h.created, h.renamed = true, true
	case redo.FileRename:
		h.name, h.renamed = f.NewName, true
	case redo.FileDelete:
		h.deleted, h.alive = at, false
	}
	return nil
}

// voidBefore is the position before which records for a page do not count,
// because the tablespace was made anew or ended before the page.
func (h *history) voidBefore(k pageKey) format.LSN {
	if h == nil {
		return 0
	}
	before := h.deleted
	for _, t := range h.trims {
		// An undo tablespace is emptied by TRIM_PAGES; the system
		// tablespace only loses its end.
		if t.at > before && (k.space() != 0 || k.page() >= t.page) {
			before = t.at
		}
	}
	return before
}
