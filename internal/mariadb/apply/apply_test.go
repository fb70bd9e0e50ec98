package apply

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/internal/innodb/indexpage"
	"github.com/xbstream/xbstream/internal/mariadb/redo"
)

// pageLen is small, so that expectations stay readable; nothing depends on it.
const pageLen = 512

var target = Target{Space: 7, Page: 5}

// patch is bytes expected at an offset.
type patch struct {
	at   int
	data string
}

// filled returns a page of one byte.
func filled(b byte) []byte { return bytes.Repeat([]byte{b}, pageLen) }

func patched(page []byte, patches ...patch) []byte {
	page = bytes.Clone(page)
	for _, p := range patches {
		copy(page[p.at:], p.data)
	}
	return page
}

// first and same build records for the target page.
func first(t redo.RecordType, payload ...byte) []byte {
	return redo.AppendPageRecord(nil, t, target.Space, target.Page, payload)
}

func same(t redo.RecordType, payload ...byte) []byte {
	return redo.AppendSameRecord(nil, t, payload)
}

func join(records ...[]byte) []byte { return bytes.Join(records, nil) }

// v encodes a number below 16512.
func v(n int) string { return string(redo.AppendVarint(nil, uint32(n))) }

func TestPlainRecords(t *testing.T) {
	pattern := make([]byte, pageLen)
	for i := range pattern {
		pattern[i] = byte(i)
	}
	for _, c := range []struct {
		name string
		page []byte
		log  []byte
		want []byte
	}{
		{"WRITE", filled('.'), first(redo.Write, []byte(v(100)+"abc")...), patched(filled('.'), patch{100, "abc"})},
		{"WRITE at the first offset", filled('.'), first(redo.Write, []byte(v(8)+"abc")...), patched(filled('.'), patch{8, "abc"})},
		{"WRITE up to the end", filled('.'), first(redo.Write, []byte(v(509)+"abc")...), patched(filled('.'), patch{509, "abc"})},
		{"WRITE counts from the end of the one before", filled('.'),
			join(first(redo.Write, []byte(v(100)+"abc")...), same(redo.Write, []byte(v(2)+"de")...), same(redo.Write, []byte(v(0)+"f")...)),
			patched(filled('.'), patch{100, "abc..def"})},
		{"MEMSET of one byte", filled('.'), first(redo.Memset, []byte(v(100)+v(5)+"x")...), patched(filled('.'), patch{100, "xxxxx"})},
		{"MEMSET of a pattern", filled('.'), first(redo.Memset, []byte(v(100)+v(6)+"xy")...), patched(filled('.'), patch{100, "xyxyxy"})},
		{"MEMSET of half a pattern at the end", filled('.'), first(redo.Memset, []byte(v(100)+v(7)+"xyz")...), patched(filled('.'), patch{100, "xyzxyzx"})},
		{"MEMSET moves the offset", filled('.'), join(first(redo.Memset, []byte(v(100)+v(5)+"x")...), same(redo.Write, []byte(v(1)+"a")...)),
			patched(filled('.'), patch{100, "xxxxx.a"})},
		{"MEMMOVE from below", patched(filled('.'), patch{90, "abcd"}), first(redo.Memmove, []byte(v(100)+v(4)+v(9<<1|1))...),
			patched(filled('.'), patch{90, "abcd"}, patch{100, "abcd"})},
		{"MEMMOVE from above", patched(filled('.'), patch{110, "abcd"}), first(redo.Memmove, []byte(v(100)+v(4)+v(9<<1))...),
			patched(filled('.'), patch{110, "abcd"}, patch{100, "abcd"})},
		{"MEMMOVE that overlaps", patched(filled('.'), patch{100, "abcdef"}), first(redo.Memmove, []byte(v(101)+v(5)+v(0<<1|1))...),
			patched(filled('.'), patch{100, "aabcde"})},
		{"INIT_PAGE", pattern, first(redo.InitPage), patched(filled(0), patch{4, "\x00\x00\x00\x05\xff\xff\xff\xff\xff\xff\xff\xff"}, patch{34, "\x00\x00\x00\x07"})},
		{"WRITE after INIT_PAGE counts from the page type", pattern, join(first(redo.InitPage), same(redo.Write, []byte(v(0)+"\x45\xbf")...)),
			patched(filled(0), patch{4, "\x00\x00\x00\x05\xff\xff\xff\xff\xff\xff\xff\xff"}, patch{24, "\x45\xbf"}, patch{34, "\x00\x00\x00\x07"})},
		{"FREE_PAGE", pattern, first(redo.FreePage), pattern},
		{"OPTION", pattern, join(first(redo.Option, 0, 1, 2, 3, 4), same(redo.Option, 9)), pattern},
		{"UNDO_INIT", filled(0x11), first(redo.Extended, undoInit),
			patched(filled(0x11), patch{24, "\x00\x02"}, patch{38, "\x00\x00\x00\x38\x00\x38\xff\xff\xff\xff\x00\x00\xff\xff\xff\xff\x00\x00"})},
		{"UNDO_APPEND", patched(filled(0), patch{42, "\x00\x38"}), first(redo.Extended, append([]byte{undoAppend}, "record"...)...),
			patched(filled(0), patch{42, "\x00\x42"}, patch{56, "\x00\x42record\x00\x38"})},
		{"UNDO_APPEND twice", patched(filled(0), patch{42, "\x00\x38"}),
			join(first(redo.Extended, append([]byte{undoAppend}, "ab"...)...), same(redo.Extended, append([]byte{undoAppend}, "c"...)...)),
			patched(filled(0), patch{42, "\x00\x43"}, patch{56, "\x00\x3eab\x00\x38\x00\x43c\x00\x3e"})},
		{"a record of another page ends the run", filled('.'),
			join(first(redo.Write, []byte(v(100)+"a")...), first(redo.Write, []byte(v(200)+"b")...)), patched(filled('.'), patch{100, "a"})},
		{"the marker ends the run", filled('.'), join(first(redo.Write, []byte(v(100)+"a")...), []byte{1, 2, 3, 4, 5}), patched(filled('.'), patch{100, "a"})},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := bytes.Clone(c.page)
			if _, err := Apply(got, target, c.log); err != nil {
				t.Fatal(err)
			}
			compare(t, got, c.want)
		})
	}
}

