package prepare

import (
	"bytes"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
	"github.com/xbstream/xbstream/internal/mariadb/redo"
	"github.com/xbstream/xbstream/internal/spaces"
)

// newGatherer returns one with room for mem bytes of runs, in a log that starts at
// position 1000.
func newGatherer(mem int64) *gatherer {
	g := &gatherer{dialect: redolog.First(), limit: mem, spaces: spaces.Histories{}}
	g.batch = &batch{mem: make([]byte, mem+spill)}
	g.batch.reset(1000, 0)
	return g
}

// takeRecords takes one mini-transaction that starts at a position.
func takeRecords(g *gatherer, at redolog.Position, records []byte, keep bool) error {
	b := &block{buf: redo.AppendMTR(nil, records, 1), base: at}
	err := g.dialect.Next(&b.runs, b.buf, false)
	if err == nil {
		err = g.take(b, span{0, uint32(b.runs.RecordsEnd), uint32(b.runs.Size), 0, uint32(len(b.runs.Starts))}, keep)
	}
	return err
}

// logOf is a log in memory.
func logOf(log []byte) (h held) {
	for from := 0; from < len(log); from += segmentSize {
		h.mem = append(h.mem, log[from:min(from+segmentSize+overlap, len(log))])
	}
	return h
}

// record builds a page record that can be told from others by its payload.
func record(t redo.RecordType, page format.PageNo, payload string) []byte {
	return redo.AppendPageRecord(nil, t, 5, page, []byte(payload))
}

// gathered returns the records kept for a page of space 5.
func gathered(g *gatherer, page format.PageNo) (out []run) {
	i, ok := g.batch.pages.get(keyOf(5, page))
	if !ok {
		return nil
	}
	w := g.batch.runs(g.batch.chains[i])
	for r, ok := w.next(); ok; r, ok = w.next() {
		r.records = bytes.Clone(r.records)
		out = append(out, r)
	}
	return out
}

func TestGatherKeepsWhatCounts(t *testing.T) {
	write := func(page format.PageNo, s string) []byte { return record(redo.Write, page, "\x64"+s) }
	again := redo.AppendSameRecord(nil, redo.Write, []byte("\x00z"))
	for _, c := range []struct {
		name string
		mtrs [][][]byte
		want [][]byte // for page 7
	}{
		{"all of several mini-transactions", [][][]byte{{write(7, "a")}, {write(7, "b")}}, [][]byte{write(7, "a"), write(7, "b")}},
		{"records on the same page stay together", [][][]byte{{write(7, "a"), again, write(8, "b"), again}}, [][]byte{append(write(7, "a"), again...)}},
		{"a page visited twice", [][][]byte{{write(7, "a"), write(8, "b"), write(7, "c")}}, [][]byte{write(7, "a"), write(7, "c")}},
		{"after INIT_PAGE, with it", [][][]byte{{write(7, "a")}, {record(redo.InitPage, 7, ""), again}, {write(7, "b")}},
			[][]byte{append(record(redo.InitPage, 7, ""), again...), write(7, "b")}},
		{"after INIT_PAGE within one mini-transaction", [][][]byte{{write(7, "a"), record(redo.InitPage, 7, "")}}, [][]byte{record(redo.InitPage, 7, "")}},
		{"nothing after FREE_PAGE", [][][]byte{{write(7, "a")}, {write(7, "b"), record(redo.FreePage, 7, "")}}, nil},
		{"FREE_PAGE of another page", [][][]byte{{write(7, "a")}, {record(redo.FreePage, 8, "")}}, [][]byte{write(7, "a")}},
		{"INIT_PAGE after FREE_PAGE", [][][]byte{{write(7, "a"), record(redo.FreePage, 7, ""), record(redo.InitPage, 7, "")}}, [][]byte{record(redo.InitPage, 7, "")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGatherer(1 << 16)
			var log []byte
			for _, records := range c.mtrs {
				joined := bytes.Join(records, nil)
				if err := takeRecords(g, 1000+redolog.Position(len(log)), joined, true); err != nil {
					t.Fatal(err)
				}
				log = append(append(log, joined...), make([]byte, 5)...)
			}
			g.batch.log = logOf(log)
			got := gathered(g, 7)
			if len(got) != len(c.want) {
				t.Fatalf("%d runs, want %d", len(got), len(c.want))
			}
			for i, r := range got {
				if !bytes.Equal(r.records, c.want[i]) || r.at < r.start || r.end <= r.start {
					t.Errorf("run %d is %x at %v, want %x", i, r.records, r, c.want[i])
				}
			}
		})
	}
}

