package innodb

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/xbstream/xbstream/format"
)

// This file knows where the transactions are that were open: the TRX_SYS page
// names the rollback segments, the header page of each names the undo segments
// that are in use, and the first page of an undo segment says whose it is.
// MariaDB 10.3 and later keep one undo segment for each transaction; the
// layout is the same in 10.11 and 11.8 (seen with servers of both).

// Offsets in the TRX_SYS page (InnoDB trx0sys.h) and in the header page of a
// rollback segment (trx0rseg.cc).
const (
	offRsegs     = OffData + 18 // rsegCount times u32 space, u32 page
	rsegCount    = 128
	offUndoSlots = OffData + 34 // page size / undoSlotRatio times u32 page
	// undoSlotRatio: a rollback segment has one slot for every 16 bytes of its
	// page.
	undoSlotRatio = 16
	unusedSlot    = 0xFFFFFFFF // FIL_NULL
)

// Offsets in the first page of an undo segment (InnoDB trx0undo.h).
const (
	offUndoState   = 56 // u16 UndoState
	offLastUndoLog = 58 // u16 offset of the last undo log header in the page
	// endUndoSegment is the end of the segment header, before which no undo
	// log header can be.
	endUndoSegment = 86
)

// Offsets in an undo log header (InnoDB trx0undo.h).
const (
	offUndoTrxID     = 0  // u64
	offXIDExists     = 20 // u8
	offXIDFormat     = 46 // u32, end of a header without XID
	offXIDGtridLen   = 50 // u32
	offXIDBqualLen   = 54 // u32
	offXIDData       = 58 // gtrid, bqual
	xidDataLength    = 128
	xidPartLength    = 64 // most that gtrid and bqual may each have
	undoHeaderLength = offXIDFormat
	undoHeaderXID    = offXIDData + xidDataLength
	// maxTrxID: transaction ids have 48 bits.
	maxTrxID = 1<<48 - 1
)

// PageAddress is a page of some tablespace.
type PageAddress struct {
	Space format.SpaceID
	Page  format.PageNo
}

// RollbackSegments returns the header pages of the rollback segments that the
// TRX_SYS page names, which must be at least MinPageSize bytes long.
func RollbackSegments(trxSys []byte) []PageAddress {
	var out []PageAddress
	for at := offRsegs; at < offRsegs+8*rsegCount; at += 8 {
		// The server tells a free slot by the page number.
		if page := u32(trxSys, at+4); page != unusedSlot {
			out = append(out, PageAddress{format.SpaceID(u32(trxSys, at)), format.PageNo(page)})
		}
	}
	return out
}

// UndoSegments returns the first pages of the undo segments that the header page
// of a rollback segment names. They are in the same tablespace. The page must be
// at least MinPageSize bytes long.
func UndoSegments(rseg []byte) []format.PageNo {
	var out []format.PageNo
	slots := len(rseg) / undoSlotRatio
	for at := offUndoSlots; at < offUndoSlots+4*slots; at += 4 {
		if page := u32(rseg, at); page != unusedSlot {
			out = append(out, format.PageNo(page))
		}
	}
	return out
}

// UndoState is the state of an undo segment, and so that of the transaction that
// used it last (InnoDB trx0undo.h, TRX_UNDO_ACTIVE and so on).
type UndoState uint16

// States of an undo segment. A server rolls an active transaction back when it
// starts; of a prepared one somebody else decides.
const (
	UndoActive   UndoState = 1
	UndoCached   UndoState = 2
	UndoToFree   UndoState = 3 // before MariaDB 10.3
	UndoToPurge  UndoState = 4
	UndoPrepared UndoState = 5
)

// UndoSegment is what the first page of an undo segment says of the transaction
// that used it last.
type UndoSegment struct {
	State UndoState
	TrxID uint64
	// XID is set if the transaction is, or was, prepared.
	XID *XID
}

// ParseUndoSegment reads the first page of an undo segment, which must be at
// least MinPageSize bytes long. What no server writes is an error that wraps
// ErrFormat.
func ParseUndoSegment(page []byte) (UndoSegment, error) {
	bad := func(what string, value int) (UndoSegment, error) {
		return UndoSegment{}, fmt.Errorf("undo segment: %s %d: %w", what, value, ErrFormat)
	}
	if t := Type(page); t != TypeUndoLog {
		return bad("page type", int(t))
	}
	s := UndoSegment{State: UndoState(u16(page, offUndoState))}
	if s.State < UndoActive || s.State > UndoPrepared {
		return bad("state", int(s.State))
	}
	at := u16(page, offLastUndoLog)
	if at < endUndoSegment || at+undoHeaderLength > len(page)-Trailer {
		return bad("offset of the undo log header", at)
	}
	header := page[at : len(page)-Trailer]
	if s.TrxID = binary.BigEndian.Uint64(header[offUndoTrxID:]); s.TrxID > maxTrxID {
		return UndoSegment{}, fmt.Errorf("undo segment: transaction id %d: %w", s.TrxID, ErrFormat)
	}
	if open := s.State == UndoActive || s.State == UndoPrepared; !open {
		return s, nil
	}
	if header[offXIDExists] == 0 {
		// The server writes state and XID in one mini-transaction.
		if s.State == UndoPrepared {
			return bad("no XID in state", int(s.State))
		}
		return s, nil
	}
	if len(header) < undoHeaderXID {
		return bad("offset of an undo log header with XID", at)
	}
	x := XID{Format: u32(header, offXIDFormat)}
	gtrid, bqual := u32(header, offXIDGtridLen), u32(header, offXIDBqualLen)
	if gtrid > xidPartLength || bqual > xidPartLength {
		return bad("length of the XID", int(max(gtrid, bqual)))
	}
	data := header[offXIDData:]
	x.Gtrid, x.Bqual = data[:gtrid:gtrid], data[gtrid:gtrid+bqual:gtrid+bqual]
	s.XID = &x
	return s, nil
}

// SetUndoState changes the state in the first page of an undo segment. The page
// must then be sealed.
func SetUndoState(page []byte, s UndoState) {
	binary.BigEndian.PutUint16(page[offUndoState:], uint16(s))
}

// XID is the name of a prepared transaction. Gtrid and Bqual are part of the page
// it was read from.
type XID struct {
	Format       uint32
	Gtrid, Bqual []byte
}

// Parts of the XIDs that a server gives transactions itself, to commit them in
// the binary log and in InnoDB together (MariaDB sql/handler.h, xid_t::set).
const (
	ownXIDFormat = 1
	ownXIDPrefix = "MySQLXid"
	ownXIDLength = len(ownXIDPrefix) + 8 + 8 // server id, query id: not 0
)

// ServersOwn says whether the server prepared the transaction by itself, and not
// for XA PREPARE. A server that finds such a one when it starts looks for it in
// its binary log and does not start without; of all others it leaves the decision
// to XA COMMIT or XA ROLLBACK. Those of a Galera node (WSREPXid) are neither: its
// server decides about them by the position in the cluster.
func (x *XID) ServersOwn() bool {
	return x != nil && x.Format == ownXIDFormat && len(x.Bqual) == 0 && len(x.Gtrid) == ownXIDLength &&
		bytes.HasPrefix(x.Gtrid, []byte(ownXIDPrefix)) && !IsZero(x.Gtrid[ownXIDLength-8:])
}
