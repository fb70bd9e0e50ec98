package redo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/xbstream/xbstream/format"
)

func TestPositions(t *testing.T) {
	for _, c := range []struct {
		lsn format.LSN
		p   Position
		ok  bool
	}{
		{8204, 16 * 496, true},
		{8204 + 495, 16*496 + 495, true},
		{8192 + 512 + 12, 17 * 496, true},
		{8192, 0, false},
		{8203, 0, false},
		{8192 + 508, 0, false},
	} {
		p, ok := PositionOf(c.lsn)
		if p != c.p || ok != c.ok {
			t.Errorf("LSN %v: position %d, %v", c.lsn, p, ok)
		}
		if ok && p.LSN() != c.lsn {
			t.Errorf("position %d: LSN %v, want %v", p, p.LSN(), c.lsn)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		v    uint32
		size int
	}{
		{0, 1}, {127, 1}, {128, 2}, {1<<14 - 1, 2}, {1 << 14, 3}, {1<<21 - 1, 3}, {1 << 21, 4}, {1<<28 - 1, 4}, {1 << 28, 5},
		{0xFEFFFFFF, 5}, {0xFF000000, 4}, {0xFFFDFFFF, 4}, {0xFFFE0000, 3}, {0xFFFFFBFF, 3}, {0xFFFFFC00, 2}, {0xFFFFFFFF, 2},
	} {
		b := AppendNumber(nil, c.v)
		v, n := Number(b)
		if v != c.v || n != len(b) || n != c.size {
			t.Errorf("%#x: % x is %#x in %d bytes", c.v, b, v, n)
		}
		for cut := range b {
			if _, n := Number(b[:cut]); n != 0 {
				t.Errorf("%#x cut to %d bytes is read", c.v, cut)
			}
		}
	}
	for _, b := range []byte{0xF1, 0xF7, 0xFF} {
		if _, n := Number([]byte{b, 0, 0, 0, 0, 0}); n != -1 {
			t.Errorf("%#x starts a number", b)
		}
	}
	if got := AppendNumber(nil, NullLength); !slices.Equal(got, []byte{0xFB, 0xFF}) {
		t.Errorf("NULL is % x", got)
	}
}

func TestHeader(t *testing.T) {
	want := Header{UUID: 7, Start: 8192, Creator: "MySQL 8.0.30", Flags: FileFull}
	b := want.Encode()
	if got, err := ParseHeader(b[:]); err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range b {
		damaged := b
		damaged[i] ^= 0x40
		if _, err := ParseHeader(damaged[:]); err == nil {
			t.Errorf("byte %d changed: accepted", i)
		}
	}
	for f, name := range series {
		old := b
		binary.BigEndian.PutUint32(old[:], f)
		var u *UnsupportedError
		if _, err := ParseHeader(old[:]); !errors.As(err, &u) || u.Series != name || !errors.Is(err, ErrUnsupported) {
			t.Errorf("format %d: %v", f, err)
		}
	}
	if _, err := ParseHeader(b[:100]); !errors.Is(err, ErrChecksum) {
		t.Error(err)
	}
}

func TestFileNames(t *testing.T) {
	for _, c := range []struct {
		name      string
		id        uint64
		spare, ok bool
	}{
		{"#ib_redo0", 0, false, true},
		{"#ib_redo917", 917, false, true},
		{"#ib_redo18_tmp", 18, true, true},
		{"#ib_redo", 0, false, false},
		{"#ib_redo_tmp", 0, true, false},
		{"#ib_redo01", 0, false, false},
		{"#ib_redo-1", 0, false, false},
		{"ib_logfile0", 0, false, false},
	} {
		if id, spare, ok := ParseFileName(c.name); ok != c.ok || ok && (id != c.id || spare != c.spare) {
			t.Errorf("%s: %d, %v, %v", c.name, id, spare, ok)
		}
	}
}

func TestBlockStates(t *testing.T) {
	const lsn = 512 * 5000
	full := EncodeBlock(lsn, make([]byte, BlockPayload), 12)
	part := EncodeBlock(lsn, []byte("records"), 12)
	older, newer := EncodeBlock(lsn-512*1000, nil, 0), EncodeBlock(lsn+512*1000, nil, 0)
	torn, off := full, part
	torn[300] ^= 1
	binary.BigEndian.PutUint32(off[blockCRC:], noChecksum)
	damaged := EncodeBlock(lsn, nil, 13)
	for _, c := range []struct {
		name string
		b    [BlockSize]byte
		want BlockState
	}{
		{"full", full, Complete},
		{"partial", part, Partial},
		{"without checksum", off, Partial},
		{"zeros", [BlockSize]byte{}, Unwritten},
		{"of an earlier life", older, Unwritten},
		{"of a later life", newer, Overtaken},
		{"torn", torn, Torn},
		{"first mini-transaction behind the end", damaged, Torn},
	} {
		if _, got := ParseBlock(c.b[:], lsn); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	b, _ := ParseBlock(part[:], lsn)
	if string(b.Payload(part[:])) != "records" || b.End(lsn) != lsn+19 || b.First != 12 {
		t.Errorf("%+v %q", b, b.Payload(part[:]))
	}
	if b, _ := ParseBlock(full[:], lsn); len(b.Payload(full[:])) != BlockPayload || b.End(lsn) != lsn+512 {
		t.Errorf("%+v", b)
	}
}

// logFile makes a log file of blocks with the given payload.
func logFile(id uint64, start format.LSN, checkpoint format.LSN, size int, payload []byte, first int) (File, []byte) {
	raw := Head(Header{UUID: 1, Start: start}, checkpoint)
	for at := start; len(payload) > 0 && len(raw) < size; at += BlockSize {
		n := min(len(payload), BlockPayload)
		b := EncodeBlock(at, payload[:n], first)
		first = 0
		raw = append(raw, b[:]...)
		payload = payload[n:]
	}
	raw = append(raw, make([]byte, max(0, size-len(raw)))...)
	f, err := ReadFile(bytes.NewReader(raw), id, int64(len(raw)))
	if err != nil {
		panic(err)
	}
	return f, payload
}

func TestReaderFollowsFiles(t *testing.T) {
	long := AppendHeader(nil, WriteString, 5, 6)
	long = append(long, 0, 100, 0x20, 0)
	long = append(long, make([]byte, 0x2000)...)
	var payload []byte
	for range 5 {
		payload = AppendMTR(payload, long)
	}
	payload = append(payload, byte(MultiEnd), byte(Dummy))
	payload = append(payload, long[:100]...) // cut
	const size = StartOffset + 20*BlockSize
	start := format.LSN(8192)
	var files []File
	for id := uint64(3); len(payload) > 0; id++ {
		var f File
		f, payload = logFile(id, start, start+12, size, payload, 12)
		files = append(files, f)
		start = f.End()
	}
	files[0], files[2] = files[2], files[0]
	log := NewLog(files)
	if len(log) != len(files) || log[0].ID != 3 {
		t.Fatalf("chain of %d", len(log))
	}
	checkpoint, err := log.Checkpoint()
	if err != nil || checkpoint != log[len(log)-1].Header.Start+12 {
		t.Errorf("newest checkpoint %v, %v", checkpoint, err)
	}
	var sizes []int
	r := NewReader(log, 8204)
	for r.Next() {
		sizes = append(sizes, r.MTR().Size)
	}
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	if n := len(long) + 1; !slices.Equal(sizes, []int{n, n, n, n, n, 1, 1}) {
		t.Errorf("mini-transactions of %v bytes", sizes)
	}
	if _, why := r.End(); why != PartialBlock {
		t.Errorf("ended: %v", why)
	}
	if l := NewLog(slices.Delete(slices.Clone(files), 1, 2)); len(l) != len(files)-2 {
		t.Errorf("chain of %d with a file missing", len(l))
	}
}

// TestIndexWithVersions is the index of a table to which columns were added in
// the middle and from which one was dropped.
func TestIndexWithVersions(t *testing.T) {
	// In the order of the index: id, trx id, roll ptr, a, x (added by version 1,
	// in physical position 5), b, c (dropped by version 2; 8.0.30 lists it last).
	body := []byte{index8030, flagCompact | flagVersioned, 0, 7, 0, 1}
	for _, f := range []uint16{0x8004, 0x8006, 0x8007, 0x7FFF, 0x8004, 0, 4} {
		body = binary.BigEndian.AppendUint16(body, f)
	}
	body = append(body, 0, 2)
	body = append(body, 0, 4, 0x80, 6, 1) // x
	body = append(body, 0, 6, 0x40, 5, 2) // c
	r := Record{Type: Delete, Body: append(body, 0, 99)}
	var x Index
	rest, err := r.ParseIndex(&x)
	if err != nil || !slices.Equal(rest, []byte{0, 99}) {
		t.Fatalf("% x, %v", rest, err)
	}
	if !x.Clustered() || !x.Versioned || !slices.Equal(x.Physical, []uint16{0, 1, 2, 3, 5, 6, 4}) {
		t.Errorf("%+v", x)
	}
	if f := x.Fields[6]; f.Fixed != 4 || !f.Nullable || f.Dropped != 2 || f.Physical != 5 {
		t.Errorf("%+v", f)
	}
	if f := x.Fields[3]; !f.Big || f.Fixed != 0 {
		t.Errorf("%+v", f)
	}
}

func TestFileRecords(t *testing.T) {
	for _, want := range []FileRecord{
		{Type: FileCreate, Space: 7, Flags: 0x4021, Name: "./d/t.ibd"},
		{Type: FileRename, Space: 7, Name: "./d/t.ibd", NewName: "/elsewhere/d/u.ibd"},
		{Type: FileDelete, Space: 0xFFFFFFEF, Name: "undo_001"},
		{Type: FileExtend, Space: 7, Offset: 114688, Size: 16384},
	} {
		b := AppendFileRecord(nil, want)
		r, n, err := Next(b)
		if err != nil || n != len(b) {
			t.Fatalf("%d of %d, %v", n, len(b), err)
		}
		if got, err := r.ParseFile(); err != nil || got != want {
			t.Errorf("%+v, %v", got, err)
		}
	}
	bad := AppendFileRecord(nil, FileRecord{Type: FileDelete, Space: 7, Name: "./d/t.ibd"})
	bad[len(bad)-1] = 'x'
	r, _, err := Next(bad)
	if _, failed := r.ParseFile(); err != nil || failed == nil {
		t.Errorf("a name without an end: %v, %v", err, failed)
	}
}

func TestMalformedMTR(t *testing.T) {
	mark := AppendHeader(nil, SecDeleteMark, 5, 6)
	mark = append(mark, 1, 0, 99)
	single := slices.Clone(mark)
	single[0] |= singleRecord
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"nothing", nil, ErrShort},
		{"cut record", mark[:4], ErrShort},
		{"no end", mark, ErrShort},
		{"unknown type", []byte{3, 0, 0}, ErrMalformed},
		{"type 0", []byte{0}, ErrMalformed},
		{"end that is the only record", []byte{byte(MultiEnd) | singleRecord}, ErrMalformed},
		{"single record after another", slices.Concat(mark, single), ErrMalformed},
		{"DUMMY after a record", append(slices.Clone(mark), byte(Dummy)), ErrMalformed},
		{"index description of an unknown version", append(AppendHeader(nil, Delete, 5, 6), 2, 1), ErrMalformed},
		{"string longer than any mini-transaction", append(AppendHeader(nil, ListCopyCreated, 5, 6), 1, 0, 0xFF, 0xFF, 0xFF, 0xFF), ErrMalformed},
	} {
		if _, err := ScanMTR(c.b); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	for _, good := range [][]byte{single, append(slices.Clone(mark), byte(MultiEnd)), {byte(MultiEnd)}, {byte(Dummy)}} {
		m, err := ScanMTR(append(slices.Clone(good), 1, 2, 3))
		if err != nil || m.Size != len(good) {
			t.Errorf("% x: %d bytes, %v", good, m.Size, err)
		}
	}
}
