package prepare

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/spaces"
)

// undoInstance is a directory with a system tablespace and an undo tablespace,
// made by hand: TRX_SYS, rollback segments and undo segments.
type undoInstance struct {
	dir   string
	pages innodb.PageFormat
	flags uint32
	// files are the pages by file; both files have undoPages.
	files map[string][][]byte
}

const (
	undoPages = 16
	undoEnd   = format.LSN(1000) // the backup's end
	undoSpace = format.SpaceID(1)
	rsegPage  = 6 // in both
)

// ownXID is an XID as the server makes them, userXID one of XA PREPARE.
func ownXID(n uint64) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64([]byte("MySQLXid"), 1), n)
}

var userXID = []byte("one")

func newUndoInstance(t testing.TB, size int, full bool) *undoInstance {
	t.Helper()
	in := &undoInstance{dir: t.TempDir(), files: map[string][][]byte{}}
	shift := uint32(0)
	for 512<<shift < size {
		shift++
	}
	switch {
	case full:
		in.flags = 1<<4 | shift
	case size != 16<<10: // spelled out for all others
		in.flags = shift << 6
	}
	var err error
	if in.pages, err = innodb.ParseFlags(in.flags); err != nil {
		t.Fatal(err)
	}
	for name, id := range map[string]format.SpaceID{"ibdata1": 0, "undo001": undoSpace} {
		for no := range undoPages {
			page := make([]byte, size)
			binary.BigEndian.PutUint32(page[4:], uint32(no))
			binary.BigEndian.PutUint32(page[34:], uint32(id))
			innodb.SetLSN(page, format.LSN(100+no))
			if !full {
				clear(page[26:34])
			}
			in.files[name] = append(in.files[name], page)
		}
		head := in.files[name][0]
		binary.BigEndian.PutUint32(head[38:], uint32(id))
		binary.BigEndian.PutUint32(head[46:], undoPages)
		binary.BigEndian.PutUint32(head[54:], in.flags)
		rseg := in.files[name][rsegPage]
		for at := 72; at < 72+size/16*4; at++ {
			rseg[at] = 0xFF
		}
	}
	trxSys := in.files["ibdata1"][innodb.TrxSysPage]
	for at := 56; at < 56+8*128; at++ {
		trxSys[at] = 0xFF
	}
	in.rollbackSegment(0, 0, rsegPage)
	in.rollbackSegment(127, undoSpace, rsegPage)
	return in
}

func (in *undoInstance) rollbackSegment(slot int, id format.SpaceID, page uint32) {
	trxSys := in.files["ibdata1"][innodb.TrxSysPage]
	binary.BigEndian.PutUint32(trxSys[56+8*slot:], uint32(id))
	binary.BigEndian.PutUint32(trxSys[60+8*slot:], page)
}

// segment names a page in the rollback segment of its file.
func (in *undoInstance) segment(file string, slot int, page uint32) {
	binary.BigEndian.PutUint32(in.files[file][rsegPage][72+4*slot:], page)
}

// undo makes an undo segment, of a transaction called like its page. Before its
// log header is that of an older transaction, as in a segment that was reused.
func (in *undoInstance) undo(file string, slot, page int, state innodb.UndoState, gtrid []byte) {
	in.segment(file, slot, uint32(page))
	p := in.files[file][page]
	binary.BigEndian.PutUint16(p[24:], innodb.TypeUndoLog)
	innodb.SetUndoState(p, state)
	header := func(at int, trx uint64, gtrid []byte) {
		binary.BigEndian.PutUint16(p[58:], uint16(at))
		binary.BigEndian.PutUint64(p[at:], trx)
		if gtrid != nil {
			p[at+20] = 1
			binary.BigEndian.PutUint32(p[at+46:], 1)
			binary.BigEndian.PutUint32(p[at+50:], uint32(len(gtrid)))
			copy(p[at+58:], gtrid)
		}
	}
	header(86, 1, ownXID(1))
	header(86+186+20, uint64(page)<<8|uint64(file[0]), gtrid)
	p[len(p)-100] = byte(page) // some undo record
}

