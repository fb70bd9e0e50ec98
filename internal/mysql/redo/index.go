package redo

// What an index description starts with (InnoDB mtr0log.cc,
// mlog_open_and_write_index).
const (
	index8029 = 0 // written by 8.0.28 and 8.0.29
	index8030 = 1

	flagCompact   = 1
	flagVersioned = 2 // columns were added or dropped instantly since 8.0.29
	flagInstant   = 4 // columns were added instantly before
)

// Bits of a field.
const (
	fieldNotNull = 0x8000
	fieldLength  = 0x7FFF
	fieldBig     = 0x7FFF // variable, and two bytes may be needed for its length
)

// Bits of the position of a field with row versions.
const (
	fieldAdded   = 0x8000
	fieldDropped = 0x4000
	fieldAt      = 0x3FFF
)

// MaxFields is the largest number of fields of an index (InnoDB rem0types.h,
// REC_MAX_N_FIELDS).
const MaxFields = 1023

// Index is what a record says of the index of its page: enough to find the
// fields of the rows there.
type Index struct {
	// Compact is false for ROW_FORMAT=REDUNDANT, whose rows know the places of
	// their fields; Fields is empty then unless it is versioned.
	Compact bool
	// Versioned says that rows may have a version, which decides the columns
	// they have. Rows hold the fields in physical order then.
	Versioned bool
	// Instant is how many fields there were before the first column was added
	// instantly by a server before 8.0.29; 0 without.
	Instant int
	// Unique is how many fields identify a row in the tree.
	Unique int
	// Fields are in the order of the index.
	Fields []Field
	// Physical lists, for each physical position, which field is there. It is
	// nil unless Versioned.
	Physical []uint16
}

// Field is a column in an index.
type Field struct {
	// Fixed is the length, 0 if it varies; Big says that its length may take two
	// bytes.
	Fixed    int
	Big      bool
	Nullable bool
	// Added and Dropped are the row versions that brought and took away the
	// column; 0 without.
	Added, Dropped uint8
	// Physical is the position in rows.
	Physical uint16
}

// Clustered says that rows have DB_TRX_ID and DB_ROLL_PTR, if they are Compact;
// of others it is not known.
func (x *Index) Clustered() bool { return len(x.Fields) != 0 && x.Unique != len(x.Fields) }

// description reads over a description.
func (c *Cursor) description(d description) {
	switch d {
	case current:
		h := c.indexHead()
		c.Skip(2 * h.fields)
		if h.versioned {
			for n := c.U16(); n > 0 && c.err == nil; n-- {
				c.versioned(h.version)
			}
		}
	case compact:
		c.Skip(2 * c.indexHead8027().fields)
	}
}

// indexHead is what stands before the fields.
type indexHead struct {
	version                     int
	compact, versioned          bool
	total, fields, uniq, before int // fields is how many are described
}

func (c *Cursor) indexHead() (h indexHead) {
	h.version = c.U8()
	flags := c.U8()
	if h.version > index8030 || flags&^(flagCompact|flagVersioned|flagInstant) != 0 {
		c.Fail(ErrMalformed)
	}
	h.compact, h.versioned = flags&flagCompact != 0, flags&flagVersioned != 0
	if !h.compact && !h.versioned {
		h.total, h.uniq = 1, 1
		return h
	}
	h.total = c.U16()
	if h.total > MaxFields {
		c.Fail(ErrMalformed)
	}
	if !h.compact {
		h.uniq = h.total
		return h
	}
	if flags&flagInstant != 0 {
		h.before = c.U16()
	}
	h.uniq, h.fields = c.U16(), h.total
	c.checkIndex(h)
	return h
}

// indexHead8027 is the form before 8.0.28 (InnoDB mtr0log.cc,
// mlog_parse_index_8027).
func (c *Cursor) indexHead8027() (h indexHead) {
	h.compact = true
	if h.total = c.U16(); h.total&fieldNotNull != 0 {
		h.before, h.total = h.total&fieldLength, c.U16()
	}
	h.uniq, h.fields = c.U16(), h.total
	c.checkIndex(h)
	return h
}

func (c *Cursor) checkIndex(h indexHead) {
	if h.total == 0 || h.total > MaxFields || h.before > h.total || h.uniq > h.total || h.uniq != h.total && h.uniq+2 > h.total {
		c.Fail(ErrMalformed)
	}
}

// versioned reads what is said of a field that was added or dropped, or whose
// physical position is not that in the index. Of 8.0.29 field is the physical
// position.
func (c *Cursor) versioned(version int) (field int, physical uint16, added, dropped uint8) {
	if version != index8029 {
		field = c.U16()
	}
	bits := c.U16()
	if bits&fieldAdded != 0 {
		added = uint8(c.U8())
	}
	if bits&fieldDropped != 0 {
		dropped = uint8(c.U8())
	}
	if version == index8029 {
		field = bits & fieldAt
	}
	return field, uint16(bits & fieldAt), added, dropped
}

// ParseIndex reads the description at the start of the body of a record into x,
// whose slices it uses again, and returns what follows. A record of a type that
// has none gives an Index without fields.
func (r *Record) ParseIndex(x *Index) (rest []byte, err error) {
	c := Cursor{b: r.Body}
	*x = Index{Fields: x.Fields[:0], Physical: x.Physical[:0]}
	switch kinds[r.Type].desc {
	case current:
		c.parseIndex(x, c.indexHead())
	case compact:
		c.parseIndex(x, c.indexHead8027())
	}
	return r.Body[c.at:], c.err
}

func (c *Cursor) parseIndex(x *Index, h indexHead) {
	x.Compact, x.Versioned, x.Instant, x.Unique = h.compact, h.versioned, h.before, h.uniq
	if c.err != nil || !h.compact && !h.versioned {
		return
	}
	for i := range h.total {
		f := Field{Physical: uint16(i)}
		if h.compact {
			f.parse(c.U16())
		}
		x.Fields = append(x.Fields, f)
	}
	if h.versioned {
		c.parseVersions(x, h.version)
	}
}

func (f *Field) parse(v int) {
	f.Nullable = v&fieldNotNull == 0
	switch n := v & fieldLength; n {
	case fieldBig:
		f.Big = true
	default:
		f.Fixed = n
	}
}

// parseVersions reads what is known of row versions and derives the physical
// positions: a field that is not listed comes next among those that are free,
// one earlier for each column that was added before it (InnoDB mtr0log.cc,
// mlog_parse_index).
func (c *Cursor) parseVersions(x *Index, version int) {
	n := len(x.Fields)
	const free = 0xFFFF
	for range n {
		x.Physical = append(x.Physical, free)
	}
	var listed [MaxFields]bool
	for k := c.U16(); k > 0 && c.err == nil; k-- {
		i, at, added, dropped := c.versioned(version)
		if i >= n || int(at) >= n || listed[i] || x.Physical[at] != free {
			c.Fail(ErrMalformed)
			return
		}
		f := &x.Fields[i]
		f.Physical, f.Added, f.Dropped = at, added, dropped
		listed[i], x.Physical[at] = true, uint16(i)
	}
	shift := 0
	for i := range x.Fields {
		f := &x.Fields[i]
		if listed[i] {
			if f.Added != 0 && f.Dropped == 0 {
				shift--
			}
			continue
		}
		at := max(i+shift, 0)
		for at < n && x.Physical[at] != free {
			at++
		}
		if at >= n {
			c.Fail(ErrMalformed)
			return
		}
		f.Physical, x.Physical[at] = uint16(at), uint16(i)
	}
}
