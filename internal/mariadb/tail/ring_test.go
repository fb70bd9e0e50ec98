package tail

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/xbstream/xbstream/format"
	ondisk "github.com/xbstream/xbstream/internal/mariadb/redo"
)

// ringWriter writes a log file as a server does: whole mini-transactions,
// sequence bits, and a NUL after the last one.
type ringWriter struct {
	t      *testing.T
	dir    string
	file   *os.File
	header ondisk.Header
	ring   ondisk.Ring
	lsn    format.LSN
	blocks int // checkpoint blocks written
}

// newRing creates a log whose only content is the FILE_CHECKPOINT at start.
func newRing(t *testing.T, header ondisk.Header, capacity int64, start format.LSN) *ringWriter {
	t.Helper()
	w := &ringWriter{t: t, dir: t.TempDir(), header: header, lsn: start}
	w.create(logName, capacity)
	w.checkpoint(start)
	return w
}

func plainHeader(first format.LSN) ondisk.Header {
	return ondisk.Header{Magic: ondisk.MagicPlain, FirstLSN: first, Creator: "MariaDB 10.11.19"}
}

// create starts a file with the writer's header and capacity.
func (w *ringWriter) create(name string, capacity int64) {
	w.t.Helper()
	f, err := os.Create(filepath.Join(w.dir, name))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := f.Close(); err != nil {
			w.t.Error(err)
		}
	})
	if err := f.Truncate(ondisk.StartOffset + capacity); err != nil {
		w.t.Fatal(err)
	}
	block := w.header.Encode()
	w.writeAt(f, block[:], 0)
	w.file, w.ring = f, ondisk.Ring{FirstLSN: w.header.FirstLSN, Capacity: capacity}
	w.blocks = 0
}

func (w *ringWriter) writeAt(f *os.File, b []byte, off int64) {
	w.t.Helper()
	if _, err := f.WriteAt(b, off); err != nil {
		w.t.Fatal(err)
	}
}

// write appends one mini-transaction to the ring and returns it as a copy
// with the marker 1.
func (w *ringWriter) write(records []byte) []byte {
	w.t.Helper()
	marker := w.ring.SeqBit(w.lsn + format.LSN(len(records)))
	raw, copied := w.mtr(records, marker), w.mtr(records, 1)
	w.put(append(raw, 0))
	w.lsn += format.LSN(len(copied))
	return copied
}

func (w *ringWriter) mtr(records []byte, marker byte) []byte {
	if w.header.Encrypted() {
		return ondisk.AppendEncryptedMTR(nil, records, marker, [8]byte{1, 2, 3})
	}
	return ondisk.AppendMTR(nil, records, marker)
}

// put stores bytes, less than a lap, at the writer's LSN.
func (w *ringWriter) put(b []byte) {
	w.t.Helper()
	off := w.ring.Offset(w.lsn)
	n := min(int64(len(b)), ondisk.StartOffset+w.ring.Capacity-off)
	w.writeAt(w.file, b[:n], off)
	w.writeAt(w.file, b[n:], ondisk.StartOffset)
}

// checkpoint writes FILE_CHECKPOINT and the block that points to it.
func (w *ringWriter) checkpoint(at format.LSN) []byte {
	w.t.Helper()
	end := w.lsn
	mtr := w.write(ondisk.AppendFileRecord(nil, ondisk.FileRecord{Op: ondisk.FileCheckpoint, Checkpoint: at}))
	w.block(ondisk.Checkpoint{LSN: at, EndLSN: end})
	return mtr
}

// block writes a checkpoint block, the two in turn.
func (w *ringWriter) block(c ondisk.Checkpoint) {
	b := c.Encode()
	off := int64(ondisk.Checkpoint1)
	if w.blocks%2 == 1 {
		off = ondisk.Checkpoint2
	}
	w.blocks++
	w.writeAt(w.file, b[:], off)
}

// fill writes page records until the LSN is exactly to.
func (w *ringWriter) fill(to format.LSN) []byte {
	w.t.Helper()
	const frame = 5 // marker and checksum
	var all []byte
	for w.lsn < to {
		left := int(to - w.lsn)
		n := min(left, 600)
		if left-n > 0 && left-n < 64 {
			n = left - 64 // leave enough for a last one
		}
		if w.header.Encrypted() {
			n -= 8
		}
		all = append(all, w.write(pageRecord(n-frame, uint64(w.lsn)))...)
	}
	if w.lsn != to {
		w.t.Fatalf("filled to %v, wanted %v", w.lsn, to)
	}
	return all
}

// pageRecord returns one WRITE record of exactly size bytes, 21 or more and
// not 143, filled so that no two laps are alike.
func pageRecord(size int, salt uint64) []byte {
	body := make([]byte, 0, size)
	body = append(body, 9, 4, 60)
	body = binary.BigEndian.AppendUint64(body, salt*0x9E3779B97F4A7C15)
	for head := 1; head < 6; head++ {
		b := body
		for len(b) < size-head {
			b = append(b, byte(len(b)))
		}
		if rec := ondisk.AppendRecord(nil, byte(ondisk.Write), b); len(rec) == size {
			return rec
		}
	}
	panic("no record of that size")
}
