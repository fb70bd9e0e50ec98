package format

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Frame is one verified frame. Whoever got it from Next owns its buffer.
type Frame struct {
	Type FrameType
	// Seq is the number of the frame in the archive, from 0.
	Seq uint64
	// File is the file concerned, 0 for REDO and MANIFEST.
	File FileNo
	// Pos is the offset in the file of DATA and HOLE, the size of the file
	// for CLOSE, the LSN of REDO, the position within MANIFEST.
	Pos uint64
	// Len is the number of raw bytes, of payload or of hole.
	Len int64
	// Path is the provisional path, in FILE frames only.
	Path string

	buf *Buffer
}

// Bytes returns the payload: nil for HOLE and CLOSE.
func (f *Frame) Bytes() []byte {
	if f.buf == nil {
		return nil
	}
	return f.buf.Bytes()
}

// Release gives the payload's buffer back. Bytes must not be used afterwards.
func (f *Frame) Release() {
	if f.buf != nil {
		f.buf.Release()
		f.buf = nil
	}
}

// Reader reads one archive, frame by frame. Everything SPEC.md §3, §4 and §7
// demand of a reader is checked before Next hands a frame out, except the
// contents of the manifest.
type Reader struct {
	r      *bufio.Reader
	id     ArchiveID
	s      *stream
	off    int64 // archive offset of the frame being read
	totals Totals
	err    error // sticks
}

// NewReader reads the archive header. An empty stream, like every other that is
// not an archive, is an error that wraps ErrDamaged.
func NewReader(r io.Reader) (*Reader, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	var head [archiveHeaderSize]byte
	n, err := io.ReadFull(br, head[:])
	switch {
	case err == io.EOF:
		return nil, fmt.Errorf("%w: the input is empty", ErrDamaged)
	case err == io.ErrUnexpectedEOF:
		if string(head[:min(n, 8)]) != string(Magic[:min(n, 8)]) {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, ErrNotArchive)
		}
		return nil, fmt.Errorf("%w: %w, after %d bytes", ErrDamaged, ErrTruncated, n)
	case err != nil:
		return nil, fmt.Errorf("read archive: %w", err)
	}
	h, err := decodeArchiveHeader(head[:])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return &Reader{r: br, id: h.id, s: newStream(head[:]), off: archiveHeaderSize}, nil
}

// ID returns the archive's id in hexadecimal.
func (r *Reader) ID() string { return hex.EncodeToString(r.id[:]) }

// Totals returns the verified totals, after Next returned io.EOF.
func (r *Reader) Totals() Totals { return r.totals }

// Next returns the next frame of a known type. After a valid end frame that is
// the last thing in the stream it returns io.EOF; every other end of the stream
// is an error that wraps ErrDamaged and ErrTruncated. Errors of the underlying
// reader are passed on wrapped, without ErrDamaged.
func (r *Reader) Next() (*Frame, error) {
	for r.err == nil {
		f, err := r.next()
		if err != nil {
			r.err = err
			break
		}
		if f.Type.known() {
			return f, nil
		}
		f.Release()
	}
	return nil, r.err
}

func (r *Reader) next() (*Frame, error) {
	var head [frameHeaderSize]byte
	if err := r.read(head[:]); err != nil {
		return nil, err
	}
	h, err := decodeFrameHeader(head[:], &r.id)
	if err == nil {
		err = h.check()
	}
	if err != nil {
		return nil, r.damaged(0, err)
	}
	f := &Frame{Type: h.typ, Seq: h.seq, File: h.file, Pos: h.offset, Len: int64(h.rawLen)}
	if err := r.payload(f, &h); err != nil {
		f.Release()
		return nil, err
	}
	if err := r.take(f, &h, head[:]); err != nil {
		f.Release()
		return nil, err
	}
	return f, nil
}

// payload reads and verifies the payload into a buffer of the frame's own.
func (r *Reader) payload(f *Frame, h *frameHeader) error {
	if h.stored == 0 {
		return nil
	}
	f.buf = GetBuffer()
	f.buf.SetLen(int(h.stored))
	if err := r.read(f.buf.Bytes()); err != nil {
		return err
	}
	if got := crc32.Checksum(f.buf.Bytes(), castagnoli); got != h.sum {
		return r.damaged(h.file, fmt.Errorf("%s frame: payload checksum is %08x, computed %08x", h.typ, h.sum, got))
	}
	return nil
}

// take runs the frame through the rules of the stream; an END frame is compared
// with what was counted and ends the archive.
func (r *Reader) take(f *Frame, h *frameHeader, head []byte) error {
	if h.typ == FrameFile {
		if err := r.announce(f); err != nil {
			return r.damaged(0, err)
		}
	}
	if err := r.s.accept(h, head, f.Path); err != nil {
		return r.damaged(h.file, err)
	}
	if h.typ == FrameEnd {
		defer f.Release()
		return r.finish(decodeEnd(f.Bytes()))
	}
	r.off += frameHeaderSize + int64(h.stored)
	return nil
}

func (r *Reader) announce(f *Frame) error {
	var p provisional
	if err := json.Unmarshal(f.Bytes(), &p); err != nil {
		return fmt.Errorf("FILE frame: %w", err)
	}
	f.Path = p.Path
	return CheckPath(p.Path)
}

func (r *Reader) finish(e endPayload) error {
	if e.totals != r.s.totals {
		return r.damaged(0, fmt.Errorf("END frame: totals are %+v, counted %+v", e.totals, r.s.totals))
	}
	if e.digest != r.s.sum() {
		return r.damaged(0, errors.New("END frame: the digest over the frame headers does not match"))
	}
	if _, err := r.r.ReadByte(); err != io.EOF {
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		return r.damaged(0, errors.New("something follows the end frame"))
	}
	r.totals = e.totals
	return io.EOF
}

func (r *Reader) read(p []byte) error {
	_, err := io.ReadFull(r.r, p)
	switch err {
	case nil:
		return nil
	case io.EOF, io.ErrUnexpectedEOF:
		return r.damaged(0, ErrTruncated)
	}
	return fmt.Errorf("read archive at frame %d: %w", r.s.seq, err)
}

func (r *Reader) damaged(n FileNo, err error) error {
	return &DamageError{Frame: r.s.seq, Offset: r.off, Path: r.s.path(n), Err: err}
}
