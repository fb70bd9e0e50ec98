package apply

import (
	"encoding/binary"

	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/indexpage"
	"github.com/xbstream/xbstream/internal/mysql/redo"
)

// writeNumber is 1BYTE, 2BYTES and 4BYTES (InnoDB mtr0log.cc,
// mlog_parse_nbytes).
func (p *Page) writeNumber(d *redo.Cursor, size int) error {
	off := d.U16()
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], d.Number())
	for _, c := range b[:4-size] {
		if c != 0 {
			return malformed("number of more than %d bytes", size)
		}
	}
	return p.write(off, b[4-size:], d)
}

func (p *Page) writeNumber8(d *redo.Cursor) error {
	off := d.U16()
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], d.Number64())
	return p.write(off, b[:], d)
}

// write puts bytes at an offset, if the body was read in full. In an expanded page
// of ROW_FORMAT=COMPRESSED only the header is the same as in the file.
func (p *Page) write(off int, data []byte, d *redo.Cursor) error {
	if !d.Done() {
		return malformed("body of a write")
	}
	if off+len(data) > len(p.b) || p.target.Zip && hasRows(p.b) && off+len(data) > indexpage.HeaderEnd {
		return malformed("write of %d bytes at %d", len(data), off)
	}
	copy(p.b[off:], data)
	p.zip.copied(off, data)
	return nil
}

// init makes the page one that was just allocated (InnoDB fsp0fsp.cc,
// fsp_init_file_page_low).
func (p *Page) init() {
	clear(p.b)
	binary.BigEndian.PutUint32(p.b[innodb.OffPageNo:], uint32(p.target.Page))
	binary.BigEndian.PutUint32(p.b[innodb.OffSpaceID:], uint32(p.target.Space))
	p.zip.close()
}

// ibufBitmap is where the bits of an insert buffer bitmap start, four for each
// page that it describes (InnoDB ibuf0ibuf.cc, ibuf_bitmap_page_init).
const ibufBitmap = 94

func (p *Page) initIbufBitmap() error {
	n := len(p.b) / 2
	if ibufBitmap+n > len(p.b) {
		return malformed("page of %d bytes", len(p.b))
	}
	binary.BigEndian.PutUint16(p.b[innodb.OffType:], typeIbufBitmap)
	clear(p.b[ibufBitmap : ibufBitmap+n])
	p.zip.close()
	return nil
}

// create makes an index page without rows; level, index id and segments are left
// alone (InnoDB page0page.cc, page_create_low).
func (p *Page) create(typ uint16, compact bool) error {
	if p.target.Zip {
		// The server writes such a page as a whole.
		return malformed("page of rows made in a compressed tablespace")
	}
	indexpage.Init(p.b, typ, indexpage.FormatOf(compact))
	return nil
}

// hasRows says whether a page is of an index.
func hasRows(b []byte) bool {
	switch innodb.Type(b) {
	case innodb.TypeIndex, innodb.TypeRTree, typeSDI:
		return true
	}
	return false
}
