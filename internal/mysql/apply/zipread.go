package apply

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"io"
	"slices"

	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/indexpage"
	"github.com/xbstream/xbstream/internal/mysql/redo"
)

// open expands the page (InnoDB zipdecompress.cc, page_zip_decompress_low).
func (z *zipPage) open() error {
	if z.stale {
		return nil
	}
	if z.opened {
		return z.check()
	}
	if len(z.b) > z.size || len(z.b) < indexpage.HeaderEnd+indexpage.SlotSize || !hasRows(z.b) {
		return malformed("page of %d bytes has no rows", len(z.b))
	}
	z.frame = slices.Grow(z.frame[:0], z.size)[:z.size]
	clear(z.frame)
	copy(z.frame, z.b[:indexpage.HeaderEnd])
	x := &z.rows
	x.open(z.frame, &z.index)
	dense := z.dense()
	if !x.F.Compact || dense < 0 || z.live() > dense || dense*indexpage.SlotSize > len(z.b)-indexpage.HeaderEnd {
		return malformed("compressed page with %d rows", dense)
	}
	if err := z.expand(x, dense); err != nil {
		return err
	}
	z.opened = true
	return nil
}

// check says whether the parts of an opened page still fit together: a record may
// have written anything to its header.
func (z *zipPage) check() error {
	low := z.storage() - z.dense()*apart(z.rows.leaf(), z.trx != 0) - externSize*z.blobs
	if !hasRows(z.b) || z.dense() < 0 || z.live() > z.dense() || z.logEnd >= low {
		return malformed("header of a compressed page")
	}
	return nil
}

func (z *zipPage) expand(x *rows, dense int) error {
	z.openDirectory(x, dense)
	used, err := z.inflate()
	if err != nil {
		return err
	}
	leaf := x.leaf()
	room := dense * (indexpage.SlotSize + apart(leaf, z.trx != 0))
	if x.Bad || indexpage.HeaderEnd+used+room >= len(z.b) {
		return malformed("compressed rows of %d bytes", used)
	}
	count := z.fill(x, leaf)
	z.replay(x, z.b[indexpage.HeaderEnd+used:len(z.b)-room], leaf, count)
	z.logEnd += indexpage.HeaderEnd + used
	z.restore(x, leaf)
	z.link(x, leaf)
	if x.Bad {
		return malformed("compressed rows lead outside the page")
	}
	return nil
}

// openDirectory makes the directory, infimum and supremum, and lists the rows by
// their place.
func (z *zipPage) openDirectory(x *rows, dense int) {
	copy(z.frame[indexpage.HeaderEnd:], indexpage.Compact.System)
	z.heap = z.heap[:0]
	slot := 0
	put := func(rec int) {
		x.Put16(x.SlotAt(slot), rec)
		slot++
	}
	put(indexpage.Compact.Infimum)
	for i := range dense {
		v := z.entry(i)
		rec := v & zipOffset
		if rec < indexpage.Compact.HeapStart+indexpage.Compact.Extra || rec > len(z.frame)-innodb.Trailer || i >= z.live() && v != rec {
			x.Bad = true
			return
		}
		z.heap = append(z.heap, rec)
		if v&zipOwned != 0 && i < z.live() {
			put(rec)
		}
	}
	put(indexpage.Compact.Supremum)
	slices.Sort(z.heap)
	if slot != x.U16(indexpage.Slots) {
		x.Bad = true
	}
}

// inflate reads the stream: the description of the index, which ends at a flush,
// and all that follows. It returns how long the stream is.
func (z *zipPage) inflate() (used int, err error) {
	src := bytes.NewReader(z.b[indexpage.HeaderEnd:])
	if z.zlib == nil {
		z.zlib, err = zlib.NewReader(src)
	} else {
		err = z.zlib.(zlib.Resetter).Reset(src, nil)
	}
	if err != nil {
		return 0, malformed("compressed page: %v", err)
	}
	// A Read gives what there is when the writer flushed.
	z.plain = slices.Grow(z.plain[:0], z.size)[:z.size]
	n, err := z.zlib.Read(z.plain)
	if err != nil && err != io.EOF {
		return 0, malformed("compressed page: %v", err)
	}
	z.description = append(z.description[:0], z.plain[:n]...)
	if !z.describe(z.description) {
		return 0, malformed("index of a compressed page")
	}
	n, err = io.ReadFull(z.zlib, z.plain)
	if err != io.EOF && err != io.ErrUnexpectedEOF {
		return 0, malformed("compressed page: more than %d bytes: %v", z.size, err)
	}
	if _, err := z.zlib.Read(make([]byte, 1)); err != io.EOF {
		return 0, malformed("compressed page: %v", err)
	}
	z.plain = z.plain[:n]
	return int(src.Size()) - src.Len(), nil
}