// write seals the pages and writes the files.
func (in *undoInstance) write(t testing.TB) {
	t.Helper()
	for name, pages := range in.files {
		for _, p := range pages {
			in.pages.Seal(p)
		}
		if err := os.WriteFile(filepath.Join(in.dir, name), bytes.Join(pages, nil), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// preparation is one that has applied its redo.
func (in *undoInstance) preparation(t testing.TB, staged bool) *preparation {
	t.Helper()
	p := &preparation{dir: in.dir, state: &backupdir.State{}, tree: spaces.NewTree(in.dir, in.pages.Physical), end: undoEnd,
		opt: Options{Staged: staged}.withDefaults()}
	err := p.tree.ClaimSystem([]string{"ibdata1"})
	if err == nil {
		err = p.tree.SettleFound(nil, 1) // finds undo001
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := replayJournal(in.dir, p.tree); err != nil {
		t.Fatal(err)
	}
	if staged {
		return p
	}
	if p.journal, err = startJournal(in.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.journal.f.Close() })
	return p
}

// changed returns the pages of a file that are not as they were written, and
// checks that only state and checksum differ.
func (in *undoInstance) changed(t testing.TB, name string) (numbers []int) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(in.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != undoPages*in.pages.Physical {
		t.Fatalf("%s has %d bytes", name, len(b))
	}
	for no, want := range in.files[name] {
		got := b[no*in.pages.Physical:][:in.pages.Physical]
		if bytes.Equal(got, want) {
			continue
		}
		numbers = append(numbers, no)
		want = bytes.Clone(want)
		innodb.SetUndoState(want, innodb.UndoActive)
		in.pages.Seal(want)
		if !bytes.Equal(got, want) {
			t.Errorf("%s page %d: more than its state was changed, first at %d", name, no, firstDifference(got, want))
		}
		if err := in.pages.Verify(got, format.PageNo(no)); err != nil {
			t.Error(err)
		}
	}
	return numbers
}

// mixed makes transactions of all kinds: 3 that the server prepared itself, and one
// that it was rolling back.
func mixed(t testing.TB, size int, full bool) *undoInstance {
	in := newUndoInstance(t, size, full)
	in.undo("ibdata1", 0, 8, innodb.UndoPrepared, ownXID(8))
	in.undo("ibdata1", 3, 9, innodb.UndoPrepared, userXID)
	in.undo("ibdata1", size/16-1, 10, innodb.UndoActive, nil)
	in.undo("undo001", 0, 8, innodb.UndoPrepared, ownXID(18))
	in.undo("undo001", 1, 9, innodb.UndoCached, ownXID(19))
	in.undo("undo001", 2, 10, innodb.UndoToPurge, nil)
	in.undo("undo001", 4, 11, innodb.UndoActive, ownXID(20))
	in.undo("undo001", size/16-1, 15, innodb.UndoPrepared, ownXID(21))
	in.write(t)
	return in
}

func checkMixed(t testing.TB, in *undoInstance, p *preparation) {
	t.Helper()
	if p.rep.PreparedRolledBack != 4 || p.state.RolledBack != 4 {
		t.Errorf("%d transactions, and %d in the state file; want 4", p.rep.PreparedRolledBack, p.state.RolledBack)
	}
	if got := in.changed(t, "ibdata1"); !slices.Equal(got, []int{8}) {
		t.Errorf("pages %v of ibdata1 were changed, want 8", got)
	}
	if got := in.changed(t, "undo001"); !slices.Equal(got, []int{8, 15}) {
		t.Errorf("pages %v of undo001 were changed, want 8 and 15", got)
	}
}

// G1: of all transactions only those that the server had prepared itself become
// active, wherever undo logs are, and doing it again changes nothing.
func TestRollBackPrepared(t *testing.T) {
	for _, size := range []int{4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10} {
		for _, full := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d bytes, full_crc32 %v", size, full), func(t *testing.T) {
				in := mixed(t, size, full)
				for range 2 {
					p := in.preparation(t, false)
					if err := p.rollBackPrepared(t.Context()); err != nil {
						t.Fatal(err)
					}
					checkMixed(t, in, p)
				}
				staged := mixed(t, size, full)
				p := staged.preparation(t, true)
				if err := p.rollBackPrepared(t.Context()); err != nil {
					t.Fatal(err)
				}
				checkMixed(t, staged, p)
				for id, space := range p.tree.Spaces {
					if !space.Touched {
						t.Errorf("space %v was written to and would not be synced", id)
					}
				}
			})
		}
	}
}

