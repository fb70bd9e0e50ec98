package apply

import (
	"encoding/binary"

	"github.com/xbstream/xbstream/internal/innodb/indexpage"
)

// insertDynamic puts a row into a page in ROW_FORMAT=COMPACT or DYNAMIC. Of
// header and data only what differs from the row before is in the record
// (InnoDB page0cur.cc, page_apply_insert_dynamic).
func insertDynamic(b, body []byte, reuse bool) error {
	var prev, shift, hdr, sameHdr, sameData int
	numbers := []*int{&prev, &hdr, &sameHdr, &sameData}
	if reuse {
		numbers = []*int{&prev, &shift, &hdr, &sameHdr, &sameData}
	}
	literal, err := varints(body, numbers...)
	if err != nil {
		return err
	}
	info, instant, newHdr := hdr&3, hdr&4, hdr>>3
	if newHdr > len(literal) {
		return malformed("insert with %d of %d header bytes", len(literal), newHdr)
	}
	x := openIndex(b, &indexpage.Compact)
	prev += indexpage.Compact.Infimum
	next := x.Next(prev)
	owner, _ := x.Owner(next)
	extra := indexpage.CompactExtra + sameHdr + newHdr
	data := sameData + len(literal) - newHdr
	buf, heapNo := x.placeDynamic(reuse, shift, extra, data)
	if x.Bad || !x.In(buf, extra+data) || !x.In(prev-indexpage.CompactExtra-sameHdr, sameHdr) || !x.In(prev, sameData) {
		return malformed("insert of %d+%d bytes after %d", extra, data, prev)
	}
	rec := buf + extra
	copy(b[buf:], literal[:newHdr])
	copy(b[buf+newHdr:buf+newHdr+sameHdr], b[prev-indexpage.CompactExtra-sameHdr:prev-indexpage.CompactExtra])
	b[rec-5] = byte(info << 4)
	status := instant
	if binary.BigEndian.Uint16(b[indexpage.Level:]) != 0 {
		status = 1 // node pointer
	}
	x.Put16(rec-4, heapNo<<3|status)
	x.SetNext(rec, next)
	x.SetNext(prev, rec)
	copy(b[rec:rec+sameData], b[prev:prev+sameData])
	copy(b[rec+sameData:], literal[newHdr:])
	x.inserted(rec, prev, next, owner)
	return x.result("insert")
}

// placeDynamic finds the place for a row: fresh from the heap, or that of the
// first deleted record, which may have had another size of header.
func (x *indexPage) placeDynamic(reuse bool, shift, extra, data int) (buf, heapNo int) {
	if !reuse {
		return x.allocate(extra + data)
	}
	rec, heapNo := x.reuse(extra + data)
	buf = rec - extra + shift>>1
	if shift&1 != 0 {
		buf = rec - extra - shift>>1
	}
	if buf < x.F.HeapStart || buf+extra+data > x.U16(indexpage.HeapTop) {
		x.Bad = true
	}
	return buf, heapNo
}

// maxRedundantHeader is the header of a REDUNDANT row with the most fields
// there can be, with two bytes for each.
const maxRedundantHeader = indexpage.RedundantExtra + 2*1024

