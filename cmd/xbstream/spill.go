package main

import (
	"bytes"
	"io"
	"os"

	"github.com/xbstream/xbstream/format"
)

// spillAt is how much of a manifest stays in memory, in bytes.
const spillAt = 8 << 20

// spill keeps the text of a manifest until it is read: in memory, and in a
// temporary file when that is too much of it.
type spill struct {
	mem  bytes.Buffer
	file *os.File
}

func (s *spill) Write(p []byte) (int, error) {
	if s.file == nil && s.mem.Len()+len(p) <= spillAt {
		return s.mem.Write(p)
	}
	if s.file == nil {
		f, err := os.CreateTemp("", "xbstream-manifest-")
		if err != nil {
			return 0, err
		}
		s.file = f
		os.Remove(f.Name()) // where open files can be removed, nothing can be left behind
		if _, err := s.mem.WriteTo(f); err != nil {
			return 0, err
		}
		s.mem = bytes.Buffer{}
	}
	return s.file.Write(p)
}

// manifest reads what was written as a manifest, any number of times.
func (s *spill) manifest(each eachFile) (*format.Manifest, error) {
	if s.file == nil {
		return format.DecodeManifest(bytes.NewReader(s.mem.Bytes()), each)
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return format.DecodeManifest(s.file, each)
}

func (s *spill) Close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	os.Remove(s.file.Name())
	return err
}
