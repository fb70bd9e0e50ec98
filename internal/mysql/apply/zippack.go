package apply

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/adler32"
	"math/bits"
	"slices"
)

// recompress is what the server does where its redo holds no compressed page
// (innodb_log_compressed_pages=OFF): the page is compressed as it is, or, for
// ZIP_PAGE_REORGANIZE, once its rows are put in anew. The rows come out the same,
// the bytes do not: they depend on the version of zlib.
func (p *Page) recompress(reorganize bool) error {
	if !p.target.Zip {
		return malformed("page is not of ROW_FORMAT=COMPRESSED")
	}
	x, err := p.openRows()
	if err != nil {
		return err
	}
	x.zip = nil
	if reorganize {
		p.reorganize()
	}
	if err := x.result(); err != nil {
		return err
	}
	return p.zip.pack(&p.zip.rows)
}

// pack makes the page in the file from the expanded one.
func (z *zipPage) pack(x *rows) error {
	x.bad = false
	leaf := x.leaf()
	list := z.list(x)
	if x.bad {
		return malformed("rows of a compressed page")
	}
	stream := z.deflate(x, leaf)
	room := len(list) * (slotSize + apart(leaf, z.trx != 0))
	refs := z.countReferences(x, list[:x.u16(pageRows)])
	if x.bad {
		return malformed("rows of a compressed page")
	}
	if pageData+len(stream)+1+room+externSize*refs > len(z.b) {
		return ErrRecompress
	}
	copy(z.b[filPrev:filPrev+8], z.frame[filPrev:])
	copy(z.b[filType:filType+2], z.frame[filType:])
	copy(z.b[filData:pageData], z.frame[filData:])
	clear(z.b[pageData+copy(z.b[pageData:], stream):])
	z.logEnd, z.nonempty, z.blobs, z.stale = pageData+len(stream), false, refs, false
	for i, v := range list {
		z.putEntry(i, v)
	}
	z.keepApart(x, leaf)
	return x.result()
}

// list returns the entries of the dense directory, and puts all rows into heap in
// their order.
func (z *zipPage) list(x *rows) (entries []int) {
	live, all := x.u16(pageRows), x.heapCount()-userHeap
	z.heap = z.heap[:0]
	add := func(rec, flags int) {
		if rec < compactFormat.heapStart+compactFormat.extra || rec > min(zipOffset, len(x.b)) || len(entries) > all {
			x.bad = true
			return
		}
		entries = append(entries, rec|flags)
		z.heap = append(z.heap, rec)
	}
	for rec := x.next(compactFormat.infimum); rec != compactFormat.supremum && !x.bad; rec = x.next(rec) {
		flags := 0
		if x.owned(rec) != 0 {
			flags |= zipOwned
		}
		if x.u8(rec-5)&infoDeleted != 0 {
			flags |= zipDeleted
		}
		add(rec, flags)
	}
	if len(entries) != live {
		x.bad = true
	}
	for rec := x.u16(pageFree); rec != 0 && !x.bad; rec = x.next(rec) {
		add(rec, 0)
	}
	slices.Sort(z.heap)
	for i, rec := range z.heap {
		if x.heapNo(rec) != i+userHeap {
			x.bad = true
		}
	}
	if len(entries) != all {
		x.bad = true
	}
	return entries
}

// deflate makes the stream. The window is that of the server, which is as long as
// a page: it refuses a longer one (InnoDB page0zip.cc, page_zip_compress).
func (z *zipPage) deflate(x *rows, leaf bool) []byte {
	window := bits.Len(uint(z.size)) - 1
	head := uint16(window-8)<<12 | 8<<8
	head |= 31 - head%31
	out := bytes.NewBuffer(binary.BigEndian.AppendUint16(nil, head))
	w, err := flate.NewWriter(out, flate.BestCompression)
	if err != nil {
		panic(err) // the level is a constant
	}
	sum := adler32.New()
	write := func(b []byte) {
		w.Write(b) // into memory: it does not fail
		sum.Write(b)
	}
	write(z.description)
	w.Flush()
	from := compactFormat.heapStart
	until := func(to int) {
		if to < from || !x.in(from, to-from) {
			x.bad = true
			return
		}
		write(x.b[from:to])
		from = to
	}
	for _, rec := range z.heap {
		until(rec - compactFormat.extra)
		from = rec
		if leaf && z.trx == 0 {
			continue
		}
		r := x.look(rec)
		kept := z.kept(r, leaf, z.trx0())
		if x.bad || !sound(r, kept) {
			x.bad = true
			return nil
		}
		for _, k := range kept {
			until(rec + k.from)
			from = rec + k.to
		}
		until(rec + r.data)
	}
	until(x.u16(pageHeapTop))
	w.Close()
	return binary.BigEndian.AppendUint32(out.Bytes(), sum.Sum32())
}

// countReferences counts what rows have stored elsewhere.
func (z *zipPage) countReferences(x *rows, entries []int) (n int) {
	if z.trx == 0 {
		return 0
	}
	for _, v := range entries {
		n += x.look(v & zipOffset).externs
	}
	return n
}

// keepApart writes what is kept apart of all rows, as restore reads it.
func (z *zipPage) keepApart(x *rows, leaf bool) {
	at, refs := z.storage(), z.references()
	size := apart(leaf, z.trx != 0)
	if size == 0 {
		return
	}
	for _, rec := range z.heap {
		r := x.look(rec)
		at -= size
		deleted := r.externs > 0 && z.deleted(rec)
		for _, k := range z.kept(r, leaf, z.trx0()) {
			part := x.b[rec+k.from : rec+k.to]
			switch {
			case len(part) != externSize:
				copy(z.b[at:], part)
			case !deleted:
				refs -= externSize
				copy(z.b[refs:], part)
			}
		}
	}
}
