package redo

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// seed adds the mini-transactions of real logs kept in testdata and made-up
// ones; without any the fuzz target would start from nothing and prove little.
func seed(f *testing.F) {
	real, err := filepath.Glob("testdata/*.mtr")
	if err != nil {
		f.Fatal(err)
	}
	if len(real) == 0 {
		f.Fatal("testdata holds no *.mtr: the seed corpus is empty")
	}
	for _, name := range real {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, false)
	}
	f.Add(AppendMTR(nil, sample(), 1), false)
	f.Add(AppendEncryptedMTR(nil, sample(), 1, [8]byte{3}), true)
}

// FuzzMTR: what is accepted is within its bounds, walks to its end or fails,
// and encodes to the same bytes.
func FuzzMTR(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte, encrypted bool) {
		m, err := ScanMTR(b, encrypted)
		if err != nil {
			return
		}
		if m.Size > len(b) || m.Size > MaxMTR+16 || m.MarkerAt != len(m.Records) || m.Marker > 1 {
			t.Fatalf("out of bounds: %d records, %+v", len(m.Records), m)
		}
		again := AppendMTR(nil, m.Records, m.Marker)
		if encrypted {
			again = AppendEncryptedMTR(nil, m.Records, m.Marker, [8]byte(b[m.MarkerAt+1:]))
		}
		if !bytes.Equal(again, b[:m.Size]) {
			t.Fatal("encodes to other bytes")
		}
		rest := m.Records
		for len(rest) > 0 {
			if _, _, rest, err = NextRecord(rest); err != nil {
				t.Fatalf("a scanned mini-transaction does not split: %v", err)
			}
		}
		walkAll(t, m.Records)
	})
}

// FuzzRecords: any bytes are walked or refused.
func FuzzRecords(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte, _ bool) { walkAll(t, b) })
}

func walkAll(t *testing.T, records []byte) {
	files := 0
	walk := NewRecords(records)
	for walk.Next() {
		r := walk.Record()
		if !r.File {
			continue
		}
		if got, err := r.ParseFile(); err == nil {
			files++
			if again, err := FileRecords(AppendFileRecord(nil, got)); err != nil || again[0] != got {
				t.Fatalf("%+v reads back as %+v, %v", got, again, err)
			}
		}
	}
	if got, err := FileRecords(records); err == nil && len(got) > files {
		t.Fatalf("FileRecords found %d, the walk %d", len(got), files)
	}
	if _, err := ParseHeader(records); err == nil && len(records) < 512 {
		t.Fatal("a header of less than 512 bytes")
	}
}
