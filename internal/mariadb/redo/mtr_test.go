package redo

import (
	"bytes"
	"errors"
	"math"
	"testing"
)

func TestVarint(t *testing.T) {
	for _, c := range []struct {
		v     uint32
		bytes []byte
	}{
		{0, []byte{0}}, {127, []byte{0x7F}},
		{128, []byte{0x80, 0}}, {16511, []byte{0xBF, 0xFF}},
		{16512, []byte{0xC0, 0, 0}}, {2113663, []byte{0xDF, 0xFF, 0xFF}},
		{2113664, []byte{0xE0, 0, 0, 0}}, {270549119, []byte{0xEF, 0xFF, 0xFF, 0xFF}},
		{270549120, []byte{0xF0, 0, 0, 0, 0}}, {math.MaxUint32, []byte{0xF0, 0xEF, 0xDF, 0xBF, 0x7F}},
	} {
		if v, n := Varint(append(c.bytes[:len(c.bytes):len(c.bytes)], 0xAA)); v != c.v || n != len(c.bytes) {
			t.Errorf("% x: %d in %d bytes, want %d", c.bytes, v, n, c.v)
		}
		if got := AppendVarint(nil, c.v); !bytes.Equal(got, c.bytes) {
			t.Errorf("%d: % x, want % x", c.v, got, c.bytes)
		}
		for n := range c.bytes {
			if _, got := Varint(c.bytes[:n]); got != 0 {
				t.Errorf("% x cut to %d: n = %d, want 0", c.bytes, n, got)
			}
		}
	}
	for _, b := range [][]byte{{0xF1}, {0xFF, 0, 0, 0, 0}, {0xF0, 0xEF, 0xDF, 0xBF, 0x80}} {
		if _, n := Varint(b); n != -1 {
			t.Errorf("% x: n = %d, want -1", b, n)
		}
	}
}

func TestRecordSizesReadBack(t *testing.T) {
	for _, n := range []int{2, 15, 16, 17, 140, 141, 142, 143, 16523, 16524, 16525, 16526, 100000} {
		body := bytes.Repeat([]byte{7}, n)
		rec := AppendRecord(nil, 0x30, body)
		first, got, rest, err := NextRecord(append(rec, 0x99))
		if err != nil || first&0xF0 != 0x30 || !bytes.Equal(got, body) || len(rest) != 1 {
			t.Errorf("body of %d: %d bytes, rest %d, %v", n, len(got), len(rest), err)
		}
		for cut := range min(len(rec), 20) {
			if _, _, _, err := NextRecord(rec[:cut]); !errors.Is(err, ErrMalformed) {
				t.Errorf("body of %d cut to %d: %v", n, cut, err)
			}
		}
	}
}

// sample has a file record, long and short page records, and same-page ones.
func sample() []byte {
	b := AppendFileRecord(nil, FileRecord{Op: FileCreate, Space: 300, Name: "./d/t.ibd"})
	b = AppendPageRecord(b, InitPage, 300, 0, nil)
	b = AppendSameRecord(b, Write, append([]byte{38}, bytes.Repeat([]byte{5}, 200)...))
	b = AppendPageRecord(b, Memset, 0, 20000, []byte{60, 4, 0})
	return AppendSameRecord(b, Extended, []byte{2})
}

func TestScanMTRAtEveryLength(t *testing.T) {
	recs := sample()
	for name, mtr := range map[string][]byte{
		"plain":     AppendMTR(nil, recs, 1),
		"encrypted": AppendEncryptedMTR(nil, recs, 0, [8]byte{1, 2, 3, 4, 5, 6, 7, 8}),
	} {
		encrypted := name == "encrypted"
		for n := range len(mtr) {
			if m, err := ScanMTR(mtr[:n], encrypted); !errors.Is(err, ErrShort) {
				t.Fatalf("%s cut to %d: %+v, %v", name, n, m, err)
			}
		}
		m, err := ScanMTR(append(mtr, 0, 0), encrypted)
		if err != nil || m.Size != len(mtr) || m.MarkerAt != len(recs) || !bytes.Equal(m.Records, recs) || m.Marker != mtr[len(recs)] {
			t.Fatalf("%s: %+v, %v", name, m, err)
		}
	}
}

func TestScanMTRSeesEveryFlippedBitButTheMarker(t *testing.T) {
	recs := sample()
	good := AppendEncryptedMTR(nil, recs, 1, [8]byte{9})
	for bit := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		m, err := ScanMTR(append(bad, make([]byte, 64)...), true)
		if bit == len(recs)*8 {
			if err != nil || m.Marker != 0 {
				t.Fatalf("the marker's bit: %+v, %v", m, err)
			}
		} else if err == nil {
			t.Fatalf("bit %d: accepted", bit)
		}
	}
}

