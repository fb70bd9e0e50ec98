package format

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
)

// stream holds the rules of SPEC.md §4 that span frames: order, numbering,
// coverage, totals and digest. Writer and Reader run every frame through it,
// so a writer cannot produce what a reader refuses.
type stream struct {
	seq      uint64
	files    FileNo // highest number announced
	open     map[FileNo]*openFile
	redoNext uint64 // 0 before the first REDO frame
	manifest uint64 // bytes of manifest so far
	indexed  uint64 // entries of INDEX frames so far
	ended    bool
	totals   Totals
	digest   hash.Hash
}

// openFile is a file between its FILE and its CLOSE frame.
type openFile struct {
	path string
	ext  extents
}

func newStream(archiveHeader []byte) *stream {
	s := &stream{open: make(map[FileNo]*openFile), digest: sha256.New()}
	s.digest.Write(archiveHeader)
	return s
}

// path returns the provisional path of an open file, for messages.
func (s *stream) path(n FileNo) string {
	if f := s.open[n]; f != nil {
		return f.path
	}
	return ""
}

// accept checks the frame against what came before and takes it into account.
// raw is the encoded header. For an END frame the digest excludes the frame
// itself, so the caller compares sum before calling accept.
func (s *stream) accept(h *frameHeader, raw []byte, path string) error {
	if s.ended {
		return errors.New("a frame after the end frame")
	}
	if h.seq != s.seq {
		return fmt.Errorf("sequence number %d, expected %d: frames are missing, doubled or swapped", h.seq, s.seq)
	}
	if s.manifest > 0 && h.typ.known() && h.typ < FrameManifest {
		return fmt.Errorf("%s frame after the manifest", h.typ)
	}
	if err := s.place(h, path); err != nil {
		return err
	}
	s.seq++
	if h.typ != FrameEnd {
		s.totals.Frames++
		s.digest.Write(raw)
	}
	return nil
}

func (s *stream) place(h *frameHeader, path string) error {
	switch h.typ {
	case FrameFile:
		return s.announce(h.file, path)
	case FrameData, FrameHole:
		return s.cover(h)
	case FrameClose:
		return s.close(h)
	case FrameRedo:
		return s.redo(h)
	case FrameManifest:
		return s.piece(h)
	case FrameIndex:
		return s.index(h)
	case FrameEnd:
		return s.end()
	}
	return nil
}

func (s *stream) announce(n FileNo, path string) error {
	if n != s.files+1 {
		return fmt.Errorf("FILE frame for number %d, expected %d", n, s.files+1)
	}
	if len(s.open) >= MaxOpenFiles {
		return fmt.Errorf("more than %d files open at once", MaxOpenFiles)
	}
	s.files = n
	s.totals.Files++
	s.open[n] = &openFile{path: path}
	return nil
}

func (s *stream) cover(h *frameHeader) error {
	f := s.open[h.file]
	if f == nil {
		return fmt.Errorf("%s frame for file %d, which is not open", h.typ, h.file)
	}
	if err := f.ext.add(h.offset, h.offset+uint64(h.rawLen)); err != nil {
		return err
	}
	if h.typ == FrameData {
		s.totals.DataBytes += uint64(h.rawLen)
	} else {
		s.totals.HoleBytes += uint64(h.rawLen)
	}
	return nil
}

func (s *stream) close(h *frameHeader) error {
	f := s.open[h.file]
	if f == nil {
		return fmt.Errorf("CLOSE frame for file %d, which is not open", h.file)
	}
	if err := f.ext.whole(h.offset); err != nil {
		return err
	}
	delete(s.open, h.file)
	return nil
}

func (s *stream) redo(h *frameHeader) error {
	if s.redoNext != 0 && h.offset != s.redoNext {
		return fmt.Errorf("REDO frame at position %d, expected %d", h.offset, s.redoNext)
	}
	s.redoNext = h.offset + uint64(h.rawLen)
	s.totals.RedoBytes += uint64(h.rawLen)
	return nil
}

func (s *stream) piece(h *frameHeader) error {
	if len(s.open) > 0 {
		return s.stillOpen()
	}
	if h.offset != s.manifest {
		return fmt.Errorf("MANIFEST frame at position %d, expected %d", h.offset, s.manifest)
	}
	s.manifest += uint64(h.rawLen)
	if s.manifest > MaxManifest {
		return fmt.Errorf("manifest of more than %d bytes", int64(MaxManifest))
	}
	return nil
}

func (s *stream) index(h *frameHeader) error {
	if h.offset != s.indexed {
		return fmt.Errorf("INDEX frame at position %d, expected %d", h.offset, s.indexed)
	}
	s.indexed += uint64(h.rawLen-indexHead) / indexEntry
	return nil
}

func (s *stream) end() error {
	if len(s.open) > 0 {
		return s.stillOpen()
	}
	if s.manifest == 0 {
		return errors.New("END frame without a manifest")
	}
	s.ended = true
	return nil
}

func (s *stream) stillOpen() error {
	for n, f := range s.open {
		return fmt.Errorf("file %d (%q) was never closed", n, f.path)
	}
	return nil
}

func (s *stream) sum() (d [32]byte) {
	s.digest.Sum(d[:0])
	return d
}