func compare(t *testing.T, got, want []byte) {
	t.Helper()
	for i := range want {
		if got[i] != want[i] {
			end := min(i+24, len(want))
			t.Fatalf("first difference at %d: got % x, want % x", i, got[i:end], want[i:end])
		}
	}
}

func TestMalformedRecords(t *testing.T) {
	wide := []byte(v(505) + strings.Repeat("x", 20))
	for _, c := range []struct {
		name string
		t    Target
		log  []byte
	}{
		{"WRITE below the first offset", target, first(redo.Write, []byte(v(7)+"a")...)},
		{"WRITE behind the page", target, first(redo.Write, []byte(v(512)+"a")...)},
		{"WRITE over the end", target, first(redo.Write, wide...)},
		{"WRITE of nothing", target, first(redo.Write, []byte(v(100))...)},
		{"WRITE without offset", target, first(redo.Write)},
		{"WRITE far away", target, first(redo.Write, append(redo.AppendVarint(nil, 1<<32-1), 'a')...)},
		{"MEMSET over the end", target, first(redo.Memset, []byte(v(500)+v(13)+"x")...)},
		{"MEMSET of nothing", target, first(redo.Memset, []byte(v(100)+v(0)+"x")...)},
		{"MEMSET without pattern", target, first(redo.Memset, []byte(v(100)+v(5))...)},
		{"MEMMOVE from below the page", target, first(redo.Memmove, []byte(v(100)+v(4)+v(95<<1|1))...)},
		{"MEMMOVE from behind the page", target, first(redo.Memmove, []byte(v(100)+v(4)+v(410<<1))...)},
		{"MEMMOVE without source", target, first(redo.Memmove, []byte(v(100)+v(4))...)},
		{"INIT_PAGE with payload", target, first(redo.InitPage, 1)},
		{"WRITE after FREE_PAGE", target, join(first(redo.FreePage), same(redo.Write, []byte(v(100)+"a")...))},
		{"reserved type", target, first(redo.RecordType(0x60), 1)},
		{"EXTENDED without subtype", target, first(redo.Extended)},
		{"EXTENDED of an unknown subtype", target, first(redo.Extended, 11)},
		{"EXTENDED on page 2", Target{Space: 7, Page: 2}, first(redo.Extended, undoInit)},
		{"EXTENDED on a compressed image", Target{Space: 7, Page: 5, Zip: true}, first(redo.Extended, initDynamic)},
		{"INIT_ROW_FORMAT with payload", target, first(redo.Extended, initDynamic, 0)},
		{"UNDO_APPEND to no undo page", target, first(redo.Extended, undoAppend, 'x')},
		{"insert into an empty page", target, first(redo.Extended, insertHeapDynamic, 0, 0, 0, 0)},
		{"delete from an empty page", target, first(redo.Extended, deleteDynamic, 0, 0, 0)},
		{"delete from an empty REDUNDANT page", target, first(redo.Extended, deleteRedundant, 0)},
		{"body cut", target, []byte{0x35, 7}},
	} {
		t.Run(c.name, func(t *testing.T) {
			page := filled(0)
			if _, err := Apply(page, c.t, c.log); !errors.Is(err, ErrMalformed) && !errors.Is(err, redo.ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
		})
	}
}

// dynamicPage is an empty index page as INIT_ROW_FORMAT_DYNAMIC leaves it,
// written down by hand.
func dynamicPage() []byte {
	return patched(filled(0), patch{24, "\x45\xbf"},
		patch{38, "\x00\x02\x00\x78\x80\x02"}, patch{51, "\x05"},
		patch{94, "\x01\x00\x02\x00\x0dinfimum\x00\x01\x00\x0b\x00\x00supremum"},
		patch{pageLen - 12, "\x00\x70\x00\x63"})
}

func redundantPage() []byte {
	return patched(filled(0), patch{24, "\x45\xbf"},
		patch{38, "\x00\x02\x00\x7d\x00\x02"}, patch{51, "\x05"},
		patch{94, "\x08\x01\x00\x00\x03\x00\x74infimum\x00\x09\x01\x00\x08\x03\x00\x00supremum\x00"},
		patch{pageLen - 12, "\x00\x74\x00\x65"})
}

func TestInitRowFormat(t *testing.T) {
	for _, c := range []struct {
		name    string
		subtype byte
		want    []byte
	}{
		{"DYNAMIC", initDynamic, dynamicPage()},
		{"REDUNDANT", initRedundant, redundantPage()},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := filled(0xEE)
			clear(got[:38])
			if _, err := Apply(got, target, first(redo.Extended, c.subtype)); err != nil {
				t.Fatal(err)
			}
			// Level, index id, segments and the trailer are left alone.
			want := patched(c.want, patch{64, strings.Repeat("\xee", 30)}, patch{pageLen - 8, strings.Repeat("\xee", 8)})
			compare(t, got, want)
		})
	}
}

