package indexpage

import "github.com/xbstream/xbstream/internal/innodb"

// Offsets in the header of an index page (InnoDB page0types.h, page0page.h).
const (
	Slots         = innodb.OffData + 0  // u16 slots of the directory
	HeapTop       = innodb.OffData + 2  // u16
	HeapCount     = innodb.OffData + 4  // u16 rows in the heap; CompactBit
	Free          = innodb.OffData + 6  // u16 first deleted row, 0: none
	Garbage       = innodb.OffData + 8  // u16 bytes of deleted rows
	LastInsert    = innodb.OffData + 10 // u16
	Direction     = innodb.OffData + 12 // u16; MariaDB: low 3 bits, the others belong to instant ALTER
	SameDirection = innodb.OffData + 14 // u16 inserts in a row in that direction
	RowCount      = innodb.OffData + 16 // u16
	MaxTrxID      = innodb.OffData + 18 // u64
	Level         = innodb.OffData + 26 // u16; from here on, Init leaves the header alone
	HeaderEnd     = innodb.OffData + 56 // rows start here
)

const (
	// CompactBit is set in HeapCount unless rows are REDUNDANT.
	CompactBit = 0x8000
	// UserHeapNo is the heap number of the first row after infimum and supremum.
	UserHeapNo = 2
	// SlotSize is the size of a slot in the directory.
	SlotSize = 2
)

// Values of Direction.
const (
	DirectionLeft  = 1
	DirectionRight = 2
	DirectionNone  = 5
)

// How many rows a directory slot owns (InnoDB page0page.h).
const (
	SlotMax   = 8
	SlotMin   = 4
	slotSplit = (SlotMax + 1) / 2 // the lower half of a slot of SlotMax+1
)

// The sizes of the smallest headers of rows.
const (
	CompactExtra   = 5
	RedundantExtra = 6
)

// Format is what the two formats of rows differ in. Bytes of a row's header are
// counted back from its origin (InnoDB rem0rec.h; MySQL rem/rec.h).
type Format struct {
	// Compact says that a next pointer counts from its row, modulo 65536.
	Compact bool
	// Extra is the size of the smallest header.
	Extra int
	// Info is the byte with the info bits and, in the lower four, the number of rows
	// that the row owns.
	Info int
	// HeapNo is the u16 with the heap number, in all but the lower three bits.
	HeapNo int
	// Infimum and Supremum are the origins of these two.
	Infimum, Supremum int
	// HeapStart is where other rows start.
	HeapStart int
	// System is infimum and supremum of an empty page.
	System string
}

// The formats. Compact is also that of DYNAMIC, and of COMPRESSED once a page is
// expanded.
var (
	Compact = Format{
		Compact: true, Extra: CompactExtra, Info: 5, HeapNo: 4, Infimum: 99, Supremum: 112, HeapStart: 120,
		System: "\x01\x00\x02\x00\x0dinfimum\x00" + "\x01\x00\x0b\x00\x00supremum",
	}
	Redundant = Format{
		Extra: RedundantExtra, Info: 6, HeapNo: 5, Infimum: 101, Supremum: 116, HeapStart: 125,
		System: "\x08\x01\x00\x00\x03\x00\x74infimum\x00" + "\x09\x01\x00\x08\x03\x00\x00supremum\x00",
	}
)

// FormatOf returns one of them.
func FormatOf(compact bool) *Format {
	if compact {
		return &Compact
	}
	return &Redundant
}