// describe reads the description of the index: the length of each column, of a
// run of columns that have a fixed one and are not NULL together, and then the
// number of DB_TRX_ID on a leaf, of columns that may be NULL elsewhere (InnoDB
// page0zip.cc, page_zip_fields_encode).
func (z *zipPage) describe(b []byte) bool {
	next := func() (v int, long bool) {
		v, b = int(b[0]), b[1:]
		if long = v&0x80 != 0; long && len(b) > 0 {
			v, b = v&0x7F<<8|int(b[0]), b[1:]
		}
		return v, long
	}
	z.index = redo.Index{Compact: true, Fields: z.index.Fields[:0]}
	last := 0
	for first := true; len(b) > 0; first = false {
		v, long := next()
		if !first {
			z.index.Fields = append(z.index.Fields, zipField(last&0xFFFF, last>>16 != 0))
		}
		if last = v; long {
			last |= 1 << 16
		}
	}
	n := len(z.index.Fields)
	last &= 0xFFFF
	z.index.Unique, z.rows.nullables, z.trx = n, -1, 0
	if binary.BigEndian.Uint16(z.b[indexpage.Level:]) != 0 {
		z.rows.nullables = last
	} else {
		z.trx = last
	}
	return n > 0 && n <= redo.MaxFields && (z.rows.nullables >= 0 && last <= redo.MaxFields || last < n)
}

func zipField(v int, long bool) redo.Field {
	f := redo.Field{Nullable: v&1 == 0}
	switch {
	case long || v >= 2 && v < 126:
		f.Fixed = v >> 1
	case v >= 126:
		f.Big = true
	}
	return f
}

// spread copies a stream to where its parts belong.
type spread struct {
	x    *rows
	rest []byte
	out  int
}

// until copies up to an offset, or as much as there is.
func (s *spread) until(to int) {
	if to < s.out || !s.x.In(s.out, to-s.out) {
		s.x.Bad = true
		return
	}
	n := copy(s.x.B[s.out:to], s.rest)
	s.out, s.rest = s.out+n, s.rest[n:]
}

// fill spreads the rows of the stream over the heap, and returns how many rows
// the page had when it was compressed.
func (z *zipPage) fill(x *rows, leaf bool) (count int) {
	s := &spread{x, z.plain, indexpage.Compact.HeapStart}
	for _, rec := range z.heap {
		s.until(rec - indexpage.Compact.Extra)
		if s.out != rec-indexpage.Compact.Extra || x.Bad {
			break // the page has got more rows since
		}
		z.setHeapNo(x, rec, count, leaf)
		s.out = rec
		count++
		if len(s.rest) == 0 {
			break
		}
		z.fillRow(s, rec, leaf)
	}
	// The last row may lie in the room of a longer one.
	s.until(min(s.out+len(s.rest), max(s.out, x.U16(indexpage.HeapTop))))
	end := x.DirEnd()
	if len(s.rest) > 0 || s.out > end || !x.In(s.out, end-s.out) {
		x.Bad = true
		return 0
	}
	clear(x.B[s.out:end])
	return count
}

// fillRow copies the data of a row, but for what is kept apart. The data of leaves
// of secondary indexes has no gaps: it comes with what is before the next row.
func (z *zipPage) fillRow(s *spread, rec int, leaf bool) {
	if leaf && z.trx == 0 {
		return
	}
	r := s.x.look(rec)
	kept := z.kept(r, leaf, z.trx0())
	if !sound(r, kept) {
		s.x.Bad = true
		return
	}
	for _, k := range kept {
		if s.until(rec + k.from); s.out != rec+k.from {
			s.x.Bad = true
			return
		}
		s.out = rec + k.to
	}
	s.until(rec + r.data)
}

// setHeapNo writes heap number and status of the row that comes next.
func (z *zipPage) setHeapNo(x *rows, rec, i int, leaf bool) {
	status := statusOrdinary
	if !leaf {
		status = statusNodePtr
	}
	x.Put16(rec-indexpage.Compact.HeapNo, (i+indexpage.UserHeapNo)<<3|status)
}

