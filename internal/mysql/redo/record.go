package redo

import (
	"encoding/binary"

	"github.com/xbstream/xbstream/format"
)

// Record is one record of a mini-transaction.
type Record struct {
	Type Type
	// Single says that it is the only one of its mini-transaction.
	Single bool
	// Space and Page are where it applies. A TABLE_DYNAMIC_META has none.
	Space format.SpaceID
	Page  format.PageNo
	// Table and Version are those of a TABLE_DYNAMIC_META.
	Table, Version uint64
	// Body is what follows.
	Body []byte
}

// Next splits the first record off b and returns its size. MULTI_REC_END and
// DUMMY_RECORD are records of one byte. The error is ErrShort or ErrMalformed
// (InnoDB log0recv.cc, recv_parse_log_rec).
func Next(b []byte) (r Record, size int, err error) {
	if len(b) == 0 {
		return r, 0, ErrShort
	}
	r.Type, r.Single = Type(b[0]&^singleRecord), b[0]&singleRecord != 0
	if r.Type > lastType || kinds[r.Type].name == "" {
		return r, 0, ErrMalformed
	}
	k := &kinds[r.Type]
	if k.body == nil {
		if r.Single {
			return r, 0, ErrMalformed
		}
		return r, 1, nil
	}
	c := Cursor{b: b, at: 1}
	if r.Type == TableDynamicMeta {
		r.Table, r.Version = c.Small64(), c.Small64()
	} else {
		r.Space, r.Page = format.SpaceID(c.Number()), format.PageNo(c.Number())
	}
	body := c.at
	c.description(k.desc)
	k.body(&c)
	if c.err != nil {
		return r, 0, c.err
	}
	r.Body = b[body:c.at:c.at]
	return r, c.at, nil
}

// AppendHeader appends type, tablespace and page of a record.
func AppendHeader(dst []byte, t Type, space format.SpaceID, page format.PageNo) []byte {
	dst = append(dst, byte(t))
	dst = AppendNumber(dst, uint32(space))
	return AppendNumber(dst, uint32(page))
}

// Kinds of TABLE_DYNAMIC_META (InnoDB dict0dict.h, persistent_type_t).
const (
	metaCorrupted     = 1
	metaAutoIncrement = 2
)

// AutoIncrement returns the counter that a TABLE_DYNAMIC_META brings; ok is false
// if it is about something else.
func (r *Record) AutoIncrement() (counter uint64, ok bool) {
	c := Cursor{b: r.Body}
	if r.Type != TableDynamicMeta || c.U8() != metaAutoIncrement {
		return 0, false
	}
	counter = c.Small64()
	return counter, c.err == nil
}

// IndexID returns the index whose pages were written without redo, of an
// INDEX_LOAD.
func (r *Record) IndexID() (id uint64, ok bool) {
	if r.Type != IndexLoad || len(r.Body) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(r.Body), true
}

// keyInfoSize is the length of what page 0 says of the key of its tablespace (InnoDB
// os0enc.h, Encryption::INFO_SIZE). No other string is written to a page 0.
const keyInfoSize = 111

// ErasesKey says whether the record takes the key of a tablespace from page 0. The
// server does it when it has decrypted and written all pages (InnoDB fsp0fsp.cc,
// decrypt_end).
func (r *Record) ErasesKey() bool {
	c := Cursor{b: r.Body}
	if r.Type != WriteString || r.Page != 0 || c.U16() == 0 || c.U16() != keyInfoSize {
		return false
	}
	return zero(c.Take(keyInfoSize)) && c.err == nil
}
