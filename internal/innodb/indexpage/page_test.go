package indexpage

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/xbstream/xbstream/internal/innodb"
)

const pageLen = 4096

var formats = map[string]*Format{"compact": &Compact, "redundant": &Redundant}

func empty(f *Format) *Page {
	x := new(Page)
	x.Open(make([]byte, pageLen), f)
	Init(x.B, innodb.TypeIndex, f)
	return x
}

// rows lists the rows without infimum and supremum, and compares directory and
// counts with the list.
func rows(t *testing.T, x *Page) (list []int) {
	t.Helper()
	slot, since := 0, 0
	for rec := x.F.Infimum; rec != 0; rec = x.Next(rec) {
		if rec != x.F.Infimum && rec != x.F.Supremum {
			list = append(list, rec)
		}
		if since++; since > SlotMax {
			t.Fatalf("slot %d owns more than %d rows", slot, SlotMax)
		}
		if n := x.Owned(rec); n != 0 {
			if n != since || x.U16(x.SlotAt(slot)) != rec {
				t.Fatalf("row %d owns %d, says %d; slot %d points to %d", rec, since, n, slot, x.U16(x.SlotAt(slot)))
			}
			slot, since = slot+1, 0
		}
	}
	if x.Bad || slot != x.U16(Slots) || x.DirEnd() != x.SlotAt(slot-1) {
		t.Fatalf("%d slots, the header says %d; Bad is %v", slot, x.U16(Slots), x.Bad)
	}
	return list
}

// put puts a row without data in after prev.
func put(t *testing.T, x *Page, prev int) {
	t.Helper()
	top, count := x.U16(HeapTop), x.U16(HeapCount)
	rec := top + x.F.Extra
	x.Put16(HeapTop, rec)
	x.Put16(HeapCount, count+1)
	x.Put16(rec-x.F.HeapNo, count<<3)
	if n := x.HeapNo(rec); n != count&^CompactBit {
		t.Fatalf("heap number %d of row %d", n, count&^CompactBit)
	}
	x.SetNext(rec, x.Next(prev))
	x.SetNext(prev, rec)
	owner, _ := x.Owner(rec)
	n := x.Owned(owner)
	x.SetOwned(owner, n+1)
	if n == SlotMax {
		slot := x.SlotOf(owner)
		reported(t, x, func() [3]int { return x.SplitSlot(slot) })
	}
}

// take takes the row after prev off the list.
func take(t *testing.T, x *Page, prev int) {
	t.Helper()
	rec := x.Next(prev)
	owner, _ := x.Owner(rec)
	slot, n := x.SlotOf(owner), x.Owned(owner)
	x.SetNext(prev, x.Next(rec))
	if owner == rec {
		owner = prev
		x.Put16(x.SlotAt(slot), prev)
	}
	x.SetOwned(owner, n-1)
	if n <= SlotMin {
		reported(t, x, func() [3]int { return x.BalanceSlot(slot) })
	}
}

// reported checks that a change of the directory returns the rows that own another
// number after it, and no other ones.
func reported(t *testing.T, x *Page, change func() [3]int) {
	t.Helper()
	owned := func() map[int]int {
		m := make(map[int]int)
		for rec := x.F.Infimum; rec != 0 && !x.Bad; rec = x.Next(rec) {
			m[rec] = x.Owned(rec)
		}
		return m
	}
	before := owned()
	got := change()
	want := owned()
	maps.DeleteFunc(want, func(rec, n int) bool { return n == before[rec] })
	for _, rec := range got {
		if _, ok := want[rec]; rec != 0 && !ok {
			t.Fatalf("row %d is reported, and owns %d as before", rec, before[rec])
		}
		delete(want, rec)
	}
	if len(want) > 0 {
		t.Fatalf("rows %v own another number and are not reported", want)
	}
}

