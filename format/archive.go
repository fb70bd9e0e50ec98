package format

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Archive is an archive in a file, of which a reader wants only a part. It
// reads the end frame, the manifest, the index and the frames that are wanted,
// and nothing else (SPEC.md §7); about the rest it says nothing.
type Archive struct {
	ra   io.ReaderAt
	size int64
	id   ArchiveID
	end  endPayload
	at   int64 // of the end frame
}

// OpenArchive reads header and end frame of an archive of size bytes. An
// archive without a valid end frame wraps ErrDamaged.
func OpenArchive(ra io.ReaderAt, size int64) (*Archive, error) {
	h, _, err := readArchiveHeader(bufio.NewReaderSize(io.NewSectionReader(ra, 0, size), sniffed))
	if err != nil {
		return nil, err
	}
	a := &Archive{ra: ra, size: size, id: h.id, at: size - frameHeaderSize - endSize}
	if a.at < archiveHeaderSize {
		return nil, truncated(size)
	}
	eh, b, err := a.frame(a.at)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", truncated(size), err)
	}
	defer b.Release()
	if eh.typ != FrameEnd {
		return nil, fmt.Errorf("%w (%s frame where the END frame should be)", truncated(size), eh.typ)
	}
	a.end = decodeEnd(b.Bytes())
	return a, nil
}

// ID returns the archive's id in hexadecimal.
func (a *Archive) ID() string { return a.id.String() }

// Totals returns the counts of the end frame.
func (a *Archive) Totals() Totals { return a.end.totals }

func (a *Archive) damaged(at int64, err error) error {
	return fmt.Errorf("%w: after %s (frame at offset %d: %w)", ErrDamaged, humanSize(at), at, err)
}

// frame reads and checks the frame at offset at by itself. The buffer is the
// caller's, and nil for a frame without payload.
func (a *Archive) frame(at int64) (frameHeader, *Buffer, error) {
	var head [frameHeaderSize]byte
	if err := a.read(head[:], at); err != nil {
		return frameHeader{}, nil, err
	}
	h, err := decodeFrameHeader(head[:], &a.id)
	if err == nil {
		err = h.check()
	}
	if err != nil {
		return h, nil, a.damaged(at, err)
	}
	if h.stored == 0 {
		return h, nil, nil
	}
	b := bufferFor(int(h.stored))
	b.SetLen(int(h.stored))
	if err := a.read(b.Bytes(), at+frameHeaderSize); err != nil {
		b.Release()
		return h, nil, err
	}
	b, err = open(&h, b)
	if err != nil {
		b.Release()
		return h, nil, a.damaged(at, err)
	}
	return h, b, nil
}

func (a *Archive) read(p []byte, at int64) error {
	if at < 0 || at+int64(len(p)) > a.size {
		return a.damaged(at, errors.New("outside of the archive"))
	}
	if n, err := a.ra.ReadAt(p, at); n < len(p) {
		if err == io.EOF {
			return a.damaged(at, ErrTruncated)
		}
		return fmt.Errorf("read archive at offset %d: %w", at, err)
	}
	return nil
}

// Manifest reads the manifest and calls each for every file.
func (a *Archive) Manifest(each func(*File) error) (*Manifest, error) {
	m, err := DecodeManifest(&manifestReader{a: a, at: int64(a.end.manifest)}, each)
	if err == nil && m.ArchiveID != a.id.String() {
		err = a.damaged(int64(a.end.manifest), fmt.Errorf("manifest of archive %s, this is %s", m.ArchiveID, a.id))
	}
	return m, err
}

// manifestReader reads the payloads of the MANIFEST frames, which stand side by
// side but for INDEX frames.
type manifestReader struct {
	a    *Archive
	at   int64
	pos  uint64
	buf  *Buffer
	rest []byte
}

func (m *manifestReader) Read(p []byte) (int, error) {
	for len(m.rest) == 0 {
		if m.buf != nil {
			m.buf.Release()
			m.buf = nil
		}
		if m.at >= m.a.at {
			return 0, io.EOF
		}
		h, b, err := m.a.frame(m.at)
		if err != nil {
			return 0, err
		}
		m.buf = b
		switch {
		case h.typ == FrameIndex:
		case h.typ != FrameManifest || h.offset != m.pos:
			return 0, m.a.damaged(m.at, fmt.Errorf("%s frame at position %d in the manifest, expected position %d", h.typ, h.offset, m.pos))
		default:
			m.rest = b.Bytes()
			m.pos += uint64(h.rawLen)
		}
		m.at += frameHeaderSize + int64(h.stored)
	}
	n := copy(p, m.rest)
	m.rest = m.rest[n:]
	return n, nil
}

