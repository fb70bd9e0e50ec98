package prepare

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A log is the same whether it is mapped or, where that cannot be done, read;
// also one that grows meanwhile.
func TestSegments(t *testing.T) {
	log := make([]byte, 2*segmentSize+segmentSize/2)
	rand.NewChaCha8([32]byte{}).Read(log)
	for name, noMaps := range map[string]bool{"mapped": false, "read": true} {
		t.Run(name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "log"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			s := newSegments(f)
			s.noMaps = noMaps
			for at := 0; at < len(log); {
				n := min(300_000, len(log)-at)
				if _, err := f.Write(log[at : at+n]); err != nil {
					t.Fatal(err)
				}
				if got, err := s.view(int64(at), n); err != nil || !bytes.Equal(got, log[at:at+n]) {
					t.Fatalf("view at %d differs, error %v", at, err)
				}
				at += n
			}
			const from = segmentSize - 100
			h, err := s.hold(from, int64(len(log)))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.drop(0, h.first); err != nil {
				t.Fatal(err)
			}
			for at := int64(from); at < int64(len(log)); at += 99_991 {
				n := min(overlap, int64(len(log))-at)
				if !bytes.Equal(h.bytes(at, uint32(n)), log[at:at+n]) {
					t.Fatalf("what is held at %d differs", at)
				}
			}
			if err := s.drop(0, math.MaxInt64); err != nil || len(s.open) != 0 {
				t.Errorf("%d segments stay open, error %v", len(s.open), err)
			}
		})
	}
}

// A file that ends before what should be there is an error, not a crash.
func TestSegmentsOfACutFile(t *testing.T) {
	for name, c := range map[string]struct {
		noMaps bool
		want   error
	}{"mapped": {false, syscall.EIO}, "read": {true, io.ErrUnexpectedEOF}} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(path, make([]byte, 100_000), 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			s := newSegments(f)
			s.noMaps = c.noMaps
			defer s.drop(0, math.MaxInt64)
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
			sum := byte(0)
			err = readable(func() error {
				b, err := s.view(0, 100_000)
				if err == nil {
					sum = b[50_000]
				}
				return err
			})
			if !errors.Is(err, c.want) || sum != 0 {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// Only faults of memory are turned into errors.
func TestReadableLetsOtherPanicsPass(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("the panic is lost")
		}
	}()
	err := readable(func() error { panic("other") })
	t.Errorf("returned %v", err)
}
