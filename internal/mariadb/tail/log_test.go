package tail

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xbstream/xbstream/format"
	ondisk "github.com/xbstream/xbstream/internal/mariadb/redo"
	"github.com/xbstream/xbstream/redotail"
)

// open opens a ring that the test writes between reads, never during one.
func open(t *testing.T, dir string) *Log {
	t.Helper()
	l := openLive(t, dir)
	l.Written(math.MaxUint64)
	return l
}

// openLive opens a log that a server writes.
func openLive(t *testing.T, dir string) *Log {
	t.Helper()
	l, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// readAll reads to the tip and checks that pieces join.
func readAll(t *testing.T, l *Log) []byte {
	t.Helper()
	var all []byte
	for {
		want := l.lsn
		p, err := l.Read(t.Context())
		if errors.Is(err, redotail.ErrTip) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if p.LSN != want || len(p.Data) == 0 {
			t.Fatalf("piece at %v of %d bytes, want one at %v", p.LSN, len(p.Data), want)
		}
		all = append(all, p.Data...)
	}
}

// A read in the middle of the server's write of its last block may see old
// mini-transactions of this lap where new ones are about to be. They are valid
// in themselves and must not be taken.
func TestHalfWrittenBlockIsNotTaken(t *testing.T) {
	const first = 50000
	w := newRing(t, plainHeader(first), 1<<20, first)
	l := openLive(t, w.dir)
	w.fill(first + 1000)
	l.Written(w.lsn)
	readAll(t, l) // the log's own start
	want := w.fill(first + 31000)
	got := readAll(t, l)
	if len(got) < 30000-2*guardSize {
		t.Fatalf("%d bytes of 30000 read before the last block", len(got))
	}
	// What the half-written block shows after the first 30000 bytes.
	real := w.lsn
	w.fill(real + 300)
	w.lsn = real
	if got = append(got, readAll(t, l)...); len(got) > 30000 {
		t.Fatalf("%d bytes taken, %d were written", len(got), 30000)
	}
	// The server's write is finished, and goes on into further blocks.
	want = append(want, w.write(pageRecord(1000, 77))...)
	want = append(want, w.fill(real+20000)...)
	got = append(got, readAll(t, l)...)
	if len(got) < len(want)-2*guardSize || !bytes.HasPrefix(want, got) {
		t.Fatalf("%d bytes read, not those written", len(got))
	}
	// The rest is taken on the server's word, and not before.
	if _, err := l.Read(t.Context()); !errors.Is(err, redotail.ErrTip) {
		t.Fatal(err)
	}
	l.Written(w.lsn)
	if got = append(got, readAll(t, l)...); !bytes.Equal(got, want) {
		t.Fatalf("%d bytes read, %d written", len(got), len(want))
	}
}

func encryptedHeader(first format.LSN) ondisk.Header {
	h := plainHeader(first)
	h.Magic, h.Encryption = ondisk.MagicEncrypted, ondisk.Encryption{3: 1, 7: 1, 8: 0xAB}
	return h
}

func TestWrapAtEverySplit(t *testing.T) {
	const capacity, first = 16384, 50000
	for name, header := range map[string]ondisk.Header{"plain": plainHeader(first), "encrypted": encryptedHeader(first)} {
		records := pageRecord(60, 7)
		// On an odd lap as well: there the marker is 0 and must become 1.
		for _, lap := range []format.LSN{1, 2} {
			for split := 0; split <= 60+5+8; split++ {
				start := first + lap*capacity - 1000
				w := newRing(t, header, capacity, start)
				l := open(t, w.dir)
				var want []byte
				want = append(want, l.begun.encode(w)...)
				want = append(want, w.fill(first+lap*capacity-format.LSN(split))...)
				want = append(want, w.write(records)...)
				want = append(want, w.write(pageRecord(100, 8))...)
				if got := readAll(t, l); !bytes.Equal(got, want) || l.lsn != w.lsn {
					t.Fatalf("%s, lap %v, split at %d: %d bytes up to %v, want %d up to %v",
						name, lap, split, len(got), l.lsn, len(want), w.lsn)
				}
			}
		}
	}
}

// encode returns the FILE_CHECKPOINT newRing wrote.
func (c startMark) encode(w *ringWriter) []byte {
	return w.mtr(ondisk.AppendFileRecord(nil, ondisk.FileRecord{Op: ondisk.FileCheckpoint, Checkpoint: c.checkpoint.LSN}), 1)
}

func TestManyLapsPieceByPiece(t *testing.T) {
	const capacity, first = 16384, 50000
	w := newRing(t, plainHeader(first), capacity, first)
	l := open(t, w.dir)
	want := l.begun.encode(w)
	var got []byte
	for w.lsn < first+20*capacity {
		from := w.lsn
		want = append(want, w.fill(from+5000)...)
		want = append(want, w.checkpoint(from)...)
		got = append(got, readAll(t, l)...)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%d bytes differ from %d written", len(got), len(want))
	}
	if l.Checkpoint() != l.newest.LSN || l.Checkpoint() < first+19*capacity {
		t.Errorf("newest checkpoint %v", l.Checkpoint())
	}
}

func TestLappedIsNamed(t *testing.T) {
	const capacity, first = 65536, 50000
	for _, c := range []struct {
		name        string
		ahead       format.LSN // how far the server writes beyond the reader
		checkpoints format.LSN // how far behind that its last checkpoint is
		lost        bool
	}{
		{"ahead of the checkpoint", 30000, 30000, false},
		{"behind the checkpoint", 40000, 10000, false},
		{"nearly a lap", capacity - 2*guardSize, 10000, false},
		{"a byte into the guard", capacity - guardSize + 16, 10000, true},
		{"one lap, checkpoint less", capacity + 1000, 10000, true},
		{"one lap and a half", capacity * 3 / 2, 1000, true},
		{"two laps exactly", 2 * capacity, 20000, true},
		{"six laps", 6*capacity + 500, 20000, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newRing(t, plainHeader(first), capacity, first)
			l := open(t, w.dir)
			w.fill(first + 20000)
			w.checkpoint(first + 20000)
			readAll(t, l)
			at := l.lsn
			w.fill(at + c.ahead)
			if c.checkpoints < c.ahead {
				w.checkpoint(w.lsn - c.checkpoints)
			}
			p, err := l.Read(t.Context())
			if !c.lost {
				if err != nil || p.LSN != at {
					t.Fatalf("%v, %v", p.LSN, err)
				}
				return
			}
			var overrun *redotail.OverrunError
			if !errors.As(err, &overrun) || !errors.Is(err, redotail.ErrOverrun) {
				t.Fatalf("piece of %d bytes, %v; want an overrun", len(p.Data), err)
			}
			if overrun.Lost != at || overrun.Checkpoint != l.Checkpoint() || !strings.Contains(err.Error(), at.String()) {
				t.Fatalf("%+v (%v), lost %v", overrun, err, at)
			}
		})
	}
}

