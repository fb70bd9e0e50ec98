package apply

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"slices"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/indexpage"
	"github.com/xbstream/xbstream/internal/mysql/mysqltest"
	"github.com/xbstream/xbstream/internal/mysql/redo"
)

// known is a record, the page before it, and the checksum of the page after it.
type known struct {
	target Target
	page   []byte
	record []byte
	sum    uint32
}

// changes are records of a real server, one of each type for each kind of page
// that it occurs on. They are from hot copies of which every page came out as the
// server's own recovery made it (TestPagesAsTheServer).
func changes(t testing.TB) (list []known) {
	t.Helper()
	z, err := mysqltest.Open("testdata/mysql-8.0.30.changes.zst")
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for {
		var h [24]byte
		if _, err := io.ReadFull(z, h[:]); err == io.EOF {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		n := func(i int) uint32 { return binary.BigEndian.Uint32(h[4*i:]) }
		k := known{target: Target{Space: format.SpaceID(n(0)), Page: format.PageNo(n(1)), Zip: n(2) != 0}, sum: n(5)}
		k.page, k.record = make([]byte, n(3)), make([]byte, n(4))
		if _, err := io.ReadFull(z, k.page); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(z, k.record); err != nil {
			t.Fatal(err)
		}
		list = append(list, k)
	}
}

func TestChanges(t *testing.T) {
	list := changes(t)
	if len(list) < 90 {
		t.Errorf("%d changes", len(list))
	}
	for _, k := range list {
		r, _, err := redo.Next(k.record)
		if err != nil {
			t.Fatal(err)
		}
		page := slices.Clone(k.page)
		n, err := Apply(page, k.target, k.record)
		if sum := crc32.Checksum(page, crc32.MakeTable(crc32.Castagnoli)); n != 1 || sum != k.sum || err != nil {
			t.Errorf("%v of space %v page %v: checksum %08x, want %08x, %v", r.Type, k.target.Space, k.target.Page, sum, k.sum, err)
		}
	}
}

// record builds one for the page of target.
func record(t redo.Type, body ...byte) []byte {
	return append(redo.AppendHeader(nil, t, target.Space, target.Page), body...)
}

var target = Target{Space: 7, Page: 5}

const pageLen = 4096

func filled(b byte) []byte { return bytes.Repeat([]byte{b}, pageLen) }

// patch is bytes expected at an offset.
type patch struct {
	at   int
	data string
}

func patched(page []byte, patches ...patch) []byte {
	page = bytes.Clone(page)
	for _, p := range patches {
		copy(page[p.at:], p.data)
	}
	return page
}

func join(records ...[]byte) []byte { return bytes.Join(records, nil) }

// empty is an index page without rows.
func empty(compact bool) []byte {
	b := make([]byte, pageLen)
	indexpage.Init(b, innodb.TypeIndex, indexpage.FormatOf(compact))
	return b
}

func TestSimpleRecords(t *testing.T) {
	zeros := make([]byte, pageLen)
	for _, c := range []struct {
		name string
		page []byte
		log  []byte
		want []byte
	}{
		{"1BYTE", filled('.'), record(redo.Write1, 0, 100, 'a'), patched(filled('.'), patch{100, "a"})},
		{"2BYTES", filled('.'), record(redo.Write2, 0, 100, 0x9a, 0xbc), patched(filled('.'), patch{100, "\x1a\xbc"})},
		{"4BYTES at the end", filled('.'), record(redo.Write4, 0x0F, 0xFC, 0xFB, 0xFF), patched(filled('.'), patch{4092, "\xff\xff\xff\xff"})},
		{"8BYTES", filled('.'), record(redo.Write8, 0, 100, 1, 0, 0, 0, 2), patched(filled('.'), patch{100, "\x00\x00\x00\x01\x00\x00\x00\x02"})},
		{"WRITE_STRING", filled('.'), record(redo.WriteString, 0, 100, 0, 3, 'a', 'b', 'c'), patched(filled('.'), patch{100, "abc"})},
		{"INIT_FILE_PAGE2", filled('.'), record(redo.InitFilePage2), patched(zeros, patch{4, "\x00\x00\x00\x05"}, patch{34, "\x00\x00\x00\x07"})},
		{"IBUF_BITMAP_INIT", filled('.'), record(redo.IbufBitmapInit), patched(filled('.'), patch{24, "\x00\x05"}, patch{94, string(zeros[:2048])})},
		{"UNDO_INIT", filled('.'), record(redo.UndoInit, 2), patched(filled('.'), patch{24, "\x00\x02"}, patch{38, "\x00\x02\x00\x38\x00\x38"})},
		{"UNDO_INSERT twice", patched(zeros, patch{42, "\x00\x38"}), join(record(redo.UndoInsert, 0, 2, 'a', 'b'), record(redo.UndoInsert, 0, 1, 'c')),
			patched(zeros, patch{42, "\x00\x43"}, patch{56, "\x00\x3eab\x00\x38\x00\x43c\x00\x3e"})},
		{"UNDO_ERASE_END", patched(zeros, patch{42, "\x0f\xf0"}), record(redo.UndoEraseEnd),
			patched(zeros, patch{42, "\x0f\xf0"}, patch{0x0ff0, "\xff\xff\xff\xff\xff\xff\xff\xff"})},
		{"INDEX_LOAD", filled('.'), record(redo.IndexLoad, 0, 0, 0, 0, 0, 0, 0, 1), filled('.')},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := bytes.Clone(c.page)
			if _, err := Apply(got, target, c.log); err != nil {
				t.Fatal(err)
			}
			same(t, got, c.want)
		})
	}
}

