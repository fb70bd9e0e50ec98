package format

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
)

// manyFiles writes an archive of n files of about size random bytes each, with
// an index in several pieces.
func manyFiles(t testing.TB, n, size int, opt WriterOptions) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := newWriter(&out, ArchiveID{9}, opt)
	check(t, err)
	m := &Manifest{Tool: "test"}
	rnd := rand.New(rand.NewPCG(3, 4))
	lsn := LSN(77)
	for i := range n {
		f := File{Path: fmt.Sprintf("f%d", i), Kind: KindFile}
		f.No, err = w.BeginFile(f)
		check(t, err)
		for f.Size < int64(size) {
			b := GetBuffer()
			p := b.Space()[:1+rnd.IntN(smallBuffer)]
			for j := range p {
				p[j] = byte(rnd.Uint32N(3)) + byte(i)
			}
			b.SetLen(len(p))
			n := int64(len(p))
			check(t, w.WriteData(f.No, f.Size, b))
			f.Size += n
		}
		check(t, w.WriteRedo(RedoPosition(lsn), []byte{byte(i)}))
		lsn++
		if i%3 == 0 {
			w.mu.Lock()
			check(t, w.flushIndex())
			w.mu.Unlock()
		}
		check(t, w.EndFile(f.No, f.Size))
		m.Files = append(m.Files, f)
	}
	_, err = w.Close(m)
	check(t, err)
	return out.Bytes()
}

// contents gathers the bytes of each file and of the redo (number 0).
func contents(next func() (*Frame, error)) (map[FileNo][]byte, error) {
	got := map[FileNo][]byte{}
	for {
		f, err := next()
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			return nil, err
		}
		if f.Type == FrameData || f.Type == FrameRedo {
			got[f.File] = append(got[f.File], f.Bytes()...)
		}
		f.Release()
	}
}

// countingReaderAt counts the bytes that are read.
type countingReaderAt struct {
	r io.ReaderAt
	n int64
}

func (c *countingReaderAt) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.r.ReadAt(p, off)
	c.n += int64(n)
	return n, err
}

func TestSelectionReturnsWhatTheStreamHolds(t *testing.T) {
	for _, opt := range bothWays {
		a := manyFiles(t, 40, 100<<10, opt)
		r, err := NewReader(bytes.NewReader(a), ReaderOptions{})
		check(t, err)
		all, err := contents(r.Next)
		check(t, err)
		for _, want := range [][]FileNo{{1}, {40}, {7, 8, 31}, {0}, {0, 5}, {}} {
			count := &countingReaderAt{r: bytes.NewReader(a)}
			ar, err := OpenArchive(count, int64(len(a)))
			check(t, err)
			m, err := ar.Manifest(func(*File) error { return nil })
			check(t, err)
			if m.ArchiveID != ar.id.String() {
				t.Errorf("manifest of archive %s", m.ArchiveID)
			}
			set := map[FileNo]bool{}
			size := 0
			for _, n := range want {
				set[n] = true
				size += len(all[n])
			}
			s, err := ar.Select(func(n FileNo) bool { return set[n] })
			check(t, err)
			got, err := contents(s.Next)
			check(t, err)
			if len(got) != len(want) {
				t.Errorf("select %v: got %d files", want, len(got))
			}
			for n := range set {
				if !bytes.Equal(got[n], all[n]) {
					t.Errorf("select %v: file %d differs", want, n)
				}
			}
			if limit := int64(size + len(a)/8); count.n > limit {
				t.Errorf("select %v: read %d of %d bytes for %d bytes of content", want, count.n, len(a), size)
			}
		}
	}
}

// Damage in what is wanted, in the index or at the end is noticed by jumping
// readers too; a cut always is.
func TestSelectionOfDamagedArchive(t *testing.T) {
	a := manyFiles(t, 7, 3000, WriterOptions{})
	read := func(a []byte) error {
		ar, err := OpenArchive(bytes.NewReader(a), int64(len(a)))
		if err != nil {
			return err
		}
		if _, err := ar.Manifest(func(*File) error { return nil }); err != nil {
			return err
		}
		s, err := ar.Select(func(FileNo) bool { return true })
		if err != nil {
			return err
		}
		_, err = contents(s.Next)
		return err
	}
	check(t, read(a))
	for n := range len(a) {
		if err := read(a[:n]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut after %d of %d bytes: error %v, want ErrDamaged", n, len(a), err)
		}
	}
	for i := range a {
		bit := byte(1) << (i % 8)
		a[i] ^= bit
		if err := read(a); !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d flipped: error %v, want ErrDamaged", i, err)
		}
		a[i] ^= bit
	}
}

func FuzzSelection(f *testing.F) {
	a := manyFiles(f, 3, 200, WriterOptions{Compress: Fast})
	f.Add(a, uint32(50), uint8(1))
	f.Add(a[:len(a)-1], uint32(0), uint8(0))
	f.Fuzz(func(t *testing.T, in []byte, at uint32, flip uint8) {
		in = bytes.Clone(in)
		if len(in) > 0 {
			in[int(at)%len(in)] ^= flip
		}
		ar, err := OpenArchive(bytes.NewReader(in), int64(len(in)))
		if err != nil {
			return
		}
		ar.Manifest(func(*File) error { return nil })
		if s, err := ar.Select(func(FileNo) bool { return true }); err == nil {
			contents(s.Next)
		}
	})
}
