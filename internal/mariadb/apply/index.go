package apply

import "encoding/binary"

// Offsets in the header of an index page (InnoDB page0types.h).
const (
	dirSlots   = 38 // u16 slots of the directory
	heapTop    = 40 // u16
	heapCount  = 42 // u16 records in the heap; bit 15: not REDUNDANT
	freeList   = 44 // u16 first deleted record, 0: none
	garbage    = 46 // u16 bytes in deleted records
	lastInsert = 48 // u16
	direction  = 51 // low 3 bits; the others belong to instant ALTER
	sameDir    = 52 // u16 inserts in a row in that direction
	rowCount   = 54 // u16
	maxTrxID   = 56
	pageLevel  = 64 // u16
	firstRec   = 94

	comp     = 0x8000 // in heapCount
	trailer  = 8      // after the directory
	slotSize = 2

	dirLeft, dirRight, dirNone = 1, 2, 5

	typeIndex     = 0x45BF
	typeRtreeByte = 0xBE // low byte of the type of R-tree pages
)

// Limits on the records one directory slot owns (InnoDB page0page.h).
const (
	slotMax   = 8
	slotMin   = 4
	slotSplit = 4 // records that go to the lower half of a slot of 9
)

// rowFormat is where the two families of row formats differ in the fixed
// header of a record.
type rowFormat struct {
	infimum, heapStart int
	// owned is the distance below the origin of the byte whose low nibble
	// counts owned records; heapNo that of the u16 with the heap number.
	owned, heapNo int
	// relative next pointers count from the record, modulo 65536.
	relative bool
}

var (
	redundant = rowFormat{infimum: 101, heapStart: 125, owned: 6, heapNo: 5}
	dynamic   = rowFormat{infimum: 99, heapStart: 120, owned: 5, heapNo: 4, relative: true}
)

const (
	redundantExtra   = 6
	dynamicExtra     = 5
	supremumDynamic  = 112
	supremumRedudant = 116
)

var (
	systemDynamic   = []byte("\x01\x00\x02\x00\x0Dinfimum\x00\x01\x00\x0B\x00\x00supremum")
	systemRedundant = []byte("\x08\x01\x00\x00\x03\x00\x74infimum\x00\x09\x01\x00\x08\x03\x00\x00supremum\x00")
)

func initIndexDynamic(b []byte) {
	initIndex(b, systemDynamic, 0x8002, dynamic.heapStart, dynamic.infimum, supremumDynamic)
}

func initIndexRedundant(b []byte) {
	initIndex(b, systemRedundant, 2, redundant.heapStart, redundant.infimum, supremumRedudant)
}

// initIndex makes b an index page without rows; level, index id and segments
// are left alone (InnoDB page0page.cc, page_create_low).
func initIndex(b, system []byte, count, top, infimum, supremum int) {
	be := binary.BigEndian
	be.PutUint16(b[filType:], typeIndex)
	clear(b[pageBody:pageLevel])
	be.PutUint16(b[dirSlots:], 2)
	be.PutUint16(b[heapTop:], uint16(top))
	be.PutUint16(b[heapCount:], uint16(count))
	b[direction] = dirNone
	copy(b[firstRec:], system)
	end := len(b) - trailer
	clear(b[firstRec+len(system) : end])
	be.PutUint16(b[end-slotSize:], uint16(infimum))
	be.PutUint16(b[end-2*slotSize:], uint16(supremum))
}

// indexPage is an index page while one row is put in or taken out. The first
// read or write outside the rows sets bad and every later one is void, so that
// the steps read straight down and the result is checked once.
type indexPage struct {
	b   []byte
	f   rowFormat
	bad bool
}

// in says whether n bytes at off lie between page header and trailer.
func (x *indexPage) in(off, n int) bool {
	if off < pageBody || n < 0 || off+n > len(x.b)-trailer {
		x.bad = true
	}
	return !x.bad
}

func (x *indexPage) u16(off int) int {
	if !x.in(off, 2) {
		return 0
	}
	return int(binary.BigEndian.Uint16(x.b[off:]))
}

