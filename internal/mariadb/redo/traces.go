package redo

import (
	"maps"
	"slices"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
)

// Trace is what an encrypted log shows of a FILE_CREATE, FILE_DELETE or
// FILE_RENAME: the kind of a record and its length are in clear, ids and names
// are not (InnoDB log0crypt.cc, log_encrypt).
type Trace struct {
	Op FileOp
	// At and End are where the record's mini-transaction starts and ends.
	At, End format.LSN
	// Size is the length of the body: of two numbers and the names.
	Size int
}

// AppendTraces appends those of the mini-transaction from at to end. The error is
// ErrMalformed.
func AppendTraces(dst []Trace, records []byte, at, end format.LSN) ([]Trace, error) {
	for len(records) > 0 && records[0]&bitSame != 0 {
		first, body, rest, err := NextRecord(records)
		if err != nil {
			return dst, err
		}
		switch op := FileOp(first & 0xF0); op {
		case FileCreate, FileDelete, FileRename:
			dst = append(dst, Trace{Op: op, At: at, End: end, Size: len(body)})
		}
		records = rest
	}
	return dst, nil
}

// Traces are those of a log, in order.
type Traces struct {
	list []Trace
	fits map[nameSize][]Trace // what was asked before
}

// nameSize is all that a trace shows of an id and a name: the length of the
// numbers and that of the name.
type nameSize struct{ numbers, name int }

// NewTraces takes the traces of a log.
func NewTraces(list []Trace) *Traces { return &Traces{list, map[nameSize][]Trace{}} }

// Imported looks for a FILE_DELETE that may be that of a tablespace which exists:
// DISCARD TABLESPACE writes one, and IMPORT TABLESPACE brings the id back without
// a record. name is the file's as the log has it, such as ./db/t.ibd; age is
// called only if a record fits the name, with the LSN of the first that does:
// whether pages are newer than that is what counts.
//
// It may take a tablespace for an imported one that is not, but only if all of
// its pages are newer than such a record and no FILE_CREATE explains that, or if
// it was imported before and no page has changed until then.
func (t *Traces) Imported(id format.SpaceID, name string, age func(floor format.LSN) (innodb.Age, error)) (at format.LSN, may bool, err error) {
	fitting := t.fitting(nameSize{len(AppendVarint(nil, uint32(id))) + 1, len(name)})
	first := slices.IndexFunc(fitting, func(f Trace) bool { return f.Op == FileDelete })
	if first < 0 {
		return 0, false, nil
	}
	a, err := age(fitting[first].At)
	if err != nil || a == (innodb.Age{}) {
		return 0, false, err // no page was ever written
	}
	for i, d := range fitting {
		newer := a.Oldest == 0 || a.Oldest > d.At
		if d.Op == FileDelete && newer && (a.Unstamped || !createdIn(fitting[i:], a.Oldest)) {
			return d.At, true, nil
		}
	}
	return 0, false, nil
}

// createdIn says whether a FILE_CREATE explains that all pages are new.
func createdIn(fitting []Trace, oldest format.LSN) bool {
	return slices.ContainsFunc(fitting, func(c Trace) bool { return c.Op == FileCreate && c.End <= oldest })
}

// fitting returns the FILE_CREATE and FILE_DELETE of files that may have a name of
// that size in the end, in order. It goes backwards and takes every FILE_RENAME
// for one that may have given the name.
func (t *Traces) fitting(want nameSize) []Trace {
	if fits, ok := t.fits[want]; ok {
		return fits
	}
	var fits []Trace
	names := map[int]bool{want.name: true}
	for _, r := range slices.Backward(t.list) {
		size := r.Size - want.numbers
		if r.Op != FileRename {
			if names[size] {
				fits = append(fits, r)
			}
			continue
		}
		before := maps.Clone(names) // by this one: the other name, and a 0 between them
		for n := range names {
			if old := size - 1 - n; old >= shortestName {
				before[old] = true
			}
		}
		names = before
	}
	slices.Reverse(fits)
	t.fits[want] = fits
	return fits
}

const shortestName = len("./d/t.ibd")
