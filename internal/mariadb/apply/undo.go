package apply

import (
	"encoding/binary"

	"github.com/xbstream/xbstream/internal/innodb"
)

// Offsets in an undo page and what they start with (InnoDB trx0undo.h).
const (
	undoType    = 38
	undoStart   = 40
	undoFree    = 42
	undoNode    = 44
	undoRecords = 56 // end of the undo page header
)

// initUndo makes page an empty undo page (InnoDB trx0undo.cc,
// trx_undo_page_init).
func initUndo(page []byte) {
	be := binary.BigEndian
	be.PutUint16(page[innodb.OffType:], innodb.TypeUndoLog)
	be.PutUint16(page[undoType:], 0)
	be.PutUint16(page[undoStart:], undoRecords)
	be.PutUint16(page[undoFree:], undoRecords)
	// A list node with no neighbours: page 0xFFFFFFFF, offset 0, twice.
	for _, at := range []int{undoNode, undoNode + 6} {
		be.PutUint32(page[at:], 0xFFFFFFFF)
		be.PutUint16(page[at+4:], 0)
	}
}

// appendUndo appends an undo record, framed by the offsets of its neighbours
// (InnoDB log0recv.cc, UNDO_APPEND).
func appendUndo(page, record []byte) error {
	be := binary.BigEndian
	free := int(be.Uint16(page[undoFree:]))
	n := len(record)
	if n == 0 || free < undoRecords || free+n+6 >= len(page)-innodb.Trailer {
		return malformed("undo record of %d bytes at %d", n, free)
	}
	next := free + 4 + n
	be.PutUint16(page[undoFree:], uint16(next))
	be.PutUint16(page[free:], uint16(next))
	copy(page[free+2:], record)
	be.PutUint16(page[free+2+n:], uint16(free))
	return nil
}
