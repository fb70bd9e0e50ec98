package mysql

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/mysql/redo"
)

// SPEC.md §4.5 and recovery agree about where redo is.
func TestPositionsOfTheArchive(t *testing.T) {
	said := format.Redo{Format: format.RedoMySQL}
	for lsn := format.LSN(8192); lsn < 8192+2000; lsn++ {
		a, okA := said.Position(lsn)
		b, okB := Redo().Position(lsn)
		if a != b || okA != okB {
			t.Fatalf("LSN %v: %v, %v and %v, %v", lsn, a, okA, b, okB)
		}
	}
}

// What is left is a log that starts behind the redo, with what must be kept; a run
// that finds it knows that an earlier one got so far.
func TestLeave(t *testing.T) {
	d := recovery{}
	counter := []byte{byte(redo.TableDynamicMeta), 77, 1, 2, 10}
	corrupted := []byte{byte(redo.TableDynamicMeta), 77, 1, 1, 0}
	other := append([]byte{byte(redo.TableDynamicMeta), 77, 1, 1, 1}, make([]byte, 12)...)
	smaller, newer := bytes.Clone(counter), bytes.Clone(counter)
	smaller[4]--
	newer[2], newer[4] = 2, 1
	_, low, _, err1 := d.Keep(smaller)
	_, rank, _, err2 := d.Keep(counter)
	_, high, _, err3 := d.Keep(newer)
	if err := errors.Join(err1, err2, err3); err != nil || slices.Compare(low[:], rank[:]) >= 0 || slices.Compare(rank[:], high[:]) >= 0 {
		t.Errorf("ranks %v, %v, %v: %v", low, rank, high, err)
	}
	var kept [][]byte
	keys := map[uint64]bool{}
	for _, record := range [][]byte{counter, corrupted, other} {
		key, _, got, err := d.Keep(append(bytes.Clone(record), 1, 2, 3))
		if err != nil || !bytes.Equal(got, record) {
			t.Fatalf("kept %x: %v", got, err)
		}
		keys[key] = true
		kept = append(kept, got)
	}
	if len(keys) != 3 {
		t.Error("one record takes the place of another kind, or of another index")
	}
	for _, end := range []format.LSN{8204, 8205, 9000, 8192 + 507, 8192 + 512 + 12} {
		left, err := d.Leave(end, "MySQL 8.0.30", kept)
		if err != nil {
			t.Fatal(err)
		}
		if left.Name != "#innodb_redo/#ib_redo0" || left.FlushLSN < end || left.FlushLSN >= end+1024 {
			t.Errorf("end %v: %s, flushed to %v", end, left.Name, left.FlushLSN)
		}
		if at, ok := d.LeftEnd(left.Content[:d.HeadSize()]); !ok || at != left.FlushLSN {
			t.Errorf("end %v: the log says %v, %v; want %v", end, at, ok, left.FlushLSN)
		}
		r := redo.NewReader(logOf(t, left.Content), left.FlushLSN)
		var got [][]byte
		for r.Next() {
			got = append(got, bytes.Clone(r.MTR().Records))
		}
		if r.Err() != nil || !slices.EqualFunc(got, kept, bytes.Equal) {
			t.Errorf("end %v: the log has %x: %v", end, got, r.Err())
		}
	}
	if _, ok := d.LeftEnd(make([]byte, d.HeadSize())); ok {
		t.Error("zeros are such a log")
	}
}

// logOf is a log of one file.
func logOf(t *testing.T, content []byte) redo.Log {
	t.Helper()
	f, err := redo.ReadFile(bytes.NewReader(content), 0, int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	return redo.NewLog([]redo.File{f})
}