func (x *indexPage) put16(off, v int) {
	if x.in(off, 2) {
		binary.BigEndian.PutUint16(x.b[off:], uint16(v))
	}
}

func (x *indexPage) add16(off, v int) {
	sum := x.u16(off) + v
	if sum < 0 || sum > 0xFFFF {
		x.bad = true
	}
	x.put16(off, sum)
}

// next returns the record after rec, 0 after the last.
func (x *indexPage) next(rec int) int {
	v := x.u16(rec - 2)
	if v == 0 || !x.f.relative {
		return v
	}
	return (rec + v) & 0xFFFF
}

// setNext makes to the record after rec; 0 ends the list.
func (x *indexPage) setNext(rec, to int) {
	if to != 0 && x.f.relative {
		to = (to - rec) & 0xFFFF
	}
	x.put16(rec-2, to)
}

func (x *indexPage) owned(rec int) int {
	if !x.in(rec-x.f.owned, 1) {
		return 0
	}
	return int(x.b[rec-x.f.owned] & 15)
}

func (x *indexPage) setOwned(rec, n int) {
	if x.in(rec-x.f.owned, 1) {
		at := &x.b[rec-x.f.owned]
		*at = *at&0xF0 | byte(n)&15
	}
}

func (x *indexPage) heapNo(rec int) int { return x.u16(rec-x.f.heapNo) >> 3 }

// slotAt returns the offset of slot i; slots grow downwards from the trailer.
func (x *indexPage) slotAt(i int) int { return len(x.b) - trailer - slotSize*(i+1) }

// dirEnd returns the offset of the lowest slot.
func (x *indexPage) dirEnd() int { return x.slotAt(x.u16(dirSlots) - 1) }

// owner follows the list from rec to the record that owns it.
func (x *indexPage) owner(rec int) int {
	for range slotMax + 1 {
		if rec == 0 || x.bad {
			break
		}
		if x.owned(rec) != 0 {
			return rec
		}
		rec = x.next(rec)
	}
	x.bad = true
	return 0
}

// slotOf returns the index of the slot that points to an owner. Slot 0 is the
// infimum's and owns nothing else.
func (x *indexPage) slotOf(rec int) int {
	for i := x.u16(dirSlots) - 1; i > 0 && !x.bad; i-- {
		if x.u16(x.slotAt(i)) == rec {
			return i
		}
	}
	x.bad = true
	return 0
}

// noteDirection keeps what the server guesses the next insert from.
func (x *indexPage) noteDirection(last, prev, next int) {
	if x.b[filType+1] == typeRtreeByte {
		return
	}
	dir, n := int(x.b[direction]&7), x.u16(sameDir)
	switch {
	case last != 0 && last == prev && dir != dirLeft:
		dir, n = dirRight, n+1
	case last != 0 && last == next && dir != dirRight:
		dir, n = dirLeft, n+1
	default:
		dir, n = dirNone, 0
	}
	x.b[direction] = x.b[direction]&^7 | byte(dir)
	x.put16(sameDir, n)
}

// inserted does what is the same for every row put in after prev: count,
// direction, owner, and a new slot when the owner has too many.
func (x *indexPage) inserted(rec, prev, next, owner int) {
	last := x.u16(lastInsert)
	x.put16(lastInsert, rec)
	n := x.owned(owner)
	slot := x.slotOf(owner)
	if x.bad {
		return
	}
	x.setOwned(owner, n+1)
	x.noteDirection(last, prev, next)
	x.add16(rowCount, 1)
	if n == slotMax {
		x.splitSlot(slot)
	}
}

// splitSlot divides slot i, which owns 9 records, in two (InnoDB page0cur.cc,
// page_dir_split_slot).
func (x *indexPage) splitSlot(i int) {
	rec := x.u16(x.slotAt(i - 1))
	for range slotSplit {
		rec = x.next(rec)
	}
	slots := x.u16(dirSlots)
	lowest, at := x.slotAt(slots), x.slotAt(i)
	if x.bad || rec == 0 || lowest < x.u16(heapTop) {
		x.bad = true
		return
	}
	upper := x.u16(at)
	copy(x.b[lowest:at], x.b[lowest+slotSize:at+slotSize])
	x.put16(dirSlots, slots+1)
	x.put16(at, rec)
	x.setOwned(rec, slotSplit)
	x.setOwned(upper, slotMax+1-slotSplit)
}

