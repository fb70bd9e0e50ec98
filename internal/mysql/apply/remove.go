package apply

// remove takes a row off the list and gives its room to the list of deleted ones
// (InnoDB page0cur.cc, page_cur_delete_rec). A page is not made anew when its last
// row goes: in recovery the server does not either.
func (x *rows) remove(rec int) {
	if !x.user(rec) {
		x.bad = true
		return
	}
	owner, _ := x.owner(rec)
	i := x.slotOf(owner)
	own := x.owned(owner)
	if x.bad {
		return
	}
	x.putHeader(pageLastInsert, 0)
	prev := x.before(rec, i)
	x.setNext(prev, x.next(rec))
	if owner == rec {
		owner = prev
		x.put16(x.slotAt(i), prev)
	}
	x.setOwned(owner, own-1)
	x.free(rec)
	if own <= slotMin {
		x.balanceSlot(i)
	}
}

// free puts a row at the head of the list of deleted ones (InnoDB page0page.ic,
// page_mem_free).
func (x *rows) free(rec int) {
	r := x.look(rec)
	head := x.u16(pageFree)
	x.setNext(rec, head)
	x.putHeader(pageFree, rec)
	x.putHeader(pageGarbage, x.u16(pageGarbage)+r.size())
	if x.zip != nil {
		x.zip.free(x, rec, r)
		return
	}
	x.putHeader(pageRows, x.u16(pageRows)-1)
}

// removeEnd takes the row and all after it off the list (InnoDB page0page.cc,
// page_delete_rec_list_end).
func (x *rows) removeEnd(rec int) {
	if rec == x.f.infimum {
		rec = x.next(rec)
	}
	x.putHeader(pageLastInsert, 0)
	if x.zip != nil {
		for rec != x.f.supremum && !x.bad {
			next := x.next(rec)
			x.remove(rec)
			rec = next
		}
		return
	}
	if rec == x.f.supremum || x.bad {
		return
	}
	size, count, last := 0, 0, 0
	for at := rec; at != x.f.supremum && !x.bad; at = x.next(at) {
		if count++; at == 0 || count > x.heapCount() {
			x.bad = true
			return
		}
		size += x.look(at).size()
		last = at
	}
	owner, passed := x.owner(rec)
	i := x.slotOf(owner)
	owned := x.owned(owner) - passed
	prev := x.before(rec, i)
	if x.bad {
		return
	}
	x.put16(x.slotAt(i), x.f.supremum)
	x.setOwned(x.f.supremum, owned)
	x.putHeader(pageSlots, i+1)
	x.setNext(prev, x.f.supremum)
	x.setNext(last, x.u16(pageFree))
	x.putHeader(pageFree, rec)
	x.putHeader(pageGarbage, x.u16(pageGarbage)+size)
	x.putHeader(pageRows, x.u16(pageRows)-count)
}

// removeStart takes all rows before this one off the list, one by one (InnoDB
// page0page.cc, page_delete_rec_list_start).
func (x *rows) removeStart(rec int) {
	if rec == x.f.infimum {
		return
	}
	if rec == x.f.supremum {
		// The server logs such a thing as a page that is made anew.
		x.bad = true
		return
	}
	for range x.heapCount() {
		first := x.next(x.f.infimum)
		if first == rec || x.bad {
			return
		}
		x.remove(first)
	}
	x.bad = true
}
