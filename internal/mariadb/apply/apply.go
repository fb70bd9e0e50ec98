package apply

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/indexpage"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
	"github.com/xbstream/xbstream/internal/mariadb/redo"
)

// ErrMalformed means a record that does not fit the page it is for.
var ErrMalformed = errors.New("redo record does not fit its page")

// Target says which page is being recovered. Of a page of a ROW_FORMAT=COMPRESSED
// tablespace, redo describes the compressed image, never the rows in it.
type Target = redolog.Target

// firstOffset is the first byte that a record may write.
const firstOffset = innodb.OffPrev

// Apply applies one run of records to page: the record at the start of log,
// which carries a page id, and those after it that continue on the same page.
// It returns how many records it applied. log may go on after the run.
//
// The page's LSN is left alone: one mini-transaction may come back to a page,
// and whether its records apply is decided once for all of them (InnoDB
// log0recv.cc, log_phys_t::apply).
func Apply(page []byte, t Target, log []byte) (int, error) {
	p := pageState{b: page, target: t}
	for n := 0; ; n++ {
		if len(log) == 0 || log[0] <= 1 || n > 0 && log[0]&0x80 == 0 {
			return n, nil
		}
		first, body, rest, err := redo.NextRecord(log)
		if err != nil {
			return n, err
		}
		if n == 0 {
			if body, err = skipPageID(body); err != nil {
				return n, err
			}
		}
		if err := p.apply(redo.RecordType(first&0x70), body); err != nil {
			return n, err
		}
		log = rest
	}
}

func skipPageID(body []byte) ([]byte, error) {
	for range 2 {
		_, n := redo.Varint(body)
		if n <= 0 {
			return nil, redo.ErrMalformed
		}
		body = body[n:]
	}
	return body, nil
}

// pageState is a page in the middle of a run.
type pageState struct {
	b      []byte
	target Target
	// last is what the offsets of the next record count from; -1 after a
	// record that leaves no page to write to.
	last int
}

func malformed(what string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(what, args...), ErrMalformed)
}

func (p *pageState) apply(t redo.RecordType, body []byte) error {
	switch t {
	case redo.Write:
		return p.write(body)
	case redo.Memset:
		return p.memset(body)
	case redo.Memmove:
		return p.memmove(body)
	case redo.InitPage:
		return p.initPage(body)
	case redo.FreePage:
		p.last = -1
		return nil
	case redo.Extended:
		p.last = innodb.OffType
		return p.extended(body)
	case redo.Option:
		return nil
	}
	return malformed("reserved record type 0x%02x", byte(t))
}

// offset reads the offset a record starts with.
func (p *pageState) offset(body []byte) (off int, rest []byte, err error) {
	v, n := redo.Varint(body)
	if n <= 0 || p.last < 0 {
		return 0, nil, malformed("no offset")
	}
	off = p.last + int(v)
	if off < firstOffset || off >= len(p.b) {
		return 0, nil, malformed("offset %d", off)
	}
	return off, body[n:], nil
}

func (p *pageState) write(body []byte) error {
	off, data, err := p.offset(body)
	if err != nil {
		return err
	}
	if len(data) == 0 || len(data) > len(p.b)-off {
		return malformed("WRITE of %d bytes at %d", len(data), off)
	}
	p.last = off + copy(p.b[off:], data)
	return nil
}

// span reads offset and length of a MEMSET or MEMMOVE.
func (p *pageState) span(body []byte) (off, length int, rest []byte, err error) {
	off, rest, err = p.offset(body)
	if err != nil {
		return 0, 0, nil, err
	}
	v, n := redo.Varint(rest)
	if n <= 0 || v == 0 || int64(v) > int64(len(p.b)-off) {
		return 0, 0, nil, malformed("length %d at %d", v, off)
	}
	return off, int(v), rest[n:], nil
}

