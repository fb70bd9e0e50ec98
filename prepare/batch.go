package prepare

import (
	"encoding/binary"
	"math/bits"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
)

// pageKey names a page: tablespace in the upper half, page number in the lower,
// so that keys sort in the order of the files.
type pageKey uint64

func keyOf(space format.SpaceID, page format.PageNo) pageKey {
	return pageKey(space)<<32 | pageKey(page)
}

func (k pageKey) space() format.SpaceID { return format.SpaceID(k >> 32) }
func (k pageKey) page() format.PageNo   { return format.PageNo(k & 0xFFFFFFFF) }

// run is a sequence of records for one page in one mini-transaction.
type run struct {
	at         redolog.Position // of the first record
	size       uint32           // of the records, in bytes
	start, end redolog.Position // of the mini-transaction
	records    []byte           // only set by runs.next
}

// batch is as much redo as fits in memory, spread by page: where the
// runs of a page are in the log is listed in chunks, so that gathering writes to
// few places.
type batch struct {
	base   redolog.Position // where it starts in the log
	log    held             // the log from there on, once the batch is complete
	offset int64            // of base in the log's file
	mem    []byte
	used   uint32
	// free heads the chunks of each class that were given back; 0 without.
	free   [chunkClasses]uint32
	pages  keyIndex
	chains []chain
}

// chain is what was gathered for one page. Offsets are into the batch's memory;
// first is 0 when there is nothing.
type chain struct {
	first, last uint32 // chunks
	pos, limit  uint32 // where the next run goes in the last chunk
	start       uint32 // start of the last run's mini-transaction, from base
}

// A chunk starts with two u32: the offset of the next one; and its class, the
// binary logarithm of its size, in the upper byte, with the end of its runs,
// counted from its start, below. The next one and the end are set when the next
// one is begun.
const (
	chunkHeader  = 8
	chunkEnd     = 1<<24 - 1
	firstChunk   = 1 << 6
	maxChunk     = 1 << 10
	chunkClasses = 11
	// runSize bounds the four numbers that are noted of a run.
	runSize   = 4 * binary.MaxVarintLen32
	chainSize = 20
)

// spill is the room a batch needs behind its limit for the block that reaches it:
// all of the shortest records, each the first of its page.
const spill = overlap * (firstChunk / 4)

// maxBatch keeps offsets and distances within 32 bits.
const maxBatch = 3 << 30

// reset empties the batch. It goes on at a position, which is at an offset of the
// log's file.
func (b *batch) reset(base redolog.Position, offset int64) {
	b.base, b.offset, b.log, b.used = base, offset, held{}, chunkHeader
	clear(b.free[:])
	b.pages.reset()
	b.chains = b.chains[:0]
}

// size is the memory in use, in bytes.
func (b *batch) size() int64 {
	return int64(b.used) + int64(len(b.chains))*(chainSize+pageCost)
}

// page returns the number of the page's chain.
func (b *batch) page(k pageKey) int {
	i, added := b.pages.find(k)
	if added {
		b.chains = append(b.chains, chain{})
	}
	return i
}

// void forgets what was gathered for a page. Half of a log and more can be void
// in the end, undo pages most of all: the memory is used again at once.
func (b *batch) void(k pageKey) {
	c := &b.chains[b.page(k)]
	if c.first != 0 {
		b.giveBack(c)
	}
	*c = chain{}
}

// giveBack puts a chain's chunks on the lists of free ones.
func (b *batch) giveBack(c *chain) {
	for at := c.first; ; {
		next := binary.LittleEndian.Uint32(b.mem[at:])
		class := b.mem[at+chunkHeader-1]
		binary.LittleEndian.PutUint32(b.mem[at:], b.free[class])
		b.free[class] = at
		if at == c.last {
			return
		}
		at = next
	}
}