// The checkpoint passes the reader before it has read anything, in every part
// of the ring: what it held before the first byte is then the only proof.
func TestCheckpointPassesAReaderThatJustOpened(t *testing.T) {
	const capacity, first = 65536, 50000
	for at := format.LSN(first); at < first+3*capacity; at += 1000 {
		w := newRing(t, plainHeader(first), capacity, first)
		w.fill(at + 100)
		w.checkpoint(w.lsn)
		l := open(t, w.dir)
		from := l.lsn
		w.fill(w.lsn + 30000)
		w.checkpoint(w.lsn - 500)
		if p, err := l.Read(t.Context()); err != nil || p.LSN != from || p.End() != w.lsn {
			t.Fatalf("opened at %v: %v to %v, %v", from, p.LSN, p.End(), err)
		}
	}
}

// The trap the guard is for: the server stands within a block of the reader's
// position, one lap on, and the garbage that fills its last block happens to
// hold an old mini-transaction with the right sequence bit, just there.
func TestGarbageBehindTheLastWriteIsNotTakenForRedo(t *testing.T) {
	const capacity, first = 65536, 50000
	w := newRing(t, plainHeader(first), capacity, first)
	l := open(t, w.dir)
	w.fill(first + 20000)
	w.checkpoint(first + 20000)
	readAll(t, l)
	at := l.lsn
	bit := w.ring.SeqBit(at)
	w.fill(at + capacity - 1000)
	w.checkpoint(w.lsn - 2000)
	stop := w.lsn
	w.lsn = at + capacity
	w.put(ondisk.AppendMTR(nil, pageRecord(80, 99), bit))
	if m, err := ondisk.ScanMTR(ringBytes(t, w, at, 100), false); err != nil || m.Marker != bit {
		t.Fatalf("the trap is not set: %+v, %v", m, err)
	}
	if l.newest.EndLSN >= at+capacity || stop >= at+capacity {
		t.Fatal("the end LSN alone would tell")
	}
	if p, err := l.Read(t.Context()); !errors.Is(err, redotail.ErrOverrun) {
		t.Fatalf("piece of %d bytes, %v", len(p.Data), err)
	}
}

