package apply

import (
	"encoding/binary"

	"github.com/xbstream/xbstream/internal/innodb/indexpage"
	"github.com/xbstream/xbstream/internal/mysql/redo"
)

// rows are those of an index page while they are changed.
type rows struct {
	indexpage.Page
	index *redo.Index
	// nullables is the number of columns that may be NULL where the index does
	// not list them all; -1 otherwise.
	nullables int
	// zip is the page as it lies in the file, of ROW_FORMAT=COMPRESSED.
	zip *zipPage
	// fields of the row that was looked at last.
	row row
}

func (x *rows) open(b []byte, index *redo.Index) {
	x.index, x.nullables, x.zip = index, -1, nil
	x.Page.Open(b, indexpage.FormatOf(binary.BigEndian.Uint16(b[indexpage.HeapCount:])&indexpage.CompactBit != 0))
}

// result turns Bad into an error.
func (x *rows) result() error {
	if x.Bad {
		return malformed("it leads outside the page's rows")
	}
	return nil
}

// putHeader writes a number of the page header, which is the same in the file.
func (x *rows) putHeader(off, v int) {
	if v < 0 || v > 0xFFFF {
		x.Bad = true
	}
	x.Put16(off, v)
	if x.zip != nil && !x.zip.stale && !x.Bad {
		binary.BigEndian.PutUint16(x.zip.b[off:], uint16(v))
	}
}

// setOwned changes how many rows a row owns, in the compressed page, too.
func (x *rows) setOwned(rec, n int) {
	x.SetOwned(rec, n)
	if x.zip != nil {
		x.zip.mark(x, rec, zipOwned, n != 0)
	}
}

// mirror does in the compressed page what SplitSlot or BalanceSlot did here.
func (x *rows) mirror(changed [3]int) {
	if x.zip == nil {
		return
	}
	x.putHeader(indexpage.Slots, x.U16(indexpage.Slots))
	for _, rec := range changed {
		if rec != 0 {
			x.zip.mark(x, rec, zipOwned, x.Owned(rec) != 0)
		}
	}
}

// setInfo changes info bits.
func (x *rows) setInfo(rec, mask, bits int) {
	if x.In(rec-x.F.Info, 1) {
		at := &x.B[rec-x.F.Info]
		*at = *at&^byte(mask) | byte(bits)
	}
}

func (x *rows) setDeleted(rec int, on bool) {
	bits := 0
	if on {
		bits = infoDeleted
	}
	x.setInfo(rec, infoDeleted, bits)
	if x.zip != nil {
		x.zip.mark(x, rec, zipDeleted, on)
	}
}

func (x *rows) setHeapNo(rec, n int) {
	at := rec - x.F.HeapNo
	x.Put16(at, x.U16(at)&7|n<<3)
}

// heapCount is the number of rows that there is room for, deleted ones, infimum
// and supremum included.
func (x *rows) heapCount() int { return x.U16(indexpage.HeapCount) &^ indexpage.CompactBit }

func (x *rows) leaf() bool { return x.U16(indexpage.Level) == 0 }

func (x *rows) user(rec int) bool { return rec != x.F.Infimum && rec != x.F.Supremum }

// before returns the row before one that slot i owns.
func (x *rows) before(rec, i int) int {
	prev := x.U16(x.SlotAt(i - 1))
	for range 2 * indexpage.SlotMax {
		next := x.Next(prev)
		if next == rec || x.Bad {
			return prev
		}
		prev = next
	}
	x.Bad = true
	return 0
}

// last returns the last row, or the infimum.
func (x *rows) last() int {
	if i := x.U16(indexpage.Slots) - 1; i > 0 {
		return x.before(x.F.Supremum, i)
	}
	x.Bad = true
	return 0
}

// inserted does what is the same for every row put in after prev: the list, the
// count, the direction, the owner, and a new slot when the owner has too many
// (InnoDB page0cur.cc, page_cur_insert_rec_low).
func (x *rows) inserted(rec, prev, heapNo int) {
	x.SetNext(rec, x.Next(prev))
	x.SetNext(prev, rec)
	x.putHeader(indexpage.RowCount, x.U16(indexpage.RowCount)+1)
	if x.In(rec-x.F.Info, 1) {
		x.B[rec-x.F.Info] &= infoMask
	}
	x.setHeapNo(rec, heapNo)
}

// noteInsert keeps what the server guesses the next insert from. The server does
// not do this on spatial indexes; its recovery does, as it does not know them.
func (x *rows) noteInsert(rec, prev int) {
	last, dir, n := x.U16(indexpage.LastInsert), x.U16(indexpage.Direction), x.U16(indexpage.SameDirection)
	switch {
	case last != 0 && last == prev && dir != indexpage.DirectionLeft:
		dir, n = indexpage.DirectionRight, n+1
	case last != 0 && x.Next(rec) == last && dir != indexpage.DirectionRight:
		dir, n = indexpage.DirectionLeft, n+1
	default:
		dir, n = indexpage.DirectionNone, 0
	}
	x.putHeader(indexpage.Direction, dir)
	x.putHeader(indexpage.SameDirection, n&0xFFFF)
	x.putHeader(indexpage.LastInsert, rec)
}

// own gives a new row to its owner.
func (x *rows) own(rec int) {
	owner, _ := x.Owner(rec)
	n := x.Owned(owner)
	x.setOwned(owner, n+1)
	if n == indexpage.SlotMax {
		x.mirror(x.SplitSlot(x.SlotOf(owner)))
	}
}

// fromHeap takes size bytes at the top of the heap.
func (x *rows) fromHeap(size int) (start, heapNo int) {
	start, count := x.U16(indexpage.HeapTop), x.U16(indexpage.HeapCount)
	if x.Bad || start < x.F.HeapStart || start+size > x.DirEnd() || count&^indexpage.CompactBit >= indexpage.CompactBit>>2 {
		x.Bad = true
		return 0, 0
	}
	x.putHeader(indexpage.HeapTop, start+size)
	x.putHeader(indexpage.HeapCount, count+1)
	return start, count &^ indexpage.CompactBit
}

// reuse takes the first deleted row off its list. The rest of its room is lost
// until the page is reorganized.
func (x *rows) reuse(free, size int) (heapNo int) {
	heapNo = x.HeapNo(free)
	x.putHeader(indexpage.Free, x.Next(free))
	x.putHeader(indexpage.Garbage, x.U16(indexpage.Garbage)-size)
	return heapNo
}
