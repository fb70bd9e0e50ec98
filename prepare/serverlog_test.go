package prepare

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
	"github.com/xbstream/xbstream/internal/mariadb/redo"
)

// TestHideBeforeImport: the log that a server gets has the length it had, whole
// mini-transactions, and nothing of what an imported tablespace was before; all
// else is as it was, and there is nothing left to do a second time (P1).
func TestHideBeforeImport(t *testing.T) {
	file := func(op redo.FileOp, id format.SpaceID) []byte {
		return redo.AppendFileRecord(nil, redo.FileRecord{Op: op, Space: id, Name: "./d/t.ibd"})
	}
	page := func(kind redo.RecordType, id format.SpaceID, payload ...byte) []byte {
		return redo.AppendPageRecord(nil, kind, id, 3, payload)
	}
	same := func(kind redo.RecordType, payload ...byte) []byte { return redo.AppendSameRecord(nil, kind, payload) }
	join := func(records ...[]byte) []byte { return bytes.Join(records, nil) }
	long := bytes.Repeat([]byte{7}, 300)
	const imported, dropped, other = 7, 8, 9
	steps := []struct{ records, want []byte }{
		{file(redo.FileCreate, other), nil},
		{join(file(redo.FileCreate, imported), page(redo.InitPage, imported), same(redo.Extended, 1)),
			join(file(redo.FileCreate, imported), page(redo.Option, imported), same(redo.Option, 1))},
		{join(page(redo.Write, imported, long...), page(redo.Write, other, long...), same(redo.Memset, 40, 2, 1), page(redo.FreePage, imported)),
			join(page(redo.Option, imported, long...), page(redo.Write, other, long...), same(redo.Memset, 40, 2, 1), page(redo.Option, imported))},
		// What looks like the checksum of a page must not be taken for one.
		{page(redo.Write, imported, 0, 1, 2, 3, 4), page(redo.Option, imported, 0xFF, 1, 2, 3, 4)},
		{file(redo.FileDelete, imported), file(redo.FileModify, imported)},
		{join(file(redo.FileModify, imported), page(redo.InitPage, imported)), join(file(redo.FileModify, imported), page(redo.Option, imported))},
		{file(redo.FileDelete, dropped), nil},
		{file(redo.FileDelete, imported), file(redo.FileModify, imported)},
		{file(redo.FileModify, imported), nil},
		{join(page(redo.Write, imported, 38, 1), same(redo.Write, 1, 1)), nil},
		{file(redo.FileDelete, other), nil},
		{file(redo.FileModify, other), nil}, // its file is not there
	}
	dir := t.TempDir()
	const start = 50_000
	log := redo.LinearHead("Backup 1", redo.Encryption{}, redo.Checkpoint{LSN: start, EndLSN: start})
	want := bytes.Clone(log)
	for _, s := range steps {
		if s.want == nil {
			s.want = s.records
		}
		log, want = redo.AppendMTR(log, s.records, 1), redo.AppendMTR(want, s.want, 1)
	}
	mark := redo.AppendFileRecord(nil, redo.FileRecord{Op: redo.FileCheckpoint, Checkpoint: start})
	log, want = redo.AppendMTR(log, mark, 1), redo.AppendMTR(want, mark, 1)
	path := filepath.Join(dir, redoName)
	if err := errors.Join(os.WriteFile(path, log, 0o640), os.Mkdir(filepath.Join(dir, "d"), 0o700),
		os.WriteFile(filepath.Join(dir, "d", "t.ibd"), firstPageFor(imported), 0o640), os.WriteFile(filepath.Join(dir, "d", "empty.ibd"), nil, 0o640)); err != nil {
		t.Fatal(err)
	}
	state := &backupdir.State{EndLSN: start + format.LSN(len(log)-redo.StartOffset), Server: format.Server{PageSize: 16384}}
	for range 2 {
		rep := Report{}
		if err := readyRedo(context.Background(), dir, state, Options{}.withDefaults(), &rep); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("first difference at byte %d of %d", firstDifference(got, want), len(want))
		}
		if int(rep.RedoBytes) != len(log)-redo.StartOffset {
			t.Errorf("%d bytes of redo, want %d", rep.RedoBytes, len(log)-redo.StartOffset)
		}
	}
	l, err := openRedo(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := l.scan(context.Background(), l.start(), l.atLeast(state.EndLSN))
	defer m.close()
	n := 0
	for ; err == nil; n++ {
		_, err = m.next()
	}
	if !errors.Is(err, io.EOF) || n != len(steps)+2 {
		t.Errorf("%d mini-transactions, %v", n-1, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v; want the log and the database", entries, err)
	}
}

// firstPageFor is the header of page 0 of a tablespace.
func firstPageFor(id byte) []byte {
	page := make([]byte, 16384)
	page[37], page[41] = id, id
	return page
}

// TestImportInEncryptedRedo: what cannot be kept from a server is refused, with
// the table and the place, unless the operator knows better (P1).
func TestImportInEncryptedRedo(t *testing.T) {
	const start, imported = 50_000, 7
	dir := t.TempDir()
	crypt := redo.Encryption{3: 1, 7: 1} // key 1, version 1
	// Ids and names are not looked at: that they are in clear here shows it.
	log := redo.LinearHead("Backup 1", crypt, redo.Checkpoint{LSN: start, EndLSN: start})
	for _, op := range []redo.FileOp{redo.FileCreate, redo.FileDelete, redo.FileModify} {
		record := redo.AppendFileRecord(nil, redo.FileRecord{Op: op, Space: imported, Name: "./d/t.ibd"})
		log = redo.AppendEncryptedMTR(log, record, 1, [8]byte{1})
	}
	file := append(firstPageFor(imported), firstPageFor(imported)...)
	file[57] = 0x15 // full_crc32, 16 KiB
	path := filepath.Join(dir, "d", "t.ibd")
	if err := errors.Join(os.WriteFile(filepath.Join(dir, redoName), log, 0o640), os.Mkdir(filepath.Join(dir, "d"), 0o700), os.WriteFile(path, file, 0o640)); err != nil {
		t.Fatal(err)
	}
	state := &backupdir.State{EndLSN: start + format.LSN(len(log)-redo.StartOffset), Server: format.Server{PageSize: 16384}}
	err := readyRedo(context.Background(), dir, state, Options{}, &Report{})
	for _, word := range []string{"d/t.ibd (space 7)", "LSN 50025", "--nothing-imported"} {
		if !errors.Is(err, ErrImported) || !strings.Contains(err.Error(), word) {
			t.Errorf("%v; want ErrImported that says %q", err, word)
		}
	}
	if err := readyRedo(context.Background(), dir, state, Options{NothingImported: true}, &Report{}); err != nil {
		t.Error(err)
	}
	// The second page was there before the DISCARD, as it is.
	file[16384+23] = 9
	if err := os.WriteFile(path, file, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := readyRedo(context.Background(), dir, state, Options{}, &Report{}); err != nil {
		t.Error(err)
	}
}