func (p *pageState) memset(body []byte) error {
	off, length, pattern, err := p.span(body)
	if err != nil {
		return err
	}
	if len(pattern) == 0 || len(pattern) > length {
		return malformed("MEMSET with a pattern of %d bytes", len(pattern))
	}
	dst := p.b[off : off+length]
	// Doubling keeps the pattern's phase, since each copy is a whole number
	// of patterns except the last.
	for done := copy(dst, pattern); done < length; {
		done += copy(dst[done:], dst[:done])
	}
	p.last = off + length
	return nil
}

func (p *pageState) memmove(body []byte) error {
	off, length, rest, err := p.span(body)
	if err != nil {
		return err
	}
	v, n := redo.Varint(rest)
	if n <= 0 || n != len(rest) {
		return malformed("MEMMOVE without source")
	}
	// The distance is never 0, so the encoding leaves that value out.
	src := off + int(v>>1) + 1
	if v&1 != 0 {
		src = off - int(v>>1) - 1
	}
	if src < firstOffset || src+length > len(p.b) {
		return malformed("MEMMOVE from %d", src)
	}
	copy(p.b[off:off+length], p.b[src:src+length])
	p.last = off + length
	return nil
}

func (p *pageState) initPage(body []byte) error {
	if len(body) != 0 {
		return malformed("INIT_PAGE with %d bytes", len(body))
	}
	clear(p.b)
	binary.BigEndian.PutUint32(p.b[innodb.OffPageNo:], uint32(p.target.Page))
	binary.BigEndian.PutUint64(p.b[innodb.OffPrev:], ^uint64(0))
	binary.BigEndian.PutUint32(p.b[innodb.OffSpaceID:], uint32(p.target.Space))
	p.last = innodb.OffType
	return nil
}

// Subtypes of EXTENDED (InnoDB mtr0types.h, mrec_ext_t).
const (
	initRedundant = iota
	initDynamic
	undoInit
	undoAppend
	insertHeapRedundant
	insertReuseRedundant
	insertHeapDynamic
	insertReuseDynamic
	deleteRedundant
	deleteDynamic
	trimPages
)

// TrimPages says whether the payload of an EXTENDED record shrinks the
// tablespace: its page id is the first page that no longer exists.
func TrimPages(payload []byte) bool { return len(payload) == 1 && payload[0] == trimPages }

func (p *pageState) extended(body []byte) error {
	if len(body) == 0 {
		return malformed("EXTENDED without subtype")
	}
	subtype, body := body[0], body[1:]
	if p.target.Zip || p.target.Page < 3 {
		// Space headers, bitmaps and compressed images have no rows.
		return malformed("EXTENDED subtype %d on such a page", subtype)
	}
	switch subtype {
	case initRedundant, initDynamic, undoInit:
		if len(body) != 0 {
			return malformed("EXTENDED subtype %d with %d bytes", subtype, len(body))
		}
	}
	switch subtype {
	case initRedundant:
		indexpage.Init(p.b, innodb.TypeIndex, &indexpage.Redundant)
	case initDynamic:
		indexpage.Init(p.b, innodb.TypeIndex, &indexpage.Compact)
	case undoInit:
		initUndo(p.b)
	case undoAppend:
		return appendUndo(p.b, body)
	case insertHeapRedundant, insertReuseRedundant:
		return insertRedundant(p.b, body, subtype == insertReuseRedundant)
	case insertHeapDynamic, insertReuseDynamic:
		return insertDynamic(p.b, body, subtype == insertReuseDynamic)
	case deleteRedundant:
		return deleteRowRedundant(p.b, body)
	case deleteDynamic:
		return deleteRowDynamic(p.b, body)
	default:
		return malformed("EXTENDED subtype %d", subtype)
	}
	return nil
}

// varints reads n numbers from the start of body.
func varints(body []byte, out ...*int) (rest []byte, err error) {
	for _, o := range out {
		v, n := redo.Varint(body)
		if n <= 0 || v >= 1<<20 {
			return nil, malformed("number missing or too large")
		}
		*o, body = int(v), body[n:]
	}
	return body, nil
}