func ringBytes(t *testing.T, w *ringWriter, at format.LSN, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := w.file.ReadAt(b, w.ring.Offset(at)); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTornTailIsReadLater(t *testing.T) {
	const first = 50000
	w := newRing(t, plainHeader(first), 65536, first)
	l := open(t, w.dir)
	readAll(t, l)
	mtr := w.mtr(pageRecord(300, 1), 1)
	for cut := range len(mtr) {
		w.put(mtr[:cut])
		if p, err := l.Read(t.Context()); !errors.Is(err, redotail.ErrTip) {
			t.Fatalf("%d of %d bytes: %d taken, %v", cut, len(mtr), len(p.Data), err)
		}
	}
	w.put(mtr)
	if got := readAll(t, l); !bytes.Equal(got, mtr) {
		t.Fatalf("%d bytes, want %d", len(got), len(mtr))
	}
}

// When the last write ends with its block there is no NUL behind it, but the
// log of a lap ago, and that may go on with a whole mini-transaction.
func TestRedoOfThePreviousLapIsNotTaken(t *testing.T) {
	const capacity, first = 64000, 50000
	w := newRing(t, plainHeader(first), capacity, first)
	w.lsn = first
	records := pageRecord(95, 1) // 640 mini-transactions of 100 bytes a lap
	for w.lsn < first+capacity {
		w.put(w.mtr(records, 1))
		w.lsn += 100
	}
	w.block(ondisk.Checkpoint{LSN: first + capacity - 200, EndLSN: first + capacity - 200})
	l := open(t, w.dir)
	l.begun.end = 1 // there is no FILE_CHECKPOINT in this log
	readAll(t, l)
	for range 10 {
		w.put(w.mtr(records, 0))
		w.lsn += 100
	}
	readAll(t, l)
	if m, err := ondisk.ScanMTR(ringBytes(t, w, w.lsn, 100), false); err != nil || m.Marker != 1 {
		t.Fatalf("no mini-transaction of the previous lap there: %+v, %v", m, err)
	}
	if l.lsn != w.lsn {
		t.Fatalf("read up to %v, written up to %v", l.lsn, w.lsn)
	}
}

func TestLargestMiniTransaction(t *testing.T) {
	const first = 50000
	w := newRing(t, plainHeader(first), 8<<20, first)
	l := open(t, w.dir)
	readAll(t, l) // leaves the reader at its smallest read size
	mtr := w.mtr(pageRecord(ondisk.MaxMTR-1, 1), 1)
	w.put(mtr)
	if got := readAll(t, l); !bytes.Equal(got, mtr) {
		t.Fatalf("%d bytes, want %d", len(got), len(mtr))
	}
}

func TestDamageBelowTheCheckpointIsNoTip(t *testing.T) {
	const first = 50000
	w := newRing(t, plainHeader(first), 65536, first)
	l := open(t, w.dir)
	l.patience = 50 * time.Millisecond
	w.fill(first + 5000)
	readAll(t, l)
	at := l.lsn
	w.fill(at + 9000)
	w.checkpoint(at + 9000)
	w.writeAt(w.file, []byte{0xFF, 0xFF}, w.ring.Offset(at)+30)
	_, err := l.Read(t.Context())
	var damaged *redotail.DamagedError
	// The first read may take it for the tip: it learns of the checkpoint
	// only afterwards.
	if errors.Is(err, redotail.ErrTip) {
		_, err = l.Read(t.Context())
	}
	if !errors.As(err, &damaged) || damaged.LSN != at {
		t.Fatalf("%v, want damage at %v", err, at)
	}
}

func TestHeaderThatChangesIsDamage(t *testing.T) {
	const first = 50000
	w := newRing(t, plainHeader(first), 65536, first)
	l := open(t, w.dir)
	other := plainHeader(first - 512).Encode()
	w.writeAt(w.file, other[:], 0)
	if _, err := l.Read(t.Context()); !errors.Is(err, redotail.ErrDamaged) {
		t.Fatal(err)
	}
}

func TestTornCheckpointBlocks(t *testing.T) {
	const first = 50000
	w := newRing(t, plainHeader(first), 65536, first)
	w.fill(first + 2000)
	w.checkpoint(first + 1000 - 1000)
	l := open(t, w.dir)
	readAll(t, l)
	w.writeAt(w.file, []byte{0xFF}, ondisk.Checkpoint2+3)
	if _, err := l.Read(t.Context()); !errors.Is(err, redotail.ErrTip) {
		t.Fatalf("one block torn: %v", err)
	}
	w.writeAt(w.file, []byte{0xFF}, ondisk.Checkpoint1+3)
	if _, err := l.Read(t.Context()); !errors.Is(err, ondisk.ErrNoCheckpoint) {
		t.Fatalf("both torn: %v", err)
	}
}

func TestStartComplete(t *testing.T) {
	const first = 50000
	modify := ondisk.AppendFileRecord(nil, ondisk.FileRecord{Op: ondisk.FileModify, Space: 7, Name: "./d/t.ibd"})
	mark := func(at format.LSN) []byte {
		return ondisk.AppendFileRecord(nil, ondisk.FileRecord{Op: ondisk.FileCheckpoint, Checkpoint: at})
	}
	for _, c := range []struct {
		name string
		// after the pages come these, at the end LSN
		mtrs [][]byte
		ok   bool
	}{
		{"alone", [][]byte{mark(first)}, true},
		{"names first", [][]byte{modify, append(bytes.Clone(modify), mark(first)...)}, true},
		{"another checkpoint's first", [][]byte{mark(first - 9), mark(first)}, true},
		{"a page first", [][]byte{pageRecord(50, 1), mark(first)}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newRing(t, plainHeader(first), 65536, first)
			w.lsn = first
			w.fill(first + 1000)
			w.block(ondisk.Checkpoint{LSN: first, EndLSN: first + 1000})
			w.blocks = 0
			w.block(ondisk.Checkpoint{LSN: first, EndLSN: first + 1000})
			l := open(t, w.dir)
			if p, err := l.Read(t.Context()); err != nil || p.LSN != first {
				t.Fatalf("%v, %v", p.LSN, err)
			}
			if lsn, ok := l.StartComplete(); ok {
				t.Fatalf("complete at %v before the mark", lsn)
			}
			for _, m := range c.mtrs {
				w.write(m)
			}
			_, err := l.Read(t.Context())
			if !c.ok {
				if !errors.Is(err, errNoFileCheckpoint) || !errors.Is(err, redotail.ErrDamaged) {
					t.Fatal(err)
				}
				return
			}
			if lsn, ok := l.StartComplete(); err != nil || !ok || lsn != w.lsn {
				t.Fatalf("complete %v at %v, want %v; %v", ok, lsn, w.lsn, err)
			}
		})
	}
}

