package format

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Problem is one thing wrong with an archive.
type Problem struct {
	Offset int64 // in the archive
	Err    error
}

func (p Problem) String() string { return fmt.Sprintf("offset %d: %v", p.Offset, p.Err) }

// Scanner reads a whole archive and goes on after damage: it looks for the next
// frame and says what it passed over. It serves verification; whoever uses
// what an archive holds takes a Reader.
type Scanner struct {
	r      *bufio.Reader
	id     ArchiveID
	s      *stream
	off    int64
	report func(Problem)
	// lost are files that frames went missing of: more complaints about them
	// say nothing new.
	lost     map[FileNo]bool
	end      *endPayload
	manifest uint64 // as in the END frame
	index    indexCheck
	damaged  bool // something was reported already
	gap      bool // frames went missing, and that was reported
	skipped  bool // they did so just before this frame
	cut      bool // the input ended too early
}

// scanBuffer holds the largest frame, so that damage can be looked at without
// being consumed.
const scanBuffer = frameHeaderSize + MaxPayload + 1

// NewScanner reads the archive header, without which nothing else can be
// checked: an error is all there is to say then.
func NewScanner(r io.Reader, report func(Problem)) (*Scanner, error) {
	br := bufio.NewReaderSize(r, scanBuffer)
	h, head, err := readArchiveHeader(br)
	if err != nil {
		return nil, err
	}
	sc := &Scanner{r: br, id: h.id, s: newStream(head), off: archiveHeaderSize, lost: map[FileNo]bool{}}
	sc.report = func(p Problem) {
		sc.damaged = true
		report(p)
	}
	return sc, nil
}

// ID returns the archive's id in hexadecimal.
func (s *Scanner) ID() string { return s.id.String() }

// Totals counts what was found.
func (s *Scanner) Totals() Totals { return s.s.totals }

// Next returns the next sound frame, END not among them. io.EOF says that the
// input ended, whole or not: what was wrong has been reported. Other errors are
// those of the underlying reader.
func (s *Scanner) Next() (*Frame, error) {
	for {
		if s.s.ended {
			return nil, s.afterEnd()
		}
		h, head, err := s.header()
		if err != nil {
			return nil, err
		}
		at := s.off
		f, err := s.frame(h, head)
		if err != nil {
			return nil, err
		}
		s.off += frameHeaderSize + int64(h.stored)
		if f == nil {
			s.mark(h.file)
			s.pass(h)
			continue
		}
		s.take(f, h, head, at)
		if f.Type.known() && f.Type != FrameEnd {
			return f, nil
		}
		f.Release()
	}
}

// afterEnd reads on to the end of the input, which should be here.
func (s *Scanner) afterEnd() error {
	n, err := io.Copy(io.Discard, s.r)
	if err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	if n > 0 {
		s.report(Problem{s.off, fmt.Errorf("something follows the end frame: %d bytes", n)})
	}
	s.off += n
	return io.EOF
}

// header finds the next sound frame header and consumes it.
func (s *Scanner) header() (*frameHeader, []byte, error) {
	from := s.off
	var first error
	for {
		b, err := s.r.Peek(frameHeaderSize)
		if len(b) < frameHeaderSize {
			return nil, nil, s.finish(from, len(b), err, first)
		}
		h, err := decodeFrameHeader(b, &s.id)
		if err == nil {
			err = h.check()
		}
		if err == nil {
			if s.off > from {
				s.report(Problem{from, fmt.Errorf("%s are damaged (%d bytes that are no frame: %w)", humanSize(s.off-from), s.off-from, first)})
				s.gap, s.skipped = true, true
			}
			head := bytes.Clone(b)
			_, err := s.r.Discard(frameHeaderSize)
			return &h, head, err
		}
		if first == nil {
			first = err
		}
		if err := s.skip(); err != nil {
			return nil, nil, err
		}
	}
}

// skip moves to the next place where a frame might begin.
func (s *Scanner) skip() error {
	b, err := s.r.Peek(min(s.r.Buffered(), 64<<10))
	if err != nil {
		return err
	}
	n := bytes.Index(b[1:], frameMagic[:])
	if n < 0 {
		// The magic may begin in the last bytes.
		n = max(len(b)-len(frameMagic), 0)
	}
	s.off += int64(n) + 1
	_, err = s.r.Discard(n + 1)
	return err
}

// finish is the end of the input, where rest bytes are too few for a header.
func (s *Scanner) finish(from int64, rest int, err, first error) error {
	if err != nil && err != io.EOF {
		return fmt.Errorf("read archive: %w", err)
	}
	s.r.Discard(rest)
	n := s.off - from + int64(rest)
	switch {
	case s.cut: // that was reported
	case s.end == nil && first == nil:
		s.ends(s.off+int64(rest), errors.New("no END frame"))
	case s.end == nil:
		s.ends(from, fmt.Errorf("%d bytes that are no frame, and then the end: %w", n, first))
	}
	return io.EOF
}

