package apply

import (
	"github.com/xbstream/xbstream/internal/innodb/indexpage"
	"github.com/xbstream/xbstream/internal/mysql/redo"
)

// row is where the fields of a row are.
type row struct {
	// extra is the size of the header, below the origin; data that of the fields.
	extra, data int
	// fields are in physical order. Of a node pointer, the page number is one
	// more, at the end.
	fields []field
	// externs is how many fields are stored elsewhere.
	externs int
}

// field is one of them, counted from the origin.
type field struct {
	start, end   int32
	null, extern bool
	// gone says that the row's version does not have the column.
	gone bool
}

func (r *row) size() int { return r.extra + r.data }

// look finds the fields of a row, which must lie in the page. They are in x.row
// until the next call.
func (x *rows) look(rec int) *row {
	r := x.measure(rec)
	if !x.In(rec-r.extra, r.size()) {
		*r = row{fields: r.fields[:0]}
	}
	return r
}

// measure reads a row's header only.
func (x *rows) measure(rec int) *row {
	r := &x.row
	*r = row{fields: r.fields[:0]}
	switch {
	case !x.user(rec):
		r.extra, r.data = x.F.Extra, 8
		if !x.F.Compact {
			r.extra++ // the end of the only field
		}
	case x.F.Compact:
		x.lookCompact(rec, r)
	default:
		x.lookRedundant(rec, r)
	}
	return r
}

// header reads a row's header from the origin down.
type header struct {
	x  *rows
	at int
}

func (h *header) next() int {
	h.at--
	return h.x.U8(h.at)
}

// has says whether a row of a version has the column.
func has(f *redo.Field, version int) bool {
	return (f.Dropped == 0 || int(f.Dropped) > version) && int(f.Added) <= version
}

// lookCompact is for COMPACT, DYNAMIC and COMPRESSED (InnoDB rem/rec.cc,
// rec_init_offsets_comp_ordinary, rec_init_offsets).
func (x *rows) lookCompact(rec int, r *row) {
	h := &header{x, rec - indexpage.Compact.Extra}
	info, status := x.U8(rec-5), x.U8(rec-3)&statusMask
	stored, version := len(x.index.Fields), -1
	if x.index.Versioned {
		version = 0
	}
	switch {
	case status == statusNodePtr:
		stored = x.index.Unique
	case status != statusOrdinary:
		x.Bad = true
		return
	case info&infoVersioned != 0:
		version = h.next()
		// A table that got columns by INSTANT before 8.0.29 gives each row a version,
		// too, which is 0 then (InnoDB rem0wrec.cc, rec_convert_dtuple_to_rec_comp).
		upgraded := x.index.Instant != 0 && version == 0
		if !x.index.Versioned && !upgraded || info&infoInstant != 0 {
			x.Bad = true
			return
		}
	case info&infoInstant != 0:
		if stored = h.next(); stored >= 0x80 {
			stored = stored&0x7F<<8 | h.next()
		}
	case x.index.Instant != 0:
		stored = x.index.Instant
	}
	if stored > len(x.index.Fields) {
		x.Bad = true
		return
	}
	l := lengths{header: *h, nulls: h.at}
	l.at -= (x.nullable(status, stored, version) + 7) / 8
	end := int32(0)
	for p := range len(x.index.Fields) {
		f := field{start: end, end: end, gone: true}
		if i := x.at(p); p < stored && (status == statusNodePtr || version < 0 || has(&x.index.Fields[i], version)) {
			l.read(&f, &x.index.Fields[i])
			end = f.end
			if f.extern {
				r.externs++
			}
		} else if status == statusNodePtr {
			break
		}
		r.fields = append(r.fields, f)
		if x.Bad {
			return
		}
	}
	if status == statusNodePtr {
		r.fields = append(r.fields, field{start: end, end: end + nodePtrSize})
		end += nodePtrSize
	}
	r.extra, r.data = rec-l.at, int(end)
}

// at returns the field at a physical position.
func (x *rows) at(p int) int {
	if x.index.Versioned {
		return int(x.index.Physical[p])
	}
	return p
}

// nullable returns how many bits the row has for NULL.
func (x *rows) nullable(status, stored, version int) (n int) {
	if x.nullables >= 0 {
		return x.nullables
	}
	among := stored
	if status == statusNodePtr {
		if among = len(x.index.Fields); x.index.Instant != 0 {
			among = x.index.Instant
		}
	}
	for p := range among { // in the order of the row, with what was dropped since
		f := &x.index.Fields[x.at(p)]
		if f.Nullable && (version < 0 || has(f, version)) {
			n++
		}
	}
	return n
}

// lengths reads NULL bits and lengths of a row's fields, one field after the
// other.
type lengths struct {
	header
	nulls int // the NULL bits are below
	bit   int
}

// read finds the end of a field.
func (l *lengths) read(f *field, c *redo.Field) {
	f.gone = false
	if c.Nullable {
		null := l.x.U8(l.nulls-1-l.bit/8)>>(l.bit%8)&1 != 0
		l.bit++
		if null {
			f.null = true
			return
		}
	}
	n := c.Fixed
	if n == 0 {
		n = l.next()
		if c.Big && n&0x80 != 0 {
			f.extern = n&0x40 != 0
			n = n&0x3F<<8 | l.next()
		}
	}
	f.end += int32(n)
}

// lookRedundant finds the fields of a row that says itself where they end
// (InnoDB rem/rec.cc, rec_init_offsets; rem0rec.ic).
func (x *rows) lookRedundant(rec int, r *row) {
	info, n, short := x.U8(rec-6), x.U16(rec-4)>>1&0x3FF, x.U8(rec-3)&1 != 0
	r.extra = indexpage.Redundant.Extra
	if info&infoVersioned != 0 {
		r.extra++
	}
	h := header{x, rec - r.extra}
	start := int32(0)
	for range n {
		f := field{start: start}
		if v := h.next(); short {
			f.end, f.null = int32(v&0x7F), v&0x80 != 0
		} else {
			v |= h.next() << 8
			f.end, f.null, f.extern = int32(v&0x3FFF), v&0x8000 != 0, v&0x4000 != 0
		}
		if f.end < start || x.Bad {
			x.Bad = true
			return
		}
		start = f.end
		r.fields = append(r.fields, f)
	}
	if n == 0 {
		x.Bad = true
		return
	}
	r.extra, r.data = rec-h.at, int(start)
}

// find returns a field by its number in the index, nil if the row does not have
// it.
func (x *rows) find(rec int, r *row, i int) *field {
	p := i
	if x.index.Versioned {
		if i >= len(x.index.Fields) {
			return nil
		}
		if p = int(x.index.Fields[i].Physical); !x.F.Compact {
			p = x.stored(rec, p)
		}
	}
	if p < 0 || p >= len(r.fields) || r.fields[p].gone {
		return nil
	}
	return &r.fields[p]
}

// stored returns which of the stored fields of a REDUNDANT row is at a physical
// position, -1 for none: rows of a version have only the columns of that version.
func (x *rows) stored(rec, p int) (n int) {
	if x.U8(rec-indexpage.Redundant.Info)&infoVersioned == 0 {
		return p
	}
	version := x.U8(rec - indexpage.Redundant.Extra - 1)
	if !has(&x.index.Fields[x.at(p)], version) {
		return -1
	}
	for q := range p {
		if has(&x.index.Fields[x.at(q)], version) {
			n++
		}
	}
	return n
}
