package apply

import (
	"encoding/binary"

	"github.com/xbstream/xbstream/internal/innodb/indexpage"
	"github.com/xbstream/xbstream/internal/mysql/redo"
)

// keepSystem says that DB_TRX_ID and DB_ROLL_PTR are not written (InnoDB
// btr0cur.h, BTR_KEEP_SYS_FLAG).
const keepSystem = 4

// systemColumns are the values of DB_TRX_ID and DB_ROLL_PTR in a record.
type systemColumns struct {
	at   int // number of DB_TRX_ID in the index
	data [trxIDSize + rollPtrSize]byte
}

func readSystem(d *redo.Cursor) (s systemColumns) {
	s.at = d.Length(maxSize)
	roll := d.Take(rollPtrSize)
	var trx [8]byte
	binary.BigEndian.PutUint64(trx[:], d.Number64())
	copy(s.data[copy(s.data[:], trx[8-trxIDSize:]):], roll)
	return s
}

// markClustered sets or clears the delete mark of a row of a clustered index
// (InnoDB btr0cur.cc, btr_cur_parse_del_mark_set_clust_rec).
func (x *rows) markClustered(d *redo.Cursor) {
	flags, on := d.U8(), d.U8() != 0
	system := readSystem(d)
	rec := d.U16()
	if d.Err() != nil {
		return
	}
	x.setDeleted(rec, on)
	if flags&keepSystem == 0 {
		x.writeSystem(rec, system)
	}
}

// writeSystem writes DB_TRX_ID and DB_ROLL_PTR.
func (x *rows) writeSystem(rec int, s systemColumns) {
	f := x.find(rec, x.look(rec), s.at)
	if f == nil || !x.In(rec+int(f.start), len(s.data)) {
		x.Bad = true
		return
	}
	copy(x.B[rec+int(f.start):], s.data[:])
	if x.zip != nil {
		x.zip.writeSystem(x, rec, s.data[:])
	}
}

// update changes fields of a row whose sizes stay (InnoDB btr0cur.cc,
// btr_cur_parse_update_in_place; row0upd.cc, row_upd_rec_in_place).
func (x *rows) update(d *redo.Cursor) {
	flags := d.U8()
	system := readSystem(d)
	rec := d.U16()
	info, n := d.U8(), d.Length(maxSize)
	if d.Err() != nil || !x.user(rec) {
		d.Fail(redo.ErrMalformed)
		return
	}
	if flags&keepSystem == 0 {
		x.writeSystem(rec, system)
	}
	const kept = infoVersioned | infoInstant
	x.setInfo(rec, infoMask&^kept, info&infoMask&^kept)
	r := x.look(rec)
	for ; n > 0 && d.Err() == nil && !x.Bad; n-- {
		x.updateField(rec, r, d)
	}
	if x.zip != nil && d.Err() == nil {
		x.zip.write(x, rec, r, false)
	}
}

// firstVirtual is added to the number of a virtual column (InnoDB row0upd.cc,
// row_upd_index_parse). Rows of a clustered index have none.
const firstVirtual = redo.MaxFields

func (x *rows) updateField(rec int, r *row, d *redo.Cursor) {
	i, size := int(d.Number()), d.Number()
	var data []byte
	if size != redo.NullLength {
		data = d.Take(int(size))
	}
	if d.Err() != nil || i >= firstVirtual {
		return
	}
	f := x.find(rec, r, i)
	if f == nil {
		x.Bad = true
		return
	}
	null := size == redo.NullLength
	if null != f.null && x.F.Compact || !null && len(data) != int(f.end-f.start) {
		x.Bad = true
		return
	}
	if !x.F.Compact && null != f.null {
		x.setNull(rec, r, f, null)
	}
	at := rec + int(f.start)
	switch {
	case !x.In(at, int(f.end-f.start)):
	case !null:
		copy(x.B[at:], data)
	case !x.F.Compact:
		clear(x.B[at : rec+int(f.end)])
	}
}

// setNull changes the bit of a field of a REDUNDANT row, whose room stays.
func (x *rows) setNull(rec int, r *row, f *field, null bool) {
	first := rec - indexpage.Redundant.Extra
	if x.U8(rec-indexpage.Redundant.Info)&infoVersioned != 0 {
		first--
	}
	for i := range r.fields {
		if &r.fields[i] != f {
			continue
		}
		at := first - 2*(i+1)
		bit := byte(0x80) // the upper byte has it in either form
		if x.U8(rec-3)&1 != 0 {
			at = first - (i + 1)
		}
		if x.In(at, 1) {
			x.B[at] &^= bit
			if null {
				x.B[at] |= bit
			}
		}
		f.null = null
		return
	}
}
