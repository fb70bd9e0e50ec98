package apply

import (
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/indexpage"
)

// available says whether a row of that size can be put in without compressing the
// page anew. What is kept apart of it counts as part of the row (InnoDB
// page0zip.ic, page_zip_available).
func (z *zipPage) available(x *rows, size int, leaf bool) bool {
	tail := (indexpage.SlotSize+apart(leaf, x.index.Clustered()))*z.dense() + externSize*z.blobs + indexpage.SlotSize
	return size-(indexpage.Compact.Extra-2)+tail+z.logEnd < len(z.b)
}

// reorganizes says whether the server makes room in the expanded page before it
// puts a row in (InnoDB page0cur.cc, page_cur_insert_rec_zip; page0page.ic,
// page_get_max_insert_size, ..._after_reorganize).
func (z *zipPage) reorganizes(x *rows, size int) bool {
	garbage := x.U16(indexpage.Garbage)
	if garbage == 0 {
		return false
	}
	room := len(x.B) - indexpage.Compact.HeapStart - innodb.Trailer - 2*indexpage.SlotSize
	slots := func(n int) int { return (indexpage.SlotSize*n + indexpage.SlotMin - 1) / indexpage.SlotMin }
	used := x.U16(indexpage.HeapTop) - indexpage.Compact.HeapStart
	return size > max(0, room-used-slots(1+x.heapCount()-indexpage.UserHeapNo)) &&
		size <= max(0, room-(used-garbage)-slots(1+x.U16(indexpage.RowCount)))
}

// insert puts a row in after prev (InnoDB page0cur.cc, page_cur_insert_rec_zip).
//
// If there is no room, the server changes the expanded page only: a record that
// follows has the page as it was compressed then, or says that it was. Once the
// page in the file is not the server's, that record tells.
func (z *zipPage) insert(x *rows, prev int, data []byte, extra int) {
	size, leaf := len(data), x.leaf()
	full := z.packs
	if !z.stale {
		full = !z.available(x, size, leaf) || z.reorganizes(x, size)
	}
	if full {
		z.stale, x.zip = true, nil
		x.insertPlain(prev, data, extra)
		return
	}
	start, heapNo, reused := z.reuse(x, size, extra, leaf)
	if !reused {
		start, heapNo = x.fromHeap(size)
		if x.Bad {
			return
		}
		z.addSlot(x, leaf)
	}
	if start < indexpage.Compact.HeapStart || !x.In(start, size) {
		x.Bad = true
		return
	}
	copy(x.B[start:], data)
	rec := start + extra
	x.inserted(rec, prev, heapNo)
	z.addEntry(x, prev, rec, reused)
	x.noteInsert(rec, prev)
	x.own(rec)
	z.write(x, rec, x.look(rec), true)
}

// reuse takes the room of the first deleted row, if it has enough and its header
// is not too small: a row is never moved within the room.
func (z *zipPage) reuse(x *rows, size, extra int, leaf bool) (start, heapNo int, ok bool) {
	free := x.U16(indexpage.Free)
	if free == 0 {
		return 0, 0, false
	}
	r := x.look(free)
	if x.Bad || extra > r.extra || r.size() < size+r.extra-extra {
		return 0, 0, false
	}
	start = free - extra
	heapNo = x.reuse(free, size)
	kept := z.kept(r, leaf, z.trxOf(x))
	if len(kept) == 0 || r.externs > 0 && leaf && !x.index.Clustered() {
		return start, heapNo, !x.Bad
	}
	// What is kept apart of the old row must not be left in the room.
	k := kept[0]
	if leaf {
		for _, k = range kept {
			if k.to-k.from != externSize {
				break
			}
		}
	}
	if r.extra+k.to > size && x.In(free+k.from, k.to-k.from) {
		clear(x.B[free+k.from : free+k.to])
	}
	return start, heapNo, !x.Bad
}

// trxOf is the number of DB_TRX_ID in the index that the record describes, -1 for
// none.
func (z *zipPage) trxOf(x *rows) int {
	if !x.index.Clustered() {
		return -1
	}
	return x.index.Unique
}

// addSlot makes room for one more row in the directory and in what is kept apart;
// the number of rows has grown already (InnoDB page0zip.cc,
// page_zip_dir_add_slot).
func (z *zipPage) addSlot(x *rows, leaf bool) {
	if z.stale {
		return
	}
	n := z.dense() - 1
	dir := len(z.b) - indexpage.SlotSize*n
	stored := dir - n*apart(leaf, x.index.Clustered())
	if leaf && x.index.Clustered() {
		const each = indexpage.SlotSize + trxIDSize + rollPtrSize
		refs := stored - externSize*z.blobs
		if refs-each < z.logEnd {
			x.Bad = true
			return
		}
		copy(z.b[refs-each:], z.b[refs:stored])
	}
	if stored-indexpage.SlotSize < z.logEnd {
		x.Bad = true
		return
	}
	copy(z.b[stored-indexpage.SlotSize:], z.b[stored:dir])
}

// addEntry puts a row into the dense directory after prev. It shifts the entries
// after it up to the one of the deleted row whose room was used, or all.
func (z *zipPage) addEntry(x *rows, prev, rec int, reused bool) {
	if x.Bad || z.stale {
		return
	}
	at := 0
	if prev != indexpage.Compact.Infimum {
		at = z.find(x, prev) + 1
	}
	last := z.dense() - 1
	if reused {
		last = z.live() - 1
	}
	if x.Bad || at > last {
		x.Bad = true
		return
	}
	for i := last; i > at; i-- {
		z.putEntry(i, z.entry(i-1))
	}
	z.putEntry(at, rec)
}

