package prepare

import "math/bits"

// keyIndex numbers page keys from 0 in the order they come. It is a hash table
// with open addressing: one cache line a look-up, no allocation a key.
type keyIndex struct {
	slots []keySlot // a power of two, at most half full
	n     int
	// The last key found: runs for one page come together.
	lastKey pageKey
	last    int
	hasLast bool
}

type keySlot struct {
	key pageKey
	i   uint32 // number + 1, 0 for an empty slot
}

// pageCost bounds the table's bytes a key: 16 in a table that is at least a
// quarter full, and half as much again while it grows.
const pageCost = 96

const firstKeySlots = 1 << 10

func (x *keyIndex) reset() {
	clear(x.slots)
	x.n, x.hasLast = 0, false
}

// find returns the key's number, a new one if it had none.
func (x *keyIndex) find(k pageKey) (i int, added bool) {
	if x.hasLast && x.lastKey == k {
		return x.last, false
	}
	if 2*x.n >= len(x.slots) {
		x.grow()
	}
	s := x.slot(k)
	if s.i == 0 {
		x.n++
		s.key, s.i = k, uint32(x.n)
		added = true
	}
	x.lastKey, x.last, x.hasLast = k, int(s.i)-1, true
	return x.last, added
}

// get returns the key's number, if it has one.
func (x *keyIndex) get(k pageKey) (i int, ok bool) {
	if x.n == 0 {
		return 0, false
	}
	s := x.slot(k)
	return int(s.i) - 1, s.i != 0
}

// slot returns the key's slot or the empty one where it belongs.
func (x *keyIndex) slot(k pageKey) *keySlot {
	mask := uint64(len(x.slots) - 1)
	shift := 64 - bits.Len64(mask)
	// Multiplying by 2^64 over the golden ratio spreads neighbours.
	for h := uint64(k) * 0x9E3779B97F4A7C15 >> shift; ; h++ {
		s := &x.slots[h&mask]
		if s.i == 0 || s.key == k {
			return s
		}
	}
}

func (x *keyIndex) grow() {
	old := x.slots
	x.slots = make([]keySlot, max(firstKeySlots, 2*len(old)))
	for _, s := range old {
		if s.i != 0 {
			*x.slot(s.key) = s
		}
	}
}

// all calls f with every key and its number, in no order.
func (x *keyIndex) all(f func(k pageKey, i int)) {
	for _, s := range x.slots {
		if s.i != 0 {
			f(s.key, int(s.i)-1)
		}
	}
}
