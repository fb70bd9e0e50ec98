package format

import (
	"fmt"
	"sort"
)

// extents tracks which byte ranges of an open file have arrived. Several
// workers of the sender may send ranges of one file at the same time, so there
// are a few runs that grow and meet; runs that touch are joined.
type extents struct {
	runs []extent // sorted, disjoint, not touching
}

type extent struct{ from, to uint64 }

// add records [from, to). A byte that arrives twice is damage, and so are more
// runs than a well-behaved writer leaves open.
func (x *extents) add(from, to uint64) error {
	// i is the first run that ends at or after from: the only candidate to
	// join on its right side or to overlap.
	i := sort.Search(len(x.runs), func(i int) bool { return x.runs[i].to >= from })
	if i == len(x.runs) || x.runs[i].from > to {
		return x.insert(i, extent{from, to})
	}
	r := &x.runs[i]
	switch {
	case r.to == from:
		if i+1 < len(x.runs) && x.runs[i+1].from < to {
			return overlap(from, to)
		}
		r.to = to
		if i+1 < len(x.runs) && x.runs[i+1].from == to {
			r.to = x.runs[i+1].to
			x.runs = append(x.runs[:i+1], x.runs[i+2:]...)
		}
		return nil
	case r.from == to:
		r.from = from
		return nil
	}
	return overlap(from, to)
}

func (x *extents) insert(i int, e extent) error {
	if len(x.runs) >= MaxExtents {
		return fmt.Errorf("file in more than %d separate pieces", MaxExtents)
	}
	x.runs = append(x.runs, extent{})
	copy(x.runs[i+1:], x.runs[i:])
	x.runs[i] = e
	return nil
}

func overlap(from, to uint64) error {
	return fmt.Errorf("bytes %d to %d arrive a second time", from, to)
}

// whole reports whether exactly [0, size) has arrived, or says what is missing.
func (x *extents) whole(size uint64) error {
	if size == 0 && len(x.runs) == 0 {
		return nil
	}
	if len(x.runs) == 1 && x.runs[0] == (extent{0, size}) {
		return nil
	}
	if len(x.runs) == 0 {
		return fmt.Errorf("file of %d bytes closed, but none of them arrived", size)
	}
	if x.runs[0].from != 0 {
		return fmt.Errorf("bytes 0 to %d never arrived", x.runs[0].from)
	}
	if len(x.runs) > 1 {
		return fmt.Errorf("bytes %d to %d never arrived", x.runs[0].to, x.runs[1].from)
	}
	return fmt.Errorf("file of %d bytes closed, but %d arrived", size, x.runs[0].to)
}