// replay applies the log of changes (InnoDB zipdecompress.cc,
// page_zip_apply_log).
func (z *zipPage) replay(x *rows, log []byte, leaf bool, count int) {
	d := redo.NewCursor(log)
	for !x.Bad {
		at := len(log) - len(d.Rest())
		v := d.U8()
		if v == 0 {
			z.logEnd, z.nonempty = at, at > 0
			break
		}
		if v&0x80 != 0 {
			v = v&0x7F<<8 | d.U8()
		}
		i := v>>1 - 1
		if d.Err() != nil || i < 0 || i >= len(z.heap) || i > count {
			x.Bad = true
			return
		}
		if i == count {
			count++
		}
		rec := z.heap[i]
		z.setHeapNo(x, rec, i, leaf)
		if v&1 != 0 {
			r := x.look(rec)
			if x.In(rec, r.data) {
				clear(x.B[rec : rec+r.data])
			}
			continue
		}
		z.replayRow(x, rec, d, leaf)
	}
	if d.Err() != nil {
		x.Bad = true
	}
}

// replayRow copies a row from the log. Its header is there in reverse.
func (z *zipPage) replayRow(x *rows, rec int, d *redo.Cursor, leaf bool) {
	const longest = 1<<12 - 64
	head := d.Rest()[:min(len(d.Rest()), longest)]
	z.temp = slices.Grow(z.temp[:0], 2*longest)[:2*longest]
	origin := len(z.temp) - innodb.Trailer
	copy(z.temp[origin-5:], x.B[rec-5:rec])
	z.temp[origin-5] = 0
	at := origin - 5
	for i, c := range head {
		z.temp[at-1-i] = c
	}
	y := *x
	y.B = z.temp
	r := y.measure(origin)
	x.row.fields = r.fields
	start := rec - r.extra
	kept := z.kept(r, leaf, z.trx0())
	if y.Bad || x.Bad || !sound(r, kept) || !x.In(start, r.size()) || r.extra-5 > len(head) {
		x.Bad = true
		return
	}
	copy(x.B[start:], z.temp[origin-r.extra:at])
	d.Take(r.extra - 5)
	from := 0
	for _, k := range kept {
		copy(x.B[rec+from:], d.Take(k.from-from))
		from = k.to
	}
	copy(x.B[rec+from:], d.Take(r.data-from))
}

// trx0 is the number of DB_TRX_ID as kept wants it.
func (z *zipPage) trx0() int {
	if z.trx == 0 {
		return -1
	}
	return z.trx
}

// restore copies what is kept apart.
func (z *zipPage) restore(x *rows, leaf bool) {
	at, refs := z.storage(), z.references()
	z.blobs = 0
	size := apart(leaf, z.trx != 0)
	if size == 0 {
		return
	}
	for _, rec := range z.heap {
		r := x.look(rec)
		kept := z.kept(r, leaf, z.trx0())
		at -= size
		if x.Bad || !sound(r, kept) {
			x.Bad = true
			return
		}
		live := r.externs == 0 || !z.deleted(rec)
		for _, k := range kept {
			part := x.B[rec+k.from : rec+k.to]
			switch {
			case k.to-k.from != externSize:
				copy(part, z.b[at:])
			case !live:
				clear(part)
			default:
				if refs -= externSize; refs < z.logEnd {
					x.Bad = true
					return
				}
				copy(part, z.b[refs:])
				z.blobs++
			}
		}
	}
}

// link makes the list of rows and that of deleted ones (InnoDB zipdecompress.cc,
// page_zip_set_extra_bytes).
func (z *zipPage) link(x *rows, leaf bool) {
	info := 0
	if !leaf && binary.BigEndian.Uint32(z.b[innodb.OffPrev:]) == 0xFFFFFFFF {
		info = infoMinRec
	}
	rec, owned := indexpage.Compact.Infimum, 1
	for i := range z.live() {
		v := z.entry(i)
		if v&zipDeleted != 0 {
			info |= infoDeleted
		}
		if v&zipOwned != 0 {
			info |= owned
			owned = 0
		}
		owned++
		x.SetNext(rec, v&zipOffset)
		if rec = v & zipOffset; !x.In(rec-5, 5) {
			return
		}
		x.B[rec-5], info = byte(info), 0
	}
	x.SetNext(rec, indexpage.Compact.Supremum)
	x.B[indexpage.Compact.Supremum-5] = byte(owned)
	for i := z.live(); i < z.dense(); i++ {
		rec, next := z.entry(i), 0
		if i+1 < z.dense() {
			next = z.entry(i + 1)
		}
		if !x.In(rec-5, 5) {
			return
		}
		x.B[rec-5] = 0
		x.SetNext(rec, next)
	}
}