// insertRedundant puts a row into a page in ROW_FORMAT=REDUNDANT (InnoDB
// page0cur.cc, page_apply_insert_redundant).
func insertRedundant(b, body []byte, reuse bool) error {
	var prev, hdr, sameHdr, sameData int
	literal, err := varints(body, &prev, &hdr, &sameHdr, &sameData)
	if err != nil {
		return err
	}
	info, short, fields := hdr&3, hdr>>2&1, hdr>>3+1
	extra := indexpage.RedundantExtra + fields*(2-short)
	sameHdr += indexpage.RedundantExtra // the fixed header always comes from prev
	newHdr := extra - sameHdr
	if fields > 1023 || newHdr < 0 || newHdr > len(literal) {
		return malformed("insert of %d fields", fields)
	}
	x := openIndex(b, &indexpage.Redundant)
	prev += indexpage.Redundant.Infimum
	next := x.Next(prev)
	owner, _ := x.Owner(next)
	if x.Bad || !x.In(prev-sameHdr, sameHdr) {
		return malformed("insert after %d", prev)
	}
	var scratch [maxRedundantHeader]byte
	header := scratch[:extra]
	copy(header, literal[:newHdr])
	copy(header[newHdr:], b[prev-sameHdr:prev])
	header[extra-6] = byte(info << 4)
	header[extra-3] = byte(fields<<1 | short)
	data := redundantDataSize(header)
	if sameData > data || len(literal)-newHdr != data-sameData || !x.In(prev, sameData) {
		return malformed("insert of %d data bytes, %d of them as before", data, sameData)
	}
	buf, heapNo := x.placeRedundant(reuse, extra+data)
	if x.Bad || !x.In(buf, extra+data) {
		return malformed("insert of %d+%d bytes after %d", extra, data, prev)
	}
	binary.BigEndian.PutUint16(header[extra-5:], uint16(heapNo<<3|fields>>7))
	rec := buf + extra
	copy(b[buf:], header)
	x.SetNext(prev, rec)
	copy(b[rec:rec+sameData], b[prev:prev+sameData])
	copy(b[rec+sameData:], literal[newHdr:])
	x.inserted(rec, prev, next, owner)
	return x.result("insert")
}

// placeRedundant finds the place for a row.
func (x *indexPage) placeRedundant(reuse bool, size int) (buf, heapNo int) {
	if !reuse {
		return x.allocate(size)
	}
	rec := x.U16(indexpage.Free)
	extra, _ := x.redundantSizes(rec)
	rec, heapNo = x.reuse(size)
	buf = rec - extra
	if buf < x.F.HeapStart || buf+size > x.U16(indexpage.HeapTop) {
		x.Bad = true
	}
	return buf, heapNo
}

// redundantSizes returns the sizes of a row's header and data.
func (x *indexPage) redundantSizes(rec int) (extra, data int) {
	if !x.In(rec-indexpage.RedundantExtra, indexpage.RedundantExtra) {
		return 0, 0
	}
	fields := int(binary.BigEndian.Uint16(x.B[rec-4:])) >> 1 & 0x3FF
	extra = indexpage.RedundantExtra + fields*(2-int(x.B[rec-3]&1))
	if fields == 0 || !x.In(rec-extra, extra) {
		x.Bad = true
		return 0, 0
	}
	return extra, redundantDataSize(x.B[rec-extra : rec])
}

// redundantDataSize reads the end of the last field from a whole header: it is
// stored first. The upper bits say NULL and stored elsewhere.
func redundantDataSize(header []byte) int {
	if header[len(header)-3]&1 != 0 {
		return int(header[0] & 0x7F)
	}
	return int(binary.BigEndian.Uint16(header) & 0x3FFF)
}

// deleteRowDynamic takes the row after the named one off the page.
func deleteRowDynamic(b, body []byte) error {
	var prev, hdr, data int
	rest, err := varints(body, &prev, &hdr, &data)
	if err != nil || len(rest) != 0 {
		return malformed("delete of %d bytes", len(body))
	}
	x := openIndex(b, &indexpage.Compact)
	prev += indexpage.Compact.Infimum
	x.remove(prev, x.Next(prev), indexpage.CompactExtra+hdr, data)
	return x.result("delete")
}

// deleteRowRedundant is deleteRowDynamic for the older format, whose rows know
// their size.
func deleteRowRedundant(b, body []byte) error {
	var prev int
	rest, err := varints(body, &prev)
	if err != nil || len(rest) != 0 {
		return malformed("delete of %d bytes", len(body))
	}
	x := openIndex(b, &indexpage.Redundant)
	prev += indexpage.Redundant.Infimum
	rec := x.Next(prev)
	extra, data := x.redundantSizes(rec)
	if x.Bad {
		return x.result("delete")
	}
	x.remove(prev, rec, extra, data)
	return x.result("delete")
}