// ext builds the record of an insert or delete.
func ext(subtype byte, numbers []int, literal string) []byte {
	payload := []byte{subtype}
	for _, n := range numbers {
		payload = redo.AppendVarint(payload, uint32(n))
	}
	return first(redo.Extended, append(payload, literal...)...)
}

func applied(t *testing.T, page []byte, records ...[]byte) []byte {
	t.Helper()
	got := bytes.Clone(page)
	for _, r := range records {
		if n, err := Apply(got, target, r); err != nil || n != 1 {
			t.Fatalf("%d records applied, %v", n, err)
		}
	}
	return got
}

func TestInsertDynamic(t *testing.T) {
	// One byte of variable header (0x2a), 5 bytes of data.
	one := ext(insertHeapDynamic, []int{0, 1 << 3, 0, 0}, "\x2ahello")
	t.Run("first row", func(t *testing.T) {
		// The row starts at 120, its origin is 126: next = 112-126 = 0xfff2.
		compare(t, applied(t, dynamicPage(), one), patched(dynamicPage(),
			patch{38, "\x00\x02\x00\x83\x80\x03\x00\x00\x00\x00\x00\x7e\x00\x05\x00\x00\x00\x01"},
			patch{97, "\x00\x1b"}, // infimum: next = 126-99
			patch{107, "\x02"},    // supremum owns two
			patch{120, "\x2a\x00\x00\x10\xff\xf2hello"}))
	})
	// After the first row: header byte and the first 4 data bytes as before.
	two := ext(insertHeapDynamic, []int{27, 0<<3 | 2, 1, 4}, "p")
	t.Run("row like the one before", func(t *testing.T) {
		compare(t, applied(t, dynamicPage(), one, two), patched(applied(t, dynamicPage(), one),
			// last_insert 137, direction right, one in a row.
			patch{38, "\x00\x02\x00\x8e\x80\x04\x00\x00\x00\x00\x00\x89\x00\x02\x00\x01\x00\x02"},
			patch{107, "\x03"},
			patch{124, "\x00\x0b"},                            // first row: next = 137-126
			patch{131, "\x2a\x20\x00\x18\xff\xe7" + "hellp"})) // next = 112-137
	})
	t.Run("before the row inserted last", func(t *testing.T) {
		got := applied(t, dynamicPage(), one, ext(insertHeapDynamic, []int{0, 1 << 3, 0, 0}, "\x01a"))
		if got[51]&7 != indexpage.DirectionLeft || binary.BigEndian.Uint16(got[52:]) != 1 {
			t.Errorf("direction %d, %d in a row; want left, 1", got[51], got[53])
		}
	})
	t.Run("node pointer", func(t *testing.T) {
		page := dynamicPage()
		page[65] = 1 // level
		if got := applied(t, page, one); binary.BigEndian.Uint16(got[122:]) != 2<<3|1 {
			t.Errorf("heap number and status % x, want 0011", got[122:124])
		}
	})
	t.Run("R-tree keeps its direction", func(t *testing.T) {
		page := dynamicPage()
		page[25] = typeRtreeByte
		got := applied(t, page, one, two)
		if got[51] != indexpage.DirectionNone || got[53] != 0 {
			t.Errorf("direction %d, %d in a row; want none, 0", got[51], got[53])
		}
	})
	t.Run("instant ALTER bits stay", func(t *testing.T) {
		page := dynamicPage()
		page[50], page[51] = 0x12, 0x38|indexpage.DirectionNone
		if got := applied(t, page, one, two); got[50] != 0x12 || got[51] != 0x38|indexpage.DirectionRight {
			t.Errorf("bytes 50 and 51 are %x, want 12 3a", got[50:52])
		}
	})
}

