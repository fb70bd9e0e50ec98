package apply

import (
	"encoding/binary"

	"github.com/xbstream/xbstream/internal/mysql/redo"
)

// rows are those of an index page while they are changed. The first read or
// write outside the rows sets bad and every later one is void, so that the steps
// read straight down and the result is checked once.
type rows struct {
	b       []byte
	f       *rowFormat
	compact bool
	index   *redo.Index
	// nullables is the number of columns that may be NULL where the index does
	// not list them all; -1 otherwise.
	nullables int
	// zip is the page as it lies in the file, of ROW_FORMAT=COMPRESSED.
	zip *zipPage
	bad bool
	// fields of the row that was looked at last.
	row row
}

func (x *rows) open(b []byte, index *redo.Index) {
	x.b, x.index, x.nullables, x.zip, x.bad = b, index, -1, nil, false
	if x.compact = binary.BigEndian.Uint16(b[pageHeapCount:])&compactBit != 0; x.compact {
		x.f = &compactFormat
	} else {
		x.f = &redundantFormat
	}
}

// result turns bad into an error.
func (x *rows) result() error {
	if x.bad {
		return malformed("it leads outside the page's rows")
	}
	return nil
}

// in says whether n bytes at off lie between page header and trailer.
func (x *rows) in(off, n int) bool {
	if off < filData || n < 0 || off+n > len(x.b)-trailer {
		x.bad = true
	}
	return !x.bad
}

func (x *rows) u8(off int) int {
	if !x.in(off, 1) {
		return 0
	}
	return int(x.b[off])
}

func (x *rows) u16(off int) int {
	if !x.in(off, 2) {
		return 0
	}
	return int(binary.BigEndian.Uint16(x.b[off:]))
}

func (x *rows) put16(off, v int) {
	if x.in(off, 2) {
		binary.BigEndian.PutUint16(x.b[off:], uint16(v))
	}
}

// putHeader writes a number of the page header, which is the same in the file.
func (x *rows) putHeader(off, v int) {
	if v < 0 || v > 0xFFFF {
		x.bad = true
	}
	x.put16(off, v)
	if x.zip != nil && !x.zip.stale && !x.bad {
		binary.BigEndian.PutUint16(x.zip.b[off:], uint16(v))
	}
}

// next returns the row after rec, 0 after the last.
func (x *rows) next(rec int) int {
	v := x.u16(rec - 2)
	if v == 0 || !x.compact {
		return v
	}
	return (rec + v) & (len(x.b) - 1)
}

// setNext makes to the row after rec; 0 ends the list.
func (x *rows) setNext(rec, to int) {
	if to != 0 && x.compact {
		to = (to - rec) & 0xFFFF
	}
	x.put16(rec-2, to)
}

func (x *rows) owned(rec int) int { return x.u8(rec-x.f.info) &^ infoMask }

func (x *rows) setOwned(rec, n int) {
	if x.in(rec-x.f.info, 1) {
		at := &x.b[rec-x.f.info]
		*at = *at&infoMask | byte(n)&^infoMask
	}
	if x.zip != nil && rec != x.f.supremum {
		x.zip.mark(x, rec, zipOwned, n != 0)
	}
}

// setInfo changes info bits.
func (x *rows) setInfo(rec, mask, bits int) {
	if x.in(rec-x.f.info, 1) {
		at := &x.b[rec-x.f.info]
		*at = *at&^byte(mask) | byte(bits)
	}
}

func (x *rows) setDeleted(rec int, on bool) {
	bits := 0
	if on {
		bits = infoDeleted
	}
	x.setInfo(rec, infoDeleted, bits)
	if x.zip != nil {
		x.zip.mark(x, rec, zipDeleted, on)
	}
}

func (x *rows) heapNo(rec int) int { return x.u16(rec-x.f.heapNo) >> 3 }

func (x *rows) setHeapNo(rec, n int) {
	at := rec - x.f.heapNo
	x.put16(at, x.u16(at)&7|n<<3)
}

// heapCount is the number of rows that there is room for, deleted ones, infimum
// and supremum included.
func (x *rows) heapCount() int { return x.u16(pageHeapCount) &^ compactBit }

func (x *rows) leaf() bool { return x.u16(pageLevel) == 0 }

func (x *rows) user(rec int) bool { return rec != x.f.infimum && rec != x.f.supremum }

// slotAt returns the offset of slot i; slots grow downwards from the trailer.
func (x *rows) slotAt(i int) int { return len(x.b) - trailer - slotSize*(i+1) }

// dirEnd returns the offset of the lowest slot.
func (x *rows) dirEnd() int { return x.slotAt(x.u16(pageSlots) - 1) }

// owner follows the list from rec to the row that owns it, and says how many
// rows were passed.
func (x *rows) owner(rec int) (owner, passed int) {
	for ; passed <= slotMax && rec != 0 && !x.bad; passed++ {
		if x.owned(rec) != 0 {
			return rec, passed
		}
		rec = x.next(rec)
	}
	x.bad = true
	return 0, 0
}

