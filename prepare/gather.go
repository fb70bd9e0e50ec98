package prepare

import (
	"github.com/xbstream/xbstream/format"
	redo "github.com/xbstream/xbstream/internal/innodb/mariadb"
	"github.com/xbstream/xbstream/prepare/mariadb"
)

// gatherer reads redo and keeps what applying needs: the runs of the batch at
// hand, and of the log as a whole what decides whether they count.
type gatherer struct {
	log     *scanner
	limit   int64 // of the batch's memory, in bytes
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
func (g *gatherer) next() (more bool, err error) {
	g.batch.reset(g.log.position())
	for g.batch.size() < g.limit && g.log.position()-g.batch.base < maxBatch {
		if err := g.step(true); err != nil {
			return false, err
		}
	}
	return true, nil
}

// survey reads the rest of the log without keeping records, up to an error,
// io.EOF at the end.
func (g *gatherer) survey() error {
	for {
		if err := g.step(false); err != nil {
			return err
		}
	}
}

// step takes one mini-transaction.
func (g *gatherer) step(keep bool) error {
	t, err := g.log.next()
	if err != nil {
		return err
	}
	if err := g.take(t, keep); err != nil {
		return t.damaged(err)
	}
	if keep {
		g.batch.end = t.end
	}
	return nil
}

// take spreads the records of a mini-transaction. It walks over them once; only
// the first record of a run is looked into.
func (g *gatherer) take(t mtr, keep bool) error {
	var kind redo.RecordType
	var key pageKey
	var payload []byte
	from := -1 // where the current run starts, -1 for none
	flush := func(to int) {
		if from >= 0 {
			r := run{at: t.start + format.LSN(from), start: t.start, end: t.end, records: t.records[from:to]}
			g.takePage(key, kind, payload, r, keep)
		}
	}
	for at := 0; at < len(t.records); {
		first, body, after, err := redo.NextRecord(t.records[at:])
		if err != nil {
			return err
		}
		next := len(t.records) - len(after)
		if first&0x80 != 0 && from >= 0 {
			if k := redo.RecordType(first & 0x70); k == redo.FreePage || k == redo.InitPage {
				return redo.ErrMalformed
			}
			g.records++
			at = next
			continue
		}
		flush(at)
		from = -1
		if first&0x80 != 0 {
			err = g.takeFile(t.records[at:next], t.start+format.LSN(at))
		} else {
			from, kind = at, redo.RecordType(first&0x70)
			g.records++
			key, payload, err = splitKey(body)
		}
		if err != nil {
			return err
		}
		at = next
	}
	flush(len(t.records))
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
	switch {
	case kind == redo.Extended && mariadb.TrimPages(payload):
		if !g.surveyed {
			h := g.history(k.space())
			h.trims = append(h.trims, trim{r.at, k.page()})
		}
	case !keep:
		if kind == redo.FreePage || kind == redo.InitPage {
			g.noteVoid(k, r.at)
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