func TestResizeGoesOnInTheNewFile(t *testing.T) {
	const first = 50000
	for _, capacity := range []int64{16384, 65536, 131072} {
		w := newRing(t, plainHeader(first), 65536, first)
		l := open(t, w.dir)
		want := l.begun.encode(w)
		want = append(want, w.fill(first+70000-5000)...)
		got := readAll(t, l)
		// The new file begins in the middle of what was not read yet.
		want = append(want, w.fill(first+70000)...)
		w.header.FirstLSN = w.lsn
		both, second := w.lsn, pageRecord(500, 5)
		want = append(want, w.write(second)...) // to the old file
		w.lsn = both
		w.create("ib_logfile101", capacity)
		w.write(second) // and to the new one
		w.checkpoint(both)
		if err := os.Rename(filepath.Join(w.dir, "ib_logfile101"), filepath.Join(w.dir, logName)); err != nil {
			t.Fatal(err)
		}
		want = append(want, ondisk.AppendMTR(nil, ondisk.AppendFileRecord(nil, ondisk.FileRecord{Op: ondisk.FileCheckpoint, Checkpoint: both}), 1)...)
		want = append(want, w.fill(w.lsn+10000)...)
		// The checkpoint passes the reader before it comes to the new file.
		want = append(want, w.checkpoint(w.lsn-100)...)
		got = append(got, readAll(t, l)...)
		if !bytes.Equal(got, want) || l.ring != w.ring {
			t.Fatalf("resize to %d: %d bytes, want %d; ring %+v", capacity, len(got), len(want), l.ring)
		}
	}
}

