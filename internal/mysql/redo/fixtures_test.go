package redo

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/mysql/mysqltest"
)

// directory reads the log of a directory #innodb_redo.
func directory(t testing.TB, dir string) (all []File, spare int) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		id, isSpare, ok := ParseFileName(e.Name())
		if !ok {
			t.Fatalf("%s: not the name of a log file", e.Name())
		}
		if isSpare {
			spare++
			continue
		}
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		file, err := ReadFile(f, id, st.Size())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, file)
	}
	return all, spare
}

// TestLogsOfServers: copies of the log of a server under load, around resizes and
// crashes, are read as another program read them (index.tsv).
func TestLogsOfServers(t *testing.T) {
	root := mysqltest.Fixtures(t)
	for _, row := range mysqltest.Table(t, filepath.Join(root, "redo", "index.tsv")) {
		if row["files_in_use"] == "-" {
			continue
		}
		t.Run(row["snapshot"], func(t *testing.T) {
			dir := mysqltest.Unpack(t, filepath.Join(root, "redo", row["snapshot"]+".tar.zst"))
			files, spare := directory(t, mysqltest.Find(t, dir, Directory))
			log := NewLog(files)
			if got := strconv.Itoa(len(files)); got != row["files_in_use"] || strconv.Itoa(spare) != row["spare_files"] {
				t.Errorf("%s files and %d spare ones", got, spare)
			}
			if len(log) != len(files) {
				t.Errorf("chain of %d files out of %d", len(log), len(files))
			}
			full := 0
			for _, f := range files {
				if f.Header.Flags&FileFull != 0 {
					full++
				}
			}
			if strconv.Itoa(full) != row["full_flags"] {
				t.Errorf("%d files are full", full)
			}
			checkpoint, err := log.Checkpoint()
			if err != nil || checkpoint != format.LSN(mysqltest.Number(t, row["checkpoint_in_files"])) {
				t.Fatalf("checkpoint %v, %v", checkpoint, err)
			}
			r := NewReader(log, checkpoint)
			for r.Next() {
			}
			if r.Err() != nil {
				t.Fatal(r.Err())
			}
			end, why := r.End()
			if end != format.LSN(mysqltest.Number(t, row["end_of_valid_blocks"])) || why.String() != row["why_end"] {
				t.Errorf("ends at %v: %v", end, why)
			}
			if before := row["lsn_before"]; before != "-" && end < format.LSN(mysqltest.Number(t, before)) {
				t.Errorf("ends at %v, before the LSN %s that the server had", end, before)
			}
		})
	}
}

// TestRecordTypes: between checkpoint and end there are as many records of each
// type, and as many bytes in them, as another program found.
func TestRecordTypes(t *testing.T) {
	root := mysqltest.Fixtures(t)
	for _, set := range []string{"a", "b"} {
		t.Run(set, func(t *testing.T) {
			dir := mysqltest.Unpack(t, filepath.Join(root, "recovery", "inputs-"+set+".tar.zst"))
			facts := mysqltest.Facts(t, filepath.Join(dir, "facts.txt"))
			files, _ := directory(t, filepath.Join(dir, "redo", Directory))
			checkpoint := format.LSN(mysqltest.Number(t, facts["checkpoint_lsn"]))
			type tally struct{ records, body int }
			got := map[Type]tally{}
			r := NewReader(NewLog(files), checkpoint)
			for r.Next() {
				if r.Position().LSN() < checkpoint {
					continue
				}
				m := r.MTR()
				rest := m.Records
				for len(rest) > 0 {
					rec, n, err := Next(rest)
					if err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
					n = got[rec.Type].records
					got[rec.Type] = tally{n + 1, got[rec.Type].body + len(rec.Body)}
				}
				if m.Size > len(m.Records) {
					got[MultiEnd] = tally{got[MultiEnd].records + 1, 0}
				}
			}
			if r.Err() != nil {
				t.Fatal(r.Err())
			}
			if end, _ := r.End(); end != format.LSN(mysqltest.Number(t, facts["redo_copied_to_lsn"])) {
				t.Errorf("ends at %v", end)
			}
			for _, row := range mysqltest.Table(t, filepath.Join(root, "recovery", "record-types-"+set+".tsv")) {
				n, _ := strconv.Atoi(row["type"])
				g := got[Type(n)]
				if s := fmt.Sprintf("%v %d %d", Type(n), g.records, g.body); s != row["name"]+" "+row["records"]+" "+row["body_bytes"] {
					t.Errorf("got %s, want %s %s %s", s, row["name"], row["records"], row["body_bytes"])
				}
				delete(got, Type(n))
			}
			for typ, g := range got {
				t.Errorf("%d of %v", g.records, typ)
			}
		})
	}
}
