package prepare

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
)

// TestPeer prepares the same backup with mariabackup and with Run and compares
// the results page by page. Only the classes of difference counted in tally
// are accepted, each checked for being just that.
func TestPeer(t *testing.T) {
	zips := []tableKind{zipKind(1), zipKind(2), zipKind(4), zipKind(8)}
	all := slices.Concat(tablesPlain, tablesSpecial, zips)
	cases := []peerCase{
		{name: "16k", tables: all},
		{name: "ddl", tables: all, ddl: true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { comparePeer(t, c) })
	}
}

func comparePeer(t *testing.T, c peerCase) {
	backup := takeBackup(t, c)
	theirs, ours := copyTree(t, backup), copyTree(t, backup)
	command(t, "mariabackup", "--prepare", "--target-dir="+theirs)
	rep, err := Run(context.Background(), ours, Options{Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", rep)
	tally := compareTrees(t, ours, theirs, backup)
	t.Logf("tally: %v", tally)
	if rep.PagesWritten == 0 || tally["equal"] == 0 {
		t.Error("nothing was compared")
	}
	checkStartsClean(t, ours, backup, c.install...)
}

// compareTrees compares all tablespaces by id.
func compareTrees(t *testing.T, ours, theirs, backup string) map[string]int {
	t.Helper()
	tally := map[string]int{}
	o, err := readOrigin(backup)
	if err != nil {
		t.Fatal(err)
	}
	a, b := filesByID(t, ours, o), filesByID(t, theirs, o)
	freed := freedPages(t, backup)
	for _, id := range slices.Sorted(maps.Keys(a)) {
		if b[id] == nil {
			t.Errorf("%s (space %v) is missing in the peer's result", a[id], id)
			continue
		}
		if len(a[id].files) != len(b[id].files) {
			t.Errorf("%s: %d files, the peer has %d", a[id], len(a[id].files), len(b[id].files))
			continue
		}
		for i := range a[id].files {
			compareFiles(t, ours, theirs, a[id], b[id], i, freed, tally)
		}
	}
	for id := range b {
		if a[id] == nil {
			tally["file only the peer kept"]++
			checkDropped(t, backup, b[id])
		}
	}
	return tally
}

func filesByID(t *testing.T, dir string, o *origin) map[format.SpaceID]*tablespace {
	t.Helper()
	tr := newTree(dir, o.server.PageSize)
	if err := tr.settleFound(o.server.DataFilePath, nil, Options{Parallel: 1}, &Report{}); err != nil {
		t.Fatal(err)
	}
	return tr.spaces
}

// historyOf reads a backup's redo again, for what it says of files and pages.
func historyOf(t *testing.T, backup string, free func(pageKey, bool)) map[format.SpaceID]*history {
	t.Helper()
	l, err := openRedo(backup)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := &gatherer{limit: 1 << 40, spaces: map[format.SpaceID]*history{}, mtrs: l.newMTRs(make([]byte, max(l.payload, 2<<20)))}
	if _, err := g.next(l.end()); err != nil {
		t.Fatal(err)
	}
	g.batch.pages.all(func(k pageKey, i int) { free(k, g.batch.chains[i].head == 0) })
	return g.spaces
}

// freedPages are those whose last record of that kind is FREE_PAGE, with
// nothing after it: their content means nothing.
func freedPages(t *testing.T, backup string) map[pageKey]bool {
	freed := map[pageKey]bool{}
	historyOf(t, backup, func(k pageKey, f bool) {
		if f {
			freed[k] = true
		}
	})
	return freed
}

// checkDropped checks that redo says a tablespace was dropped.
func checkDropped(t *testing.T, backup string, s *tablespace) {
	t.Helper()
	h := historyOf(t, backup, func(pageKey, bool) {})[s.id]
	if h == nil || h.deleted == 0 || h.alive {
		t.Errorf("%s is missing in our result, and redo does not drop it", s)
	}
}

func compareFiles(t *testing.T, ours, theirs string, a, b *tablespace, i int, freed map[pageKey]bool, tally map[string]int) {
	t.Helper()
	x, err := os.ReadFile(filepath.Join(ours, a.files[i].path))
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(filepath.Join(theirs, b.files[i].path))
	if err != nil {
		t.Fatal(err)
	}
	if a.files[i].path != b.files[i].path {
		tally["file under its old name at the peer"]++
	}
	size := a.pages.Physical
	if len(x) != len(y) {
		used := int(innodb.FSPSize(x)) * size &^ 4095
		if i > 0 || len(x) < used || len(y) < used {
			t.Errorf("%s: %d bytes, the peer has %d, %d in use", a, len(x), len(y), used)
		}
		tally["file length"]++
	}
	for off := 0; off+size <= len(x) && off+size <= len(y); off += size {
		no := a.files[i].first + format.PageNo(off/size)
		p, q := x[off:off+size], y[off:off+size]
		class := difference(a, p, q, freed[keyOf(a.id, no)])
		if class == "" {
			t.Errorf("%s page %v differs: LSN %v type %v, the peer has LSN %v type %v; first difference at %d", a, no,
				innodb.LSN(p), innodb.Type(p), innodb.LSN(q), innodb.Type(q), firstDifference(p, q))
			class = "UNEXPLAINED"
		}
		tally[class]++
	}
}

// difference names the class of a difference, "" for one that has none.
func difference(s *tablespace, p, q []byte, freed bool) string {
	switch {
	case bytes.Equal(p, q):
		return "equal"
	case freed:
		return "freed page"
	case sameExpanded(s.pages, p, q):
		return "page_compressed, equal when expanded"
	case !s.pages.FullCRC32 && innodb.Type(p) == innodb.TypeRTree && innodb.Type(q) == innodb.TypeRTree && sameBut(p, q, 26, 34):
		return "R-tree split number, old format"
	}
	return ""
}

func sameBut(p, q []byte, from, to int) bool {
	return bytes.Equal(p[:from], q[:from]) && bytes.Equal(p[to:], q[to:])
}

func sameExpanded(f innodb.PageFormat, p, q []byte) bool {
	if !f.PageCompressed && f.Algorithm == 0 {
		return false
	}
	return bytes.Equal(expanded(f, p), expanded(f, q))
}

func expanded(f innodb.PageFormat, p []byte) []byte {
	out := slices.Clone(p)
	if f.Compressed(p) {
		if err := f.Decompress(out, p); err != nil {
			return []byte(err.Error())
		}
	}
	// A page expanded has the checksum it had before it was compressed; the
	// server leaves that field as it was then.
	if f.FullCRC32 {
		binary.BigEndian.PutUint64(out[len(out)-8:], 0)
	} else {
		clear(out[:4])
		clear(out[len(out)-8:])
	}
	return out
}

func firstDifference(p, q []byte) int {
	for i := range p {
		if p[i] != q[i] {
			return i
		}
	}
	return -1
}

// printTally prints a tally in one line, for make targets to grep.
func printTally(name string, tally map[string]int) {
	var parts []string
	for _, class := range slices.Sorted(maps.Keys(tally)) {
		parts = append(parts, fmt.Sprintf("%s: %d", class, tally[class]))
	}
	fmt.Printf("peer %s: %s\n", name, strings.Join(parts, "; "))
}
