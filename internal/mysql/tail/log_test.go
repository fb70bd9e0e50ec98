package tail

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	ondisk "github.com/xbstream/xbstream/internal/mysql/redo"
	"github.com/xbstream/xbstream/internal/servertest"
	"github.com/xbstream/xbstream/redotail"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const (
	firstLSN = 100 * ondisk.BlockSize
	fileSize = 64 << 10
)

// writer writes a log as a server does: block after block, the last one again and
// again, file after file.
type writer struct {
	t      *testing.T
	dir    string
	id     uint64
	start  format.LSN // of the current file
	flags  ondisk.Flags
	full   []byte // payload so far
	first  []int  // positions at which mini-transactions begin
	ckpt   format.LSN
	onDisk ondisk.Position // below that all blocks are in the files
	whole  bool            // full ends with a whole mini-transaction
}

const firstPosition = ondisk.Position(firstLSN / ondisk.BlockSize * ondisk.BlockPayload)

func newWriter(t *testing.T) *writer {
	w := &writer{t: t, dir: t.TempDir(), id: 7, start: firstLSN, ckpt: firstLSN + 12, onDisk: firstPosition, whole: true}
	check(t, os.Mkdir(filepath.Join(w.dir, ondisk.Directory), 0o700))
	w.file()
	w.flush()
	return w
}

func (w *writer) path(id uint64) string {
	return filepath.Join(w.dir, ondisk.Directory, ondisk.FileName(id))
}

// file makes the current file, under another name first.
func (w *writer) file() {
	w.t.Helper()
	b := append(ondisk.Head(ondisk.Header{UUID: 1, Start: w.start, Creator: "MySQL 9.7.4", Flags: w.flags}, 0), make([]byte, fileSize-ondisk.StartOffset)...)
	if w.start <= w.ckpt {
		c := ondisk.EncodeCheckpoint(w.ckpt)
		copy(b[ondisk.Checkpoint1:], c[:])
	}
	check(w.t, os.WriteFile(w.path(w.id)+"_tmp", b, 0o600))
	check(w.t, os.Rename(w.path(w.id)+"_tmp", w.path(w.id)))
}

// add appends a mini-transaction of so many bytes, and flushes.
func (w *writer) add(size int) {
	w.addRecords(padding(size))
	w.flush()
}

func (w *writer) addRecords(mtr []byte) {
	w.first = append(w.first, len(w.full))
	w.full = append(w.full, mtr...)
}

// padding is a mini-transaction of exactly that size, made of strings.
func padding(size int) []byte {
	var b []byte
	for size-len(b) > 1 {
		n := min(size-len(b)-1, 3000)
		head := ondisk.AppendHeader(nil, ondisk.WriteString, 5, 3)
		if n < len(head)+5 {
			break
		}
		n -= len(head) + 4
		b = append(append(b, head...), 0, 60, byte(n>>8), byte(n))
		b = append(b, bytes.Repeat([]byte{7}, n)...)
	}
	return append(b, byte(ondisk.MultiEnd))
}

func (w *writer) end() format.LSN { return (firstPosition + ondisk.Position(len(w.full))).LSN() }

// block encodes the one at an LSN, with all that is known of it.
func (w *writer) block(lsn format.LSN) [ondisk.BlockSize]byte {
	from := int(ondisk.Position(lsn/ondisk.BlockSize*ondisk.BlockPayload) - firstPosition)
	to := min(from+ondisk.BlockPayload, len(w.full))
	first := 0
	if i, _ := slices.BinarySearch(w.first, from); i < len(w.first) && w.first[i] < to {
		first = 12 + w.first[i] - from
	} else if w.whole && to == len(w.full) && to < from+ondisk.BlockPayload {
		first = 12 + to - from // where the next one would begin
	}
	return ondisk.EncodeBlock(lsn, w.full[from:to], first)
}

// flush writes all blocks since the last time, the last one too.
func (w *writer) flush() {
	w.t.Helper()
	lsn := format.LSN(w.onDisk/ondisk.BlockPayload) * ondisk.BlockSize
	end := firstPosition + ondisk.Position(len(w.full))
	for ; ; lsn += ondisk.BlockSize {
		if lsn == w.start+fileSize-ondisk.StartOffset {
			w.id, w.start = w.id+1, lsn
			w.file()
		}
		b := w.block(lsn)
		w.write(lsn, b[:])
		if ondisk.Position(lsn/ondisk.BlockSize*ondisk.BlockPayload)+ondisk.BlockPayload > end {
			break
		}
	}
	w.onDisk = end
}