// add appends a run to its page's.
func (b *batch) add(k pageKey, r run) {
	c := &b.chains[b.page(k)]
	if c.pos+runSize > c.limit {
		b.extend(c)
	}
	start := uint32(r.start - b.base)
	out := b.mem[c.pos:c.pos]
	out = binary.AppendUvarint(out, uint64(start-c.start))
	out = binary.AppendUvarint(out, uint64(r.end-r.start))
	out = binary.AppendUvarint(out, uint64(r.at-r.start))
	out = binary.AppendUvarint(out, uint64(r.size))
	c.pos += uint32(len(out))
	c.start = start
}

// extend begins a new chunk. Chunks double, so that a page touched once takes
// little and a busy one is not scattered.
func (b *batch) extend(c *chain) {
	size := uint32(firstChunk)
	if c.first != 0 {
		size = min(2*(c.limit-c.last), maxChunk)
	}
	class := bits.Len32(size - 1)
	at := b.chunk(class)
	if c.first == 0 {
		c.first = at
	} else {
		binary.LittleEndian.PutUint32(b.mem[c.last:], at)
		end := binary.LittleEndian.Uint32(b.mem[c.last+4:])
		binary.LittleEndian.PutUint32(b.mem[c.last+4:], end|(c.pos-c.last))
	}
	binary.LittleEndian.PutUint32(b.mem[at+4:], uint32(class)<<24)
	c.last, c.pos, c.limit = at, at+chunkHeader, at+1<<class
}

// chunk returns the offset of a chunk of a class, one that was given back if
// there is one.
func (b *batch) chunk(class int) (at uint32) {
	if at = b.free[class]; at != 0 {
		b.free[class] = binary.LittleEndian.Uint32(b.mem[at:])
		return at
	}
	at = b.used
	b.used += 1 << class
	return at
}

// runs walks over what was gathered for a page in a complete batch.
type runs struct {
	b          *batch
	c          chain
	chunk      uint32
	pos, start uint32
	// ahead are the next runs, those from i to n. Their records lie all over the
	// log: to touch some at a time lets the processor fetch them at a time.
	ahead   [8]run
	i, n    int
	touched byte
}

func (b *batch) runs(c chain) *runs {
	return &runs{b: b, c: c, chunk: c.first, pos: c.first + chunkHeader}
}

// next returns the next run; false after the last.
func (w *runs) next() (r run, ok bool) {
	if w.i == w.n {
		w.look()
	}
	if w.i == w.n {
		return run{}, false
	}
	w.i++
	return w.ahead[w.i-1], true
}

// look reads what is noted of the next runs.
func (w *runs) look() {
	w.i, w.n = 0, 0
	for w.n < len(w.ahead) && w.more() {
		r := &w.ahead[w.n]
		w.start += w.number()
		size := w.number()
		at := w.number()
		r.size = w.number()
		r.start = w.b.base + redolog.Position(w.start)
		r.end, r.at = r.start+redolog.Position(size), r.start+redolog.Position(at)
		r.records = w.b.log.bytes(w.b.offset+int64(w.start+at), r.size)
		w.touched += r.records[0] + r.records[len(r.records)-1]
		w.n++
	}
}

// more moves on to the chunk with the next run; false after the last run.
func (w *runs) more() bool {
	if w.c.first == 0 {
		return false
	}
	for w.chunk != w.c.last && w.pos == w.chunk+binary.LittleEndian.Uint32(w.b.mem[w.chunk+4:])&chunkEnd {
		w.chunk = binary.LittleEndian.Uint32(w.b.mem[w.chunk:])
		w.pos = w.chunk + chunkHeader
	}
	return w.chunk != w.c.last || w.pos != w.c.pos
}

func (w *runs) number() uint32 {
	if c := w.b.mem[w.pos]; c < 0x80 {
		w.pos++
		return uint32(c)
	}
	v, n := binary.Uvarint(w.b.mem[w.pos:])
	w.pos += uint32(n)
	return uint32(v)
}
