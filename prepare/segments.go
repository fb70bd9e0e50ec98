package prepare

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/xbstream/xbstream/internal/innodb/redolog"
)

// segments are the pieces of a log that are in memory. They are mapped, not
// copied: copying half a gigabyte of records into fresh memory costs more than
// all else that is done to them (measured: a third to two thirds of the time).
// Where a file cannot be mapped it is read.
//
// Each reaches into the next one as far as a mini-transaction can, so that one
// that starts in a segment lies in it as a whole.
type segments struct {
	f *os.File

	mu     sync.Mutex
	open   map[int64]*segment // by number
	noMaps bool               // mapping has failed
}

type segment struct {
	mem    []byte
	mapped bool
	filled int // bytes that were read, if it is not mapped
}

const (
	segmentSize = 4 << 20 // a multiple of every system's page size
	overlap     = redolog.MaxMTR + 4096
)

func newSegments(f *os.File) *segments { return &segments{f: f, open: map[int64]*segment{}} }

func segmentOf(off int64) int64 { return off / segmentSize }

// view returns n bytes, at most overlap, at an offset of the file, all of which
// are there. They are valid until the segment of off is dropped.
func (s *segments) view(off int64, n int) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := segmentOf(off)
	from := int(off - i*segmentSize)
	g, err := s.get(i, from+n)
	if err != nil {
		return nil, err
	}
	return g.mem[from : from+n : from+n], nil
}

// get returns a segment with at least its first n bytes.
func (s *segments) get(i int64, n int) (*segment, error) {
	g := s.open[i]
	if g == nil {
		g = s.add(i)
	}
	if g.mapped || g.filled >= n {
		return g, nil
	}
	got, err := s.f.ReadAt(g.mem[g.filled:n], i*segmentSize+int64(g.filled))
	if g.filled += got; g.filled == n {
		return g, nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return nil, err
}

func (s *segments) add(i int64) *segment {
	g := &segment{}
	if !s.noMaps {
		var err error
		g.mem, err = mapFile(s.f, i*segmentSize, segmentSize+overlap)
		g.mapped, s.noMaps = err == nil, err != nil
	}
	if !g.mapped {
		g.mem = make([]byte, segmentSize+overlap)
	}
	s.open[i] = g
	return g
}

// hold returns the bytes of the file from offset from to offset to, all of which
// are there. They must not be dropped while they are in use.
func (s *segments) hold(from, to int64) (held, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := held{first: segmentOf(from)}
	for i := h.first; i*segmentSize < to; i++ {
		g, err := s.get(i, int(min(to-i*segmentSize, segmentSize+overlap)))
		if err != nil {
			return held{}, err
		}
		h.mem = append(h.mem, g.mem)
	}
	return h, nil
}

// drop frees the segments from number first up to, but without, last.
func (s *segments) drop(first, last int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, g := range s.open {
		if i < first || i >= last {
			continue
		}
		delete(s.open, i)
		if !g.mapped {
			continue
		}
		if err := unmap(g.mem); err != nil {
			return err
		}
	}
	return nil
}

// held is a part of a log that stays in memory.
type held struct {
	first int64    // number of the first segment
	mem   [][]byte // of each segment
}

// bytes returns n bytes at an offset of the file, at most overlap.
func (h held) bytes(off int64, n uint32) []byte {
	i := segmentOf(off)
	from := uint32(off - i*segmentSize)
	return h.mem[i-h.first][from : from+n : from+n]
}

// readable runs f, which reads mapped files: when the system cannot bring a page
// of one, because the disk fails or the file was cut, that is an error of f.
func readable(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch r := recover().(type) {
		case nil:
		case interface {
			runtime.Error
			Addr() uintptr
		}:
			err = fmt.Errorf("%s: %w", redoName, syscall.EIO)
		default:
			panic(r)
		}
	}()
	return f()
}
