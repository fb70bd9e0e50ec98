package redo

import (
	"bytes"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
)

// hidden is a mini-transaction as an encrypted log has it: of each record only
// the first byte and the length are in clear.
func hidden(records ...[]byte) []byte {
	var out []byte
	for _, r := range records {
		head, _, err := recordLen(r)
		if err != nil {
			panic(err)
		}
		out = append(out, r[:head]...)
		out = append(out, bytes.Repeat([]byte{0xEE}, len(r)-head)...)
	}
	return out
}

func TestTraces(t *testing.T) {
	const id = 300 // a number of two bytes
	file := func(op FileOp, names ...string) []byte {
		r := FileRecord{Op: op, Space: id, Name: "./d/" + names[0] + ".ibd"}
		if len(names) > 1 {
			r.NewName = "./d/" + names[1] + ".ibd"
		}
		return hidden(AppendFileRecord(nil, r))
	}
	create := func(name string) []byte {
		return append(file(FileCreate, name), hidden(AppendPageRecord(nil, InitPage, id, 0, nil), AppendSameRecord(nil, Write, []byte{1, 2}))...)
	}
	noise := hidden(AppendPageRecord(nil, Write, id, 3, bytes.Repeat([]byte{1}, 90)))
	// Each mini-transaction ends where the next starts: at 100, 200, 300 …
	for _, c := range []struct {
		name string
		log  [][]byte
		age  innodb.Age
		at   format.LSN // 0: not imported
	}{
		{"nothing", nil, innodb.Age{Oldest: 5}, 0},
		{"discarded and imported", [][]byte{create("t"), noise, file(FileDelete, "t"), noise}, innodb.Age{Unstamped: true}, 300},
		{"imported, then changed here and there", [][]byte{create("t"), file(FileDelete, "t"), noise}, innodb.Age{Oldest: 400, Unstamped: true}, 200},
		{"imported, then changed everywhere", [][]byte{create("t"), file(FileDelete, "t"), noise}, innodb.Age{Oldest: 400}, 200},
		{"twice", [][]byte{file(FileDelete, "t"), noise, file(FileDelete, "t")}, innodb.Age{Oldest: 500, Unstamped: true}, 100},
		{"of two, the first is older than all pages", [][]byte{file(FileDelete, "u"), noise, file(FileDelete, "u")}, innodb.Age{Oldest: 150, Unstamped: true}, 100},
		{"renamed after the import", [][]byte{file(FileDelete, "twin"), noise, file(FileRename, "twin", "t")}, innodb.Age{Unstamped: true}, 100},
		{"renamed twice", [][]byte{file(FileDelete, "twin"), file(FileRename, "twin", "another"), noise, file(FileRename, "another", "t")}, innodb.Age{Unstamped: true}, 100},
		{"renamed before", [][]byte{file(FileRename, "twin", "t"), file(FileDelete, "twin")}, innodb.Age{Unstamped: true}, 0},
		{"names of other lengths", [][]byte{file(FileDelete, "longer"), file(FileDelete, "another")}, innodb.Age{Unstamped: true}, 0},
		{"a page is older", [][]byte{noise, file(FileDelete, "u")}, innodb.Age{Oldest: 150}, 0},
		{"an old import", [][]byte{noise, file(FileDelete, "u")}, innodb.Age{Oldest: 150, Unstamped: true}, 0},
		{"never written", [][]byte{file(FileDelete, "t")}, innodb.Age{}, 0},
		{"dropped and created", [][]byte{file(FileDelete, "t"), create("t"), noise}, innodb.Age{Oldest: 300}, 0},
		{"created later than its pages", [][]byte{file(FileDelete, "t"), noise, create("u")}, innodb.Age{Oldest: 300}, 100},
		{"created, then imported", [][]byte{file(FileDelete, "u"), create("t"), file(FileDelete, "t"), noise}, innodb.Age{Oldest: 450}, 300},
		{"rebuilt under another name", [][]byte{file(FileDelete, "u"), create("#sql-alter-1"), file(FileRename, "#sql-alter-1", "t")}, innodb.Age{Oldest: 300}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var list []Trace
			for i, m := range c.log {
				var err error
				if list, err = AppendTraces(list, m, format.LSN(100*(i+1)), format.LSN(100*(i+2))); err != nil {
					t.Fatal(err)
				}
			}
			at, may, err := NewTraces(list).Imported(id, "./d/t.ibd", func(format.LSN) (innodb.Age, error) { return c.age, nil })
			if err != nil || at != c.at || may != (c.at != 0) {
				t.Errorf("LSN %v, %v, %v; want LSN %v", at, may, err, c.at)
			}
		})
	}
}

func TestTracesMalformed(t *testing.T) {
	if _, err := AppendTraces(nil, []byte{0x9F, 1, 2}, 1, 2); err != ErrMalformed {
		t.Errorf("got %v, want ErrMalformed", err)
	}
}
