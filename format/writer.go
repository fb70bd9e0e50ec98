package format

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Writer writes one archive. All methods may be called from many goroutines;
// frames leave in the order in which calls get the lock, each in one Write.
// Redo gets it before all else that waits for it, but for a share of a fifth that
// is left to data.
// Checksums are computed outside the lock, by the caller's goroutine.
//
// The first error sticks: every later call returns it, and Close then writes
// no end frame, so that a failed archive can never be taken for a whole one.
type Writer struct {
	w   io.Writer
	id  ArchiveID
	enc *zstd.Encoder // nil: payloads are stored
	// dialect is that of FILE frames.
	dialect string

	mu       *turn
	s        *stream
	off      uint64 // archive offset of the next frame
	manifest uint64 // archive offset of the first MANIFEST frame
	idx      index
	err      error
}

// WriterOptions of NewWriter. The zero value stores payloads as they are.
type WriterOptions struct {
	// Dialect is the family of the server whose tablespaces come; empty is MariaDB's.
	Dialect string
	// Compress says how hard to compress payloads.
	Compress Level
	// Parallel is the number of payloads compressed at the same time at
	// most; 0 means one a core.
	Parallel int
}

// provisional is the payload of a FILE frame, SPEC.md §4.1.
type provisional struct {
	Path   string   `json:"path"`
	Kind   FileKind `json:"kind"`
	Source string   `json:"source,omitempty"`
	Space  *Space   `json:"space,omitempty"`
	// Dialect is Server.Dialect where it is not MariaDB's, and the file is of a
	// tablespace.
	Dialect string `json:"dialect,omitempty"`
}

var errClosed = errors.New("archive is already closed")

// NewWriter writes the archive header and returns a Writer for the frames.
func NewWriter(w io.Writer, opt WriterOptions) (*Writer, error) {
	var id ArchiveID
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	return newWriter(w, id, opt)
}

func newWriter(w io.Writer, id ArchiveID, opt WriterOptions) (*Writer, error) {
	enc, err := newEncoder(opt)
	if err != nil {
		return nil, err
	}
	head := archiveHeader{id: id}.encode()
	if _, err := w.Write(head[:]); err != nil {
		return nil, fmt.Errorf("write archive: %w", err)
	}
	dialect := opt.Dialect
	if dialect == DialectMariaDB {
		dialect = ""
	}
	return &Writer{w: w, id: id, enc: enc, dialect: dialect, mu: newTurn(), s: newStream(head[:]), off: archiveHeaderSize}, nil
}

// ID returns the archive's id in hexadecimal.
func (w *Writer) ID() string { return w.id.String() }

// BeginFile announces a file under its provisional path and returns its number.
func (w *Writer) BeginFile(f File) (FileNo, error) {
	if err := CheckPath(f.Path); err != nil {
		return 0, err
	}
	if strings.ContainsFunc(f.Source, isControl) {
		return 0, fmt.Errorf("file %q: control character in its path at the source, %q", f.Path, f.Source)
	}
	said := provisional{Path: f.Path, Kind: f.Kind, Source: f.Source, Space: f.Space}
	if f.Space != nil {
		said.Dialect = w.dialect
	}
	p, err := json.Marshal(said)
	if err == nil && len(p) > maxFilePayload {
		said.Source = "" // a reader can do without
		p, err = json.Marshal(said)
	}
	if err != nil {
		return 0, err
	}
	b := bufferFor(len(p))
	defer b.Release()
	b.SetLen(copy(b.Space(), p))
	h := frameHeader{typ: FrameFile, rawLen: uint32(len(p)), stored: uint32(len(p)), sum: crc32.Checksum(p, castagnoli)}

	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil && w.s.files >= MaxFiles {
		w.err = fmt.Errorf("more than %d files", MaxFiles)
	}
	h.file = w.s.files + 1
	if err := w.write(&h, b, f.Path); err != nil {
		return 0, err
	}
	return h.file, nil
}

// WriteData writes the bytes of b at offset off of the file. It takes b, also
// when it fails.
func (w *Writer) WriteData(no FileNo, off int64, b *Buffer) error {
	defer b.Release()
	return w.payload(FrameData, no, uint64(off), b)
}