func TestScanMTRErrors(t *testing.T) {
	huge := AppendRecord(nil, 0x30, make([]byte, MaxMTR))
	for _, c := range []struct {
		name string
		in   []byte
		want error
	}{
		{"nothing", nil, ErrShort},
		{"padding", []byte{0, 5, 5}, ErrEnd},
		{"marker", []byte{1, 5, 5}, ErrEnd},
		{"bad varint", []byte{0x30, 0xFF, 0, 0, 0, 0, 0}, ErrMalformed},
		{"length near 4 GiB", []byte{0x30, 0xF0, 0xEF, 0xDF, 0xBF, 0x7F}, ErrMalformed},
		{"too long", AppendMTR(nil, huge, 1), ErrMalformed},
		{"endless", bytes.Repeat([]byte{0x32, 1, 1}, MaxMTR/3+1), ErrMalformed},
	} {
		if _, err := ScanMTR(c.in, false); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestRecordsWalk(t *testing.T) {
	type seen struct {
		file, same bool
		typ        RecordType
		op         FileOp
		space      uint32
		page       uint32
		payload    int
	}
	want := []seen{
		{true, false, 0, FileCreate, 300, 0, 9},
		{false, false, InitPage, 0, 300, 0, 0},
		{false, true, Write, 0, 300, 0, 201},
		{false, false, Memset, 0, 0, 20000, 3},
		{false, true, Extended, 0, 0, 20000, 1},
	}
	walk := NewRecords(sample())
	for i := 0; walk.Next(); i++ {
		r := walk.Record()
		got := seen{r.File, r.Same, r.Type, r.Op, uint32(r.Space), uint32(r.Page), len(r.Payload)}
		if r.File {
			got.typ = 0
		}
		if i >= len(want) || got != want[i] {
			t.Fatalf("record %d: %+v", i, got)
		}
		if i == len(want)-1 && walk.Rest() != 0 {
			t.Errorf("%d bytes after the last record", walk.Rest())
		}
	}
	if err := walk.Err(); err != nil || walk.Rest() != 0 {
		t.Fatalf("walk ended with %d bytes left: %v", walk.Rest(), err)
	}
}

func TestRecordsRefuses(t *testing.T) {
	page := AppendPageRecord(nil, Write, 5, 5, []byte{1, 1})
	for name, in := range map[string][]byte{
		"same-page INIT":  AppendRecord(bytes.Clone(page), bitSame|byte(InitPage), []byte{1}),
		"same-page FREE":  AppendRecord(bytes.Clone(page), bitSame|byte(FreePage), []byte{1}),
		"no page id":      {0x31, 0xF1},
		"half a page id":  {0x31, 5},
		"record cut":      page[:len(page)-1],
		"marker between":  append(bytes.Clone(page), 1),
		"file without id": {0x81, 0xC0},
	} {
		walk := NewRecords(in)
		for walk.Next() {
		}
		if !errors.Is(walk.Err(), ErrMalformed) {
			t.Errorf("%s: %v", name, walk.Err())
		}
		if walk.Next() {
			t.Errorf("%s: walk goes on after its error", name)
		}
	}
}

func TestFileRecordsReadBack(t *testing.T) {
	long := "./" + string(bytes.Repeat([]byte("x"), 300)) + "/t.ibd"
	for _, f := range []FileRecord{
		{Op: FileCreate, Space: 1, Name: "./a/b.ibd"},
		{Op: FileModify, Space: 70000, Name: long},
		{Op: FileDelete, Space: 9, Name: "/elsewhere/d/t#P#p0.ibd"},
		{Op: FileRename, Space: 9, Name: "./d/a.ibd", NewName: "./d/#sql-ib9.ibd"},
		{Op: FileCheckpoint, Checkpoint: 1 << 40},
		{Op: FileCheckpoint},
	} {
		got, err := FileRecords(AppendFileRecord(nil, f))
		if err != nil || len(got) != 1 || got[0] != f {
			t.Errorf("%v: %+v, %v", f.Op, got, err)
		}
	}
}

func TestFileRecordsStopsAtPages(t *testing.T) {
	if got, err := FileRecords(sample()); err != nil || len(got) != 1 || got[0].Op != FileCreate {
		t.Errorf("%+v, %v", got, err)
	}
	page := AppendPageRecord(nil, Write, 5, 5, []byte{30, 1})
	// The bits of a FILE_MODIFY, but on a page: a same-page WRITE.
	if got, err := FileRecords(AppendSameRecord(page, Write, []byte{31, 1})); err != nil || len(got) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestFileRecordsRefuses(t *testing.T) {
	body := func(space, page uint32, rest string) []byte {
		return append(AppendVarint(AppendVarint(nil, space), page), rest...)
	}
	for name, in := range map[string][]byte{
		"page number":           AppendRecord(nil, 0x80, body(5, 1, "./a/b.ibd")),
		"system tablespace":     AppendRecord(nil, 0x80, body(0, 0, "./a/b.ibd")),
		"no .ibd":               AppendRecord(nil, 0xB0, body(5, 0, "./a/b.frm")),
		"only .ibd":             AppendRecord(nil, 0xB0, body(5, 0, ".ibd")),
		"NUL in name":           AppendRecord(nil, 0xB0, body(5, 0, "./a\x00b.ibd")),
		"rename to nothing":     AppendRecord(nil, 0xA0, body(5, 0, "./a/b.ibd")),
		"rename, three names":   AppendRecord(nil, 0xA0, body(5, 0, "./a.ibd\x00./b.ibd\x00./c.ibd")),
		"unknown kind":          AppendRecord(nil, 0xC0, body(5, 0, "./a/b.ibd")),
		"checkpoint with space": AppendRecord(nil, 0xF0, body(5, 0, "12345678")),
		"checkpoint, 7 bytes":   AppendRecord(nil, 0xF0, body(0, 0, "1234567")),
	} {
		if f, err := FileRecords(in); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
}