func TestResizeThatSkipsRedoIsOverrun(t *testing.T) {
	const first = 50000
	w := newRing(t, plainHeader(first), 65536, first)
	l := open(t, w.dir)
	readAll(t, l)
	at := l.lsn
	w.lsn = at + 1000
	w.header.FirstLSN = w.lsn
	w.create("ib_logfile101", 65536)
	w.checkpoint(w.lsn)
	if err := os.Rename(filepath.Join(w.dir, "ib_logfile101"), filepath.Join(w.dir, logName)); err != nil {
		t.Fatal(err)
	}
	var overrun *redotail.OverrunError
	if _, err := l.Read(t.Context()); !errors.As(err, &overrun) || overrun.Lost != at {
		t.Fatal(err)
	}
}

// The new file was lapped before the reader came to it.
func TestResizeAndThenLappedIsOverrun(t *testing.T) {
	const first, capacity = 50000, 16384
	w := newRing(t, plainHeader(first), 65536, first)
	l := open(t, w.dir)
	readAll(t, l)
	at := l.lsn
	w.header.FirstLSN = at
	w.create("ib_logfile101", capacity)
	w.fill(at + 2*capacity + 500)
	w.checkpoint(w.lsn - 1000)
	if err := os.Rename(filepath.Join(w.dir, "ib_logfile101"), filepath.Join(w.dir, logName)); err != nil {
		t.Fatal(err)
	}
	var overrun *redotail.OverrunError
	if _, err := l.Read(t.Context()); !errors.As(err, &overrun) || overrun.Lost != at || overrun.Capacity != capacity {
		t.Fatal(err)
	}
}

