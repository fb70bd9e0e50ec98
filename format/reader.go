package format

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"

	"filippo.io/age/armor"
)

// Frame is one verified frame. Whoever got it from Next owns its buffer.
type Frame struct {
	Type FrameType
	// Seq is the number of the frame in the archive, from 0.
	Seq uint64
	// File is the file concerned, 0 for REDO and MANIFEST.
	File FileNo
	// Pos is the offset in the file of DATA and HOLE, the size of the file
	// for CLOSE, the RedoPosition of REDO, the position within MANIFEST.
	Pos uint64
	// Len is the number of raw bytes, of payload or of hole.
	Len int64
	// Path, Kind, Source and Space are what a FILE frame says of the file, for
	// now.
	Path   string
	Kind   FileKind
	Source string
	Space  *Space
	// Dialect is the family of the server whose tablespace it is.
	Dialect string

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
//
// One goroutine reads ahead, several open payloads, Next takes the results in
// order. What lies ahead is bounded by the number of openers.
type Reader struct {
	r     *bufio.Reader
	id    ArchiveID
	jobs  chan *job // in the order of the archive
	stop  chan struct{}
	close sync.Once

	s        *stream
	off      int64  // archive offset of the frame taken next
	manifest uint64 // as in the END frame
	index    indexCheck
	totals   Totals
	err      error // sticks
}

// ReaderOptions of NewReader. The zero value works.
type ReaderOptions struct {
	// Parallel is the number of payloads opened at the same time; 0 means
	// one a core.
	Parallel int
}

// job is one frame on its way from the stream to Next.
type job struct {
	h      frameHeader
	head   [frameHeaderSize]byte
	off    int64
	buf    *Buffer
	err    error         // of fetching; buf is of no use then
	bad    error         // of opening
	opened chan struct{} // closed when buf holds the raw payload, or an error is set
}

// NewReader reads the archive header. An empty stream, or one that is cut there,
// is an error that wraps ErrDamaged, anything else that is no archive a
// *NotArchiveError, and an archive of a newer version wraps ErrUnsupported.
func NewReader(r io.Reader, opt ReaderOptions) (*Reader, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	h, head, err := readArchiveHeader(br)
	if err != nil {
		return nil, err
	}
	if opt.Parallel <= 0 {
		opt.Parallel = runtime.GOMAXPROCS(0)
	}
	ar := &Reader{
		r: br, id: h.id, s: newStream(head), off: archiveHeaderSize,
		jobs: make(chan *job, opt.Parallel), stop: make(chan struct{}),
	}
	work := make(chan *job)
	for range opt.Parallel {
		go openAll(work)
	}
	go ar.fetch(work)
	return ar, nil
}

// readArchiveHeader takes the archive header from r. It looks at no more than has
// come, so that it ends when whoever sends the input waits.
func readArchiveHeader(r *bufio.Reader) (archiveHeader, []byte, error) {
	p, err := r.Peek(archiveHeaderSize)
	n := min(len(p), len(Magic))
	switch {
	case err != nil && err != io.EOF:
		return archiveHeader{}, nil, fmt.Errorf("read archive: %w", err)
	case len(p) == 0:
		return archiveHeader{}, nil, fmt.Errorf("%w: the input is empty: the sender failed before it sent anything, or it is the wrong file", ErrDamaged)
	case string(p[:n]) != string(Magic[:n]):
		if cutMagic(p) { // only then it is worth to wait for more
			if p, err = r.Peek(len(armor.Header)); err == io.EOF && cutMagic(p) {
				return archiveHeader{}, nil, truncated(int64(len(p)))
			}
		}
		p, _ = r.Peek(min(r.Buffered(), sniffed))
		if damagedBeginning(p) {
			return archiveHeader{}, nil, fmt.Errorf("%w: the archive header is not the one that was written: bits flipped, or line ends were converted on the way", ErrDamaged)
		}
		return archiveHeader{}, nil, notArchive(p)
	case err == io.EOF:
		return archiveHeader{}, nil, truncated(int64(len(p)))
	}
	head := bytes.Clone(p)
	if _, err := r.Discard(archiveHeaderSize); err != nil {
		return archiveHeader{}, nil, fmt.Errorf("read archive: %w", err)
	}
	h, err := decodeArchiveHeader(head)
	switch {
	case errors.Is(err, ErrUnsupported):
		return archiveHeader{}, nil, err
	case err != nil:
		return archiveHeader{}, nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return h, head, nil
}

// sniffed is how much is looked at, in bytes, to tell what is no archive.
const sniffed = 4096

// Close ends the reading ahead. A read that is under way in the underlying
// reader is not interrupted.
func (r *Reader) Close() { r.close.Do(func() { close(r.stop) }) }

// ID returns the archive's id in hexadecimal.
func (r *Reader) ID() string { return r.id.String() }

// Totals returns the verified totals, after Next returned io.EOF.
func (r *Reader) Totals() Totals { return r.totals }

// fetch reads frames until the end frame or an error; the last job carries the
// error, io.EOF where the stream ends as it should.
func (r *Reader) fetch(work chan<- *job) {
	defer close(work)
	defer close(r.jobs)
	off, frame := r.off, uint64(0)
	for {
		j := &job{off: off, opened: make(chan struct{})}
		j.err = r.fetchFrame(j, frame)
		if j.err != nil {
			close(j.opened)
		}
		if !r.pass(j, work) || j.err != nil {
			return
		}
		off += frameHeaderSize + int64(j.h.stored)
		frame++
		if j.h.typ == FrameEnd {
			last := &job{off: off, opened: make(chan struct{}), err: r.fetchEOF(frame, off)}
			close(last.opened)
			r.pass(last, work)
			return
		}
	}
}

// pass hands a job to an opener, unless there is nothing to open, and to Next.
func (r *Reader) pass(j *job, work chan<- *job) bool {
	select {
	case r.jobs <- j:
	case <-r.stop:
		return false
	}
	if j.err != nil {
		return true
	}
	select {
	case work <- j:
		return true
	case <-r.stop:
		j.err = errClosed
		close(j.opened)
		return false
	}
}

// fetchFrame reads header and payload as they are.
func (r *Reader) fetchFrame(j *job, frame uint64) error {
	if err := r.read(j.head[:], frame, j.off); err != nil {
		return err
	}
	h, err := decodeFrameHeader(j.head[:], &r.id)
	if err == nil {
		err = h.check()
	}
	if err != nil {
		return &DamageError{Frame: frame, Offset: j.off, Err: err}
	}
	j.h = h
	if h.stored == 0 {
		return nil
	}
	j.buf = bufferFor(int(h.stored))
	j.buf.SetLen(int(h.stored))
	return r.read(j.buf.Bytes(), frame, j.off)
}

// fetchEOF makes sure that nothing follows the end frame.
func (r *Reader) fetchEOF(frame uint64, off int64) error {
	switch _, err := r.r.ReadByte(); err {
	case io.EOF:
		return io.EOF
	case nil:
		return &DamageError{Frame: frame, Offset: off, Err: errors.New("something follows the end frame")}
	default:
		return fmt.Errorf("read archive: %w", err)
	}
}

func (r *Reader) read(p []byte, frame uint64, off int64) error {
	_, err := io.ReadFull(r.r, p)
	switch err {
	case nil:
		return nil
	case io.EOF, io.ErrUnexpectedEOF:
		return &DamageError{Frame: frame, Offset: off, Err: ErrTruncated}
	}
	return fmt.Errorf("read archive at frame %d: %w", frame, err)
}

// openAll opens the payloads of jobs.
func openAll(jobs <-chan *job) {
	for j := range jobs {
		if j.buf != nil {
			j.buf, j.bad = open(&j.h, j.buf)
		}
		close(j.opened)
	}
}

// Next returns the next frame of a known type. After a valid end frame that is
// the last thing in the stream it returns io.EOF; every other end of the stream
// is an error that wraps ErrDamaged and ErrTruncated. Errors of the underlying
// reader are passed on wrapped, without ErrDamaged.
func (r *Reader) Next() (*Frame, error) {
	for r.err == nil {
		f, err := r.next()
		switch {
		case err != nil:
			r.err = err
			r.Close()
		case f.Type != FrameEnd && f.Type.known(), f.Type == FrameEstimate:
			return f, nil
		default:
			f.Release()
		}
	}
	return nil, r.err
}

func (r *Reader) next() (*Frame, error) {
	j, ok := <-r.jobs
	if !ok {
		return nil, errClosed
	}
	<-j.opened
	f := &Frame{Type: j.h.typ, Seq: j.h.seq, File: j.h.file, Pos: j.h.offset, Len: int64(j.h.rawLen), buf: j.buf}
	err := j.err
	if err == nil && j.bad != nil {
		err = r.damaged(j.h.file, j.bad)
	}
	if err == nil {
		err = r.take(f, &j.h, j.head[:])
	}
	if err != nil {
		f.Release()
		return nil, err
	}
	return f, nil
}

// take runs the frame through the rules of the stream; an END frame is compared
// with what was counted and ends the archive.
func (r *Reader) take(f *Frame, h *frameHeader, head []byte) error {
	if h.typ == FrameFile {
		if err := f.parseProvisional(); err != nil {
			return r.damaged(0, err)
		}
	}
	if err := r.s.accept(h, head, f.Path); err != nil {
		return r.damaged(h.file, err)
	}
	if h.typ == FrameEnd {
		if err := r.finish(decodeEnd(f.Bytes())); err != nil {
			return err
		}
	}
	if h.typ == FrameManifest && r.manifest == 0 {
		r.manifest = uint64(r.off)
	}
	r.index.frame(h, r.off)
	if h.typ == FrameIndex {
		if err := r.index.compare(f.Bytes(), r.off); err != nil {
			return r.damaged(0, err)
		}
	}
	r.off += frameHeaderSize + int64(h.stored)
	return nil
}

// parseProvisional reads the payload of a FILE frame into the frame.
func (f *Frame) parseProvisional() error {
	var p provisional
	if err := unmarshal(f.Bytes(), &p); err != nil {
		return fmt.Errorf("FILE frame: %w", err)
	}
	f.Path, f.Kind, f.Source, f.Space, f.Dialect = p.Path, p.Kind, p.Source, p.Space, p.Dialect
	if f.Dialect == "" {
		f.Dialect = DialectMariaDB
	}
	if !p.Kind.ofFile() {
		return fmt.Errorf("FILE frame: %w: kind %q", ErrUnsupported, p.Kind)
	}
	if strings.ContainsFunc(p.Source, isControl) {
		return fmt.Errorf("FILE frame: control character in the source %q", clip(p.Source))
	}
	return CheckPath(p.Path)
}

func (r *Reader) finish(e endPayload) error {
	if e.totals != r.s.totals {
		return r.damaged(0, fmt.Errorf("END frame: totals are %+v, counted %+v", e.totals, r.s.totals))
	}
	if e.digest != r.s.sum() {
		return r.damaged(0, errors.New("END frame: the digest over the frame headers does not match"))
	}
	if e.manifest != r.manifest || e.index != r.index.last {
		return r.damaged(0, fmt.Errorf("END frame: manifest at %d, index at %d, found them at %d and %d", e.manifest, e.index, r.manifest, r.index.last))
	}
	if err := r.index.complete(); err != nil {
		return r.damaged(0, err)
	}
	r.totals = e.totals
	return nil
}

func (r *Reader) damaged(n FileNo, err error) error {
	return &DamageError{Frame: r.s.seq, Offset: r.off, Path: r.s.path(n), Err: err}
}
