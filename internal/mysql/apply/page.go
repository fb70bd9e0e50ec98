package apply

import (
	"errors"
	"fmt"

	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
	"github.com/xbstream/xbstream/internal/mysql/redo"
)

var (
	// ErrMalformed means a record that does not fit the page it is for.
	ErrMalformed = errors.New("redo record does not fit its page")
	// ErrRecompress means a page of ROW_FORMAT=COMPRESSED that the server has
	// compressed, of which the redo does not hold the result, and that does not fit
	// when it is compressed here.
	ErrRecompress = errors.New("page of a ROW_FORMAT=COMPRESSED table does not fit when compressed anew (innodb_log_compressed_pages=OFF)")
)

// Target says which page is being recovered.
type Target = redolog.Target

// Page is one page in recovery. The zero value is ready for Reset.
type Page struct {
	b      []byte // as it lies in the file
	target Target
	index  redo.Index // of the record in hand
	rows   rows
	zip    zipPage
	row    []byte // scratch: a row that is put in
	spare  []byte // scratch: a copy of a page
}

// Reset starts with a page, which must be as long as pages of its tablespace are
// in the file. It is changed in place, and complete when Finish returns nil.
func (p *Page) Reset(page []byte, t Target) {
	p.b, p.target = page, t
	p.zip.reset(page, t)
}

// Apply applies one run of records to page: all those in log, which must be for
// this page. It returns how many there were. The page's LSN is left alone.
func Apply(page []byte, t Target, log []byte) (int, error) {
	var p Page
	p.Reset(page, t)
	n, err := p.Run(log)
	if err == nil {
		err = p.Finish()
	}
	return n, err
}

// Finish makes sure that the page in the file is what the records made of it: one
// of ROW_FORMAT=COMPRESSED may have to be compressed. The error is ErrRecompress if
// it does not fit then.
func (p *Page) Finish() error {
	if !p.zip.stale {
		return nil
	}
	x := &p.zip.rows
	err := p.zip.pack(x)
	if errors.Is(err, ErrRecompress) {
		p.spread(x) // without the room of deleted rows it may fit
		err = p.zip.pack(x)
	}
	return err
}

// Run applies all records in log. It returns how many there were.
func (p *Page) Run(log []byte) (n int, err error) {
	for len(log) > 0 {
		r, size, err := redo.Next(log)
		if err != nil {
			return n, err
		}
		log = log[size:]
		p.zip.packs = packed(log)
		if err := p.Apply(&r); err != nil {
			return n, fmt.Errorf("%v: %w", r.Type, err)
		}
		n++
	}
	return n, nil
}

// packed says whether the next record is that the page was compressed.
func packed(log []byte) bool {
	r, _, err := redo.Next(log)
	return err == nil && (r.Type == redo.ZipPageCompressNoData || r.Type == redo.ZipCompressNoData8027)
}

func malformed(what string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(what, args...), ErrMalformed)
}

// minSize is the size of the smallest pages there are, of ROW_FORMAT=COMPRESSED.
const minSize = 1 << 10

// maxSize bounds the numbers in records that count bytes or fields of a page.
const maxSize = 1 << 18

// Apply applies one record.
func (p *Page) Apply(r *redo.Record) error {
	if len(p.b) < minSize || len(p.b) > 1<<16 {
		return malformed("page of %d bytes", len(p.b))
	}
	body, err := r.ParseIndex(&p.index)
	if err != nil {
		return err
	}
	d := redo.NewCursor(body)
	switch r.Type {
	case redo.Write1, redo.Write2, redo.Write4:
		return p.writeNumber(d, int(r.Type))
	case redo.Write8:
		return p.writeNumber8(d)
	case redo.WriteString:
		off := d.U16()
		return p.write(off, d.Take(d.U16()), d)
	case redo.InitFilePage, redo.InitFilePage2:
		p.init()
	case redo.IbufBitmapInit:
		return p.initIbufBitmap()
	case redo.PageCreate, redo.CompPageCreate:
		return p.create(innodb.TypeIndex, r.Type == redo.CompPageCreate)
	case redo.PageCreateRTree, redo.CompPageCreateRTree:
		return p.create(innodb.TypeRTree, r.Type == redo.CompPageCreateRTree)
	case redo.PageCreateSDI, redo.CompPageCreateSDI:
		return p.create(typeSDI, r.Type == redo.CompPageCreateSDI)
	case redo.UndoInsert, redo.UndoEraseEnd, redo.UndoInit, redo.UndoHeaderReuse, redo.UndoHeaderCreate:
		return p.undo(r.Type, d)
	case redo.ZipWriteNodePtr, redo.ZipWriteBlobPtr, redo.ZipWriteHeader, redo.ZipPageCompress:
		return p.writeZip(r.Type, d)
	case redo.ZipReorganize, redo.ZipReorganize8027, redo.ZipPageCompressNoData, redo.ZipCompressNoData8027:
		return p.recompress(r.Type == redo.ZipReorganize || r.Type == redo.ZipReorganize8027)
	case redo.IndexLoad, redo.MultiEnd, redo.Dummy, redo.Test, redo.TableDynamicMeta, redo.FileCreate, redo.FileDelete, redo.FileRename, redo.FileExtend:
		return nil // nothing for a page
	default:
		return p.changeRows(r.Type, d)
	}
	return nil
}

// changeRows applies a record that changes rows of an index page.
func (p *Page) changeRows(t redo.Type, d *redo.Cursor) error {
	x, err := p.openRows()
	if err != nil {
		return err
	}
	switch t {
	case redo.MinRecMark, redo.CompMinRecMark:
		x.setInfo(d.U16(), infoMinRec, infoMinRec)
	case redo.SecDeleteMark, redo.CompSecMark8027:
		on := d.U8() != 0
		x.setDeleted(d.U16(), on)
	case redo.ClustDeleteMark, redo.ClustDeleteMark8027, redo.CompClustMark8027:
		x.markClustered(d)
	case redo.UpdateInPlace, redo.UpdateInPlace8027, redo.CompUpdate8027:
		x.update(d)
	case redo.Insert, redo.Insert8027, redo.CompInsert8027:
		p.insert(d, d.U16())
	case redo.ListCopyCreated, redo.ListCopyCreated8027, redo.CompCopyCreated8027:
		p.insertList(d)
	case redo.Delete, redo.Delete8027, redo.CompDelete8027:
		x.remove(d.U16())
	case redo.ListEndDelete, redo.ListEndDelete8027, redo.CompListEnd8027:
		x.removeEnd(d.U16())
	case redo.ListStartDelete, redo.ListStartDelete8027, redo.CompListStart8027:
		x.removeStart(d.U16())
	case redo.Reorganize, redo.Reorganize8027, redo.CompReorganize8027:
		p.reorganize()
	default:
		return malformed("not a record of a page")
	}
	if d.Err() != nil {
		return malformed("body of %d bytes", len(d.Rest()))
	}
	return x.result()
}

// openRows makes the page's rows ready to be changed.
func (p *Page) openRows() (*rows, error) {
	frame := p.b
	if p.target.Zip {
		if err := p.zip.open(); err != nil {
			return nil, err
		}
		frame = p.zip.frame
	}
	if !hasRows(frame) {
		return nil, malformed("page of type %d has no rows", innodb.Type(frame))
	}
	p.rows.open(frame, &p.index)
	if p.target.Zip {
		p.rows.zip = &p.zip
	}
	return &p.rows, p.rows.result()
}
