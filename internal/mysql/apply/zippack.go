package apply

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/adler32"
	"io"
	"math/bits"
	"slices"

	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/indexpage"
)

// recompress is what the server does where its redo holds no compressed page
// (innodb_log_compressed_pages=OFF): the page is compressed as it is, or, for
// ZIP_PAGE_REORGANIZE, once its rows are put in anew. Here it is compressed at the
// end. Until then rows go to where they go in the server's page.
func (p *Page) recompress(reorganize bool) error {
	if !p.target.Zip {
		return malformed("page is not of ROW_FORMAT=COMPRESSED")
	}
	x, err := p.openRows()
	if err != nil {
		return err
	}
	x.zip, p.zip.stale = nil, true
	if reorganize {
		p.reorganize()
	}
	return x.result()
}

// pack makes the page in the file from the expanded one.
func (z *zipPage) pack(x *rows) error {
	x.Bad = false
	leaf := x.leaf()
	list := z.list(x)
	if x.Bad {
		return malformed("rows of a compressed page")
	}
	stream := z.deflate(x, leaf)
	room := len(list) * (indexpage.SlotSize + apart(leaf, z.trx != 0))
	refs := z.countReferences(x, list[:x.U16(indexpage.RowCount)])
	if x.Bad {
		return malformed("rows of a compressed page")
	}
	if indexpage.HeaderEnd+len(stream)+1+room+externSize*refs > len(z.b) {
		return ErrRecompress
	}
	copy(z.b[innodb.OffPrev:innodb.OffPrev+8], z.frame[innodb.OffPrev:])
	copy(z.b[innodb.OffType:innodb.OffType+2], z.frame[innodb.OffType:])
	copy(z.b[innodb.OffData:indexpage.HeaderEnd], z.frame[innodb.OffData:])
	clear(z.b[indexpage.HeaderEnd+copy(z.b[indexpage.HeaderEnd:], stream):])
	z.logEnd, z.nonempty, z.blobs, z.stale = indexpage.HeaderEnd+len(stream), false, refs, false
	for i, v := range list {
		z.putEntry(i, v)
	}
	z.keepApart(x, leaf)
	return x.result()
}

// list returns the entries of the dense directory, and puts all rows into heap in
// their order.
func (z *zipPage) list(x *rows) (entries []int) {
	live, all := x.U16(indexpage.RowCount), x.heapCount()-indexpage.UserHeapNo
	z.heap = z.heap[:0]
	add := func(rec, flags int) {
		if rec < indexpage.Compact.HeapStart+indexpage.Compact.Extra || rec > min(zipOffset, len(x.B)) || len(entries) > all {
			x.Bad = true
			return
		}
		entries = append(entries, rec|flags)
		z.heap = append(z.heap, rec)
	}
	for rec := x.Next(indexpage.Compact.Infimum); rec != indexpage.Compact.Supremum && !x.Bad; rec = x.Next(rec) {
		flags := 0
		if x.Owned(rec) != 0 {
			flags |= zipOwned
		}
		if x.U8(rec-5)&infoDeleted != 0 {
			flags |= zipDeleted
		}
		add(rec, flags)
	}
	if len(entries) != live {
		x.Bad = true
	}
	for rec := x.U16(indexpage.Free); rec != 0 && !x.Bad; rec = x.Next(rec) {
		add(rec, 0)
	}
	slices.Sort(z.heap)
	for i, rec := range z.heap {
		if x.HeapNo(rec) != i+indexpage.UserHeapNo {
			x.Bad = true
		}
	}
	if len(entries) != all {
		x.Bad = true
	}
	return entries
}

// deflate makes the stream: what describes the index, in a block of its own, and
// the rows in another. The window is that of the server, which is as long as a
// page: it refuses a longer one (InnoDB page0zip.cc, page_zip_compress).
func (z *zipPage) deflate(x *rows, leaf bool) []byte {
	window := bits.Len(uint(z.size)) - 1
	head := uint16(window-8)<<12 | 8<<8
	head |= 31 - head%31
	out := binary.BigEndian.AppendUint16(nil, head)
	plain := z.plain[:0]
	write := func(b []byte) { plain = append(plain, b...) }
	from := indexpage.Compact.HeapStart
	until := func(to int) {
		if to < from || !x.In(from, to-from) {
			x.Bad = true
			return
		}
		write(x.B[from:to])
		from = to
	}
	for _, rec := range z.heap {
		until(rec - indexpage.Compact.Extra)
		from = rec
		if leaf && z.trx == 0 {
			continue
		}
		r := x.look(rec)
		kept := z.kept(r, leaf, z.trx0())
		if x.Bad || !sound(r, kept) {
			x.Bad = true
			return nil
		}
		for _, k := range kept {
			until(rec + k.from)
			from = rec + k.to
		}
		until(rec + r.data)
	}
	until(x.U16(indexpage.HeapTop))
	z.plain = plain
	sum := adler32.Checksum(append(slices.Clone(z.description), plain...))
	return binary.BigEndian.AppendUint32(append(out, blocks(z.description, plain)...), sum)
}

// blocks compresses both parts, the first into a block that ends at a byte, the
// second into the last block.
func blocks(first, last []byte) []byte {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		panic(err) // the level is a constant
	}
	w.Write(first) // into memory: it does not fail
	w.Flush()
	if len(last) == 0 {
		w.Close()
		return out.Bytes()
	}
	at := out.Len()
	w.Write(last)
	w.Flush()
	// The writer would end with an empty block, which takes five bytes. If the
	// rows are one block, make it the last one, and leave out the empty one that
	// Flush wrote: its four bytes, and one more if its bits did not fit before.
	b := out.Bytes()
	for _, cut := range []int{5, 4} {
		short := slices.Clone(b[:len(b)-cut])
		short[at] |= 1
		src := bytes.NewReader(short[at:])
		if got, err := io.ReadAll(flate.NewReader(src)); err == nil && src.Len() == 0 && bytes.Equal(got, last) {
			return short
		}
	}
	w.Close()
	return out.Bytes()
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
			part := x.B[rec+k.from : rec+k.to]
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