func (w *writer) write(lsn format.LSN, b []byte) {
	w.t.Helper()
	f, err := os.OpenFile(w.path(w.id), os.O_WRONLY, 0)
	check(w.t, err)
	_, err = f.WriteAt(b, ondisk.StartOffset+int64(lsn-w.start))
	check(w.t, errors.Join(err, f.Close()))
}

// checkpoint writes one to the current file.
func (w *writer) checkpoint(lsn format.LSN) {
	w.t.Helper()
	f, err := os.OpenFile(w.path(w.id), os.O_WRONLY, 0)
	check(w.t, err)
	c := ondisk.EncodeCheckpoint(lsn)
	_, err = f.WriteAt(c[:], ondisk.Checkpoint2)
	check(w.t, errors.Join(err, f.Close()))
}

func (w *writer) open() *Log {
	w.t.Helper()
	l, err := Open(w.t.Context(), w.dir)
	check(w.t, err)
	w.t.Cleanup(func() { l.Close() })
	l.patience = 50 * time.Millisecond
	return l
}

// drain reads to the tip and returns all bytes.
func drain(t *testing.T, l *Log, from format.LSN) (all []byte, end format.LSN) {
	t.Helper()
	for {
		p, err := l.Read(t.Context())
		if errors.Is(err, redotail.ErrTip) {
			return all, from
		}
		check(t, err)
		if p.LSN != from || len(p.Data) == 0 {
			t.Fatalf("a piece of %d bytes at %v, want %v", len(p.Data), p.LSN, from)
		}
		from = p.End()
		all = append(all, p.Data...)
	}
}

// Through blocks, files and sizes around the edges of both, read after every write
// or in one go.
func TestReadsWhatIsWritten(t *testing.T) {
	for _, step := range []int{1, 3, 1000} {
		w := newWriter(t)
		l := w.open()
		var got []byte
		at := l.Start().CheckpointLSN
		for i := range 600 {
			w.add([]int{1, 20, 495, 496, 497, 3000, 15, 481}[i%8] + i%5)
			if i%step == 0 {
				var more []byte
				more, at = drain(t, l, at)
				got = append(got, more...)
				if at != w.end() {
					t.Fatalf("step %d: read to %v, written to %v", step, at, w.end())
				}
			}
		}
		more, end := drain(t, l, at)
		if got = append(got, more...); !bytes.Equal(got, w.full) || end != w.end() {
			t.Errorf("step %d: %d bytes to %v, want %d to %v", step, len(got), end, len(w.full), w.end())
		}
		if w.id < 10 {
			t.Errorf("only %d files", w.id)
		}
		if start := l.Start(); start.Format != FormatName || start.Creator != "MySQL 9.7.4" || start.CheckpointLSN != firstLSN+12 {
			t.Errorf("%+v", start)
		}
	}
}

// A mini-transaction is handed out when all of it is there.
func TestWaitsForTheRest(t *testing.T) {
	w := newWriter(t)
	l := w.open()
	w.addRecords(padding(3000))
	whole := w.full
	w.whole = false
	for n := 100; n < len(whole); n += 450 {
		w.full = whole[:n]
		w.flush()
		if p, err := l.Read(t.Context()); !errors.Is(err, redotail.ErrTip) {
			t.Fatalf("%d of %d bytes: %d bytes, %v", n, len(whole), len(p.Data), err)
		}
	}
	w.full = whole
	w.flush()
	if got, end := drain(t, l, firstLSN+12); !bytes.Equal(got, whole) || end != w.end() {
		t.Errorf("%d bytes to %v", len(got), end)
	}
}

// The checkpoint may be anywhere: redo begins with the first mini-transaction that
// does not begin before it.
func TestBeginsAtTheCheckpoint(t *testing.T) {
	w := newWriter(t)
	for i := range 60 {
		w.add([]int{30, 496, 2500, 700}[i%4])
	}
	edge := func(i int) format.LSN { return (firstPosition + ondisk.Position(w.first[i])).LSN() }
	for i := 1; i < len(w.first); i++ {
		for back := range 3 {
			// At its begin, and within the one before.
			c := edge(i) - format.LSN(back*5)
			if _, ok := ondisk.PositionOf(c); !ok || c <= edge(i-1) {
				continue
			}
			w.checkpoint(c)
			l, err := Open(t.Context(), w.dir)
			if err != nil {
				t.Fatalf("checkpoint %v: %v", c, err)
			}
			if got := l.Start().CheckpointLSN; got != edge(i) || l.Checkpoint() != c {
				t.Errorf("checkpoint %v: redo begins at %v, want %v", c, got, edge(i))
			}
			got, _ := drain(t, l, edge(i))
			if !bytes.Equal(got, w.full[w.first[i]:]) {
				t.Errorf("checkpoint %v: other bytes", c)
			}
			l.Close()
		}
	}
	w.checkpoint(w.end()) // a server that is idle
	l := w.open()
	if got := l.Start().CheckpointLSN; got != w.end() {
		t.Errorf("at the end: redo begins at %v, want %v", got, w.end())
	}
	w.add(40)
	if got, _ := drain(t, l, l.Start().CheckpointLSN); len(got) != 40 {
		t.Errorf("%d bytes", len(got))
	}
}

