package mysql

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
	"github.com/xbstream/xbstream/internal/mysql/mysqltest"
	"github.com/xbstream/xbstream/internal/mysql/redo"
)

type pageID struct {
	space format.SpaceID
	page  format.PageNo
}

// run is one that the log has for a page.
type run struct {
	start, end redo.Position // of its mini-transaction
	at         redo.Position
	records    []byte
}

// history is what a log says.
type history struct {
	pages   map[pageID][]run
	deleted map[format.SpaceID]bool
	kept    int
	end     redo.Position
}

// linear makes the log of a backup from the files of a server.
func linear(t testing.TB, dir string, checkpoint format.LSN) (log []byte, end format.LSN) {
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
	r := redo.NewReader(redo.NewLog(files), checkpoint)
	for r.Next() {
		if log == nil {
			log = redo.Linear{First: r.Position().LSN(), Checkpoint: checkpoint, Creator: files[0].Header.Creator}.Encode()
		}
		m := r.MTR()
		log = append(log, m.Records...)
		if m.Size > len(m.Records) {
			log = append(log, byte(redo.MultiEnd))
		}
	}
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	end, _ = r.End()
	return log, end
}

// read reads a log through the contract, as recovery does.
func read(t *testing.T, d redolog.Dialect, log []byte) history {
	t.Helper()
	head, err := d.ReadHead(log[:d.HeadSize()])
	if err != nil {
		t.Fatal(err)
	}
	h := history{pages: map[pageID][]run{}, deleted: map[format.SpaceID]bool{}}
	at, ok := redo.PositionOf(head.FirstLSN)
	if !ok || at.LSN() != head.FirstLSN {
		t.Fatalf("first LSN %v", head.FirstLSN)
	}
	var s redolog.Scan
	for rest := log[d.HeadSize():]; len(rest) > 0; rest = rest[s.Size:] {
		s = redolog.Scan{Starts: s.Starts[:0]}
		if err := d.Next(&s, rest, false); err != nil {
			t.Fatalf("LSN %v: %v", at.LSN(), err)
		}
		for i, from := range s.Starts {
			to := uint32(s.RecordsEnd)
			if i+1 < len(s.Starts) {
				to = s.Starts[i+1]
			}
			h.take(t, d, run{at, at + redo.Position(s.Size), at + redo.Position(from), rest[from:to]})
		}
		at += redo.Position(s.Size)
	}
	h.end = at
	return h
}

func (h *history) take(t *testing.T, d redolog.Dialect, r run) {
	t.Helper()
	first, err := d.Run(r.records)
	if err != nil {
		t.Fatalf("LSN %v: %v", r.at.LSN(), err)
	}
	id := pageID{first.Space, first.Page}
	switch {
	case first.File:
		f, err := d.File(r.records)
		if err != nil {
			t.Fatalf("LSN %v: %v", r.at.LSN(), err)
		}
		h.deleted[f.Space] = f.Op == redolog.FileDeleted
	case first.Kind == redolog.Keeps:
		h.kept++
	case first.Kind == redolog.Makes:
		h.pages[id] = []run{r}
	default:
		h.pages[id] = append(h.pages[id], r)
	}
}

// expand makes a plain page of one with COMPRESSION.
func expand(t *testing.T, page []byte) []byte {
	t.Helper()
	be := binary.BigEndian
	if be.Uint16(page[24:]) != 14 {
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
	return fmt.Sprintf("%d pages, %d with redo (%d records applied): %d equal, %d changed by the server afterwards, %d unexplained, %d page LSNs differ",
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
			log, end := linear(t, filepath.Join(dir, "redo", redo.Directory), format.LSN(mysqltest.Number(t, facts["checkpoint_lsn"])))
			d := Redo()
			h := read(t, d, log)
			if uint64(end) != mysqltest.Number(t, facts["redo_copied_to_lsn"]) || h.end.LSN() != end {
				t.Fatalf("redo ends at %v, the last mini-transaction at %v", end, h.end.LSN())
			}
			found := h.compare(t, d, set, dir)
			for id := range h.pages {
				if !found[id.space] && !h.deleted[id.space] {
					t.Errorf("redo for page %v of space %v, of which there is no file", id.page, id.space)
					found[id.space] = true
				}
			}
			t.Logf("set %s: %d records are for the log that is left", set, h.kept)
		})
	}
}