// TestBatchKeepsOrder puts more runs of all sizes into many chains than fit into
// their first chunks.
func TestBatchKeepsOrder(t *testing.T) {
	g := newGatherer(8 << 20)
	want := map[format.PageNo][]run{}
	log := make([]byte, 20000*300)
	for i := range 20000 {
		page := format.PageNo(i * i % 53)
		r := run{start: 1000 + redolog.Position(i*300), size: uint32(1 + i%211)}
		r.at, r.end = r.start+redolog.Position(i%7), r.start+299
		r.records = log[r.at-1000:][:r.size]
		copy(r.records, bytes.Repeat([]byte{byte(i)}, int(r.size)))
		if i%5000 == 4999 { // what is void makes room for others
			g.batch.void(keyOf(5, page))
			delete(want, page)
		}
		g.batch.add(keyOf(5, page), r)
		want[page] = append(want[page], r)
	}
	g.batch.log = logOf(log)
	for page, runs := range want {
		got := gathered(g, page)
		if len(got) != len(runs) {
			t.Fatalf("page %v has %d runs, want %d", page, len(got), len(runs))
		}
		for i := range runs {
			if got[i].start != runs[i].start || got[i].end != runs[i].end || got[i].at != runs[i].at || !bytes.Equal(got[i].records, runs[i].records) {
				t.Fatalf("page %v run %d is %v, want %v", page, i, got[i], runs[i])
			}
		}
	}
}

func TestVoidBefore(t *testing.T) {
	h := &spaces.History{Deleted: 50, Trims: []spaces.Trim{{At: 100, Page: 640}}}
	for _, c := range []struct {
		key  pageKey
		want format.LSN
	}{
		{keyOf(3, 7), 100},   // an undo tablespace is emptied
		{keyOf(3, 700), 100}, // …to its end
		{keyOf(0, 7), 50},    // the system tablespace loses its end only
		{keyOf(0, 640), 100},
	} {
		if got := voidBefore(h, c.key); got != c.want {
			t.Errorf("space %v page %v: %v, want %v", c.key.space(), c.key.page(), got, c.want)
		}
	}
	if got := voidBefore(nil, keyOf(3, 7)); got != 0 {
		t.Errorf("without history: %v, want 0", got)
	}
}

// FuzzGather spreads any records and applies what was kept: errors, but no
// panic, and every run kept is one that was there.
func FuzzGather(f *testing.F) {
	seeds := [][]byte{
		record(redo.Write, 7, "\x64abc"),
		append(record(redo.InitPage, 7, ""), redo.AppendSameRecord(nil, redo.Extended, []byte{1})...),
		append(record(redo.Write, 7, "\x64abc"), record(redo.FreePage, 7, "")...),
		record(redo.Extended, 640, "\x0a"),
		redo.AppendFileRecord(nil, redo.FileRecord{Op: redo.FileRename, Space: 5, Name: "./d/a.ibd", NewName: "./d/b.ibd"}),
		redo.AppendFileRecord(nil, redo.FileRecord{Op: redo.FileCheckpoint, Checkpoint: 1000}),
	}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s, true)
		f.Add(s, false)
	}
	g := newGatherer(1 << 20)
	f.Fuzz(func(t *testing.T, records []byte, keep bool) {
		if len(records) > redo.MaxMTR {
			return
		}
		g.batch.reset(1000, 0)
		clear(g.spaces)
		if takeRecords(g, 1000, records, keep) != nil {
			return
		}
		g.batch.log = logOf(records)
		g.batch.pages.all(func(k pageKey, i int) {
			page := make([]byte, 4096)
			w := g.batch.runs(g.batch.chains[i])
			open := g.dialect.Open(page, redolog.Target{Space: k.space(), Page: k.page()})
			defer open.Close()
			for r, ok := w.next(); ok; r, ok = w.next() {
				if !bytes.Contains(records, r.records) {
					t.Fatalf("run %x is not in %x", r.records, records)
				}
				if _, err := open.Apply(r.records); err != nil {
					break
				}
			}
		})
	})
}
