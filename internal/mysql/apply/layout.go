package apply

// Page types that only MySQL's records make.
const (
	typeIbufBitmap = 5
	typeSDI        = 17853
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
