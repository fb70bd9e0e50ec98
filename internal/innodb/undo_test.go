package innodb

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
)

// undoPage is the first page of an undo segment whose last log header is at an
// offset.
func undoPage(size int, state UndoState, at int, x *XID) []byte {
	page := make([]byte, size)
	binary.BigEndian.PutUint16(page[OffType:], TypeUndoLog)
	binary.BigEndian.PutUint16(page[offUndoState:], uint16(state))
	binary.BigEndian.PutUint16(page[offLastUndoLog:], uint16(at))
	binary.BigEndian.PutUint64(page[at+offUndoTrxID:], 4711)
	if x == nil {
		return page
	}
	page[at+offXIDExists] = 1
	putU32(page, at+offXIDFormat, x.Format)
	putU32(page, at+offXIDGtridLen, uint32(len(x.Gtrid)))
	putU32(page, at+offXIDBqualLen, uint32(len(x.Bqual)))
	copy(page[at+offXIDData:], slices.Concat(x.Gtrid, x.Bqual))
	return page
}

// seenXID is the one of a transaction that waited on a parallel replica of
// 10.11.19 with server_id 5: both numbers are little-endian.
var seenXID = &XID{Format: 1, Gtrid: fromHex("4d7953514c586964" + "0500000000000000" + "2a00000000000000")}

