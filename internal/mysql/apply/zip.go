package apply

import (
	"encoding/binary"
	"io"

	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/indexpage"
	"github.com/xbstream/xbstream/internal/mysql/redo"
)

// zipPage is a page of ROW_FORMAT=COMPRESSED (InnoDB page0zip.ic, page0zip.cc).
// In the file, an index page has
//
//	the page header, of indexpage.HeaderEnd bytes, as it is;
//	a zlib stream: a description of the index, then the rows in the order of the
//	heap, without the headers of fixed size and without what is kept apart;
//	the log of what has changed since, ended by a zero byte;
//	zeros;
//	what is kept apart: references to what is stored elsewhere, in the order of
//	the heap; and of each row, by heap number, DB_TRX_ID and DB_ROLL_PTR or the
//	page number of a node pointer;
//	the dense directory: two bytes a row, in the order of the list, then those
//	that are deleted.
//
// The last two grow down from the end of the page. Pages of other kinds are as
// they are in other tablespaces.
type zipPage struct {
	b []byte
	// frame is the page as it would be if it were not compressed; opened says
	// that it is up to date.
	frame  []byte
	opened bool
	// stale says that b is no longer kept up to date: the page must be compressed.
	stale bool
	// packs says that the next record is that the server compressed the page.
	packs bool
	// logEnd is where the log ends, nonempty that there is one; blobs is the
	// number of references to what is stored elsewhere.
	logEnd   int
	nonempty bool
	blobs    int

	size        int // of frame
	zlib        io.ReadCloser
	plain       []byte     // what the stream holds
	heap        []int      // origins of all rows, in the order of the heap
	index       redo.Index // as the stream describes it, in the bytes of description
	description []byte
	rows        rows   // of frame, with that index
	trx         int    // number of DB_TRX_ID in that index, 0 for none
	temp        []byte // a row's header
	gaps        []span
}

// In an entry of the dense directory.
const (
	zipOffset  = 0x3FFF
	zipOwned   = 0x4000
	zipDeleted = 0x8000
)

// defaultSize is innodb_page_size unless the target says another.
const defaultSize = 16 << 10

func (z *zipPage) reset(page []byte, t Target) {
	z.b, z.opened, z.stale, z.size = page, false, false, defaultSize
	if t.Logical != 0 {
		z.size = t.Logical
	}
}

// close forgets the expanded page.
func (z *zipPage) close() { z.opened, z.stale = false, false }

// copied keeps the expanded page equal after a write to the page in the file.
func (z *zipPage) copied(off int, data []byte) {
	if z.opened {
		copy(z.frame[off:], data)
	}
}

func (z *zipPage) u16(off int) int { return int(binary.BigEndian.Uint16(z.b[off:])) }

// dense is the number of rows in the dense directory; the first live of them are
// not deleted.
func (z *zipPage) dense() int {
	return z.u16(indexpage.HeapCount)&^indexpage.CompactBit - indexpage.UserHeapNo
}

func (z *zipPage) live() int { return z.u16(indexpage.RowCount) }

// entryAt returns the offset of an entry of the dense directory.
func (z *zipPage) entryAt(i int) int { return len(z.b) - indexpage.SlotSize*(i+1) }

func (z *zipPage) entry(i int) int { return z.u16(z.entryAt(i)) }

func (z *zipPage) putEntry(i, v int) { binary.BigEndian.PutUint16(z.b[z.entryAt(i):], uint16(v)) }

// find returns the number of the entry of a row that is not deleted; x turns bad
// if there is none.
func (z *zipPage) find(x *rows, rec int) int {
	for i := range z.live() {
		if z.entry(i)&zipOffset == rec {
			return i
		}
	}
	x.Bad = true
	return 0
}

// deleted says whether a row is on the list of deleted ones.
func (z *zipPage) deleted(rec int) bool {
	for i := z.live(); i < z.dense(); i++ {
		if z.entry(i)&zipOffset == rec {
			return true
		}
	}
	return false
}

