package apply

// Offsets in every page (InnoDB fil0types.h).
const (
	filPage  = 4  // u32 page number
	filPrev  = 8  // u32 previous page
	filType  = 24 // u16 page type
	filSpace = 34 // u32 tablespace
	filData  = 38
	trailer  = 8
)

// Page types.
const (
	typeUndo       = 2
	typeIbufBitmap = 5
	typeSDI        = 17853
	typeRTree      = 17854
	typeIndex      = 17855
)

// Offsets in an index page (InnoDB page0types.h, page0page.h).
const (
	pageSlots      = 38 // u16 number of directory slots
	pageHeapTop    = 40 // u16
	pageHeapCount  = 42 // u16, bit 15: compact
	pageFree       = 44 // u16 first deleted row
	pageGarbage    = 46 // u16 bytes of deleted rows
	pageLastInsert = 48 // u16
	pageDirection  = 50 // u16
	pageSameDir    = 52 // u16
	pageRows       = 54 // u16
	pageMaxTrx     = 56 // u64
	pageLevel      = 64 // u16; what follows survives when a page is made anew
	pageData       = 94 // rows start here

	compactBit = 0x8000
	slotSize   = 2

	directionLeft  = 1
	directionRight = 2
	directionNone  = 5

	// How many rows a directory slot owns (InnoDB page0page.h).
	slotMax   = 8
	slotMin   = 4
	slotSplit = (slotMax + 1) / 2

	// userHeap is the heap number of the first row, after infimum and supremum.
	userHeap = 2
)

// Info bits of a row, and what else its bytes below the origin say (InnoDB
// rem/rec.h).
const (
	infoMinRec    = 0x10
	infoDeleted   = 0x20
	infoVersioned = 0x40
	infoInstant   = 0x80
	infoMask      = 0xF0

	statusOrdinary = 0
	statusNodePtr  = 1
	statusInfimum  = 2
	statusMask     = 7

	nodePtrSize = 4
	trxIDSize   = 6
	rollPtrSize = 7
	externSize  = 20 // the reference to what is stored elsewhere
)

// rowFormat is what the two formats of index pages differ in. Bytes are counted
// back from a row's origin.
type rowFormat struct {
	extra             int // smallest header
	info              int // info bits and number of owned rows
	heapNo            int // u16
	infimum, supremum int // origins
	heapStart         int
	system            string // infimum and supremum of an empty page
}

var (
	compactFormat = rowFormat{5, 5, 4, 99, 112, 120,
		"\x01\x00\x02\x00\x0dinfimum\x00" + "\x01\x00\x0b\x00\x00supremum"}
	redundantFormat = rowFormat{6, 6, 5, 101, 116, 125,
		"\x08\x01\x00\x00\x03\x00\x74infimum\x00" + "\x09\x01\x00\x08\x03\x00\x00supremum\x00"}
)