func same(t *testing.T, got, want []byte) {
	t.Helper()
	for i := range want {
		if got[i] != want[i] {
			end := min(i+24, len(want))
			t.Fatalf("first difference at %d: got % x, want % x", i, got[i:end], want[i:end])
		}
	}
}

func TestMalformedRecords(t *testing.T) {
	redundant := []byte{1, 0} // an index description
	compact := []byte{1, 1, 0, 1, 0, 1, 0x80, 4}
	for _, c := range []struct {
		name string
		page []byte
		t    Target
		log  []byte
	}{
		{"page too small", make([]byte, 512), target, record(redo.Write1, 0, 100, 1)},
		{"number of more bytes than its type", filled(0), target, record(redo.Write1, 0, 100, 0x81, 0)},
		{"write over the end", filled(0), target, record(redo.Write4, 0x0F, 0xFD, 1)},
		{"string over the end", filled(0), target, record(redo.WriteString, 0x0F, 0xFF, 0, 2, 1, 2)},
		{"insert into a page of another type", filled(0), target, record(redo.Insert, append(redundant, 0, 101, 2, 1)...)},
		{"insert after nothing", empty(false), target, record(redo.Insert, append(redundant, 0, 0, 3, 0, 8, 0, 1)...)},
		{"insert of a header longer than the row", empty(true), target, record(redo.Insert, append(compact, 0, 99, 3, 0, 50, 0, 1)...)},
		{"insert of half the row before, which has none", empty(true), target, record(redo.Insert, append(compact, 0, 99, 3, 0, 5, 0xBF, 0xFF, 1)...)},
		{"delete of the infimum", empty(true), target, record(redo.Delete, append(compact, 0, 99)...)},
		{"delete of the supremum", empty(false), target, record(redo.Delete, append(redundant, 0, 116)...)},
		{"delete of what is no row", empty(true), target, record(redo.Delete, append(compact, 1, 0)...)},
		{"list start up to no row", empty(true), target, record(redo.ListStartDelete, append(compact, 1, 0)...)},
		{"list end from no row", empty(true), target, record(redo.ListEndDelete, append(compact, 1, 0)...)},
		{"update of the supremum", empty(true), target, record(redo.UpdateInPlace, append(compact, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 112, 0, 0)...)},
		{"delete mark behind the page", empty(true), target, record(redo.SecDeleteMark, 1, 0xFF, 0xFF)},
		{"undo record on no undo page", filled(0), target, record(redo.UndoInsert, 0, 1, 'x')},
		{"undo log at the end of the page", patched(filled(0), patch{42, "\x0f\xf0"}), target, record(redo.UndoHeaderCreate, 0, 0, 0, 0, 1)},
		{"compressed page of nothing", filled(0), Target{Space: 7, Page: 5, Zip: true}, record(redo.Delete, append(compact, 0, 120)...)},
		{"compressed page that is not compressed", empty(true), Target{Space: 7, Page: 5, Zip: true}, record(redo.Delete, append(compact, 0, 120)...)},
		{"ZIP_WRITE_HEADER elsewhere", filled(0), target, record(redo.ZipWriteHeader, 50, 1, 1)},
		{"ZIP_PAGE_COMPRESS longer than the page", filled(0), Target{Space: 7, Page: 5, Zip: true},
			record(redo.ZipPageCompress, append([]byte{0x10, 0, 0, 0}, make([]byte, 8+0x1000)...)...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			page := bytes.Clone(c.page)
			if _, err := Apply(page, c.t, c.log); !errors.Is(err, ErrMalformed) && !errors.Is(err, redo.ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
		})
	}
}

// TestRecompressedPages: a page that is compressed here holds the same rows, and
// takes changes as the server's own does.
func TestRecompressedPages(t *testing.T) {
	n := 0
	for _, k := range changes(t) {
		if !k.target.Zip || !hasRows(k.page) {
			continue
		}
		var p Page
		p.Reset(slices.Clone(k.page), k.target)
		if p.zip.open() != nil {
			continue
		}
		want := slices.Clone(p.zip.frame)
		if err := p.zip.pack(&p.zip.rows); err != nil {
			t.Errorf("space %v page %v: %v", k.target.Space, k.target.Page, err)
			continue
		}
		var again zipPage
		again.reset(p.b, k.target)
		if err := again.open(); err != nil {
			t.Fatalf("space %v page %v: %v", k.target.Space, k.target.Page, err)
		}
		same(t, again.frame, want)
		if again.logEnd != p.zip.logEnd || again.blobs != p.zip.blobs || again.nonempty {
			t.Errorf("space %v page %v: log ends at %d, %d references; want %d, %d", k.target.Space, k.target.Page, again.logEnd, again.blobs, p.zip.logEnd, p.zip.blobs)
		}
		r, _, _ := redo.Next(k.record)
		if r.Type == redo.ZipWriteBlobPtr || r.Type == redo.ZipPageCompress {
			continue
		}
		n++
		for i, page := range [][]byte{slices.Clone(k.page), p.b} {
			if _, err := Apply(page, k.target, k.record); err != nil {
				t.Fatalf("%v of space %v page %v: %v", r.Type, k.target.Space, k.target.Page, err)
			}
			if r.Type == redo.InitFilePage2 {
				continue
			}
			var z zipPage
			z.reset(page, k.target)
			if err := z.open(); err != nil {
				t.Fatalf("%v of space %v page %v: %v", r.Type, k.target.Space, k.target.Page, err)
			}
			if i == 0 {
				want = slices.Clone(z.frame)
			}
			same(t, z.frame, want)
		}
	}
	if n < 20 {
		t.Errorf("%d changes to compressed pages", n)
	}
}

// TestRoomForARow: the last row for which there is room in a compressed page leaves
// the zero byte that ends the log, one more if its heap number takes one byte, and
// what it does not need if it gets the room of a deleted one.
func TestRoomForARow(t *testing.T) {
	n := 0
	for _, k := range changes(t) {
		r, _, _ := redo.Next(k.record)
		if !k.target.Zip || r.Type != redo.Insert {
			continue
		}
		n++
		var p Page
		p.Reset(slices.Clone(k.page), k.target)
		if err := p.zip.open(); err != nil {
			t.Fatal(err)
		}
		z := &p.zip
		room := func() int {
			return z.storage() - z.dense()*apart(z.rows.leaf(), z.trx != 0) - externSize*z.blobs - z.logEnd
		}
		for taken := room() - 1; ; taken-- {
			p.Reset(slices.Clone(k.page), k.target)
			if err := z.open(); err != nil {
				t.Fatal(err)
			}
			rows := z.dense()
			z.logEnd += taken
			if _, err := p.Run(k.record); err != nil {
				t.Fatal(err)
			}
			if z.stale {
				continue
			}
			most := 2
			if z.dense() == rows {
				most += indexpage.SlotSize + apart(z.rows.leaf(), z.trx != 0)
			}
			if left := room(); left < 1 || left > most {
				t.Errorf("space %v page %v: %d bytes are left, at most %d", k.target.Space, k.target.Page, left, most)
			}
			break
		}
	}
	if n == 0 {
		t.Error("no rows for compressed pages")
	}
}

// TestRowsKeepTheirOrder puts rows in and takes them out, in both formats and in
// pages of every size, and looks at the list, the directory and the counts.
func TestRowsKeepTheirOrder(t *testing.T) {
	for _, compact := range []bool{true, false} {
		for size := 4 << 10; size <= 64<<10; size *= 2 {
			b := make([]byte, size)
			indexpage.Init(b, innodb.TypeIndex, indexpage.FormatOf(compact))
			index := []byte{1, 0}
			extra, head := 7, []byte{4, 0, 0, 0, 3, 0, 0} // one field of 4 bytes
			if compact {
				index = []byte{1, 1, 0, 1, 0, 1, 0x80, 4}
				extra, head = 5, []byte{0, 0, 0, 0, 0}
			}
			var p Page
			p.Reset(b, target)
			x := &p.rows
			do := func(typ redo.Type, body ...byte) {
				t.Helper()
				r, _, err := redo.Next(record(typ, append(slices.Clone(index), body...)...))
				if err == nil {
					err = p.Apply(&r)
				}
				if err != nil {
					t.Fatalf("compact %v, %d bytes: %v: %v", compact, size, typ, err)
				}
				consistent(t, x)
			}
			insert := func(prev int, v uint32) {
				row := binary.BigEndian.AppendUint32(slices.Clone(head), v)
				body := append([]byte{byte(prev >> 8), byte(prev)}, byte(2*len(row)+1), 0, byte(extra), 0)
				do(redo.Insert, append(body, row...)...)
			}
			x.open(b, &p.index)
			first := x.F.Infimum
			for i := range uint32(200) {
				insert(first, 1000-i) // in descending order
				if i%3 == 0 {
					insert(x.last(), 2000+i)
				}
			}
			list := walkRows(t, x)
			for _, rec := range list[50:120] {
				do(redo.Delete, byte(rec>>8), byte(rec))
			}
			insert(list[10], 7) // into the room of a deleted one
			do(redo.Reorganize)
			list = walkRows(t, x)
			do(redo.ListEndDelete, byte(list[100]>>8), byte(list[100]))
			do(redo.ListStartDelete, byte(list[20]>>8), byte(list[20]))
			if n := len(walkRows(t, x)); n != 80 {
				t.Errorf("%d rows left", n)
			}
		}
	}
}

func walkRows(t *testing.T, x *rows) (list []int) {
	t.Helper()
	for rec := x.Next(x.F.Infimum); rec != x.F.Supremum; rec = x.Next(rec) {
		if list = append(list, rec); rec == 0 || len(list) > len(x.B) {
			t.Fatal("the list does not end")
		}
	}
	return list
}

// consistent checks list and directory against each other.
func consistent(t *testing.T, x *rows) {
	t.Helper()
	n, owned, slot := 0, 0, 0
	for rec := x.F.Infimum; rec != 0 && !x.Bad; rec = x.Next(rec) {
		n++
		owned++
		if o := x.Owned(rec); o != 0 {
			if o != owned || x.U16(x.SlotAt(slot)) != rec || slot > 0 && o > indexpage.SlotMax {
				t.Fatalf("slot %d owns %d, says %d", slot, owned, o)
			}
			owned = 0
			slot++
		}
	}
	if x.Bad || n != x.U16(indexpage.RowCount)+2 || slot != x.U16(indexpage.Slots) || owned != 0 {
		t.Fatalf("%d rows, %d slots, where the page says %d and %d", n-2, slot, x.U16(indexpage.RowCount), x.U16(indexpage.Slots))
	}
}

// TestReferencesThatThePageDoesNotHave: two rows of a damaged page overlap. The row
// that is put in writes over the header of another one, which then seems to have
// references to what is stored elsewhere.
func TestReferencesThatThePageDoesNotHave(t *testing.T) {
	for _, k := range changes(t) {
		r, _, err := redo.Next(k.record)
		if err != nil {
			t.Fatal(err)
		}
		if r.Type != redo.Insert || !k.target.Zip || k.target.Space != 10 || k.target.Page != 4 {
			continue
		}
		body, err := r.ParseIndex(new(redo.Index))
		if err != nil {
			t.Fatal(err)
		}
		k.page[8143] = 0xFB // in the dense directory: a row at 507 instead of 336
		binary.BigEndian.PutUint16(body, 504)
		if _, err := Apply(k.page, k.target, k.record); !errors.Is(err, ErrMalformed) {
			t.Errorf("got %v, want ErrMalformed", err)
		}
		return
	}
	t.Fatal("no insert into the page")
}

func FuzzApply(f *testing.F) {
	for _, k := range changes(f) {
		f.Add(k.page, k.record, k.target.Zip)
	}
	f.Add(empty(true), record(redo.Delete, 1, 1, 0, 1, 0, 1, 0x80, 4, 0, 99), false)
	f.Fuzz(func(t *testing.T, page, log []byte, zip bool) {
		n, err := Apply(bytes.Clone(page), Target{Space: 7, Page: 5, Zip: zip}, log)
		if n > len(log) {
			t.Fatalf("%d records in %d bytes", n, len(log))
		}
		if err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrRecompress) && !errors.Is(err, redo.ErrMalformed) && !errors.Is(err, redo.ErrShort) {
			t.Fatal(err)
		}
	})
}
