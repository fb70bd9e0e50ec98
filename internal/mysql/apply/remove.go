package apply

import "github.com/xbstream/xbstream/internal/innodb/indexpage"

// remove takes a row off the list and gives its room to the list of deleted ones
// (InnoDB page0cur.cc, page_cur_delete_rec). A page is not made anew when its last
// row goes: in recovery the server does not either.
func (x *rows) remove(rec int) {
	if !x.user(rec) {
		x.Bad = true
		return
	}
	owner, _ := x.Owner(rec)
	i := x.SlotOf(owner)
	own := x.Owned(owner)
	if x.Bad {
		return
	}
	x.putHeader(indexpage.LastInsert, 0)
	prev := x.before(rec, i)
	x.SetNext(prev, x.Next(rec))
	if owner == rec {
		owner = prev
		x.Put16(x.SlotAt(i), prev)
	}
	x.setOwned(owner, own-1)
	x.free(rec)
	if own <= indexpage.SlotMin {
		x.mirror(x.BalanceSlot(i))
	}
}

// free puts a row at the head of the list of deleted ones (InnoDB page0page.ic,
// page_mem_free).
func (x *rows) free(rec int) {
	r := x.look(rec)
	head := x.U16(indexpage.Free)
	x.SetNext(rec, head)
	x.putHeader(indexpage.Free, rec)
	x.putHeader(indexpage.Garbage, x.U16(indexpage.Garbage)+r.size())
	if x.zip != nil {
		x.zip.free(x, rec, r)
		return
	}
	x.putHeader(indexpage.RowCount, x.U16(indexpage.RowCount)-1)
}

// removeEnd takes the row and all after it off the list (InnoDB page0page.cc,
// page_delete_rec_list_end).
func (x *rows) removeEnd(rec int) {
	if rec == x.F.Infimum {
		rec = x.Next(rec)
	}
	x.putHeader(indexpage.LastInsert, 0)
	if x.zip != nil {
		for rec != x.F.Supremum && !x.Bad {
			next := x.Next(rec)
			x.remove(rec)
			rec = next
		}
		return
	}
	if rec == x.F.Supremum || x.Bad {
		return
	}
	size, count, last := 0, 0, 0
	for at := rec; at != x.F.Supremum && !x.Bad; at = x.Next(at) {
		if count++; at == 0 || count > x.heapCount() {
			x.Bad = true
			return
		}
		size += x.look(at).size()
		last = at
	}
	owner, passed := x.Owner(rec)
	i := x.SlotOf(owner)
	owned := x.Owned(owner) - passed
	prev := x.before(rec, i)
	if x.Bad {
		return
	}
	x.Put16(x.SlotAt(i), x.F.Supremum)
	x.setOwned(x.F.Supremum, owned)
	x.putHeader(indexpage.Slots, i+1)
	x.SetNext(prev, x.F.Supremum)
	x.SetNext(last, x.U16(indexpage.Free))
	x.putHeader(indexpage.Free, rec)
	x.putHeader(indexpage.Garbage, x.U16(indexpage.Garbage)+size)
	x.putHeader(indexpage.RowCount, x.U16(indexpage.RowCount)-count)
}

// removeStart takes all rows before this one off the list, one by one (InnoDB
// page0page.cc, page_delete_rec_list_start).
func (x *rows) removeStart(rec int) {
	if rec == x.F.Infimum {
		return
	}
	if rec == x.F.Supremum {
		// The server logs such a thing as a page that is made anew.
		x.Bad = true
		return
	}
	for range x.heapCount() {
		first := x.Next(x.F.Infimum)
		if first == rec || x.Bad {
			return
		}
		x.remove(first)
	}
	x.Bad = true
}
