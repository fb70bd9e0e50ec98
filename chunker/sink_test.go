package chunker_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/xbstream/xbstream/format"
)

// dirSink writes files by number into a directory and checks what a reader of
// the archive would: that data and holes cover each file exactly once.
type dirSink struct {
	dir string

	mu    sync.Mutex
	files map[format.FileNo]*sinkFile
	data  int64 // bytes that came as data
	holes int64
}

type sinkFile struct {
	file   format.File
	out    *os.File
	pieces [][2]int64
	ended  bool
}

func newDirSink(t testing.TB) *dirSink {
	s := &dirSink{dir: t.TempDir(), files: make(map[format.FileNo]*sinkFile)}
	t.Cleanup(func() {
		for _, f := range s.files {
			f.out.Close() // already closed if the copy ended well
		}
	})
	return s
}

func (s *dirSink) path(no format.FileNo) string { return filepath.Join(s.dir, no.String()) }

func (s *dirSink) BeginFile(f format.File) (format.FileNo, error) {
	if err := format.CheckPath(f.Path); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	no := format.FileNo(len(s.files) + 1)
	out, err := os.Create(s.path(no))
	s.files[no] = &sinkFile{file: f, out: out}
	return no, err
}

func (s *dirSink) piece(no format.FileNo, off, n int64) (*sinkFile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[no]
	if f == nil || f.ended || n <= 0 {
		return nil, fmt.Errorf("%d bytes at %d of file %d, which is not open", n, off, no)
	}
	f.pieces = append(f.pieces, [2]int64{off, n})
	return f, nil
}

func (s *dirSink) WriteData(no format.FileNo, off int64, b *format.Buffer) error {
	defer b.Release()
	n := int64(len(b.Bytes()))
	f, err := s.piece(no, off, n)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.data += n
	s.mu.Unlock()
	_, err = f.out.WriteAt(b.Bytes(), off)
	return err
}

func (s *dirSink) WriteHole(no format.FileNo, off, n int64) error {
	_, err := s.piece(no, off, n)
	s.mu.Lock()
	s.holes += n
	s.mu.Unlock()
	return err
}

func (s *dirSink) EndFile(no format.FileNo, size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[no]
	if f == nil || f.ended {
		return fmt.Errorf("end of file %d, which is not open", no)
	}
	f.ended = true
	slices.SortFunc(f.pieces, func(a, b [2]int64) int { return int(min(max(a[0]-b[0], -1), 1)) })
	var end int64
	for _, p := range f.pieces {
		if p[0] != end {
			return fmt.Errorf("%s: a piece at %d where %d was to come", f.file.Path, p[0], end)
		}
		end += p[1]
	}
	if end != size {
		return fmt.Errorf("%s: %d bytes of %d", f.file.Path, end, size)
	}
	return errors.Join(f.out.Truncate(size), f.out.Close())
}

// unended lists the files that were begun but not ended.
func (s *dirSink) unended() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		if !f.ended {
			names = append(names, f.file.Path)
		}
	}
	return names
}