// write appends a row to the log of changes, and writes what is kept apart
// (InnoDB page0zip.cc, page_zip_write_rec).
func (z *zipPage) write(x *rows, rec int, r *row, create bool) {
	leaf := x.leaf()
	if x.Bad || z.stale {
		return
	}
	z.mark(x, rec, zipDeleted, x.U8(rec-5)&infoDeleted != 0)
	heapNo := x.HeapNo(rec)
	kept := z.kept(r, leaf, z.trxOf(x))
	if heapNo < indexpage.UserHeapNo || heapNo >= x.heapCount() || !sound(r, kept) {
		x.Bad = true
		return
	}
	refs := z.references()
	if r.externs > 0 {
		// A row has as many references before its own as the rows of lower heap
		// numbers have in all.
		before := z.referencesBefore(x, rec)
		r = x.look(rec)
		if create {
			z.blobs += r.externs
		}
		end := refs - externSize*z.blobs
		if x.Bad || before+r.externs > z.blobs || end < z.logEnd {
			x.Bad = true
			return
		}
		refs -= externSize * before
		if create {
			copy(z.b[end:], z.b[end+externSize*r.externs:refs])
		}
	}
	z.append(x, rec, r, z.kept(r, leaf, z.trxOf(x)), heapNo, refs, leaf)
}

// append writes the row itself.
func (z *zipPage) append(x *rows, rec int, r *row, kept []span, heapNo, refs int, leaf bool) {
	each := apart(leaf, x.index.Clustered())
	limit := z.storage() - z.dense()*each - externSize*z.blobs
	size := 2 + r.size() - indexpage.Compact.Extra
	for _, k := range kept {
		size -= k.to - k.from
	}
	if x.Bad || z.logEnd+size > limit {
		x.Bad = true
		return
	}
	out := z.b[:z.logEnd]
	if heapNo-1 >= 64 {
		out = append(out, 0x80|byte((heapNo-1)>>7))
	}
	out = append(out, byte((heapNo-1)<<1))
	for at := rec - indexpage.Compact.Extra; at > rec-r.extra; {
		at--
		out = append(out, x.B[at])
	}
	from := 0
	stored := z.storage() - each*(heapNo-1)
	for _, k := range kept {
		out = append(out, x.B[rec+from:rec+k.from]...)
		from = k.to
		part := x.B[rec+k.from : rec+k.to]
		if len(part) != externSize {
			copy(z.b[stored:], part)
			continue
		}
		refs -= externSize
		copy(z.b[refs:], part)
	}
	out = append(out, x.B[rec+from:rec+r.data]...)
	z.logEnd, z.nonempty = len(out), true
}

// referencesBefore counts the references of rows with lower heap numbers (InnoDB
// page0zip.cc, page_zip_get_n_prev_extern).
func (z *zipPage) referencesBefore(x *rows, rec int) (n int) {
	heapNo := x.HeapNo(rec)
	for i := range z.live() {
		at := z.entry(i) & zipOffset
		if x.Bad {
			return 0
		}
		if at != rec && x.HeapNo(at) < heapNo {
			n += x.look(at).externs
		}
	}
	return n
}

// writeSystem writes DB_TRX_ID and DB_ROLL_PTR, which are kept apart.
func (z *zipPage) writeSystem(x *rows, rec int, data []byte) {
	if z.stale {
		return
	}
	heapNo := x.HeapNo(rec)
	if x.Bad || !x.leaf() || heapNo < indexpage.UserHeapNo || heapNo >= x.heapCount() {
		x.Bad = true
		return
	}
	copy(z.b[z.storage()-len(data)*(heapNo-1):], data)
}

// free moves the entry of a row to the deleted ones and clears what is kept apart
// (InnoDB page0zip.cc, page_zip_dir_delete, page_zip_clear_rec).
func (z *zipPage) free(x *rows, rec int, r *row) {
	leaf := x.leaf()
	if z.stale {
		x.putHeader(indexpage.RowCount, x.U16(indexpage.RowCount)-1)
		x.setInfo(rec, 0xFF, 0)
		return
	}
	i := z.find(x, rec)
	if x.Bad {
		return
	}
	x.putHeader(indexpage.RowCount, x.U16(indexpage.RowCount)-1)
	for ; i < z.live(); i++ {
		z.putEntry(i, z.entry(i+1))
	}
	z.putEntry(i, rec)
	clustered := leaf && x.index.Clustered()
	if n := r.externs; n > 0 && clustered {
		z.dropReferences(x, rec, n)
		r = x.look(rec)
	}
	x.setInfo(rec, 0xFF, 0)
	heapNo := x.HeapNo(rec)
	if x.Bad || heapNo < indexpage.UserHeapNo || heapNo >= x.heapCount() {
		x.Bad = true
		return
	}
	size := apart(leaf, x.index.Clustered())
	at := z.storage() - size*(heapNo-1)
	clear(z.b[at : at+size])
	kept := z.kept(r, leaf, z.trxOf(x))
	if !sound(r, kept) {
		x.Bad = true
		return
	}
	for _, k := range kept {
		clear(x.B[rec+k.from : rec+k.to])
	}
}

// dropReferences takes the references of a row out.
func (z *zipPage) dropReferences(x *rows, rec, n int) {
	before := z.referencesBefore(x, rec)
	if x.Bad || before+n > z.blobs {
		x.Bad = true
		return
	}
	refs := z.references()
	end := refs - externSize*z.blobs
	z.blobs -= n
	copy(z.b[end+externSize*n:refs-externSize*before], z.b[end:refs-externSize*(before+n)])
	clear(z.b[end : end+externSize*n])
}