// G1: undo segments in the second file of the system tablespace.
func TestRollBackPreparedInSecondFile(t *testing.T) {
	in := mixed(t, 16<<10, true)
	const cut = 8 * 16 << 10
	b, err := os.ReadFile(filepath.Join(in.dir, "ibdata1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(in.dir, "ibdata2"), b[cut:], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(in.dir, "ibdata1"), cut); err != nil {
		t.Fatal(err)
	}
	p := in.preparation(t, false)
	if err := p.tree.ClaimSystem([]string{"ibdata1", "ibdata2"}); err != nil {
		t.Fatal(err)
	}
	if err := p.rollBackPrepared(t.Context()); err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(filepath.Join(in.dir, "ibdata2"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(in.dir, "ibdata1"), append(b[:cut:cut], second...), 0o600); err != nil {
		t.Fatal(err)
	}
	checkMixed(t, in, p)
}

// G1: killed between pages, or in the middle of one, it can be run again, with the
// same result and the same number.
func TestRollBackPreparedKilled(t *testing.T) {
	for _, page := range []innodb.PageAddress{{Space: 0, Page: 8}, {Space: undoSpace, Page: 8}, {Space: undoSpace, Page: 15}} {
		in := mixed(t, 16<<10, true)
		p := in.preparation(t, false)
		if err := p.makeActive(page, p.journal.slot(0)); err != nil {
			t.Fatal(err)
		}
		// Only the second half of the page got there.
		name := p.tree.Spaces[page.Space].Files[0].Path
		f, err := os.OpenFile(filepath.Join(in.dir, name), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(in.files[name][page.Page][:8<<10], int64(page.Page)*16<<10); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if err := in.pages.Verify(readPage(t, in, name, page.Page), page.Page); err == nil {
			t.Fatal("the page is not torn")
		}
		again := in.preparation(t, false)
		if err := again.rollBackPrepared(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkMixed(t, in, again)
	}
}

func readPage(t testing.TB, in *undoInstance, name string, no format.PageNo) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join(in.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, in.pages.Physical)
	if _, err := f.ReadAt(page, int64(no)*int64(len(page))); err != nil {
		t.Fatal(err)
	}
	return page
}

// G1, P8: what leads nowhere is an error that names the page, and nothing is
// changed.
func TestRollBackPreparedDamage(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(in *undoInstance)
		want  error
		at    string
	}{
		{"rollback segment in a missing tablespace", func(in *undoInstance) { in.rollbackSegment(1, 7, 3) }, ErrIncomplete, "space 7 page 3"},
		{"rollback segment behind the end", func(in *undoInstance) { in.rollbackSegment(1, 0, undoPages) }, ErrDamaged, "ibdata1: space 0 page 16"},
		{"rollback segment far behind the end", func(in *undoInstance) { in.rollbackSegment(1, undoSpace, 0xFFFFFFFE) }, ErrDamaged, "undo001: space 1 page 4294967294"},
		{"rollback segment twice", func(in *undoInstance) { in.rollbackSegment(1, undoSpace, rsegPage) }, ErrDamaged, "undo001: space 1 page 6"},
		{"TRX_SYS as a rollback segment", func(in *undoInstance) { in.rollbackSegment(1, 0, 5) }, ErrDamaged, "ibdata1: space 0 page 5"},
		{"undo segment behind the end", func(in *undoInstance) { in.segment("undo001", 9, undoPages) }, ErrDamaged, "undo001: space 1 page 16"},
		{"undo segment twice", func(in *undoInstance) { in.segment("undo001", 9, 8) }, ErrDamaged, "undo001: space 1 page 8"},
		{"rollback segment as its own undo segment", func(in *undoInstance) { in.segment("undo001", 9, rsegPage) }, ErrDamaged, "undo001: space 1 page 6"},
		{"page that is none of undo", func(in *undoInstance) { in.segment("ibdata1", 9, 12) }, ErrDamaged, "ibdata1: space 0 page 12"},
		{"state", func(in *undoInstance) { innodb.SetUndoState(in.files["undo001"][8], 9) }, ErrDamaged, "undo001: space 1 page 8"},
		{"header past the end", func(in *undoInstance) { in.files["undo001"][8][58] = 0xFF }, ErrDamaged, "undo001: space 1 page 8"},
		{"newer than the end", func(in *undoInstance) { innodb.SetLSN(in.files["undo001"][15], undoEnd+1) }, ErrDamaged, "undo001: space 1 page 15"},
		{"encrypted", func(in *undoInstance) { binary.BigEndian.PutUint32(in.files["undo001"][15], 1) }, ErrEncrypted, "undo001: space 1 page 15"},
		{"never written", func(in *undoInstance) { clear(in.files["undo001"][15]) }, ErrDamaged, "undo001: space 1 page 15"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := mixed(t, 16<<10, true)
			c.spoil(in)
			unwritten := innodb.IsZero(in.files["undo001"][15])
			in.write(t)
			if unwritten {
				clear(in.files["undo001"][15])
				if err := os.WriteFile(filepath.Join(in.dir, "undo001"), bytes.Join(in.files["undo001"], nil), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := in.preparation(t, false).rollBackPrepared(t.Context())
			var page *PageError
			if !errors.Is(err, c.want) || !errors.As(err, &page) || !strings.Contains(err.Error(), c.at) {
				t.Errorf("got %v, want %v that names %q", err, c.want, c.at)
			}
			if got := slices.Concat(in.changed(t, "ibdata1"), in.changed(t, "undo001")); len(got) > 0 {
				t.Errorf("pages %v were changed", got)
			}
		})
	}
	t.Run("checksum", func(t *testing.T) {
		in := mixed(t, 16<<10, true)
		if err := flipByte(filepath.Join(in.dir, "undo001"), 8*16<<10+5000); err != nil {
			t.Fatal(err)
		}
		var page *PageError
		if err := in.preparation(t, false).rollBackPrepared(t.Context()); !errors.Is(err, ErrDamaged) || !errors.As(err, &page) || page.Page != 8 {
			t.Errorf("got %v, want ErrDamaged that names page 8", err)
		}
	})
}

// P8: whatever the pages hold, sealed so that they pass for the server's, there is
// an error that names one of them, or nothing is left prepared and nothing but
// states was changed.
func FuzzUndoWalk(f *testing.F) {
	in := mixed(f, innodb.MinPageSize, true)
	body := func(name string, no int) []byte { return in.files[name][no][24 : innodb.MinPageSize-8] }
	f.Add(body("ibdata1", int(innodb.TrxSysPage)), body("ibdata1", rsegPage), body("ibdata1", 8), body("undo001", rsegPage), body("undo001", 15))
	f.Add(body("ibdata1", int(innodb.TrxSysPage)), body("undo001", rsegPage), body("ibdata1", 9), body("undo001", rsegPage), body("undo001", 8))
	f.Add([]byte{}, []byte{}, []byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, trxSys, rseg0, undo0, rseg1, undo1 []byte) {
		in := mixed(t, innodb.MinPageSize, true)
		for _, p := range []struct {
			name string
			no   int
			body []byte
		}{{"ibdata1", int(innodb.TrxSysPage), trxSys}, {"ibdata1", rsegPage, rseg0}, {"ibdata1", 8, undo0}, {"undo001", rsegPage, rseg1}, {"undo001", 15, undo1}} {
			copy(in.files[p.name][p.no][24:innodb.MinPageSize-8], p.body)
			binary.BigEndian.PutUint32(in.files[p.name][p.no][4:], uint32(p.no))
		}
		in.write(t)
		p := in.preparation(t, true)
		err := p.rollBackPrepared(context.Background())
		in.changed(t, "ibdata1")
		in.changed(t, "undo001")
		var page *PageError
		if err != nil && (!errors.As(err, &page) || !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrIncomplete) && !errors.Is(err, ErrEncrypted)) {
			t.Errorf("%v does not say which page is damaged", err)
		}
	})
}