func TestDirectoryFollowsTheList(t *testing.T) {
	for name, f := range formats {
		for _, where := range []string{"first", "last", "anywhere"} {
			t.Run(fmt.Sprintf("%s, %s", name, where), func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(1, 2))
				at := func(n int) int {
					switch where {
					case "first":
						return 0
					case "last":
						return n - 1
					}
					return rnd.IntN(n)
				}
				x := empty(f)
				for n := range 100 {
					list := append([]int{f.Infimum}, rows(t, x)...)
					if len(list) != n+1 {
						t.Fatalf("%d rows, want %d", len(list)-1, n)
					}
					put(t, x, list[at(len(list))])
				}
				if n := x.U16(Slots); n < 100/SlotMax {
					t.Errorf("%d slots", n)
				}
				for n := 100; n > 0; n-- {
					list := append([]int{f.Infimum}, rows(t, x)...)
					take(t, x, list[at(n)])
				}
				if list := rows(t, x); len(list) != 0 || x.U16(Slots) != 2 {
					t.Errorf("%d rows, %d slots after all were taken", len(list), x.U16(Slots))
				}
			})
		}
	}
}

// TestDamagedPages: whatever a page holds, nothing outside its body is written, and
// nothing at all once it is Bad.
func TestDamagedPages(t *testing.T) {
	for name, f := range formats {
		t.Run(name, func(t *testing.T) {
			sound := empty(f)
			for range 60 {
				put(t, sound, f.Infimum)
			}
			list := rows(t, sound)
			changed, refused := 0, 0
			for seed := range uint64(20000) {
				rnd := rand.New(rand.NewPCG(seed, 3))
				x := new(Page)
				x.Open(bytes.Clone(sound.B), f)
				for range 1 + rnd.IntN(3) {
					off := []int{
						innodb.OffData + rnd.IntN(HeaderEnd-innodb.OffData),
						x.SlotAt(rnd.IntN(20)),
						list[rnd.IntN(len(list))] - rnd.IntN(f.Extra),
					}[rnd.IntN(3)]
					x.Put16(off, rnd.IntN(1<<16))
				}
				before := bytes.Clone(x.B)
				owner, _ := x.Owner(list[rnd.IntN(len(list))])
				slot := x.SlotOf(owner)
				if rnd.IntN(2) == 0 {
					x.SplitSlot(slot)
				} else {
					x.BalanceSlot(slot)
				}
				end := len(x.B) - innodb.Trailer
				if !bytes.Equal(x.B[:innodb.OffData], before[:innodb.OffData]) || !bytes.Equal(x.B[end:], before[end:]) {
					t.Fatalf("seed %d: bytes outside of the body are changed", seed)
				}
				if !x.Bad {
					changed++
					continue
				}
				refused++
				now := bytes.Clone(x.B)
				x.Put16(HeaderEnd, 0xABCD)
				x.SetOwned(list[0], 9)
				x.SetNext(list[0], list[1])
				if x.SplitSlot(1) != [3]int{} || x.BalanceSlot(1) != [3]int{} || !bytes.Equal(x.B, now) {
					t.Fatalf("seed %d: a page that is Bad is changed", seed)
				}
			}
			if changed < 100 || refused < 100 {
				t.Errorf("%d pages changed, %d refused", changed, refused)
			}
		})
	}
}

// TestOutsideTheBody: the header and the trailer that every page has are out of
// reach, and so is what a damaged pointer names there.
func TestOutsideTheBody(t *testing.T) {
	for name, f := range formats {
		t.Run(name, func(t *testing.T) {
			for _, to := range []int{1, innodb.OffData - 1, pageLen - innodb.Trailer + 1, pageLen, 0xFFFF} {
				x := empty(f)
				x.SetNext(f.Infimum, to)
				if got := x.Next(f.Infimum); got != 0 || !x.Bad {
					t.Errorf("row after infimum at %d, Bad is %v; want Bad for a pointer to %d", got, x.Bad, to)
				}
			}
			for _, off := range []int{-1, 0, innodb.OffData - 1, pageLen - innodb.Trailer - 1, pageLen} {
				x := empty(f)
				before := slices.Clone(x.B)
				if x.Put16(off, 0xABCD); !x.Bad || !bytes.Equal(x.B, before) {
					t.Errorf("2 bytes at %d: Bad is %v", off, x.Bad)
				}
			}
			x := empty(f)
			for range slotSplit {
				put(t, x, f.Infimum)
			}
			x.Put16(HeapTop, 0)
			x.Put16(Slots, (pageLen-innodb.Trailer-innodb.OffData)/SlotSize)
			before := slices.Clone(x.B)
			if x.SplitSlot(1); !x.Bad || !bytes.Equal(x.B, before) {
				t.Errorf("one slot more than the body has room for: Bad is %v", x.Bad)
			}
		})
	}
}
