package redo

import "github.com/xbstream/xbstream/format"

// recordLen returns the sizes of the two parts of the record at the start of
// b: the first byte with the length, and the body. The body may reach beyond
// b. The error is ErrShort or ErrMalformed (InnoDB mtr0types.h).
func recordLen(b []byte) (head, body int, err error) {
	if n := int(b[0] & 15); n != 0 {
		return 1, n, nil
	}
	v, n := Varint(b[1:])
	switch {
	case n == 0:
		return 0, 0, ErrShort
	case n < 0 || v >= MaxMTR:
		return 0, 0, ErrMalformed
	}
	return 1 + n, int(v) + 15 - n, nil
}

// NextRecord splits the first record off b, the records of a
// mini-transaction: its first byte (which holds type and flags), its body
// without the length, and what follows. b must not be empty. The error is
// ErrMalformed.
func NextRecord(b []byte) (first byte, body, rest []byte, err error) {
	if len(b) == 0 || b[0] <= 1 {
		return 0, nil, nil, ErrMalformed
	}
	head, n, err := recordLen(b)
	if err != nil || head+n > len(b) {
		return 0, nil, nil, ErrMalformed
	}
	return b[0], b[head : head+n : head+n], b[head+n:], nil
}

// AppendRecord appends a record with the given type and flags (the high
// nibble of its first byte) and body, which must not be empty.
func AppendRecord(dst []byte, typ byte, body []byte) []byte {
	if len(body) < 16 {
		dst = append(dst, typ&0xF0|byte(len(body)))
		return append(dst, body...)
	}
	// The number after the first byte counts itself: try its sizes in turn.
	dst = append(dst, typ&0xF0)
	for k := 1; ; k++ {
		v := AppendVarint(nil, uint32(len(body)+k-15))
		if len(v) == k {
			return append(append(dst, v...), body...)
		}
	}
}

// RecordType is the kind of a page record (InnoDB mtr0types.h).
type RecordType byte

// The kinds of page records. 0x60 is reserved.
const (
	FreePage RecordType = 0x00
	InitPage RecordType = 0x10
	Extended RecordType = 0x20
	Write    RecordType = 0x30
	Memset   RecordType = 0x40
	Memmove  RecordType = 0x50
	Option   RecordType = 0x70
)

const bitSame = 0x80 // same page as before, or a file record

// Record is one record of a mini-transaction.
type Record struct {
	// File says that this is a file record: parse it with ParseFile. Type,
	// Same, Space, Page and Payload are those of page records.
	File bool
	// Op is the kind of a file record.
	Op FileOp
	// Type is the kind of a page record.
	Type RecordType
	// Same says that the record continues on the page of the one before it,
	// whose running offset stays valid.
	Same bool
	// Space and Page are where a page record applies, also when Same.
	Space format.SpaceID
	Page  format.PageNo
	// Payload is what follows the page id.
	Payload []byte
}

// Records walks over the records of a mini-transaction of a plain log:
//
//	for r := mariadb.NewRecords(mtr.Records); r.Next(); {
//		… r.Record() …
//	}
//	if err := r.Err(); err != nil { … }
type Records struct {
	rest   []byte
	rec    Record
	onPage bool // a page record came since the last file record
	err    error
}

// NewRecords starts at the first record.
func NewRecords(records []byte) *Records { return &Records{rest: records} }

// Next moves to the next record; false at the end and after an error.
func (r *Records) Next() bool {
	if r.err != nil || len(r.rest) == 0 {
		return false
	}
	first, body, rest, err := NextRecord(r.rest)
	if err != nil {
		r.err = err
		return false
	}
	r.rest = rest
	r.err = r.take(first, body)
	return r.err == nil
}

// Record returns the record Next found. It is overwritten by the next call of
// Next; its Payload points into the mini-transaction.
func (r *Records) Record() *Record { return &r.rec }

// Rest returns how many bytes follow the current record.
func (r *Records) Rest() int { return len(r.rest) }

// Err returns ErrMalformed if the walk stopped before the end.
func (r *Records) Err() error { return r.err }

// take tells the three shapes of a record apart (InnoDB log0recv.cc,
// recv_sys_t::parse): bit 7 means "same page" only after a page record.
func (r *Records) take(first byte, body []byte) error {
	r.rec.Type = RecordType(first & 0x70)
	if first&bitSame != 0 && r.onPage {
		r.rec.Same, r.rec.Payload = true, body
		if r.rec.Type == FreePage || r.rec.Type == InitPage {
			return ErrMalformed
		}
		return nil
	}
	space, page, payload, err := PageID(body)
	if err != nil {
		return err
	}
	r.onPage = first&bitSame == 0
	r.rec = Record{Type: r.rec.Type, Space: space, Page: page, Payload: payload}
	if !r.onPage {
		r.rec.File, r.rec.Op = true, FileOp(first&0xF0)
	}
	return nil
}

// PageID splits the page id off a record's body.
func PageID(body []byte) (format.SpaceID, format.PageNo, []byte, error) {
	space, n := Varint(body)
	if n <= 0 {
		return 0, 0, nil, ErrMalformed
	}
	page, k := Varint(body[n:])
	if k <= 0 {
		return 0, 0, nil, ErrMalformed
	}
	return format.SpaceID(space), format.PageNo(page), body[n+k:], nil
}

// AppendPageRecord appends a page record with a page id of its own.
func AppendPageRecord(dst []byte, t RecordType, space format.SpaceID, page format.PageNo, payload []byte) []byte {
	body := AppendVarint(nil, uint32(space))
	body = AppendVarint(body, uint32(page))
	return AppendRecord(dst, byte(t), append(body, payload...))
}

// AppendSameRecord appends a record for the page of the record before it;
// payload must not be empty.
func AppendSameRecord(dst []byte, t RecordType, payload []byte) []byte {
	return AppendRecord(dst, bitSame|byte(t), payload)
}

// HideRecord turns the page record at the start of b into one that recovery
// passes over, of the same length: an OPTION that is not the checksum of a page
// (InnoDB log0recv.cc, recv_sys_t::parse). payload is that of the record, in b.
func HideRecord(b, payload []byte) {
	b[0] = b[0]&^0x70 | byte(Option)
	if len(payload) == optChecksumSize && payload[0] == optChecksum {
		payload[0] = optNone
	}
}

// HideFileDelete turns the FILE_DELETE record at the start of b into FILE_MODIFY,
// which has the same form and only names the file.
func HideFileDelete(b []byte) {
	b[0] = b[0]&^0xF0 | byte(FileModify)
}

// What an OPTION record with a page's checksum looks like, and one that says
// nothing.
const (
	optChecksum     = 0
	optChecksumSize = 1 + 4
	optNone         = 0xFF
)