// balanceSlot repairs slot i, which owns too few records, with the help of the
// next one (InnoDB page0cur.cc, page_dir_balance_slot).
func (x *indexPage) balanceSlot(i int) {
	slots := x.u16(dirSlots)
	if i == slots-1 {
		return // the supremum's may own any number
	}
	at, upAt := x.slotAt(i), x.slotAt(i+1)
	me, up := x.u16(at), x.u16(upAt)
	n := x.owned(up)
	if x.bad {
		return
	}
	if n > slotMin {
		x.setOwned(me, 0)
		first := x.next(me)
		x.setOwned(first, slotMin)
		x.put16(at, first)
		x.setOwned(up, n-1)
		return
	}
	x.setOwned(me, 0)
	x.setOwned(up, n+slotMin-1)
	lowest := x.slotAt(slots - 1)
	if !x.in(lowest, at-lowest) {
		return
	}
	copy(x.b[lowest+slotSize:at+slotSize], x.b[lowest:at])
	x.put16(lowest, 0)
	x.put16(dirSlots, slots-1)
}

// allocate takes size bytes at the top of the heap and returns their offset
// and the new record's heap number.
func (x *indexPage) allocate(size int) (buf, heapNo int) {
	buf, heapNo = x.u16(heapTop), x.u16(heapCount)
	if x.bad || buf < x.f.heapStart || buf+size > x.dirEnd() {
		x.bad = true
		return 0, 0
	}
	x.put16(heapTop, buf+size)
	x.put16(heapCount, heapNo+1)
	return buf, heapNo &^ comp
}

// reuse takes the first deleted record off its list.
func (x *indexPage) reuse(size int) (rec, heapNo int) {
	rec = x.u16(freeList)
	if rec < x.f.heapStart {
		x.bad = true
		return 0, 0
	}
	heapNo = x.heapNo(rec)
	x.put16(freeList, x.next(rec))
	x.add16(garbage, -size)
	return rec, heapNo
}

// remove takes the record after prev off the page; extra and data are the
// sizes of its header and its data (InnoDB page0cur.cc,
// page_apply_delete_dynamic).
func (x *indexPage) remove(prev, rec, extra, data int) {
	owner := x.owner(rec)
	slot := x.slotOf(owner)
	own := x.owned(owner) - 1
	if x.bad {
		return
	}
	if owner == rec {
		owner = prev
		x.put16(x.slotAt(slot), prev)
	}
	x.setNext(prev, x.next(rec))
	x.setOwned(owner, own)
	x.free(rec, extra, data)
	x.put16(lastInsert, 0)
	x.add16(rowCount, -1)
	if own < slotMin {
		x.balanceSlot(slot)
	}
}

// free gives a record's bytes back: to the heap if it is the topmost one, else
// to the list of deleted records (InnoDB page0cur.cc, page_mem_free).
func (x *indexPage) free(rec, extra, data int) {
	count := x.u16(heapCount)
	if rec-extra < x.f.heapStart || !x.in(rec-extra, extra+data) {
		x.bad = true
		return
	}
	if x.heapNo(rec) == (count-1)&^comp {
		saved := x.u16(heapTop) - (rec + data)
		x.put16(heapTop, rec-extra)
		x.put16(heapCount, count-1)
		x.add16(garbage, -saved)
		clear(x.b[rec-extra : rec+data])
		return
	}
	old := x.u16(freeList)
	x.put16(freeList, rec)
	x.add16(garbage, extra+data)
	x.setNext(rec, old)
	clear(x.b[rec : rec+data])
}

// result turns bad into an error.
func (x *indexPage) result(what string) error {
	if x.bad {
		return malformed("%s leads outside the page's rows", what)
	}
	return nil
}
