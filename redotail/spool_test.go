package redotail

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/xbstream/xbstream/format"
)

// piece returns n bytes that say where they belong.
func piece(lsn format.LSN, n int) Piece {
	p := Piece{LSN: lsn, Data: make([]byte, n)}
	for i := range p.Data {
		p.Data[i] = byte(uint64(lsn)+uint64(i)) ^ byte((uint64(lsn)+uint64(i))>>8)
	}
	return p
}

// takeAll takes pieces until the spool is empty, which put must have ended,
// and checks bytes and order from LSN lsn on.
func takeAll(t *testing.T, s *spool, lsn format.LSN) format.LSN {
	t.Helper()
	for {
		p, err := s.take(t.Context())
		if err == io.EOF {
			return lsn
		}
		if err != nil {
			t.Fatal(err)
		}
		checkPiece(t, p, lsn)
		lsn = p.End()
	}
}

func checkPiece(t *testing.T, p Piece, lsn format.LSN) {
	t.Helper()
	if p.LSN != lsn || !bytes.Equal(p.Data, piece(lsn, len(p.Data)).Data) {
		t.Fatalf("piece at %v of %d bytes, want LSN %v and its bytes", p.LSN, len(p.Data), lsn)
	}
}

func openSpool(t *testing.T, dir string, mem, file int64) *spool {
	s := newSpool(dir, mem, file)
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestSpoolKeepsOrderThroughMemoryAndFile(t *testing.T) {
	for _, limits := range [][2]int64{{1 << 20, 1 << 20}, {1000, 5000}, {1, 5000}, {100, 2100}} {
		s := openSpool(t, t.TempDir(), limits[0], limits[1])
		rnd := rand.New(rand.NewPCG(1, 2))
		put, taken := format.LSN(7), format.LSN(7)
		for range 5000 {
			// Laps the file's ring many times, in all proportions of the two.
			if n := 1 + rnd.IntN(900); rnd.IntN(2) == 0 && int64(put-taken)+int64(n) < limits[1]/2 {
				if err := s.put(piece(put, n)); err != nil {
					t.Fatalf("limits %v: %v", limits, err)
				}
				put += format.LSN(n)
			} else if taken < put {
				p, err := s.take(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				checkPiece(t, p, taken)
				taken = p.End()
			}
		}
		s.finish(nil)
		if end := takeAll(t, s, taken); end != put {
			t.Fatalf("limits %v: ends at %v, want %v", limits, end, put)
		}
		mem, file, peak := s.held()
		if mem != 0 || file != 0 {
			t.Errorf("limits %v: %d and %d bytes left", limits, mem, file)
		}
		if spills := limits[0] < 1<<20; spills != (peak > 0) || peak > limits[1] {
			t.Errorf("limits %v: the file held up to %d", limits, peak)
		}
	}
}

// A log of blocks has more LSNs than bytes of redo.
func TestSpoolKeepsFraming(t *testing.T) {
	for _, memory := range []int64{1 << 20, 1} {
		s := openSpool(t, t.TempDir(), memory, 1<<20)
		end := format.LSN(500)
		for i := range 10 {
			p := Piece{LSN: end, Data: make([]byte, 100), Framing: 16 * i}
			if err := s.put(p); err != nil {
				t.Fatal(err)
			}
			end = p.End()
		}
		s.finish(nil)
		at := format.LSN(500)
		for at < end {
			p, err := s.take(t.Context())
			if err != nil || p.LSN != at {
				t.Fatalf("a piece at %v, want %v: %v", p.LSN, at, err)
			}
			at = p.End()
		}
		if at != end {
			t.Errorf("pieces end at %v, want %v", at, end)
		}
	}
}

func TestSpoolJoinsSmallPiecesInMemory(t *testing.T) {
	s := openSpool(t, t.TempDir(), 1<<30, 0)
	for i := range 1000 {
		if err := s.put(piece(format.LSN(100+i*3000), 3000)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.mem); n != 3 {
		t.Errorf("%d pieces of 3 MB in all, want 3", n)
	}
	s.finish(nil)
	if end := takeAll(t, s, 100); end != 100+3000*1000 {
		t.Errorf("ends at %v", end)
	}
}

func TestSpoolFull(t *testing.T) {
	dir := t.TempDir()
	s := openSpool(t, dir, 1000, 3000)
	lsn := format.LSN(1)
	for _, n := range []int{1000, 1000, 1000, 900} {
		if err := s.put(piece(lsn, n)); err != nil {
			t.Fatal(err)
		}
		lsn += format.LSN(n)
	}
	if err := s.put(piece(lsn, 100)); !errors.Is(err, ErrSpoolFull) {
		t.Fatalf("over the limit: %v", err)
	}
	// What it held is whole.
	s.finish(nil)
	if end := takeAll(t, s, 1); end != lsn {
		t.Fatalf("ends at %v, want %v", end, lsn)
	}
}

func TestSpoolWithoutFile(t *testing.T) {
	dir := t.TempDir()
	s := openSpool(t, dir, 1000, -1)
	if err := s.put(piece(1, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := s.put(piece(1001, 1)); !errors.Is(err, ErrSpoolFull) || s.file != nil {
		t.Fatalf("no file allowed: %v", err)
	}
}

func TestSpoolLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	s := openSpool(t, dir, 1, 10000)
	if err := s.put(piece(1, 5000)); err != nil {
		t.Fatal(err)
	}
	if names, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(names) != 0 {
		t.Fatalf("in the directory: %v, %v", names, err)
	}
	// Emptied, the file gives its space back with the next piece.
	if _, err := s.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.put(piece(5001, 10)); err != nil {
		t.Fatal(err)
	}
	if info, err := s.file.Stat(); err != nil || info.Size() != recordHeader+10 {
		t.Fatalf("file of %d bytes, %v", info.Size(), err)
	}
}

func TestSpoolDirectoryMissing(t *testing.T) {
	s := openSpool(t, filepath.Join(t.TempDir(), "none"), 1, 10000)
	if err := s.put(piece(1, 5000)); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestSpoolFailureComesBeforeWhatIsLeft(t *testing.T) {
	s := openSpool(t, t.TempDir(), 1000, 10000)
	if err := s.put(piece(1, 10)); err != nil {
		t.Fatal(err)
	}
	lost := errors.New("lost")
	s.finish(lost)
	s.finish(nil)
	if p, err := s.take(t.Context()); !errors.Is(err, lost) {
		t.Fatalf("%+v, %v", p, err)
	}
}

func TestSpoolTakeStopsWithItsContext(t *testing.T) {
	s := openSpool(t, t.TempDir(), 1000, 10000)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if _, err := s.take(ctx); !errors.Is(err, cause) {
		t.Fatal(err)
	}
}

func TestSpoolTwoEndsAtOnce(t *testing.T) {
	s := openSpool(t, t.TempDir(), 20000, 1<<20)
	const pieces = 3000
	end := make(chan format.LSN, 1)
	go func() {
		lsn := format.LSN(1)
		rnd := rand.New(rand.NewPCG(3, 4))
		for range pieces {
			p := piece(lsn, 1+rnd.IntN(3000))
			err := s.put(p)
			for errors.Is(err, ErrSpoolFull) { // the real one gives up here
				err = s.put(p)
			}
			if err != nil {
				s.finish(err)
				break
			}
			lsn = p.End()
		}
		s.finish(nil)
		end <- lsn
	}()
	got := takeAll(t, s, 1)
	if want := <-end; got != want {
		t.Fatalf("ends at %v, want %v", got, want)
	}
}

func TestFileChangesKeepsTheLastPerSpace(t *testing.T) {
	c := fileChanges{}
	for _, r := range []FileRecord{
		{FileModified, 10, 1, "./d/old.ibd", ""},
		{FileCreated, 20, 2, "./d/new.ibd", ""},
		{FileRenamed, 30, 2, "./d/other.ibd", "./d/new.ibd"},
		{FileModified, 35, 2, "./d/other.ibd", ""},
		{FileDeleted, 40, 1, "./d/old.ibd", ""},
		{FileDeleted, 50, 3, "./d/three.ibd", ""},
		{FileModified, 60, 3, "./d/three.ibd", ""},
		{FileModified, 70, 3, "./d/three.ibd", ""},
		{FileRenamed, 80, 4, "./d/b.ibd", "./d/a.ibd"},
	} {
		c.add(r)
	}
	c.add(FileRecord{Op: FileLoaded, LSN: 90, Space: 4})
	c.add(FileRecord{Op: FileLoaded, LSN: 95, Space: 5})
	for id, loaded := range map[format.SpaceID]bool{1: false, 4: true, 5: true} {
		if f := c[id]; f.Loaded.IsZero() == loaded {
			t.Errorf("space %v: %+v", id, f)
		}
	}
	delete(c, 5)
	if f := c[4]; f.Op != FileRenamed {
		t.Errorf("an index was built, and the name is forgotten: %+v", f)
	}
	c[4] = FileChange{FileRecord: c[4].FileRecord}
	want := []FileChange{
		{FileRecord: FileRecord{FileRenamed, 30, 2, "./d/other.ibd", "./d/new.ibd"}, Created: 20},
		{FileRecord: FileRecord{FileDeleted, 40, 1, "./d/old.ibd", ""}, Created: 0},
		{FileRecord: FileRecord{FileModified, 70, 3, "./d/three.ibd", ""}, Created: 0},
		{FileRecord: FileRecord{FileRenamed, 80, 4, "./d/b.ibd", "./d/a.ibd"}, Created: 0},
	}
	got := c.list()
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%d: %+v, want %+v", i, got[i], want[i])
		}
	}
}