// compare recovers the pages of a set, and returns the tablespaces.
func (h *history) compare(t *testing.T, d redolog.Dialect, set, dir string) map[format.SpaceID]bool {
	var plain, zips tally
	found := map[format.SpaceID]bool{}
	var name string
	var data []byte
	for _, row := range mysqltest.Table(t, filepath.Join(mysqltest.Fixtures(t), "recovery", "after-"+set+".pages.tsv.zst")) {
		file := filepath.Join(dir, "data", row["file"])
		if rel, ok := strings.CutPrefix(row["file"], "EXTERNAL/"); ok {
			file = filepath.Join(dir, "external", rel)
		}
		if file != name {
			var err error
			if data, err = os.ReadFile(file); err != nil {
				t.Fatal(err)
			}
			name = file
		}
		size, zip := physical(data)
		id := pageID{format.SpaceID(binary.BigEndian.Uint32(data[34:])), format.PageNo(mysqltest.Number(t, row["page"]))}
		found[id.space] = true
		page := make([]byte, size)
		if from := int(id.page) * size; from < len(data) {
			copy(page, data[from:])
		}
		s := &plain
		if zip {
			s = &zips
		} else {
			page = expand(t, page)
		}
		s.pages++
		n, err := h.recover(d, id, page, zip, 16384)
		if s.records += n; n > 0 {
			s.touched++
		}
		s.count(t, row, page, zip, h.end.LSN(), err)
	}
	t.Logf("set %s, uncompressed: %v", set, plain)
	t.Logf("set %s, ROW_FORMAT=COMPRESSED: %v", set, zips)
	return found
}

// recover applies to a page what the log has for it, by the rule that prepare has.
func (h *history) recover(d redolog.Dialect, id pageID, page []byte, zip bool, logical int) (records int, err error) {
	runs := h.pages[id]
	if len(runs) == 0 || legacyDoublewrite(id) {
		return 0, nil
	}
	have := innodb.LSN(page)
	if d.Replaces(runs[0].records) {
		have = 0
	}
	open := d.Open(page, redolog.Target{Space: id.space, Page: id.page, Zip: zip, Logical: logical})
	var last run
	for _, r := range runs {
		if r.start.LSN() < have {
			continue
		}
		n, err := open.Apply(r.records)
		if err != nil {
			return records, errors.Join(fmt.Errorf("LSN %v: %w", r.at.LSN(), err), open.Close())
		}
		records += n
		last = r
	}
	if err = open.Close(); err == nil && last.end != 0 {
		innodb.SetLSN(page, last.end.LSN())
		if zip {
			stamp(page, last)
		}
	}
	return records, err
}

// stamp does what the server's recovery does to the end of the expanded page: it
// writes an LSN there, which gets into the file only if that is as long and not
// compressed. Nothing reads it.
func stamp(page []byte, last run) {
	if t := innodb.Type(page); len(page) != 16384 || t == innodb.TypeIndex || t == innodb.TypeRTree || t == 17853 {
		return
	}
	at := last.at
	for b := last.records; len(b) > 0; {
		r, n, err := redo.Next(b)
		if err != nil {
			return
		}
		binary.BigEndian.PutUint64(page[len(page)-8:], uint64(at.LSN())+uint64(len(r.Body)))
		at += redo.Position(n)
		b = b[n:]
	}
}

// count compares a page with its row in the table.
func (s *tally) count(t *testing.T, row map[string]string, page []byte, zip bool, end format.LSN, failed error) {
	t.Helper()
	to := len(page)
	if !zip {
		to -= 8
	}
	be := binary.BigEndian
	sum := crc32.Checksum(page[38:to], crc32.MakeTable(crc32.Castagnoli))
	if innodb.IsZero(page) {
		sum = 0 // as the table has it
	}
	got := fmt.Sprintf("type %d prev %d next %d crc %08x", innodb.Type(page), be.Uint32(page[8:]), be.Uint32(page[12:]), sum)
	want := fmt.Sprintf("type %s prev %s next %s crc %08s", row["type"], row["prev"], row["next"], row["body_crc32c"])
	switch {
	case got == want && failed == nil:
		s.equal++
		if lsn := innodb.LSN(page); lsn.String() != row["page_lsn"] {
			s.lsn++
			t.Errorf("%s page %s (type %s): LSN %v, want %s", row["file"], row["page"], row["type"], lsn, row["page_lsn"])
		}
	case mysqltest.Number(t, row["page_lsn"]) > uint64(end):
		s.named++
	default:
		if s.unequal++; s.unequal < 20 {
			t.Errorf("%s page %s: %s, want %s: %v", row["file"], row["page"], got, want, failed)
		}
	}
}

// legacyDoublewrite says whether a page is one of the old doublewrite area, which
// holds copies of other pages.
func legacyDoublewrite(id pageID) bool { return id.space == 0 && id.page >= 64 && id.page < 192 }

// physical returns the size of pages in a file, and whether they are of
// ROW_FORMAT=COMPRESSED.
func physical(data []byte) (size int, zip bool) {
	if s := innodb.Flags(data) >> 1 & 0xF; s != 0 {
		return 512 << s, true
	}
	return 16384, false
}