// places lists, in the order of the archive, the frames of files that are
// wanted; frames of redo have file number 0.
func (a *Archive) places(wanted func(FileNo) bool) ([]place, error) {
	var pieces [][]place
	for at, limit := a.end.index, uint64(a.at); at != 0; {
		if at >= limit {
			return nil, a.damaged(int64(at), errors.New("index that does not point back"))
		}
		h, b, err := a.frame(int64(at))
		if err != nil {
			return nil, err
		}
		if h.typ != FrameIndex {
			b.Release()
			return nil, a.damaged(int64(at), fmt.Errorf("%s frame where an INDEX frame should be", h.typ))
		}
		before, all := parseIndex(b.Bytes())
		b.Release()
		all = slices.DeleteFunc(all, func(p place) bool { return !wanted(p.file) })
		pieces = append(pieces, slices.Clone(all)) // without room for the others
		at, limit = before, at
	}
	slices.Reverse(pieces)
	return slices.Concat(pieces...), nil
}

// Indexed reports whether there is an index; without one Select finds nothing.
func (a *Archive) Indexed() bool { return a.end.index != 0 }

// Select returns a reader of the frames of files that are wanted, by number, of
// the redo if wanted(0) says so, and of the manifest.
func (a *Archive) Select(wanted func(FileNo) bool) (*Selection, error) {
	p, err := a.places(wanted)
	if err != nil {
		return nil, err
	}
	return &Selection{a: a, places: p, open: map[FileNo]*openFile{}, manifest: int64(a.end.manifest)}, nil
}

// Selection reads some of the frames of an archive. Each file it returns frames
// of is covered from the first byte to the last; redo joins without gap.
type Selection struct {
	a        *Archive
	places   []place
	open     map[FileNo]*openFile
	seq      uint64 // one more than that of the last frame
	redoNext uint64
	manifest int64 // where to read on in the manifest
	totals   Totals
	err      error
}

// ID returns the archive's id in hexadecimal.
func (s *Selection) ID() string { return s.a.id.String() }

// Totals counts what was selected, after Next returned io.EOF.
func (s *Selection) Totals() Totals { return s.totals }

// Close does nothing; a Selection holds nothing.
func (s *Selection) Close() {}

// Next returns the next frame, io.EOF after the last.
func (s *Selection) Next() (*Frame, error) {
	if s.err != nil {
		return nil, s.err
	}
	f, err := s.next()
	if err != nil {
		s.err = err
		return nil, err
	}
	return f, nil
}

func (s *Selection) next() (*Frame, error) {
	if len(s.places) == 0 {
		return s.nextManifest()
	}
	p := s.places[0]
	s.places = s.places[1:]
	h, b, err := s.a.frame(int64(p.at))
	if err != nil {
		return nil, err
	}
	f := &Frame{Type: h.typ, Seq: h.seq, File: h.file, Pos: h.offset, Len: int64(h.rawLen), buf: b}
	if err = s.take(f, &h, p); err != nil {
		f.Release()
		return nil, s.a.damaged(int64(p.at), err)
	}
	if len(s.places) == 0 {
		for _, o := range s.open {
			f.Release()
			return nil, s.a.damaged(s.a.at, fmt.Errorf("file %q has no end in the index", o.path))
		}
	}
	return f, nil
}

// take applies the rules across frames that hold for a part as well.
func (s *Selection) take(f *Frame, h *frameHeader, p place) error {
	if h.file != p.file || h.typ > FrameRedo {
		return fmt.Errorf("%s frame of file %d, indexed as one of file %d", h.typ, h.file, p.file)
	}
	if h.seq < s.seq {
		return fmt.Errorf("sequence number %d after %d", h.seq, s.seq-1)
	}
	s.seq = h.seq + 1
	s.totals.Frames++
	switch h.typ {
	case FrameFile:
		if err := f.parseProvisional(); err != nil {
			return err
		}
		if s.open[h.file] != nil || len(s.open) >= MaxOpenFiles {
			return errors.New("FILE frame out of place")
		}
		s.open[h.file] = &openFile{path: f.Path}
		s.totals.Files++
	case FrameRedo:
		if s.redoNext != 0 && s.redoNext != h.offset {
			return fmt.Errorf("REDO frame at position %d, expected %d", h.offset, s.redoNext)
		}
		s.redoNext = h.offset + uint64(h.rawLen)
		s.totals.RedoBytes += uint64(h.rawLen)
	default:
		return s.cover(h)
	}
	return nil
}

func (s *Selection) cover(h *frameHeader) error {
	o := s.open[h.file]
	if o == nil {
		return fmt.Errorf("%s frame for file %d, which is not open", h.typ, h.file)
	}
	if h.typ == FrameClose {
		delete(s.open, h.file)
		return o.ext.whole(h.offset)
	}
	if h.typ == FrameData {
		s.totals.DataBytes += uint64(h.rawLen)
	} else {
		s.totals.HoleBytes += uint64(h.rawLen)
	}
	return o.ext.add(h.offset, h.offset+uint64(h.rawLen))
}

func (s *Selection) nextManifest() (*Frame, error) {
	for s.manifest < s.a.at {
		h, b, err := s.a.frame(s.manifest)
		if err != nil {
			return nil, err
		}
		s.manifest += frameHeaderSize + int64(h.stored)
		if h.typ == FrameManifest {
			return &Frame{Type: h.typ, Seq: h.seq, Pos: h.offset, Len: int64(h.rawLen), buf: b}, nil
		}
		b.Release()
	}
	return nil, io.EOF
}