func fromHex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// G1: which transactions the server has prepared itself.
func TestServersOwnXID(t *testing.T) {
	for _, c := range []struct {
		name string
		xid  *XID
		want bool
	}{
		{"a server's, seen", seenXID, true},
		{"none", nil, false},
		{"XA PREPARE 'one'", &XID{Format: 1, Gtrid: []byte("one")}, false},
		{"same length", &XID{Format: 1, Gtrid: bytes.Repeat([]byte("x"), 24)}, false},
		{"prefix alone", &XID{Format: 1, Gtrid: []byte("MySQLXid")}, false},
		{"one byte more", &XID{Format: 1, Gtrid: append(slices.Clone(seenXID.Gtrid), 0)}, false},
		{"with a branch", &XID{Format: 1, Gtrid: seenXID.Gtrid, Bqual: []byte{1}}, false},
		{"another format", &XID{Format: 7, Gtrid: seenXID.Gtrid}, false},
		{"query id 0, which the server takes for another's", &XID{Format: 1, Gtrid: append(slices.Clone(seenXID.Gtrid[:16]), make([]byte, 8)...)}, false},
		{"Galera", &XID{Format: 1, Gtrid: []byte("WSREPXid" + strings.Repeat("u", 16))}, false},
	} {
		if got := c.xid.ServersOwn(); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestParseUndoSegment(t *testing.T) {
	user := &XID{Format: 3, Gtrid: []byte("global"), Bqual: []byte("branch")}
	put16 := func(at, v int) func([]byte) {
		return func(p []byte) { binary.BigEndian.PutUint16(p[at:], uint16(v)) }
	}
	put32 := func(at int, v uint32) func([]byte) { return func(p []byte) { putU32(p, at, v) } }
	const at = 300
	for _, size := range []int{4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10} {
		last := size - Trailer
		for _, c := range []struct {
			name  string
			page  []byte
			spoil func(page []byte)
			want  UndoSegment
			says  string // "": no error
		}{
			{"active", undoPage(size, UndoActive, endUndoSegment, nil), nil, UndoSegment{UndoActive, 4711, nil}, ""},
			{"prepared by the server", undoPage(size, UndoPrepared, at, seenXID), nil, UndoSegment{UndoPrepared, 4711, seenXID}, ""},
			{"prepared by XA", undoPage(size, UndoPrepared, at, user), nil, UndoSegment{UndoPrepared, 4711, user}, ""},
			{"prepared, then rolled back", undoPage(size, UndoActive, at, seenXID), nil, UndoSegment{UndoActive, 4711, seenXID}, ""},
			{"header at the end of the page", undoPage(size, UndoPrepared, last-undoHeaderXID, user), nil, UndoSegment{UndoPrepared, 4711, user}, ""},
			// What an ended transaction had for XID is nobody's business.
			{"cached", undoPage(size, UndoCached, at, seenXID), put32(at+offXIDGtridLen, 1<<31), UndoSegment{UndoCached, 4711, nil}, ""},
			{"to purge", undoPage(size, UndoToPurge, last-undoHeaderLength, nil), nil, UndoSegment{UndoToPurge, 4711, nil}, ""},
			{"to free", undoPage(size, UndoToFree, at, nil), nil, UndoSegment{UndoToFree, 4711, nil}, ""},

			{"another kind of page", undoPage(size, UndoPrepared, at, user), put16(OffType, TypeIndex), UndoSegment{}, "page type"},
			{"state 0", undoPage(size, 0, at, nil), nil, UndoSegment{}, "state 0"},
			{"state 6", undoPage(size, 6, at, nil), nil, UndoSegment{}, "state 6"},
			{"no header", undoPage(size, UndoActive, at, nil), put16(offLastUndoLog, 0), UndoSegment{}, "offset"},
			{"header in the segment's", undoPage(size, UndoActive, at, nil), put16(offLastUndoLog, endUndoSegment-1), UndoSegment{}, "offset"},
			{"header past the end", undoPage(size, UndoActive, at, nil), put16(offLastUndoLog, last-undoHeaderLength+1), UndoSegment{}, "offset"},
			{"header far past the end", undoPage(size, UndoActive, at, nil), put16(offLastUndoLog, 0xFFFF), UndoSegment{}, "offset"},
			{"XID past the end", undoPage(size, UndoPrepared, last-undoHeaderXID, user), func(p []byte) {
				to := last - undoHeaderXID + 1
				copy(p[to:last], p[to-1:last-1])
				binary.BigEndian.PutUint16(p[offLastUndoLog:], uint16(to))
			}, UndoSegment{}, "offset"},
			{"transaction id", undoPage(size, UndoActive, at, nil), put16(at, 1), UndoSegment{}, "transaction id"},
			{"prepared without XID", undoPage(size, UndoPrepared, at, nil), nil, UndoSegment{}, "no XID"},
			{"long gtrid", undoPage(size, UndoPrepared, at, user), put32(at+offXIDGtridLen, 65), UndoSegment{}, "length"},
			{"long bqual", undoPage(size, UndoPrepared, at, user), put32(at+offXIDBqualLen, 1<<32-1), UndoSegment{}, "length"},
		} {
			if c.spoil != nil {
				c.spoil(c.page)
			}
			got, err := ParseUndoSegment(c.page)
			if c.says != "" {
				if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%d bytes, %s: got %v, want ErrFormat about the %s", size, c.name, err, c.says)
				}
				continue
			}
			if err != nil || got.State != c.want.State || got.TrxID != c.want.TrxID || !sameXID(got.XID, c.want.XID) {
				t.Errorf("%d bytes, %s: %+v, %v; want %+v", size, c.name, got, err, c.want)
			}
		}
	}
}

func sameXID(x, y *XID) bool {
	if x == nil || y == nil {
		return x == y
	}
	return x.Format == y.Format && bytes.Equal(x.Gtrid, y.Gtrid) && bytes.Equal(x.Bqual, y.Bqual)
}

func TestRollbackSegments(t *testing.T) {
	page := bytes.Repeat([]byte{0xFF}, MinPageSize)
	if got := RollbackSegments(page); len(got) != 0 {
		t.Errorf("free slots are rollback segments: %v", got)
	}
	var want []PageAddress
	for _, slot := range []int{0, 1, rsegCount - 1} {
		a := PageAddress{format.SpaceID(slot), format.PageNo(slot + 3)}
		putU32(page, offRsegs+8*slot, uint32(a.Space))
		putU32(page, offRsegs+8*slot+4, uint32(a.Page))
		want = append(want, a)
	}
	if got := RollbackSegments(page); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, size := range []int{MinPageSize, 16 << 10, MaxPageSize} {
		page := bytes.Repeat([]byte{0xFF}, size)
		last := size/undoSlotRatio - 1
		putU32(page, offUndoSlots, 17)
		putU32(page, offUndoSlots+4*last, 18)
		clear(page[offUndoSlots+4*(last+1):]) // behind the slots are other fields
		if got := UndoSegments(page); !slices.Equal(got, []format.PageNo{17, 18}) {
			t.Errorf("%d bytes: got %v, want 17 and 18", size, got)
		}
	}
}

// FuzzUndoSegments: any bytes are an answer or an error, and an answer is about
// what is in the page.
func FuzzUndoSegments(f *testing.F) {
	f.Add(undoPage(MinPageSize, UndoPrepared, 300, seenXID))
	f.Add(undoPage(MinPageSize, UndoPrepared, MinPageSize-Trailer-undoHeaderXID, &XID{Format: 1, Gtrid: bytes.Repeat([]byte("g"), 64), Bqual: bytes.Repeat([]byte("b"), 64)}))
	f.Add(undoPage(16<<10, UndoActive, endUndoSegment, nil))
	f.Add(bytes.Repeat([]byte{0xFF}, MinPageSize))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		page := make([]byte, max(MinPageSize, len(b)))
		copy(page, b)
		if n := len(RollbackSegments(page)); n > rsegCount {
			t.Errorf("%d rollback segments", n)
		}
		if n := len(UndoSegments(page)); n > len(page)/undoSlotRatio {
			t.Errorf("%d undo segments", n)
		}
		s, err := ParseUndoSegment(page)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("%v is no ErrFormat", err)
			}
			return
		}
		if s.XID != nil && !bytes.Contains(page, slices.Concat(s.XID.Gtrid, s.XID.Bqual)) {
			t.Errorf("the XID %+v is not in the page", s.XID)
		}
		SetUndoState(page, UndoActive)
		if again, err := ParseUndoSegment(page); err != nil && s.State == UndoPrepared || err == nil && again.State != UndoActive {
			t.Errorf("%+v made active: %+v, %v", s, again, err)
		}
	})
}