// ends reports that the archive ends too early, behind offset at.
func (s *Scanner) ends(at int64, detail error) {
	s.cut = true
	s.report(Problem{at, fmt.Errorf("%w: the sender failed or the connection broke (%w)", ErrTruncated, detail)})
}

// Damaged says whether anything was wrong with the frames.
func (s *Scanner) Damaged() bool { return s.damaged }

// frame reads and opens the payload; nil says that it is damaged.
func (s *Scanner) frame(h *frameHeader, head []byte) (*Frame, error) {
	f := &Frame{Type: h.typ, Seq: h.seq, File: h.file, Pos: h.offset, Len: int64(h.rawLen)}
	if h.stored == 0 {
		return f, nil
	}
	f.buf = bufferFor(int(h.stored))
	f.buf.SetLen(int(h.stored))
	_, err := io.ReadFull(s.r, f.buf.Bytes())
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		s.ends(s.off, fmt.Errorf("within a %s frame", h.typ))
		f.Release()
		return nil, nil
	}
	if err != nil {
		f.Release()
		return nil, fmt.Errorf("read archive: %w", err)
	}
	if f.buf, err = open(h, f.buf); err != nil {
		s.report(Problem{s.off, s.of(h.file, err)})
		f.Release()
		return nil, nil
	}
	return f, nil
}

// of adds the file's name.
func (s *Scanner) of(n FileNo, err error) error {
	if p := s.s.path(n); p != "" {
		return fmt.Errorf("file %q: %w", p, err)
	}
	return err
}

// mark remembers a file that lacks something.
func (s *Scanner) mark(n FileNo) {
	if n != 0 && len(s.lost) < MaxOpenFiles {
		s.lost[n] = true
	}
}

// pass counts a frame whose header is sound and whose payload is not.
func (s *Scanner) pass(h *frameHeader) {
	s.skipped = false
	if h.typ == FrameFile {
		s.s.files = max(s.s.files, h.file)
	}
	s.recover(h)
}

// take runs the frame through the rules across frames, and past those that
// cannot hold any more.
func (s *Scanner) take(f *Frame, h *frameHeader, head []byte, at int64) {
	if h.typ == FrameFile {
		if err := f.parseProvisional(); err != nil {
			s.report(Problem{at, err})
		}
		s.s.files = max(s.s.files, h.file-1)
	}
	if h.seq != s.s.seq {
		if !s.skipped || h.seq < s.s.seq {
			s.report(Problem{at, fmt.Errorf("a part of the archive is missing, doubled or swapped (frame with sequence number %d, expected %d)", h.seq, s.s.seq)})
		}
		s.s.seq = h.seq
		s.gap = true
		// Which files the missing frames belonged to nobody knows.
		for n := range s.s.open {
			s.mark(n)
		}
	}
	s.skipped = false
	if err := s.s.accept(h, head, f.Path); err != nil {
		// After a gap, files of which nobody saw the beginning, and redo and
		// manifest that do not join, are no damage of their own.
		if !s.lost[h.file] && !s.gap {
			s.report(Problem{at, s.of(h.file, err)})
		}
		s.mark(h.file)
		s.recover(h)
	}
	s.index.frame(h, at)
	switch {
	case h.typ == FrameClose:
		delete(s.lost, h.file)
	case h.typ == FrameManifest && s.manifest == 0:
		s.manifest = uint64(at)
	case h.typ == FrameIndex:
		// Where frames are missing the index must differ.
		if err := s.index.compare(f.Bytes(), at); err != nil && !s.damaged {
			s.report(Problem{at, err})
		}
	case h.typ == FrameEnd:
		s.compareEnd(decodeEnd(f.Bytes()), at)
	}
}

// recover brings the rules into a state from which they can go on.
func (s *Scanner) recover(h *frameHeader) {
	s.s.seq = h.seq + 1
	switch h.typ {
	case FrameClose:
		delete(s.s.open, h.file)
	case FrameRedo:
		s.s.redoNext = h.offset + uint64(h.rawLen)
	case FrameManifest:
		s.s.manifest = h.offset + uint64(h.rawLen)
		clear(s.s.open)
	case FrameIndex:
		s.s.indexed = h.offset + uint64(h.rawLen-indexHead)/indexEntry
	case FrameEnd:
		s.s.ended = true
	}
}

// compareEnd says how the end frame differs from what was found, unless it must
// because something is missing already.
func (s *Scanner) compareEnd(e endPayload, at int64) {
	s.end = &e
	if s.damaged {
		return
	}
	if e.totals != s.s.totals {
		s.report(Problem{at, fmt.Errorf("END frame: totals are %+v, counted %+v", e.totals, s.s.totals)})
	}
	if e.digest != s.s.sum() {
		s.report(Problem{at, errors.New("END frame: the digest over the frame headers does not match")})
	}
	if e.manifest != s.manifest || e.index != s.index.last {
		s.report(Problem{at, fmt.Errorf("END frame: manifest at %d, index at %d, found them at %d and %d", e.manifest, e.index, s.manifest, s.index.last)})
	}
	if err := s.index.complete(); err != nil {
		s.report(Problem{at, err})
	}
}