func TestReuseDynamic(t *testing.T) {
	one := ext(insertHeapDynamic, []int{0, 1 << 3, 0, 0}, "\x2ahello")
	two := ext(insertHeapDynamic, []int{27, 0, 1, 4}, "p")
	// The first of two rows goes to the list of deleted ones.
	gone := applied(t, dynamicPage(), one, two, ext(deleteDynamic, []int{0, 1, 5}, ""))
	t.Run("delete", func(t *testing.T) {
		compare(t, gone, patched(applied(t, dynamicPage(), one, two),
			patch{44, "\x00\x7e\x00\x0b\x00\x00"}, // free 126, garbage 11, last_insert 0
			patch{54, "\x00\x01"},
			patch{97, "\x00\x26"}, // infimum: next = 137-99
			patch{107, "\x02"},
			patch{124, "\x00\x00\x00\x00\x00\x00\x00"})) // end of the list, data wiped
	})
	t.Run("insert", func(t *testing.T) {
		// A header one byte longer than the old one: the row starts 1 lower
		// than its origin says, at 120 again with shift +1 (2).
		got := applied(t, gone, ext(insertReuseDynamic, []int{0, 2, 2 << 3, 0, 0}, "\x01\x02abcd"))
		compare(t, got, patched(gone,
			patch{44, "\x00\x00\x00\x00\x00\x7f"}, // free, garbage, last_insert 127
			patch{51, "\x05\x00\x00\x00\x02"},
			patch{97, "\x00\x1c"},
			patch{107, "\x03"},
			patch{120, "\x01\x02\x00\x00\x10\x00\x0aabcd"})) // heap number 2 again, next = 137-127
	})
	t.Run("topmost row gives its heap back", func(t *testing.T) {
		got := applied(t, applied(t, dynamicPage(), one, two), ext(deleteDynamic, []int{27, 1, 5}, ""))
		want := patched(applied(t, dynamicPage(), one), patch{48, "\x00\x00\x00\x02\x00\x01"})
		compare(t, got, want)
	})
}

