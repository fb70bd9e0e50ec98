package apply

import (
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/indexpage"
)

// Low bytes of numbers in the page.
const (
	direction     = indexpage.Direction + 1 // low 3 bits; the others belong to instant ALTER
	typeRtreeByte = innodb.TypeRTree & 0xFF
)

// indexPage is an index page while one row is put in or taken out.
type indexPage struct{ indexpage.Page }

func openIndex(b []byte, f *indexpage.Format) *indexPage {
	x := new(indexPage)
	x.Page.Open(b, f)
	return x
}

func (x *indexPage) add16(off, v int) {
	sum := x.U16(off) + v
	if sum < 0 || sum > 0xFFFF {
		x.Bad = true
	}
	x.Put16(off, sum)
}

// noteDirection keeps what the server guesses the next insert from.
func (x *indexPage) noteDirection(last, prev, next int) {
	if x.B[innodb.OffType+1] == typeRtreeByte {
		return
	}
	dir, n := int(x.B[direction]&7), x.U16(indexpage.SameDirection)
	switch {
	case last != 0 && last == prev && dir != indexpage.DirectionLeft:
		dir, n = indexpage.DirectionRight, n+1
	case last != 0 && last == next && dir != indexpage.DirectionRight:
		dir, n = indexpage.DirectionLeft, n+1
	default:
		dir, n = indexpage.DirectionNone, 0
	}
	x.B[direction] = x.B[direction]&^7 | byte(dir)
	x.Put16(indexpage.SameDirection, n)
}

// inserted does what is the same for every row put in after prev: count,
// direction, owner, and a new slot when the owner has too many.
func (x *indexPage) inserted(rec, prev, next, owner int) {
	last := x.U16(indexpage.LastInsert)
	x.Put16(indexpage.LastInsert, rec)
	n := x.Owned(owner)
	slot := x.SlotOf(owner)
	if x.Bad {
		return
	}
	x.SetOwned(owner, n+1)
	x.noteDirection(last, prev, next)
	x.add16(indexpage.RowCount, 1)
	if n == indexpage.SlotMax {
		x.SplitSlot(slot)
	}
}

// allocate takes size bytes at the top of the heap and returns their offset
// and the new record's heap number.
func (x *indexPage) allocate(size int) (buf, heapNo int) {
	buf, heapNo = x.U16(indexpage.HeapTop), x.U16(indexpage.HeapCount)
	if x.Bad || buf < x.F.HeapStart || buf+size > x.DirEnd() {
		x.Bad = true
		return 0, 0
	}
	x.Put16(indexpage.HeapTop, buf+size)
	x.Put16(indexpage.HeapCount, heapNo+1)
	return buf, heapNo &^ indexpage.CompactBit
}

// reuse takes the first deleted record off its list.
func (x *indexPage) reuse(size int) (rec, heapNo int) {
	rec = x.U16(indexpage.Free)
	if rec < x.F.HeapStart {
		x.Bad = true
		return 0, 0
	}
	heapNo = x.HeapNo(rec)
	x.Put16(indexpage.Free, x.Next(rec))
	x.add16(indexpage.Garbage, -size)
	return rec, heapNo
}

// remove takes the record after prev off the page; extra and data are the
// sizes of its header and its data (InnoDB page0cur.cc,
// page_apply_delete_dynamic).
func (x *indexPage) remove(prev, rec, extra, data int) {
	owner, _ := x.Owner(rec)
	slot := x.SlotOf(owner)
	own := x.Owned(owner) - 1
	if x.Bad {
		return
	}
	if owner == rec {
		owner = prev
		x.Put16(x.SlotAt(slot), prev)
	}
	x.SetNext(prev, x.Next(rec))
	x.SetOwned(owner, own)
	x.free(rec, extra, data)
	x.Put16(indexpage.LastInsert, 0)
	x.add16(indexpage.RowCount, -1)
	if own < indexpage.SlotMin {
		x.BalanceSlot(slot)
	}
}

// free gives a record's bytes back: to the heap if it is the topmost one, else
// to the list of deleted records (InnoDB page0cur.cc, page_mem_free).
func (x *indexPage) free(rec, extra, data int) {
	count := x.U16(indexpage.HeapCount)
	if rec-extra < x.F.HeapStart || !x.In(rec-extra, extra+data) {
		x.Bad = true
		return
	}
	if x.HeapNo(rec) == (count-1)&^indexpage.CompactBit {
		saved := x.U16(indexpage.HeapTop) - (rec + data)
		x.Put16(indexpage.HeapTop, rec-extra)
		x.Put16(indexpage.HeapCount, count-1)
		x.add16(indexpage.Garbage, -saved)
		clear(x.B[rec-extra : rec+data])
		return
	}
	old := x.U16(indexpage.Free)
	x.Put16(indexpage.Free, rec)
	x.add16(indexpage.Garbage, extra+data)
	x.SetNext(rec, old)
	clear(x.B[rec : rec+data])
}

// result turns Bad into an error.
func (x *indexPage) result(what string) error {
	if x.Bad {
		return malformed("%s leads outside the page's rows", what)
	}
	return nil
}