// WriteHole says that n bytes from off are zero.
func (w *Writer) WriteHole(no FileNo, off, n int64) error {
	for n > 0 {
		part := min(n, MaxHole)
		if err := w.bare(frameHeader{typ: FrameHole, file: no, offset: uint64(off), rawLen: uint32(part)}); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

// EndFile closes the file. size is its size in bytes; all of it must have been
// written, as data or as holes.
func (w *Writer) EndFile(no FileNo, size int64) error {
	return w.bare(frameHeader{typ: FrameClose, file: no, offset: uint64(size)})
}

// WriteRedo writes redo bytes that begin at a position. They must begin where the
// previous ones ended. p is not kept.
func (w *Writer) WriteRedo(at RedoPosition, p []byte) error {
	return w.pieces(FrameRedo, uint64(at), p)
}

// Close writes the manifest and the end frame. It does not close the
// underlying writer. m.ArchiveID and m.Format are set by it.
func (w *Writer) Close(m *Manifest) (Totals, error) {
	m.ArchiveID = w.ID()
	mw := &manifestWriter{w: w, b: GetBuffer()}
	defer mw.b.Release()
	err := checkEntries(m)
	if err == nil {
		err = EncodeManifest(mw, m)
	}
	if err == nil {
		err = mw.flush()
	}
	if err != nil {
		return Totals{}, w.fail(err)
	}
	return w.end()
}

// checkEntries refuses a manifest that no reader would take.
func checkEntries(m *Manifest) error {
	entries := NewEntries(false)
	for i := range m.Files {
		if err := entries.Add(&m.Files[i]); err != nil {
			return fmt.Errorf("manifest: %w", err)
		}
	}
	if err := entries.Check(m, false); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	return nil
}

// Abort makes every later call fail with err, unless an earlier error stuck.
func (w *Writer) Abort(err error) { w.fail(err) }

func (w *Writer) fail(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	return w.err
}

func (w *Writer) end() (Totals, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.flushIndex(); err != nil {
		return Totals{}, err
	}
	e := endPayload{totals: w.s.totals, manifest: w.manifest, index: w.idx.last, digest: w.s.sum()}
	p := e.encode()
	b := bufferFor(len(p))
	defer b.Release()
	b.SetLen(copy(b.Space(), p[:]))
	h := frameHeader{typ: FrameEnd, rawLen: endSize, stored: endSize, sum: crc32.Checksum(p[:], castagnoli)}
	if err := w.write(&h, b, ""); err != nil {
		return Totals{}, err
	}
	w.err = errClosed
	return e.totals, nil
}

// pieces writes p in frames of at most ChunkSize whose offsets count on from
// pos.
func (w *Writer) pieces(t FrameType, pos uint64, p []byte) error {
	b := bufferFor(min(len(p), ChunkSize))
	defer b.Release()
	for len(p) > 0 {
		n := copy(b.Space(), p)
		b.SetLen(n)
		if err := w.payload(t, 0, pos, b); err != nil {
			return err
		}
		p, pos = p[n:], pos+uint64(n)
	}
	return nil
}

func (w *Writer) payload(t FrameType, no FileNo, pos uint64, b *Buffer) error {
	h := frameHeader{typ: t, file: no, offset: pos}
	sealed := w.seal(&h, b)
	if sealed != b {
		defer sealed.Release()
	}
	if t == FrameRedo {
		w.mu.LockFirst(int(h.stored))
	} else {
		w.mu.Lock()
	}
	defer w.mu.Unlock()
	return w.write(&h, sealed, "")
}

// bare writes a frame without payload.
func (w *Writer) bare(h frameHeader) error {
	var head [frameHeaderSize]byte
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.emit(&h, head[:], head[:], "")
}

// write puts the header in front of b's payload and writes both at once.
func (w *Writer) write(h *frameHeader, b *Buffer, path string) error {
	return w.emit(h, b.mem[:frameHeaderSize], b.mem[:frameHeaderSize+b.n], path)
}

// emit is the one place where frames get their number and leave. The lock is
// held.
func (w *Writer) emit(h *frameHeader, head, all []byte, path string) error {
	if w.err != nil {
		return w.err
	}
	h.seq = w.s.seq
	err := h.check()
	if err == nil {
		h.encode(head, &w.id)
		err = w.s.accept(h, head, path)
	}
	if err != nil {
		w.err = fmt.Errorf("write archive: frame %d: %w", h.seq, err)
		return w.err
	}
	if _, err := w.w.Write(all); err != nil {
		w.err = fmt.Errorf("write archive: %w", err)
		return w.err
	}
	at := w.off
	w.off += uint64(len(all))
	return w.note(h, at)
}

// note keeps what END and INDEX frames say of the frame written at offset at.
func (w *Writer) note(h *frameHeader, at uint64) error {
	switch h.typ {
	case FrameManifest:
		if w.manifest == 0 {
			w.manifest = at
		}
		return nil
	case FrameIndex:
		w.idx.last = at
		return nil
	case FrameEnd, FrameEstimate:
		return nil
	}
	w.idx.add(at, h.file)
	if w.idx.entries < indexEvery {
		return nil
	}
	return w.flushIndex()
}

// flushIndex writes the entries not yet written as an INDEX frame. The lock is
// held.
func (w *Writer) flushIndex() error {
	if w.idx.entries == 0 || w.err != nil {
		return w.err
	}
	b := GetBuffer()
	defer b.Release()
	b.SetLen(w.idx.take(b.Space()))
	h := frameHeader{typ: FrameIndex, flags: flagSkippable, offset: w.s.indexed}
	sealed := w.seal(&h, b)
	if sealed != b {
		defer sealed.Release()
	}
	return w.write(&h, sealed, "")
}

// manifestWriter cuts the manifest into MANIFEST frames.
type manifestWriter struct {
	w   *Writer
	b   *Buffer
	pos uint64
}

func (m *manifestWriter) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		n := copy(m.b.Space()[m.b.n:], p)
		m.b.SetLen(m.b.n + n)
		p = p[n:]
		if m.b.n == ChunkSize {
			if err := m.flush(); err != nil {
				return total - len(p), err
			}
		}
	}
	return total, nil
}

func (m *manifestWriter) flush() error {
	if m.b.n == 0 {
		return nil
	}
	if err := m.w.payload(FrameManifest, 0, m.pos, m.b); err != nil {
		return err
	}
	m.pos += uint64(m.b.n)
	m.b.SetLen(0)
	return nil
}
