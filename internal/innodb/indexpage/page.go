// Package indexpage changes what index pages of MariaDB and MySQL have in common:
// the fields of the header, the list that links the rows, and the directory. Each
// slot of the directory points to a row that owns the rows between the slot before
// and itself. The package does not insert or delete rows: recovery does that in
// another way in each family.
//
// Promises: any bytes may be passed in as a page; Init needs 1 KiB at least, the size
// of the smallest ROW_FORMAT=COMPRESSED page. What leads outside the body of the page
// sets Bad; nothing outside the body is read or written, and no loop is longer than
// the directory.
package indexpage

import (
	"encoding/binary"

	"github.com/xbstream/xbstream/internal/innodb"
)

// Init makes b an index page without rows. Level, index id and segments are left
// alone (InnoDB page0page.cc, page_create_low).
func Init(b []byte, typ uint16, f *Format) {
	count := UserHeapNo
	if f.Compact {
		count |= CompactBit
	}
	be := binary.BigEndian
	be.PutUint16(b[innodb.OffType:], typ)
	clear(b[innodb.OffData:Level])
	be.PutUint16(b[Slots:], 2)
	be.PutUint16(b[HeapTop:], uint16(f.HeapStart))
	be.PutUint16(b[HeapCount:], uint16(count))
	be.PutUint16(b[Direction:], DirectionNone)
	end := len(b) - innodb.Trailer
	clear(b[HeaderEnd+copy(b[HeaderEnd:], f.System) : end])
	be.PutUint16(b[end-SlotSize:], uint16(f.Infimum))
	be.PutUint16(b[end-2*SlotSize:], uint16(f.Supremum))
}

// Page is an index page while its rows are changed.
type Page struct {
	Body
	F *Format
}

// Open starts with the page in b, whose rows are of a format.
func (x *Page) Open(b []byte, f *Format) { x.B, x.Bad, x.F = b, false, f }

// Next returns the row after rec, 0 after the last. A pointer out of the body is Bad
// even if nothing follows it: the families did not agree on such a page.
func (x *Page) Next(rec int) int {
	v := x.U16(rec - 2)
	if v == 0 {
		return 0
	}
	if x.F.Compact {
		v = (rec + v) & 0xFFFF
	}
	if !x.In(v, 0) {
		return 0
	}
	return v
}

// SetNext makes to the row after rec; 0 ends the list.
func (x *Page) SetNext(rec, to int) {
	if to != 0 && x.F.Compact {
		to = (to - rec) & 0xFFFF
	}
	x.Put16(rec-2, to)
}

// ownedMask is where the number of owned rows is; the other bits are info bits.
const ownedMask = 0x0F

// Owned returns how many rows a row owns, itself included; 0 if another owns it.
func (x *Page) Owned(rec int) int { return x.U8(rec-x.F.Info) & ownedMask }

// SetOwned changes how many rows a row owns.
func (x *Page) SetOwned(rec, n int) {
	if x.In(rec-x.F.Info, 1) {
		at := &x.B[rec-x.F.Info]
		*at = *at&^ownedMask | byte(n)&ownedMask
	}
}

// HeapNo returns the heap number of a row.
func (x *Page) HeapNo(rec int) int { return x.U16(rec-x.F.HeapNo) >> 3 }

// SlotAt returns the offset of slot i; slots grow downwards from the trailer.
func (x *Page) SlotAt(i int) int { return len(x.B) - innodb.Trailer - SlotSize*(i+1) }

// DirEnd returns the offset of the lowest slot.
func (x *Page) DirEnd() int { return x.SlotAt(x.U16(Slots) - 1) }

// Owner follows the list from rec to the row that owns it, and returns how many rows
// were passed.
func (x *Page) Owner(rec int) (owner, passed int) {
	for ; passed <= SlotMax && rec != 0 && !x.Bad; passed++ {
		if x.Owned(rec) != 0 {
			return rec, passed
		}
		rec = x.Next(rec)
	}
	x.Bad = true
	return 0, 0
}

// SlotOf returns the number of the slot that points to an owner. Slot 0 is the
// infimum's and owns nothing else.
func (x *Page) SlotOf(owner int) int {
	slots := x.U16(Slots)
	if !x.In(x.SlotAt(slots-1), slots*SlotSize) {
		return 0
	}
	for i := slots - 1; i > 0; i-- {
		if int(binary.BigEndian.Uint16(x.B[x.SlotAt(i):])) == owner {
			return i
		}
	}
	x.Bad = true
	return 0
}

// SplitSlot divides slot i, which SlotOf returned and which owns SlotMax+1 rows, in
// two (InnoDB page_dir_split_slot, in page0cur.cc of MariaDB and page0page.cc of
// MySQL). It returns the rows that own another number now, 0 for none.
func (x *Page) SplitSlot(i int) (changed [3]int) {
	if x.Bad {
		return changed
	}
	rec := x.U16(x.SlotAt(i - 1))
	for range slotSplit {
		rec = x.Next(rec)
	}
	slots := x.U16(Slots)
	lowest, at := x.SlotAt(slots), x.SlotAt(i)
	if rec == 0 || lowest < x.U16(HeapTop) || !x.In(lowest, at-lowest) {
		x.Bad = true
		return changed
	}
	upper := x.U16(at)
	copy(x.B[lowest:at], x.B[lowest+SlotSize:at+SlotSize])
	x.Put16(Slots, slots+1)
	x.Put16(at, rec)
	x.SetOwned(rec, slotSplit)
	x.SetOwned(upper, SlotMax+1-slotSplit)
	return [3]int{rec, upper}
}

// BalanceSlot repairs slot i, which SlotOf returned and which owns too few rows, with
// the help of the next one (InnoDB page_dir_balance_slot, same files). It returns the
// rows that own another number now, 0 for none.
//
// In a sound page the slot owns SlotMin-1 rows. MariaDB relies on it, MySQL counts:
// counting keeps the directory right in a page where it owns fewer.
func (x *Page) BalanceSlot(i int) (changed [3]int) {
	slots := x.U16(Slots)
	if x.Bad || i == slots-1 {
		return changed // the supremum's may own any number
	}
	at := x.SlotAt(i)
	me, up := x.U16(at), x.U16(x.SlotAt(i+1))
	own, upper := x.Owned(me), x.Owned(up)
	if x.Bad {
		return changed
	}
	x.SetOwned(me, 0)
	if upper > SlotMin {
		first := x.Next(me)
		x.SetOwned(first, own+1)
		x.Put16(at, first)
		x.SetOwned(up, upper-1)
		return [3]int{me, first, up}
	}
	x.SetOwned(up, upper+own)
	lowest := x.SlotAt(slots - 1)
	if !x.In(lowest, at-lowest) {
		return changed
	}
	copy(x.B[lowest+SlotSize:at+SlotSize], x.B[lowest:at])
	x.Put16(lowest, 0)
	x.Put16(Slots, slots-1)
	return [3]int{me, up}
}