// slotOf returns the number of the slot that points to an owner. Slot 0 is the
// infimum's and owns nothing else.
func (x *rows) slotOf(rec int) int {
	slots := x.u16(pageSlots)
	if !x.in(x.slotAt(slots-1), slots*slotSize) {
		return 0
	}
	for i := slots - 1; i > 0; i-- {
		if binary.BigEndian.Uint16(x.b[x.slotAt(i):]) == uint16(rec) {
			return i
		}
	}
	x.bad = true
	return 0
}

// before returns the row before one that slot i owns.
func (x *rows) before(rec, i int) int {
	prev := x.u16(x.slotAt(i - 1))
	for range 2 * slotMax {
		next := x.next(prev)
		if next == rec || x.bad {
			return prev
		}
		prev = next
	}
	x.bad = true
	return 0
}

// last returns the last row, or the infimum.
func (x *rows) last() int {
	if i := x.u16(pageSlots) - 1; i > 0 {
		return x.before(x.f.supremum, i)
	}
	x.bad = true
	return 0
}

// inserted does what is the same for every row put in after prev: the list, the
// count, the direction, the owner, and a new slot when the owner has too many
// (InnoDB page0cur.cc, page_cur_insert_rec_low).
func (x *rows) inserted(rec, prev, heapNo int) {
	x.setNext(rec, x.next(prev))
	x.setNext(prev, rec)
	x.putHeader(pageRows, x.u16(pageRows)+1)
	if x.in(rec-x.f.info, 1) {
		x.b[rec-x.f.info] &= infoMask
	}
	x.setHeapNo(rec, heapNo)
}

// noteInsert keeps what the server guesses the next insert from. The server does
// not do this on spatial indexes; its recovery does, as it does not know them.
func (x *rows) noteInsert(rec, prev int) {
	last, dir, n := x.u16(pageLastInsert), x.u16(pageDirection), x.u16(pageSameDir)
	switch {
	case last != 0 && last == prev && dir != directionLeft:
		dir, n = directionRight, n+1
	case last != 0 && x.next(rec) == last && dir != directionRight:
		dir, n = directionLeft, n+1
	default:
		dir, n = directionNone, 0
	}
	x.putHeader(pageDirection, dir)
	x.putHeader(pageSameDir, n&0xFFFF)
	x.putHeader(pageLastInsert, rec)
}

// own gives a new row to its owner.
func (x *rows) own(rec int) {
	owner, _ := x.owner(rec)
	n := x.owned(owner)
	x.setOwned(owner, n+1)
	if n == slotMax {
		x.splitSlot(x.slotOf(owner))
	}
}

// splitSlot divides slot i, which owns 9 rows, in two (InnoDB page0page.cc,
// page_dir_split_slot).
func (x *rows) splitSlot(i int) {
	if x.bad {
		return
	}
	rec := x.u16(x.slotAt(i - 1))
	for range slotSplit {
		rec = x.next(rec)
	}
	slots := x.u16(pageSlots)
	lowest, at := x.slotAt(slots), x.slotAt(i)
	if x.bad || rec == 0 || lowest < x.u16(pageHeapTop) {
		x.bad = true
		return
	}
	upper := x.u16(at)
	copy(x.b[lowest:at], x.b[lowest+slotSize:at+slotSize])
	x.putHeader(pageSlots, slots+1)
	x.put16(at, rec)
	x.setOwned(rec, slotSplit)
	x.setOwned(upper, slotMax+1-slotSplit)
}

// balanceSlot repairs slot i, which owns too few rows, with the help of the next
// one (InnoDB page0page.cc, page_dir_balance_slot).
func (x *rows) balanceSlot(i int) {
	slots := x.u16(pageSlots)
	if x.bad || i == slots-1 {
		return // the supremum's may own any number
	}
	at := x.slotAt(i)
	me, up := x.u16(at), x.u16(x.slotAt(i+1))
	own, upper := x.owned(me), x.owned(up)
	if x.bad {
		return
	}
	if upper > slotMin {
		first := x.next(me)
		x.setOwned(me, 0)
		x.setOwned(first, own+1)
		x.put16(at, first)
		x.setOwned(up, upper-1)
		return
	}
	x.setOwned(me, 0)
	x.setOwned(up, upper+own)
	lowest := x.slotAt(slots - 1)
	if !x.in(lowest, at-lowest) {
		return
	}
	copy(x.b[lowest+slotSize:at+slotSize], x.b[lowest:at])
	x.put16(lowest, 0)
	x.putHeader(pageSlots, slots-1)
}

// fromHeap takes size bytes at the top of the heap.
func (x *rows) fromHeap(size int) (start, heapNo int) {
	start, count := x.u16(pageHeapTop), x.u16(pageHeapCount)
	if x.bad || start < x.f.heapStart || start+size > x.dirEnd() || count&^compactBit >= compactBit>>2 {
		x.bad = true
		return 0, 0
	}
	x.putHeader(pageHeapTop, start+size)
	x.putHeader(pageHeapCount, count+1)
	return start, count &^ compactBit
}

// reuse takes the first deleted row off its list. The rest of its room is lost
// until the page is reorganized.
func (x *rows) reuse(free, size int) (heapNo int) {
	heapNo = x.heapNo(free)
	x.putHeader(pageFree, x.next(free))
	x.putHeader(pageGarbage, x.u16(pageGarbage)-size)
	return heapNo
}
