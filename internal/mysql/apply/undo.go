package apply

import (
	"encoding/binary"

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
	u := undoPage{b: p.b, bad: p.target.Zip}
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
	if u.bad || !d.Done() {
		return malformed("undo page of %d bytes", len(p.b))
	}
	return nil
}

// undoPage is an undo page while it is changed. Once bad is set, nothing more
// is.
type undoPage struct {
	b   []byte
	bad bool
}

func (u *undoPage) in(off, n int) bool {
	if off < filData || off+n > len(u.b)-trailer {
		u.bad = true
	}
	return !u.bad
}

func (u *undoPage) u16(off int) int {
	if !u.in(off, 2) {
		return 0
	}
	return int(binary.BigEndian.Uint16(u.b[off:]))
}

func (u *undoPage) put16(off, v int) {
	if u.in(off, 2) {
		binary.BigEndian.PutUint16(u.b[off:], uint16(v))
	}
}

func (u *undoPage) put8(off, v int) {
	if u.in(off, 1) {
		u.b[off] = byte(v)
	}
}

func (u *undoPage) put64(off int, v uint64) {
	if u.in(off, 8) {
		binary.BigEndian.PutUint64(u.b[off:], v)
	}
}

// append adds a record between the offsets of its neighbours.
func (u *undoPage) append(record []byte) {
	at := u.u16(undoFree)
	end := at + 2 + len(record) + 2
	if at < undoRecords || !u.in(at, end-at) {
		u.bad = true
		return
	}
	u.put16(at, end)
	copy(u.b[at+2:], record)
	u.put16(end-2, at)
	u.put16(undoFree, end)
}

// eraseEnd fills what follows the last record.
func (u *undoPage) eraseEnd() {
	at := u.u16(undoFree)
	if !u.in(at, 0) {
		return
	}
	end := u.b[at : len(u.b)-trailer]
	for i := range end {
		end[i] = 0xFF
	}
}

func (u *undoPage) init(typ uint32) {
	if typ > 0xFFFF {
		u.bad = true
		return
	}
	binary.BigEndian.PutUint16(u.b[filType:], typeUndo)
	u.put16(undoType, int(typ))
	u.put16(undoStart, undoRecords)
	u.put16(undoFree, undoRecords)
}

// createLog starts a new undo log on the first page of a segment.
func (u *undoPage) createLog(trx uint64) {
	at, old := u.u16(undoFree), u.u16(undoLast)
	if at < undoFirst || !u.in(at, logSize) {
		u.bad = true
		return
	}
	u.startLog(at, trx)
	if old != 0 {
		u.put16(old+logNext, at)
	}
	u.put16(undoLast, at)
	u.put16(at+logMarks, 1)
	u.put16(at+logNext, 0)
	u.put16(at+logPrev, old)
}

// reuseLog makes the only log of a segment a new one.
func (u *undoPage) reuseLog(trx uint64) { u.startLog(undoFirst, trx) }

// startLog writes what is the same for both.
func (u *undoPage) startLog(at int, trx uint64) {
	records := at + logSize
	u.put16(undoStart, records)
	u.put16(undoFree, records)
	u.put16(undoState, stateActive)
	u.put64(at+logTrxID, trx)
	u.put16(at+logStart, records)
	u.put8(at+logFlags, 0)
	u.put8(at+logDict, 0)
}
