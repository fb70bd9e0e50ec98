package redo

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/xbstream/xbstream/format"
)

// samples returns mini-transactions of real servers: the shortest with a record
// of each type.
func samples(t testing.TB) (all [][]byte) {
	t.Helper()
	names, err := filepath.Glob("testdata/*.mtr")
	if err != nil || len(names) == 0 {
		t.Fatalf("testdata holds no *.mtr: %v", err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for len(b) > 0 {
			m, err := ScanMTR(b)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			all = append(all, b[:m.Size])
			b = b[m.Size:]
		}
	}
	return all
}

// TestSamples: cut anywhere, a mini-transaction is not complete; its records
// describe their index in full.
func TestSamples(t *testing.T) {
	for _, b := range samples(t) {
		step := max(1, len(b)/500)
		for cut := 0; cut < len(b); cut += step {
			if _, err := ScanMTR(b[:cut]); err != ErrShort {
				t.Fatalf("%d of %d bytes: %v", cut, len(b), err)
			}
		}
		m, _ := ScanMTR(b)
		if got := AppendMTR(nil, m.Records); !bytes.Equal(got, b) {
			t.Fatalf("% x encodes to % x", b, got)
		}
		walk(t, m.Records)
	}
}

func FuzzMTR(f *testing.F) {
	for _, b := range samples(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ScanMTR(b)
		if err != nil {
			if err != ErrShort && err != ErrMalformed {
				t.Fatal(err)
			}
			return
		}
		if m.Size > len(b) || len(m.Records) > m.Size {
			t.Fatalf("%d of %d bytes", m.Size, len(b))
		}
		walk(t, m.Records)
	})
}

// walk takes a mini-transaction apart.
func walk(t *testing.T, records []byte) {
	var x Index
	for len(records) > 0 {
		r, n, err := Next(records)
		if err != nil || n == 0 || n > len(records) {
			t.Fatalf("%d of %d bytes: %v", n, len(records), err)
		}
		records = records[n:]
		if rest, err := r.ParseIndex(&x); err == nil && len(rest) > len(r.Body) {
			t.Fatal("more is left than there was")
		}
		if f, err := r.ParseFile(); err == nil {
			again, _, err := Next(AppendFileRecord(nil, f))
			if got, failed := again.ParseFile(); err != nil || failed != nil || got != f {
				t.Fatalf("%+v reads back as %+v", f, got)
			}
		}
		r.AutoIncrement()
		r.IndexID()
	}
}

// FuzzLog: any bytes as a log file are read to an end or refused.
func FuzzLog(f *testing.F) {
	for _, b := range samples(f) {
		file, _ := logFile(0, 8192, 8204, StartOffset+64*BlockSize, b, 12)
		raw := make([]byte, file.Size)
		if _, err := file.Blocks.ReadAt(raw, 0); err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		file, err := ReadFile(bytes.NewReader(raw), 0, int64(len(raw)))
		if err != nil {
			return
		}
		log := NewLog([]File{file})
		checkpoint, err := log.Checkpoint()
		if err != nil {
			return
		}
		r := NewReader(log, checkpoint)
		var at format.LSN
		for r.Next() {
			if lsn := r.Position().LSN(); lsn <= at {
				t.Fatalf("LSN %v after %v", lsn, at)
			}
			at = r.Position().LSN()
		}
		if end, why := r.End(); end > file.End() || r.Err() == nil && why == NotEnded {
			t.Fatalf("ends at %v: %v", end, why)
		}
	})
}
