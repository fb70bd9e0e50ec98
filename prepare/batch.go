package prepare

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/xbstream/xbstream/format"
	redo "github.com/xbstream/xbstream/internal/innodb/mariadb"
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
	at         format.LSN // position of the first record
	start, end format.LSN // of the mini-transaction
	records    []byte
}

// batch is a shard of as much redo as fits in memory, spread by page: the records of a
// page lie one after the other in chunks, so that applying them reads memory
// in order, and gathering them writes to as many places as there are pages.
type batch struct {
	base   format.LSN // where it starts in the log
	mem    []byte
	used   uint32
	pages  keyIndex
	chains []chain
	inUse  atomic.Int64 // size, for others to read
}

// chain is what was gathered for one page. Offsets are into the batch's memory;
// first is 0 when there is nothing.
type chain struct {
	first, last uint32 // chunks
	pos, limit  uint32 // where the next run goes in the last chunk
	start       uint32 // start of the last run's mini-transaction, from base
}

// A chunk starts with the offset of the next one and the end of its own runs,
// both u32, the latter set when the next one is begun.
const (
	chunkHeader = 8
	firstChunk  = 64
	maxChunk    = 2 << 10
	// runHeader bounds the four numbers before the records of a run.
	runHeader = 4 * binary.MaxVarintLen32
	chainSize = 20
)

// spill is the room a batch needs behind its limit for the blocks already on
// their way: each of the shortest records, each the first of its page.
const spill = (blocksAhead + 1) * (blockSize + redo.MaxMTR) * (firstChunk / 4)

// maxBatch keeps offsets and distances within 32 bits.
const maxBatch = 3 << 30

func (b *batch) reset(base format.LSN) {
	b.base, b.used = base, chunkHeader
	b.pages.reset()
	b.chains = b.chains[:0]
	b.inUse.Store(0)
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

// void forgets what was gathered for a page.
func (b *batch) void(k pageKey) { b.chains[b.page(k)] = chain{} }

// add appends a run to its page's. The records are copied.
func (b *batch) add(k pageKey, r run) {
	c := &b.chains[b.page(k)]
	need := uint32(runHeader + len(r.records))
	if c.pos+need > c.limit {
		b.extend(c, need)
	}
	start := uint32(r.start - b.base)
	out := b.mem[c.pos:c.pos]
	out = binary.AppendUvarint(out, uint64(start-c.start))
	out = binary.AppendUvarint(out, uint64(r.end-r.start))
	out = binary.AppendUvarint(out, uint64(r.at-r.start))
	out = binary.AppendUvarint(out, uint64(len(r.records)))
	out = append(out, r.records...)
	c.pos += uint32(len(out))
	c.start = start
}

// extend begins a new chunk with room for need bytes. Chunks double, so that a
// page touched once takes little and a busy one is not scattered.
func (b *batch) extend(c *chain, need uint32) {
	size := uint32(firstChunk)
	if c.first != 0 {
		size = min(2*(c.limit-c.last), maxChunk)
	}
	size = max(size, chunkHeader+need)
	at := b.used
	b.used += size
	if c.first == 0 {
		c.first = at
	} else {
		binary.LittleEndian.PutUint32(b.mem[c.last:], at)
		binary.LittleEndian.PutUint32(b.mem[c.last+4:], c.pos)
	}
	c.last, c.pos, c.limit = at, at+chunkHeader, at+size
}

// runs walks over what was gathered for a page.
type runs struct {
	b          *batch
	c          chain
	chunk      uint32
	pos, start uint32
}

func (b *batch) runs(c chain) runs {
	return runs{b: b, c: c, chunk: c.first, pos: c.first + chunkHeader}
}

// next returns the next run; false after the last.
func (w *runs) next() (r run, ok bool) {
	if w.c.first == 0 {
		return run{}, false
	}
	mem := w.b.mem
	for w.chunk != w.c.last && w.pos == binary.LittleEndian.Uint32(mem[w.chunk+4:]) {
		w.chunk = binary.LittleEndian.Uint32(mem[w.chunk:])
		w.pos = w.chunk + chunkHeader
	}
	if w.chunk == w.c.last && w.pos == w.c.pos {
		return run{}, false
	}
	w.start += w.number()
	size := w.number()
	at := w.number()
	n := w.number()
	r.start = w.b.base + format.LSN(w.start)
	r.end, r.at = r.start+format.LSN(size), r.start+format.LSN(at)
	r.records = mem[w.pos : w.pos+n : w.pos+n]
	w.pos += n
	return r, true
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
