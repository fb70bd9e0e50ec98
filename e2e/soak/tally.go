package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
)

// tally counts what was tried and what came of it.
type tally struct {
	rounds, whole, tables int
	rows, bytes           int64
	faults                map[string]*struck
	loads                 map[string]int
	// What must stay 0: rows or tables that differ, commands that did not end,
	// and everything else that is not as it should be.
	differences, hangs, wrong int
}

// struck is what came of a fault: the backup ended by it, or was done before it
// came, or was not harmed.
type struck struct{ ended, passed int }

func newTally() *tally { return &tally{faults: map[string]*struck{}, loads: map[string]int{}} }

func (t *tally) add(r *round) {
	t.rounds++
	t.loads[r.load]++
	t.bytes += r.relay.passed.Load()
	t.tables, t.rows = t.tables+r.compared.Tables, t.rows+r.compared.Rows
	t.differences, t.hangs = t.differences+r.differences, t.hangs+r.hangs
	t.wrong += len(r.problems) - r.differences - r.hangs
	if r.whole {
		t.whole++
	}
	f := t.faults[r.fault.name]
	if f == nil {
		f = &struck{}
		t.faults[r.fault.name] = f
	}
	if r.received == 0 {
		f.passed++
	} else {
		f.ended++
	}
}

func (t *tally) print(took time.Duration, seed uint64) {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	line := func(key string, value any) { fmt.Fprintf(w, "  %s\t%v\n", key, value) }
	fmt.Printf("\nsoak of %v, seed %d\n", took.Round(time.Second), seed)
	line("rounds", t.rounds)
	for _, name := range slices.Sorted(maps.Keys(t.loads)) {
		line("load: "+name, t.loads[name])
	}
	line("archives", humanize.IBytes(uint64(t.bytes)))
	line("copies started, followed and compared", t.whole)
	line("tables and rows compared", fmt.Sprintf("%d, %d", t.tables, t.rows))
	for _, name := range slices.Sorted(maps.Keys(t.faults)) {
		if f := t.faults[name]; name != "" {
			line("fault: "+name, fmt.Sprintf("%d (%d ended the backup, %d did it no harm)", f.ended+f.passed, f.ended, f.passed))
		}
	}
	line("differences", t.differences)
	line("hangs", t.hangs)
	line("other problems", t.wrong)
	w.Flush()
}

func (t *tally) failure() error {
	if n := t.differences + t.hangs + t.wrong; n > 0 {
		return fmt.Errorf("%d problems", n)
	}
	return nil
}
