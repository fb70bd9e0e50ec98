package mysql

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
	"github.com/xbstream/xbstream/internal/mysql/redo"
)

// ServerLog writes a log for a server in files that are not larger than largest.
func ServerLog(create func(string) (io.Writer, error), head redolog.Head, end format.LSN, largest int64) (redolog.LogWriter, error) {
	return newServerLog(create, head, end, largest)
}

// A log of any length is in as many files as it needs, and reads as it was written.
func TestServerLogInFiles(t *testing.T) {
	const first, largest = 77*redo.BlockSize + 100, 512 << 10
	mtr := append(bytes.Repeat(write(nil, 5, 6, 1), 60), byte(redo.MultiEnd)) // 361 bytes
	for _, n := range []int{0, 1, 700, 1000, 1100, 1200, 3000, 9001} {
		at, _ := redo.PositionOf(first)
		end := (at + redo.Position(n*len(mtr))).LSN()
		var names []string
		var files []*bytes.Buffer
		w, err := ServerLog(func(name string) (io.Writer, error) {
			names, files = append(names, name), append(files, new(bytes.Buffer))
			return files[len(files)-1], nil
		}, redolog.Head{FirstLSN: first, Checkpoint: first, Creator: "MySQL 9.7.4"}, end, largest)
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			if err := w.Add(mtr); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		var log redo.Log
		for i, f := range files {
			b := f.Bytes()
			file, err := redo.ReadFile(bytes.NewReader(b), uint64(i), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			last := i == len(files)-1
			if full := file.Header.Flags == redo.FileFull; len(b)%(64<<10) != 0 || len(b) > largest || len(b) != files[0].Len() || full == last || names[i] != fmt.Sprintf("#innodb_redo/#ib_redo%d", i) {
				t.Errorf("%d: %s of %d bytes, flags %x, last %v", n, names[i], len(b), file.Header.Flags, last)
			}
			log = append(log, file)
		}
		if chain := redo.NewLog(log); len(chain) != len(log) || int64(n*len(mtr)) > largest && len(log) < 2 {
			t.Errorf("%d: %d files, %d in the chain", n, len(log), len(chain))
		}
		if at, err := log.Checkpoint(); at != first || err != nil {
			t.Errorf("%d: checkpoint at %v, %v", n, at, err)
		}
		r, got := redo.NewReader(log, first), 0
		for r.Next() {
			if !bytes.Equal(r.MTR().Records, mtr[:len(mtr)-1]) {
				t.Fatalf("%d: mini-transaction %d is another one", n, got)
			}
			got++
		}
		if to, why := r.End(); got != n || r.Err() != nil || to != end || why != redo.PartialBlock {
			t.Errorf("%d: %d mini-transactions, %v, end %v (%v), want %v", n, got, r.Err(), to, why, end)
		}
	}
}