func TestCut(t *testing.T) {
	w := newWriter(t)
	for i := range 30 {
		w.add(100 + i*7)
	}
	l := w.open()
	p, err := l.Read(t.Context())
	check(t, err)
	for at := p.LSN; at <= p.End(); at++ {
		got := l.Cut(p, at)
		i := slices.IndexFunc(w.first, func(n int) bool { return (firstPosition + ondisk.Position(n)).LSN() >= at })
		want := len(w.full)
		if i >= 0 {
			want = w.first[i]
		}
		if len(got.Data) != want || got.End() != (firstPosition+ondisk.Position(want)).LSN() {
			t.Fatalf("cut at %v: %d bytes to %v, want %d", at, len(got.Data), got.End(), want)
		}
	}
}

// P5: redo that the server has overwritten is an error at once, and says what is
// lost.
func TestOverrun(t *testing.T) {
	for name, take := range map[string]func(w *writer){
		"used again": func(w *writer) {
			b := w.block(firstLSN)
			later := ondisk.EncodeBlock(firstLSN+1<<20, b[12:500], 12)
			f, err := os.OpenFile(w.path(7), os.O_WRONLY, 0)
			check(w.t, err)
			_, err = f.WriteAt(bytes.Repeat(later[:], 1), ondisk.StartOffset)
			check(w.t, errors.Join(err, f.Close()))
		},
		"made shorter": func(w *writer) {
			check(w.t, os.Truncate(w.path(7), ondisk.StartOffset))
			check(w.t, os.Rename(w.path(7), w.path(40)+"_tmp"))
		},
		"the next is gone": func(w *writer) { check(w.t, os.Remove(w.path(8))) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWriter(t)
			l := w.open()
			for range 100 {
				w.addRecords(padding(2500))
			}
			w.flush()
			take(w)
			l.Written(w.end())
			var err error
			for err == nil {
				_, err = l.Read(t.Context())
			}
			e, ok := errors.AsType[*redotail.OverrunError](err)
			if !ok || e.Lost < firstLSN || e.Lost > w.end() || e.Variable != "innodb_redo_log_capacity" {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A block that is half written is read again; one that stays so is damage.
func TestTornBlock(t *testing.T) {
	w := newWriter(t)
	w.add(3000)
	good := w.block(firstLSN + ondisk.BlockSize)
	bad := good
	bad[300] ^= 1
	w.write(firstLSN+ondisk.BlockSize, bad[:])
	l := w.open()
	l.patience = 10 * time.Second
	go func() {
		time.Sleep(20 * time.Millisecond)
		w.write(firstLSN+ondisk.BlockSize, good[:])
	}()
	if got, _ := drain(t, l, firstLSN+12); !bytes.Equal(got, w.full) {
		t.Errorf("%d bytes", len(got))
	}
	w.write(firstLSN+ondisk.BlockSize, bad[:])
	l = w.open()
	var err error
	for err == nil {
		_, err = l.Read(t.Context())
	}
	if !errors.Is(err, redotail.ErrDamaged) {
		t.Errorf("got %v", err)
	}
	check(t, os.WriteFile(w.path(8), nil, 0o600)) // a header that is not there yet
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, w.dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestRefusesOtherLogs(t *testing.T) {
	disabled := newWriter(t)
	disabled.flags = ondisk.NoLogging
	disabled.file()
	if _, err := Open(t.Context(), disabled.dir); !errors.Is(err, innodb.ErrUnsupportedLog) {
		t.Errorf("redo is disabled: %v", err)
	}
	later := newWriter(t)
	l := later.open()
	later.flags = ondisk.NoLogging
	later.file()
	l.looked = time.Time{} // it is looked at every second
	if _, err := l.Read(t.Context()); !errors.Is(err, innodb.ErrUnsupportedLog) {
		t.Errorf("redo is disabled while the log is read: %v", err)
	}
	encrypted := newWriter(t)
	f, err := os.OpenFile(encrypted.path(7), os.O_WRONLY, 0)
	check(t, err)
	_, err = f.WriteAt([]byte("lCC"), ondisk.Encryption+48)
	check(t, errors.Join(err, f.Close()))
	if _, err := Open(t.Context(), encrypted.dir); !errors.Is(err, innodb.ErrUnsupportedLog) {
		t.Errorf("encrypted: %v", err)
	}
	old := t.TempDir()
	head := ondisk.Header{UUID: 1, Start: firstLSN, Creator: "MySQL 8.0.29"}.Encode()
	head[3] = 5
	check(t, os.WriteFile(filepath.Join(old, "ib_logfile0"), append(head[:], make([]byte, 4096)...), 0o600))
	if _, err := Open(t.Context(), old); !errors.Is(err, innodb.ErrUnsupportedLog) {
		t.Errorf("of an older server: %v", err)
	}
	if _, err := Open(t.Context(), t.TempDir()); err == nil {
		t.Error("no log at all")
	}
}

func TestFileRecordsAreReported(t *testing.T) {
	w := newWriter(t)
	w.add(1000)
	at := w.end()
	var b []byte
	for _, f := range []ondisk.FileRecord{
		{Type: ondisk.FileCreate, Space: 5, Name: "./d/t.ibd"}, {Type: ondisk.FileRename, Space: 5, Name: "./d/t.ibd", NewName: "./d/u.ibd"}, {Type: ondisk.FileDelete, Space: 5, Name: "./d/u.ibd"}, {Type: ondisk.FileExtend, Space: 5, Size: 16384},
	} {
		b = ondisk.AppendFileRecord(b, f)
	}
	b = append(ondisk.AppendHeader(b, ondisk.IndexLoad, 6, 0), 0, 0, 0, 0, 0, 0, 0, 9)
	w.addRecords(append(b, byte(ondisk.MultiEnd)))
	w.flush()
	p, err := w.open().Read(t.Context())
	want := []redotail.FileRecord{
		{Op: redotail.FileCreated, LSN: at, Space: 5, Name: "./d/t.ibd"}, {Op: redotail.FileRenamed, LSN: at, Space: 5, Name: "./d/u.ibd", OldName: "./d/t.ibd"},
		{Op: redotail.FileDeleted, LSN: at, Space: 5, Name: "./d/u.ibd"}, {Op: redotail.FileLoaded, LSN: at, Space: 6},
	}
	if err != nil || !slices.Equal(p.Files, want) {
		t.Errorf("%+v, %v", p.Files, err)
	}
}

// encrypt makes blocks those of an encrypted log: what follows the header is not
// to be read, and the checksum is that of the plain block.
func (w *writer) encrypt(from, to format.LSN) {
	w.t.Helper()
	for lsn := from; lsn < to; lsn += ondisk.BlockSize {
		b := w.block(lsn)
		b[4] |= 0x80
		for i := range b[12:] {
			b[12+i] ^= 0x5A
		}
		w.write(lsn, b[:])
	}
}

// The server encrypts blocks from where it was told to. What it wrote before is read,
// and nothing behind it.
func TestRefusesEncryptedBlocks(t *testing.T) {
	for _, behind := range []bool{false, true} { // the tail has read so far, or not
		w := newWriter(t)
		l := w.open()
		var got []byte
		w.add(3000)
		if behind {
			got, _ = drain(t, l, l.Start().CheckpointLSN)
		}
		plain := len(w.full)
		w.add(4000)
		w.encrypt(firstLSN+10*ondisk.BlockSize, w.end())
		var err error
		for err == nil {
			var p redotail.Piece
			if p, err = l.Read(t.Context()); err == nil {
				got = append(got, p.Data...)
			}
		}
		if !errors.Is(err, innodb.ErrUnsupportedLog) || !strings.Contains(err.Error(), "innodb_redo_log_encrypt") {
			t.Errorf("behind %v: %v", behind, err)
		}
		if !bytes.Equal(got, w.full[:plain]) {
			t.Errorf("behind %v: %d bytes, want %d", behind, len(got), plain)
		}
	}
}

// A copy of a tablespace that was begun before its key was thrown away must be made
// again.
func TestErasedKeyIsReported(t *testing.T) {
	const size = 111
	text := func(page format.PageNo, n int, c byte) []byte {
		b := append(ondisk.AppendHeader(nil, ondisk.WriteString, 9, page), 10390>>8, 10390&0xFF, byte(n>>8), byte(n))
		return append(b, bytes.Repeat([]byte{c}, n)...)
	}
	w := newWriter(t)
	at := w.end()
	for _, b := range [][]byte{text(0, size, 1), text(0, size-1, 0), text(3, size, 0), text(0, size, 0)} {
		at = w.end()
		w.addRecords(append(b, byte(ondisk.MultiEnd)))
	}
	w.flush()
	p, err := w.open().Read(t.Context())
	if want := []redotail.FileRecord{{Op: redotail.FileLoaded, LSN: at, Space: 9}}; err != nil || !slices.Equal(p.Files, want) {
		t.Errorf("%+v, %v", p.Files, err)
	}
}
