package apply

import (
	"encoding/binary"

	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/indexpage"
	"github.com/xbstream/xbstream/internal/mysql/redo"
)

// Offsets in an undo page (InnoDB trx0undo.h): page header, the header of the
// segment on its first page, and the headers of undo logs.
const (
	undoType    = 38 // u16
	undoStart   = 40 // u16 first record of the newest log
	undoFree    = 42 // u16
	undoRecords = 56 // end of the page header
	undoState   = 56 // u16
	undoLast    = 58 // u16 newest log
	undoFirst   = 86 // end of the segment header

	// In the header of a log.
	logTrxID    = 0  // u64
	logMarks    = 16 // u16
	logStart    = 18 // u16
	logFlags    = 20 // u8
	logDict     = 21 // u8
	logNext     = 30 // u16
	logPrev     = 32 // u16
	logSize     = 46 // without an XID
	stateActive = 1
)

// undo applies the records of undo pages (InnoDB trx0rec.cc, trx0undo.cc).
func (p *Page) undo(t redo.Type, d *redo.Cursor) error {
	u := undoPage{indexpage.Body{B: p.b, Bad: p.target.Zip}}
	switch t {
	case redo.UndoInsert:
		u.append(d.Take(d.U16()))
	case redo.UndoEraseEnd:
		u.eraseEnd()
	case redo.UndoInit:
		u.init(d.Number())
	case redo.UndoHeaderCreate:
		u.createLog(d.Number64())
	case redo.UndoHeaderReuse:
		u.reuseLog(d.Number64())
	}
	if u.Bad || !d.Done() {
		return malformed("undo page of %d bytes", len(p.b))
	}
	return nil
}

// undoPage is an undo page while it is changed.
type undoPage struct{ indexpage.Body }

func (u *undoPage) put8(off, v int) {
	if u.In(off, 1) {
		u.B[off] = byte(v)
	}
}

func (u *undoPage) put64(off int, v uint64) {
	if u.In(off, 8) {
		binary.BigEndian.PutUint64(u.B[off:], v)
	}
}

// append adds a record between the offsets of its neighbours.
func (u *undoPage) append(record []byte) {
	at := u.U16(undoFree)
	end := at + 2 + len(record) + 2
	if at < undoRecords || !u.In(at, end-at) {
		u.Bad = true
		return
	}
	u.Put16(at, end)
	copy(u.B[at+2:], record)
	u.Put16(end-2, at)
	u.Put16(undoFree, end)
}

// eraseEnd fills what follows the last record.
func (u *undoPage) eraseEnd() {
	at := u.U16(undoFree)
	if !u.In(at, 0) {
		return
	}
	end := u.B[at : len(u.B)-innodb.Trailer]
	for i := range end {
		end[i] = 0xFF
	}
}

func (u *undoPage) init(typ uint32) {
	if typ > 0xFFFF {
		u.Bad = true
		return
	}
	binary.BigEndian.PutUint16(u.B[innodb.OffType:], innodb.TypeUndoLog)
	u.Put16(undoType, int(typ))
	u.Put16(undoStart, undoRecords)
	u.Put16(undoFree, undoRecords)
}

// createLog starts a new undo log on the first page of a segment.
func (u *undoPage) createLog(trx uint64) {
	at, old := u.U16(undoFree), u.U16(undoLast)
	if at < undoFirst || !u.In(at, logSize) {
		u.Bad = true
		return
	}
	u.startLog(at, trx)
	if old != 0 {
		u.Put16(old+logNext, at)
	}
	u.Put16(undoLast, at)
	u.Put16(at+logMarks, 1)
	u.Put16(at+logNext, 0)
	u.Put16(at+logPrev, old)
}

// reuseLog makes the only log of a segment a new one.
func (u *undoPage) reuseLog(trx uint64) { u.startLog(undoFirst, trx) }

// startLog writes what is the same for both.
func (u *undoPage) startLog(at int, trx uint64) {
	records := at + logSize
	u.Put16(undoStart, records)
	u.Put16(undoFree, records)
	u.Put16(undoState, stateActive)
	u.put64(at+logTrxID, trx)
	u.Put16(at+logStart, records)
	u.put8(at+logFlags, 0)
	u.put8(at+logDict, 0)
}
