package apply

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/mysql/mysqltest"
	"github.com/xbstream/xbstream/internal/mysql/redo"
)

type pageID struct {
	space format.SpaceID
	page  format.PageNo
}

// change is a record for a page.
type change struct {
	at, end format.LSN // of the record; of its mini-transaction
	stamp   format.LSN // what recovery takes for the end of the record
	record  []byte
}

// gather reads all redo from the checkpoint on: the changes of each page, and the
// tablespaces whose file was deleted.
func gather(t *testing.T, dir string, checkpoint format.LSN) (changes map[pageID][]change, deleted map[format.SpaceID]bool, end format.LSN) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var files []redo.File
	for _, e := range list {
		id, spare, ok := redo.ParseFileName(e.Name())
		if !ok || spare {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		f, err := redo.ReadFile(bytes.NewReader(b), id, int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	changes, deleted = map[pageID][]change{}, map[format.SpaceID]bool{}
	r := redo.NewReader(redo.NewLog(files), checkpoint)
	for r.Next() {
		m := r.MTR()
		end := (r.Position() + redo.Position(m.Size)).LSN()
		records := bytes.Clone(m.Records)
		for at := 0; at < len(records); {
			rec, n, err := redo.Next(records[at:])
			if err != nil {
				t.Fatal(err)
			}
			if rec.Type != redo.TableDynamicMeta && rec.Type != redo.IndexLoad && !rec.Type.File() {
				id := pageID{rec.Space, rec.Page}
				start := (r.Position() + redo.Position(at)).LSN()
				changes[id] = append(changes[id], change{start, end, start + format.LSN(len(rec.Body)), records[at : at+n]})
			}
			if rec.Type == redo.FileDelete {
				deleted[rec.Space] = true
			}
			at += n
		}
	}
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	end, _ = r.End()
	return changes, deleted, end
}

func num(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// expand makes a plain page of one with COMPRESSION.
func expand(t *testing.T, page []byte) []byte {
	t.Helper()
	be := binary.BigEndian
	if be.Uint16(page[filType:]) != 14 {
		return page
	}
	z, err := zlib.NewReader(bytes.NewReader(page[38 : 38+int(be.Uint16(page[32:]))]))
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, len(page))
	copy(out, page[:38])
	be.PutUint16(out[24:], be.Uint16(page[28:]))
	clear(out[26:34])
	if _, err := io.ReadFull(z, out[38:38+int(be.Uint16(page[30:]))]); err != nil {
		t.Fatal(err)
	}
	return out
}

// tally of a comparison.
type tally struct {
	pages, touched, records, equal, named, unequal, lsn int
}

func (s tally) String() string {
	return fmt.Sprintf("%d pages, %d with redo (%d records applied): %d equal, %d written by the server afterwards, %d unexplained; %d page LSNs differ",
		s.pages, s.touched, s.records, s.equal, s.named, s.unequal, s.lsn)
}

// TestPagesAsTheServer applies the redo of a hot copy to it, and compares every
// page with what the server's own recovery made of the same copy.
func TestPagesAsTheServer(t *testing.T) {
	root := mysqltest.Fixtures(t)
	for _, set := range []string{"a", "b"} {
		t.Run(set, func(t *testing.T) {
			dir := mysqltest.Unpack(t, filepath.Join(root, "recovery", "inputs-"+set+".tar.zst"))
			facts := mysqltest.Facts(t, filepath.Join(dir, "facts.txt"))
			changes, deleted, end := gather(t, filepath.Join(dir, "redo", redo.Directory), format.LSN(num(t, facts["checkpoint_lsn"])))
			if uint64(end) != num(t, facts["redo_copied_to_lsn"]) {
				t.Fatalf("redo ends at %v", end)
			}
			found := compare(t, set, dir, end, changes)
			for id := range changes {
				if !found[id.space] && !deleted[id.space] {
					t.Errorf("redo for page %v of space %v, of which there is no file", id.page, id.space)
					found[id.space] = true
				}
			}
		})
	}
}

func compare(t *testing.T, set, dir string, end format.LSN, changes map[pageID][]change) map[format.SpaceID]bool {
	var all, zips tally
	files := map[string][]byte{}
	problems, found := map[string]int{}, map[format.SpaceID]bool{}
	var p Page
	for _, row := range mysqltest.Table(t, filepath.Join(mysqltest.Fixtures(t), "recovery", "after-"+set+".pages.tsv.zst")) {
		name := filepath.Join(dir, "data", row["file"])
		if rel, ok := strings.CutPrefix(row["file"], "EXTERNAL/"); ok {
			name = filepath.Join(dir, "external", rel)
		}
		data, ok := files[name]
		if !ok {
			var err error
			if data, err = os.ReadFile(name); err != nil {
				t.Error(err)
			}
			clear(files) // rows are in the order of files
			files[name] = data
		}
		size, zip := physical(data)
		no := num(t, row["page"])
		page := make([]byte, size)
		if from := int(no) * size; from < len(data) {
			copy(page, data[from:])
		}
		if !zip {
			page = expand(t, page)
		}
		id := pageID{format.SpaceID(binary.BigEndian.Uint32(data[filSpace:])), format.PageNo(no)}
		found[id.space] = true
		s := &all
		if zip {
			s = &zips
		}
		s.pages++
		lsn := format.LSN(binary.BigEndian.Uint64(page[16:]))
		var last, stamp format.LSN
		var failed error
		p.Reset(page, Target{Space: id.space, Page: id.page, Zip: zip})
		if legacyDoublewrite(id) {
			changes[id] = nil
		}
		for _, c := range changes[id] {
			if c.at < lsn {
				continue
			}
			if _, err := p.Run(c.record); err != nil {
				failed = fmt.Errorf("LSN %v: %w", c.at, err)
				break
			}
			s.records++
			last, stamp = c.end, c.stamp
		}
		if failed == nil {
			failed = p.Finish()
		}
		if last != 0 {
			s.touched++
			lsn = last
			if zip && len(page) == defaultSize && !hasRows(page) {
				// Recovery writes an LSN to the end of the expanded page, which gets
				// into the file only if that is as long. Nothing reads it.
				binary.BigEndian.PutUint64(page[len(page)-8:], uint64(stamp))
			}
		}
		to := len(page) - 8
		if zip {
			to = len(page)
		}
		be := binary.BigEndian
		sum := crc32.Checksum(page[38:to], crc32.MakeTable(crc32.Castagnoli))
		if len(bytes.TrimLeft(page, "\x00")) == 0 {
			sum = 0 // as the table has it for pages that were never written
		}
		got := fmt.Sprintf("type %d prev %d next %d crc %08x", be.Uint16(page[24:]), be.Uint32(page[8:]), be.Uint32(page[12:]), sum)
		want := fmt.Sprintf("type %s prev %s next %s crc %08s", row["type"], row["prev"], row["next"], row["body_crc32c"])
		if got == want {
			s.equal++
			if uint64(lsn) != num(t, row["page_lsn"]) {
				s.lsn++
				t.Logf("%s page %d (type %s): LSN %v, want %s", row["file"], no, row["type"], lsn, row["page_lsn"])
			}
			continue
		}
		if num(t, row["page_lsn"]) > uint64(end) {
			s.named++
			continue
		}
		s.unequal++
		why := fmt.Sprintf("%s: got %s, want %s", row["file"], got, want)
		if failed != nil {
			why = failed.Error()
		}
		key := fmt.Sprintf("zip %v type %s failed %v", zip, row["type"], failed)
		if i := strings.Index(key, "LSN"); i >= 0 {
			key = key[:i] + key[i+13:]
		}
		problems[key]++
		if problems[key] <= 3 {
			t.Errorf("%s page %d (type %s): %s", row["file"], no, row["type"], why)
		}
	}
	for k, n := range problems {
		t.Logf("%d × %s", n, k)
	}
	t.Logf("set %s, uncompressed: %v", set, all)
	t.Logf("set %s, ROW_FORMAT=COMPRESSED: %v", set, zips)
	return found
}

// legacyDoublewrite says whether a page is one of the old doublewrite area, which
// holds copies of other pages.
func legacyDoublewrite(id pageID) bool { return id.space == 0 && id.page >= 64 && id.page < 192 }

// physical returns the size of pages in a file, and whether they are of
// ROW_FORMAT=COMPRESSED.
func physical(data []byte) (size int, zip bool) {
	flags := binary.BigEndian.Uint32(data[54:])
	if s := flags >> 1 & 0xF; s != 0 {
		return 512 << s, true
	}
	return 16384, false
}
