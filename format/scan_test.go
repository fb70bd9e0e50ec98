package format

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// scan returns what a scanner says of an archive, and how many frames it saw.
func scan(t testing.TB, a []byte) (problems []string, frames int) {
	t.Helper()
	s, err := NewScanner(bytes.NewReader(a), func(p Problem) { problems = append(problems, p.String()) })
	if err != nil {
		return []string{err.Error()}, 0
	}
	for {
		f, err := s.Next()
		if err == io.EOF {
			return problems, frames
		}
		check(t, err)
		frames++
		f.Release()
	}
}

func TestScannerSaysNothingOfSoundArchives(t *testing.T) {
	for _, opt := range bothWays {
		if p, n := scan(t, manyFiles(t, 9, 5000, opt)); len(p) > 0 || n < 30 {
			t.Errorf("%d frames, problems %q", n, p)
		}
	}
}

// Whatever byte is flipped, the scanner says so, and sees all other frames.
func TestScannerGoesOnAfterDamage(t *testing.T) {
	a := threeFiles(t, 1, WriterOptions{})
	_, all := scan(t, a)
	for i := archiveHeaderSize; i < len(a); i++ {
		a[i] ^= 0x10
		// E9: one damaged place is one problem.
		if p, n := scan(t, a); len(p) != 1 || n < all-1 {
			t.Fatalf("byte %d flipped: %d of %d frames, problems %q", i, n, all, p)
		}
		a[i] ^= 0x10
	}
	for n := archiveHeaderSize; n < len(a); n++ {
		if p, _ := scan(t, a[:n]); len(p) != 1 || !strings.Contains(strings.Join(p, " "), ErrTruncated.Error()) {
			t.Fatalf("cut after %d bytes: problems %q", n, p)
		}
	}
}

// Two places of damage are two problems, at the places.
func TestScannerReportsEachDamage(t *testing.T) {
	a := manyFiles(t, 5, 1000, WriterOptions{})
	at := frameBounds(t, a)
	a[at[1]+frameHeaderSize+5] ^= 1 // payload of the first file
	a[at[len(at)/2]+10] ^= 1        // a header in the middle
	p, _ := scan(t, a)
	text := strings.Join(p, "\n")
	if len(p) != 2 {
		t.Errorf("%d problems, want 2", len(p))
	}
	for _, want := range []string{`file "f0": DATA frame: payload checksum`, "bytes that are no frame"} {
		if !strings.Contains(text, want) {
			t.Errorf("problems do not mention %q:\n%s", want, text)
		}
	}
}

func FuzzScanner(f *testing.F) {
	a := threeFiles(f, 1, WriterOptions{Compress: Fast})
	f.Add(a, uint32(50), uint8(1))
	f.Add(a[:len(a)-1], uint32(0), uint8(0))
	f.Fuzz(func(t *testing.T, in []byte, at uint32, flip uint8) {
		in = bytes.Clone(in)
		if len(in) > 0 {
			in[int(at)%len(in)] ^= flip
		}
		scan(t, in)
	})
}