// mark sets or clears a bit of a row's entry.
func (z *zipPage) mark(x *rows, rec, bit int, on bool) {
	if x.Bad || z.stale || !x.user(rec) {
		return
	}
	i := z.find(x, rec)
	if x.Bad {
		return
	}
	v := z.entry(i) &^ bit
	if on {
		v |= bit
	}
	z.putEntry(i, v)
}

// apart is how many bytes of each row are kept apart, the entry of the directory
// aside.
func apart(leaf, clustered bool) int {
	switch {
	case !leaf:
		return nodePtrSize
	case clustered:
		return trxIDSize + rollPtrSize
	}
	return 0
}

// storage is the end of what is kept apart: the start of the directory.
func (z *zipPage) storage() int { return len(z.b) - indexpage.SlotSize*z.dense() }

// references is the end of the references to what is stored elsewhere.
func (z *zipPage) references() int {
	return len(z.b) - (indexpage.SlotSize+trxIDSize+rollPtrSize)*z.dense()
}

// span is a part of a row's data.
type span struct{ from, to int }

// kept lists the parts of a row that are kept apart, in order. trx is the number
// of DB_TRX_ID, -1 for none.
func (z *zipPage) kept(r *row, leaf bool, trx int) []span {
	z.gaps = z.gaps[:0]
	if !leaf {
		return append(z.gaps, span{r.data - nodePtrSize, r.data})
	}
	for i := range r.fields {
		switch f := &r.fields[i]; {
		case i == trx:
			z.gaps = append(z.gaps, span{int(f.start), int(f.start) + trxIDSize + rollPtrSize})
		case f.extern:
			z.gaps = append(z.gaps, span{int(f.end) - externSize, int(f.end)})
		}
	}
	return z.gaps
}

// sound says whether the parts that are kept apart lie in the row.
func sound(r *row, kept []span) bool {
	at := 0
	for _, k := range kept {
		if k.from < at || k.to > r.data {
			return false
		}
		at = k.to
	}
	return true
}

// writeZip applies the records that are only for such pages.
func (p *Page) writeZip(t redo.Type, d *redo.Cursor) error {
	if !p.target.Zip {
		return malformed("page is not of ROW_FORMAT=COMPRESSED")
	}
	var ok bool
	switch z := &p.zip; t {
	case redo.ZipWriteHeader:
		off := d.U8()
		data := d.Take(d.U8())
		ok = len(data) > 0 && off+len(data) < indexpage.HeaderEnd && z.writeBoth(off, off, data)
	case redo.ZipWriteNodePtr:
		ok = z.writeBoth(d.U16(), d.U16(), d.Take(nodePtrSize))
	case redo.ZipWriteBlobPtr:
		ok = z.writeBoth(d.U16(), d.U16(), d.Take(externSize))
	case redo.ZipPageCompress:
		ok = z.replace(d)
	}
	if !ok || !d.Done() {
		return malformed("page of %d bytes", len(p.b))
	}
	return nil
}

// writeBoth writes to the expanded page and to that in the file.
func (z *zipPage) writeBoth(off, zipOff int, data []byte) bool {
	if off+len(data) > z.size || zipOff+len(data) > len(z.b) {
		return false
	}
	copy(z.b[zipOff:], data)
	z.copied(off, data)
	return true
}

// replace takes a page as the server has compressed it: all but its number and
// LSN (InnoDB page0zip.cc, page_zip_parse_compress).
func (z *zipPage) replace(d *redo.Cursor) bool {
	size, tail := d.U16(), d.U16()
	neighbours, start, end := d.Take(8), d.Take(size), d.Take(tail)
	z.close()
	if d.Err() != nil || size < indexpage.HeaderEnd-innodb.OffType || innodb.OffType+size+tail > len(z.b) {
		return false
	}
	copy(z.b[innodb.OffPrev:], neighbours)
	clear(z.b[innodb.OffType+copy(z.b[innodb.OffType:], start):])
	copy(z.b[len(z.b)-tail:], end)
	return true
}
