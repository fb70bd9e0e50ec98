package apply

import (
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/indexpage"
	"github.com/xbstream/xbstream/internal/mysql/redo"
)

// insert puts a row in after another one. Of the row, only what differs from that
// one is in the record, if it says so (InnoDB page0cur.cc,
// page_cur_parse_insert_rec).
func (p *Page) insert(d *redo.Cursor, prev int) {
	x := &p.rows
	n := d.Length(maxSize)
	literal := n >> 1
	var info, extra, same int
	if n&1 != 0 {
		info, extra, same = d.U8(), d.Length(maxSize), d.Length(maxSize)
	} else {
		r := x.look(prev)
		info, extra, same = x.infoAndStatus(prev), r.extra, r.size()-literal
	}
	p.row = append(p.row[:0], x.bytes(x.startOf(prev), same)...)
	p.row = append(p.row, d.Take(literal)...)
	if x.Bad || d.Err() != nil || extra < x.F.Extra || extra > len(p.row) {
		x.Bad = true
		return
	}
	at := &p.row[extra-x.F.Info]
	*at = *at&^infoMask | byte(info&infoMask)
	if x.F.Compact {
		at := &p.row[extra-3]
		*at = *at&^statusMask | byte(info&statusMask)
	}
	x.insert(prev, p.row, extra)
}

// infoAndStatus are the info bits of a row, and its status if it is COMPACT.
func (x *rows) infoAndStatus(rec int) int {
	info := x.U8(rec-x.F.Info) & infoMask
	if x.F.Compact {
		info |= x.U8(rec-3) & statusMask
	}
	return info
}

// startOf returns where a row's header starts.
func (x *rows) startOf(rec int) int { return rec - x.look(rec).extra }

// bytes returns n bytes of the page, none if they are not there.
func (x *rows) bytes(off, n int) []byte {
	if n == 0 || !x.In(off, n) {
		return nil
	}
	return x.B[off : off+n]
}

// insert puts a row in after prev. extra is the size of its header.
func (x *rows) insert(prev int, data []byte, extra int) {
	if x.zip != nil {
		x.zip.insert(x, prev, data, extra)
		return
	}
	x.insertPlain(prev, data, extra)
}

// insertPlain puts a row into a page that is not compressed. If the first deleted
// row has room enough, its room is used; others are not tried (InnoDB page0cur.cc,
// page_cur_insert_rec_low).
func (x *rows) insertPlain(prev int, data []byte, extra int) {
	size := len(data)
	var start, heapNo int
	free := x.U16(indexpage.Free)
	if free != 0 {
		if r := x.look(free); r.size() >= size {
			start = free - r.extra
			heapNo = x.reuse(free, size)
		}
	}
	if start == 0 {
		start, heapNo = x.fromHeap(size)
	}
	if start < x.F.HeapStart || !x.In(start, size) {
		x.Bad = true
		return
	}
	copy(x.B[start:], data)
	rec := start + extra
	x.inserted(rec, prev, heapNo)
	x.noteInsert(rec, prev)
	x.own(rec)
}

// insertList puts rows at the end of the list, into a page that was just made
// (InnoDB page0cur.cc, page_parse_copy_rec_list_to_created_page).
func (p *Page) insertList(d *redo.Cursor) {
	x := &p.rows
	list := redo.NewCursor(d.Take(int(d.U32())))
	for len(list.Rest()) > 0 && !x.Bad && list.Err() == nil {
		p.insert(list, x.last())
	}
	d.Fail(list.Err())
	x.putHeader(indexpage.LastInsert, 0)
	x.putHeader(indexpage.Direction, indexpage.DirectionNone)
	x.putHeader(indexpage.SameDirection, 0)
}

// reorganize puts all rows in anew, in the order of the list, so that no room is
// lost (InnoDB btr0btr.cc, btr_page_reorganize_low).
func (p *Page) reorganize() {
	if p.rows.zip != nil {
		p.rows.Bad = true // the server says so in another record
		return
	}
	p.spread(&p.rows)
}

func (p *Page) spread(x *rows) {
	p.spare = append(p.spare[:0], x.B...)
	old := *x
	old.B, old.row = p.spare, row{}
	indexpage.Init(x.B, innodb.Type(p.spare), x.F)
	rec, prev := old.Next(x.F.Infimum), x.F.Infimum
	for range old.heapCount() {
		if rec == x.F.Supremum || x.Bad || old.Bad {
			break
		}
		r := old.look(rec)
		data := old.bytes(rec-r.extra, r.size())
		x.insertPlain(prev, data, r.extra)
		prev = x.U16(indexpage.LastInsert)
		rec = old.Next(rec)
	}
	if rec != x.F.Supremum || old.Bad {
		x.Bad = true
	}
	if old.leaf() && !x.index.Clustered() {
		copy(x.B[indexpage.MaxTrxID:indexpage.Level], p.spare[indexpage.MaxTrxID:indexpage.Level])
	}
}