func TestLogThatVanishesIsAnError(t *testing.T) {
	w := newRing(t, plainHeader(50000), 65536, 50000)
	l := open(t, w.dir)
	readAll(t, l)
	if err := os.Remove(filepath.Join(w.dir, logName)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Read(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

// G4: SET GLOBAL innodb_log_archive=ON renames the log that is being read, and
// then writes checkpoints of another form where its header was.
func TestSwitchToAnArchivedLogIsNamed(t *testing.T) {
	for _, rewritten := range []bool{false, true} {
		w := newRing(t, plainHeader(50000), 1<<20, 50000)
		l := open(t, w.dir)
		w.fill(60000)
		readAll(t, l)
		const name = "ib_000000000000c350.log"
		if err := os.Rename(filepath.Join(w.dir, logName), filepath.Join(w.dir, name)); err != nil {
			t.Fatal(err)
		}
		if rewritten {
			f, err := os.OpenFile(filepath.Join(w.dir, name), os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt(make([]byte, 12288), 0)
			}
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}
		_, err := l.Read(t.Context())
		if !errors.Is(err, ondisk.ErrUnsupported) || !strings.Contains(err.Error(), "innodb_log_archive was switched ON during the backup") || !strings.Contains(err.Error(), name) {
			t.Errorf("header rewritten %t: %v", rewritten, err)
		}
	}
}

func TestCutIsTheFirstNotBelow(t *testing.T) {
	const first = 50000
	w := newRing(t, plainHeader(first), 65536, first)
	ends := []format.LSN{first, w.lsn}
	for i := range 20 {
		w.write(pageRecord(30+i, uint64(i)))
		ends = append(ends, w.lsn)
	}
	l := open(t, w.dir)
	p, err := l.Read(t.Context())
	if err != nil || p.End() != w.lsn {
		t.Fatalf("%v, %v", p.End(), err)
	}
	for at := p.LSN; at <= p.End(); at++ {
		for ends[0] < at {
			ends = ends[1:]
		}
		if got := l.Cut(p, at).End(); got != ends[0] {
			t.Fatalf("boundary from %v: %v, want %v", at, got, ends[0])
		}
	}
}

func TestFileRecordsAreReported(t *testing.T) {
	const first = 50000
	w := newRing(t, plainHeader(first), 65536, first)
	at := w.lsn
	w.write(ondisk.AppendFileRecord(nil, ondisk.FileRecord{Op: ondisk.FileRename, Space: 8, Name: "./d/a.ibd", NewName: "./d/b.ibd"}))
	l := open(t, w.dir)
	p, err := l.Read(t.Context())
	want := redotail.FileRecord{Op: redotail.FileRenamed, LSN: at, Space: 8, Name: "./d/b.ibd", OldName: "./d/a.ibd"}
	if err != nil || len(p.Files) != 1 || p.Files[0] != want {
		t.Fatalf("%+v, %v", p.Files, err)
	}
}

func TestOpenRefusesByName(t *testing.T) {
	old := ondisk.Header{Magic: 0x50485953, FirstLSN: 50000, Creator: "MariaDB 10.6.16"}.Encode()
	torn := plainHeader(50000).Encode()
	torn[100] = 1
	for _, c := range []struct {
		name, file string
		content    []byte
		size       int64
		is         error
		names      string
	}{
		{"10.6", logName, old[:], 1 << 20, ondisk.ErrUnsupported, "MariaDB 10.6.16"},
		{"10.6, tiny", logName, old[:], 512, ondisk.ErrUnsupported, "10.5 to 10.7"},
		{"archive", "ib_0000000012288.log", nil, 4096, ondisk.ErrUnsupported, "innodb_log_archive"},
		{"nothing", "ibdata1", nil, 4096, os.ErrNotExist, logName},
		{"torn for good", logName, torn[:], 1 << 20, ondisk.ErrChecksum, logName},
		{"empty", logName, nil, 0, ondisk.ErrChecksum, "0 bytes"},
	} {
		dir := t.TempDir()
		name := filepath.Join(dir, c.file)
		if err := os.WriteFile(name, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(name, c.size); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), dir)
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.names) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestReadStopsWithItsContext(t *testing.T) {
	w := newRing(t, plainHeader(50000), 65536, 50000)
	l := open(t, w.dir)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := l.Read(ctx); !errors.Is(err, cause) {
		t.Fatal(err)
	}
}

func TestIdlePollIsCheap(t *testing.T) {
	w := newRing(t, plainHeader(50000), 8<<20, 50000)
	l := open(t, w.dir)
	readAll(t, l)
	before := l.size
	allocs := testing.AllocsPerRun(1000, func() {
		if _, err := l.Read(t.Context()); !errors.Is(err, redotail.ErrTip) {
			t.Fatal(err)
		}
	})
	// What a poll may cost is counted, not timed: a few KiB read, and next
	// to nothing allocated.
	if before != readMin || l.size != readMin || allocs > 8 {
		t.Errorf("an idle poll reads %d bytes and allocates %v times", l.size, allocs)
	}
}

func BenchmarkIdlePoll(b *testing.B) {
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, logName), ondisk.MinimalLog(50000, "MariaDB 10.11.19"), 0o600); err != nil {
		b.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, logName), 8<<20); err != nil {
		b.Fatal(err)
	}
	l, err := Open(b.Context(), dir)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	for b.Loop() {
		if _, err := l.Read(b.Context()); err != nil && !errors.Is(err, redotail.ErrTip) {
			b.Fatal(err)
		}
	}
}