func TestRedundantRows(t *testing.T) {
	// Two fields with one-byte offsets, "ab" and "cde": header 6+2 bytes, of
	// which the two end offsets are new; the rest is the infimum's.
	hdr := (2-1)<<3 | 1<<2
	one := ext(insertHeapRedundant, []int{0, hdr, 0, 0}, "\x05\x02abcde")
	onePage := patched(redundantPage(),
		patch{38, "\x00\x02\x00\x8a\x00\x03\x00\x00\x00\x00\x00\x85\x00\x05\x00\x00\x00\x01"},
		patch{99, "\x00\x85"}, // infimum: next = 133
		patch{110, "\x02"},    // supremum owns two
		patch{125, "\x05\x02\x00\x00\x10\x05\x00\x74abcde"}) // heap number 2, 2 fields, next = 116
	t.Run("first row", func(t *testing.T) { compare(t, applied(t, redundantPage(), one), onePage) })
	two := ext(insertHeapRedundant, []int{32, hdr | 1, 2, 2}, "xyz")
	twoPage := patched(onePage,
		patch{38, "\x00\x02\x00\x97\x00\x04\x00\x00\x00\x00\x00\x92\x00\x02\x00\x01\x00\x02"},
		patch{110, "\x03"},
		patch{131, "\x00\x92"},
		patch{138, "\x05\x02\x10\x00\x18\x05\x00\x74abxyz"})
	t.Run("row like the one before", func(t *testing.T) { compare(t, applied(t, onePage, two), twoPage) })
	gone := patched(twoPage,
		patch{44, "\x00\x85\x00\x0d\x00\x00"},
		patch{54, "\x00\x01"},
		patch{99, "\x00\x92"},
		patch{110, "\x02"},
		patch{131, "\x00\x00\x00\x00\x00\x00\x00"})
	t.Run("delete", func(t *testing.T) { compare(t, applied(t, twoPage, ext(deleteRedundant, []int{0}, "")), gone) })
	t.Run("reuse", func(t *testing.T) {
		compare(t, applied(t, gone, ext(insertReuseRedundant, []int{0, hdr, 0, 0}, "\x05\x02vwxyz")), patched(gone,
			patch{44, "\x00\x00\x00\x00\x00\x85"},
			patch{51, "\x05\x00\x00\x00\x02"},
			patch{99, "\x00\x85"},
			patch{110, "\x03"},
			patch{125, "\x05\x02\x00\x00\x10\x05\x00\x92vwxyz"}))
	})
}

// TestDirectory inserts and deletes enough rows for slots to split, borrow and
// merge, and checks the page's structure after every step.
func TestDirectory(t *testing.T) {
	page := dynamicPage()
	insert := func(after int) {
		page = applied(t, page, ext(insertHeapDynamic, []int{after - 99, 0, 0, 0}, "abc"))
		checkStructure(t, page)
	}
	for range 20 { // ascending
		insert(lastRow(page))
	}
	if n := binary.BigEndian.Uint16(page[indexpage.Slots:]); n < 4 {
		t.Errorf("%d slots after 20 rows, want splits", n)
	}
	for range 10 { // descending
		insert(99)
	}
	full := binary.BigEndian.Uint16(page[indexpage.Slots:])
	for n := 30; n > 0; n-- {
		page = applied(t, page, ext(deleteDynamic, []int{0, 0, 3}, ""))
		checkStructure(t, page)
	}
	if n := binary.BigEndian.Uint16(page[indexpage.Slots:]); n >= full || binary.BigEndian.Uint16(page[indexpage.RowCount:]) != 0 {
		t.Errorf("%d slots and %d rows after all were deleted", n, binary.BigEndian.Uint16(page[indexpage.RowCount:]))
	}
}

