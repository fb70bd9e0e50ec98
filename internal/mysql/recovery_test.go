package mysql

import (
	"bytes"
	"os"
	"slices"
	"testing"

	"github.com/xbstream/xbstream/internal/innodb/redolog"
	"github.com/xbstream/xbstream/internal/mysql/redo"
)

// write appends a record that writes a byte to a page.
func write(dst []byte, space, page, value byte) []byte {
	return append(dst, byte(redo.Write1), space, page, 0, 100, value)
}

func TestRunsOfAMiniTransaction(t *testing.T) {
	var b []byte
	var at []uint32
	mark := func() { at = append(at, uint32(len(b))) }
	mark()
	b = write(write(b, 5, 6, 1), 5, 6, 2)
	mark() // another page
	b = write(b, 5, 7, 1)
	b = append(b, byte(redo.IndexLoad), 5, 7, 0, 0, 0, 0, 0, 0, 0, 9)
	b = write(b, 5, 7, 2)
	mark() // the same page, but made anew
	b = write(append(b, byte(redo.InitFilePage2), 5, 7), 5, 7, 3)
	mark()
	b = redo.AppendFileRecord(b, redo.FileRecord{Type: redo.FileDelete, Space: 9, Name: "./d/t.ibd"})
	mark()
	b = append(b, byte(redo.TableDynamicMeta), 77, 1, 2, 10)
	mark()
	b = write(b, 5, 7, 4)
	records := len(b)
	b = append(b, byte(redo.MultiEnd))

	d := Redo()
	var s redolog.Scan
	if err := d.Next(&s, append(bytes.Clone(b), 1, 2, 3), false); err != nil {
		t.Fatal(err)
	}
	if s.Size != len(b) || s.RecordsEnd != records || s.Records != 7 || !slices.Equal(s.Starts, at) {
		t.Errorf("%+v, want starts %v", s, at)
	}
	want := []redolog.Run{{Space: 5, Page: 6}, {Space: 5, Page: 7}, {Space: 5, Page: 7, Kind: redolog.Makes}, {File: true}, {Kind: redolog.Keeps}, {Space: 5, Page: 7}}
	for i, w := range want {
		if got, err := d.Run(b[at[i]:records]); err != nil || got != w {
			t.Errorf("run %d: %+v, %v", i, got, err)
		}
	}
	if !d.MakesPage(b[at[2]:]) || d.MakesPage(b[at[1]:]) || d.Replaces(b[at[2]:]) {
		t.Error("which runs make pages")
	}
	files, err := d.Files(b[:records])
	if err != nil || len(files) != 1 || files[0] != (redolog.FileRecord{Op: redolog.FileDeleted, Space: 9, Name: "./d/t.ibd"}) {
		t.Errorf("%+v, %v", files, err)
	}
	if !bytes.Equal(d.Frame(nil, b[:records]), b) {
		t.Error("framed again it is another one")
	}
	page := make([]byte, 4096)
	open := d.Open(page, redolog.Target{Space: 5, Page: 7})
	n, err := open.Apply(b[at[1]:at[2]])
	if n != 3 || err != nil || open.Close() != nil || page[100] != 2 {
		t.Errorf("%d records, %v, page says %d", n, err, page[100])
	}
}

// FuzzNext: what is accepted is within its bounds, and every run of it can be
// looked into.
func FuzzNext(f *testing.F) {
	for _, name := range []string{"redo/testdata/mysql-8.0.30-a.mtr", "redo/testdata/mysql-8.0.30-b.mtr"} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for len(b) > 0 {
			m, err := redo.ScanMTR(b)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b[:m.Size])
			b = b[m.Size:]
		}
	}
	d := Redo()
	f.Fuzz(func(t *testing.T, b []byte) {
		var s redolog.Scan
		if d.Next(&s, b, false) != nil {
			return
		}
		if s.Size > len(b) || s.RecordsEnd > s.Size || s.Size == 0 {
			t.Fatalf("%+v of %d bytes", s, len(b))
		}
		if got := d.Frame(nil, b[:s.RecordsEnd]); s.RecordsEnd > 0 && !bytes.Equal(got, b[:s.Size]) {
			t.Fatal("framed again it is another one")
		}
		for i, at := range s.Starts {
			to := uint32(s.RecordsEnd)
			if i+1 < len(s.Starts) {
				to = s.Starts[i+1]
			}
			run, err := d.Run(b[at:to])
			if err != nil {
				t.Fatal(err)
			}
			if run.File {
				d.File(b[at:to])
				continue
			}
			page := make([]byte, 4096)
			open := d.Open(page, redolog.Target{Space: run.Space, Page: run.Page})
			open.Apply(b[at:to])
			open.Close()
		}
	})
}