func lastRow(page []byte) int {
	x := openIndex(page, &indexpage.Compact)
	rec := 99
	for x.Next(rec) != 112 {
		rec = x.Next(rec)
	}
	return rec
}

// checkStructure walks the list and compares it with directory and counts.
func checkStructure(t *testing.T, page []byte) {
	t.Helper()
	x := openIndex(page, &indexpage.Compact)
	slot, since, rows := 0, 0, -2
	for rec := 99; rec != 0; rec = x.Next(rec) {
		rows++
		since++
		if n := x.Owned(rec); n != 0 {
			if n != since || x.U16(x.SlotAt(slot)) != rec {
				t.Fatalf("record at %d owns %d of %d, slot %d points to %d", rec, n, since, slot, x.U16(x.SlotAt(slot)))
			}
			if slot > 0 && (n > indexpage.SlotMax || n < indexpage.SlotMin && rec != 112) {
				t.Fatalf("slot %d owns %d", slot, n)
			}
			slot, since = slot+1, 0
		}
	}
	if x.Bad || slot != x.U16(indexpage.Slots) || rows != x.U16(indexpage.RowCount) {
		t.Fatalf("%d slots, the header says %d; %d rows, the header says %d", slot, x.U16(indexpage.Slots), rows, x.U16(indexpage.RowCount))
	}
}

// FuzzApply feeds any records to any page: an error or a result, but never a
// panic, and never a byte changed outside the page.
func FuzzApply(f *testing.F) {
	pages := [][]byte{filled(0), dynamicPage(), redundantPage()}
	seeds := [][]byte{
		first(redo.Write, []byte(v(100)+"abc")...),
		first(redo.Memset, []byte(v(100)+v(6)+"xy")...),
		first(redo.Memmove, []byte(v(100)+v(4)+v(9))...),
		first(redo.InitPage),
		join(first(redo.InitPage), same(redo.Extended, initDynamic), same(redo.Extended, append([]byte{insertHeapDynamic}, "\x00\x08\x00\x00\x2ahello"...)...)),
		ext(insertHeapDynamic, []int{0, 1 << 3, 0, 0}, "\x2ahello"),
		ext(insertReuseDynamic, []int{0, 2, 2 << 3, 0, 0}, "\x01\x02abcd"),
		ext(insertHeapRedundant, []int{0, 12, 0, 0}, "\x05\x02abcde"),
		ext(insertReuseRedundant, []int{0, 12, 0, 0}, "\x05\x02abcde"),
		ext(deleteDynamic, []int{0, 1, 5}, ""),
		ext(deleteRedundant, []int{0}, ""),
		first(redo.Extended, undoInit),
	}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, p := range pages {
		for _, s := range seeds {
			f.Add(p, s)
		}
	}
	f.Fuzz(func(t *testing.T, page, log []byte) {
		if len(page) < pageLen || len(page) > 1<<16 {
			page = append(page, make([]byte, pageLen)...)[:pageLen]
		}
		const guard = 64
		room := append(append(bytes.Repeat([]byte{0xA5}, guard), page...), bytes.Repeat([]byte{0xA5}, guard)...)
		_, err := Apply(room[guard:guard+len(page)], target, log)
		for _, b := range append(bytes.Clone(room[:guard]), room[guard+len(page):]...) {
			if b != 0xA5 {
				t.Fatal("wrote outside the page")
			}
		}
		if err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, redo.ErrMalformed) && !errors.Is(err, redo.ErrShort) {
			t.Fatalf("error of an unknown kind: %v", err)
		}
	})
}
