package format

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// threeFiles writes an archive of three files, redo and a manifest, small
// enough for exhaustive sweeps.
func threeFiles(t testing.TB, id byte, opt WriterOptions) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := newWriter(&out, ArchiveID{id}, opt)
	check(t, err)
	m := &Manifest{Tool: "test 1", Started: time.Unix(1, 0).UTC(), Finished: time.Unix(2, 0).UTC(), Files: []File{{Path: "db", Kind: KindDir, Mode: 0o750}}}
	for i, text := range []string{strings.Repeat("first file ", 20), "second, with a hole", ""} {
		f := File{Path: fmt.Sprintf("db/f%d", i), Kind: KindFile, Mode: 0o640}
		f.No, err = w.BeginFile(f)
		check(t, err)
		if text != "" {
			b := GetBuffer()
			b.SetLen(copy(b.Space(), text))
			check(t, w.WriteData(f.No, 0, b))
		}
		f.Size = int64(len(text))
		if i == 1 {
			check(t, w.WriteHole(f.No, f.Size, 4096))
			f.Size += 4096
		}
		check(t, w.WriteRedo(RedoPosition(1000+10*i), []byte("0123456789")))
		check(t, w.EndFile(f.No, f.Size))
		m.Files = append(m.Files, f)
	}
	_, err = w.Close(m)
	check(t, err)
	return out.Bytes()
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// readAll reads an archive to its end and returns the frames in words.
func readAll(r io.Reader) (frames []string, err error) {
	ar, err := NewReader(r, ReaderOptions{})
	if err != nil {
		return nil, err
	}
	var manifest bytes.Buffer
	for {
		f, err := ar.Next()
		if err == io.EOF {
			_, err := ReadManifest(&manifest)
			return frames, err
		}
		if err != nil {
			return frames, err
		}
		if f.Type == FrameManifest {
			manifest.Write(f.Bytes())
		} else if f.Type != FrameIndex {
			frames = append(frames, fmt.Sprintf("%s %d %d+%d %q%s", f.Type, f.File, f.Pos, f.Len, f.Bytes(), f.Path))
		}
		f.Release()
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for _, opt := range bothWays {
		frames, err := readAll(iotest.OneByteReader(bytes.NewReader(threeFiles(t, 1, opt))))
		check(t, err)
		compareFrames(t, frames)
	}
	plain, small := threeFiles(t, 1, bothWays[0]), threeFiles(t, 1, bothWays[1])
	if len(small) > len(plain)-150 {
		t.Errorf("%d bytes compressed, %d stored", len(small), len(plain))
	}
}

func compareFrames(t *testing.T, frames []string) {
	t.Helper()
	want := []string{
		`FILE 1 0+30 "{\"path\":\"db/f0\",\"kind\":\"file\"}"db/f0`,
		`DATA 1 0+220 "` + strings.Repeat("first file ", 20) + `"`,
		`REDO 0 1000+10 "0123456789"`,
		`CLOSE 1 220+0 ""`,
		`FILE 2 0+30 "{\"path\":\"db/f1\",\"kind\":\"file\"}"db/f1`,
		`DATA 2 0+19 "second, with a hole"`,
		`HOLE 2 19+4096 ""`,
		`REDO 0 1010+10 "0123456789"`,
		`CLOSE 2 4115+0 ""`,
		`FILE 3 0+30 "{\"path\":\"db/f2\",\"kind\":\"file\"}"db/f2`,
		`REDO 0 1020+10 "0123456789"`,
		`CLOSE 3 0+0 ""`,
	}
	if got, want := strings.Join(frames, "\n"), strings.Join(want, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

var bothWays = []WriterOptions{{}, {Compress: Fast}}

// frameBounds returns where each frame begins, and the end.
func frameBounds(t *testing.T, a []byte) []int {
	var at []int
	for off := archiveHeaderSize; off < len(a); {
		at = append(at, off)
		h, err := decodeFrameHeader(a[off:], (*ArchiveID)(a[12:28]))
		check(t, err)
		off += frameHeaderSize + int(h.stored)
	}
	return append(at, len(a))
}

func TestWhatIsNoArchiveIsRefused(t *testing.T) {
	a := threeFiles(t, 1, WriterOptions{})
	// E4: it is called by its name.
	for in, want := range map[string]string{
		"-- MySQL dump 10.19  Distrib 10.11.19-MariaDB\n": "an SQL dump", "x": "text", string(make([]byte, 1<<16)): "zeros",
		"\x1f\x8b\x08": "gzip", "\x28\xb5\x2f\xfd": "zstd", "<?xml version='1.0'?><Error>": "object storage", "\x01\x02\x03\xff": "01 02 03 ff",
		"Debian GNU/Linux\n" + string(a): "17 bytes in front of it", "XBSTCK01\x00P\x07\x00\x00\x00ibdata1": "something else",
	} {
		_, err := readAll(strings.NewReader(in))
		if !errors.Is(err, ErrNotArchive) || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: error %v, want ErrNotArchive and %q", in, err, want)
		}
	}
	// An archive with a damaged beginning stays an archive.
	for name, in := range map[string][]byte{
		"empty":        nil,
		"line ends":    bytes.Replace(a, []byte("\r\n"), []byte("\n"), 1),
		"two archives": append(bytes.Clone(a), a...),
		"trailing NUL": append(bytes.Clone(a), 0),
	} {
		if _, err := readAll(bytes.NewReader(in)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: error %v, want ErrDamaged", name, err)
		}
	}
}

func TestErrorOfTheSourceIsNotCalledDamage(t *testing.T) {
	boom := errors.New("boom")
	r := io.MultiReader(bytes.NewReader(threeFiles(t, 1, WriterOptions{})[:200]), iotest.ErrReader(boom))
	if _, err := readAll(r); !errors.Is(err, boom) || errors.Is(err, ErrDamaged) {
		t.Errorf("error %v, want boom and not ErrDamaged", err)
	}
}

func TestWriterRefusesWhatReadersRefuse(t *testing.T) {
	data := func(s string) *Buffer {
		b := GetBuffer()
		b.SetLen(copy(b.Space(), s))
		return b
	}
	for name, try := range map[string]func(w *Writer) error{
		"overlap": func(w *Writer) error {
			check(t, w.WriteData(1, 0, data("abc")))
			return w.WriteData(1, 2, data("abc"))
		},
		"gap":          func(w *Writer) error { check(t, w.WriteData(1, 1, data("abc"))); return w.EndFile(1, 4) },
		"short":        func(w *Writer) error { check(t, w.WriteData(1, 0, data("abc"))); return w.EndFile(1, 4) },
		"long":         func(w *Writer) error { check(t, w.WriteData(1, 0, data("abc"))); return w.EndFile(1, 2) },
		"unknown file": func(w *Writer) error { return w.WriteData(2, 0, data("abc")) },
		"redo gap": func(w *Writer) error {
			check(t, w.WriteRedo(5, []byte("abc")))
			return w.WriteRedo(9, []byte("abc"))
		},
		"file left open":  func(w *Writer) error { _, err := w.Close(&Manifest{}); return err },
		"path leaves":     func(w *Writer) error { _, err := w.BeginFile(File{Path: "../x"}); return err },
		"absolute path":   func(w *Writer) error { _, err := w.BeginFile(File{Path: "/x"}); return err },
		"hole out of max": func(w *Writer) error { return w.WriteHole(1, MaxFileSize, 1) },
	} {
		w, err := newWriter(io.Discard, ArchiveID{}, WriterOptions{})
		check(t, err)
		if _, err := w.BeginFile(File{Path: "f", Kind: KindFile}); err != nil {
			t.Fatal(err)
		}
		if err := try(w); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestFailedWriteLeavesNoEndFrame(t *testing.T) {
	var out bytes.Buffer
	w, err := NewWriter(&out, WriterOptions{})
	check(t, err)
	w.Abort(errors.New("server lost"))
	before := out.Len()
	if _, err := w.Close(&Manifest{}); err == nil || out.Len() != before {
		t.Errorf("Close after Abort: error %v, %d bytes written", err, out.Len()-before)
	}
}

func TestExtents(t *testing.T) {
	// Every order of four pieces makes the file whole, and never before the
	// last one.
	var permute func(rest, taken []uint64)
	permute = func(rest, taken []uint64) {
		if len(rest) > 0 {
			for i := range rest {
				next := append(append([]uint64{}, rest[:i]...), rest[i+1:]...)
				permute(next, append(append([]uint64{}, taken...), rest[i]))
			}
			return
		}
		var x extents
		for i, k := range taken {
			if err := x.whole(40); err == nil {
				t.Errorf("order %v: whole after %d pieces", taken, i)
			}
			check(t, x.add(k*10, k*10+10))
			if err := x.add(k*10+3, k*10+4); err == nil {
				t.Errorf("order %v: overlap accepted", taken)
			}
		}
		if err := x.whole(40); err != nil {
			t.Errorf("order %v: %v", taken, err)
		}
	}
	permute([]uint64{0, 1, 2, 3}, nil)
}

func TestPathsThatLeaveAreRefused(t *testing.T) {
	for _, p := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a\x00b", `a\b`, "\xff", strings.Repeat("a", 256), strings.Repeat("a/", 2049) + "a"} {
		if CheckPath(p) == nil {
			t.Errorf("path %q accepted", clip(p))
		}
	}
	for _, p := range []string{"a", "ibdata1", "db/t@0020ble.ibd", "db/#sql-ib55.ibd", "a..b/.c", "größe/北京.frm"} {
		check(t, CheckPath(p))
	}
}

func TestManifestLinesAreOneJSONDocument(t *testing.T) {
	m := &Manifest{Tool: "t", Files: []File{
		{No: 1, Path: "a.ibd", Kind: KindTablespace, Size: 5, Space: &Space{ID: 7, PageSize: 16384}},
		{No: 2, Path: "b", Kind: KindFile},
	}}
	var out bytes.Buffer
	check(t, EncodeManifest(&out, m))
	got, err := ReadManifest(bytes.NewReader(out.Bytes()))
	check(t, err)
	if len(got.Files) != 2 || got.Files[0].Space.ID != 7 || got.Files[1].Path != "b" {
		t.Errorf("read back %+v", got)
	}
	for n := range out.Len() {
		if _, err := ReadManifest(bytes.NewReader(out.Bytes()[:n])); !errors.Is(err, ErrDamaged) {
			t.Errorf("manifest cut after %d bytes: error %v, want ErrDamaged", n, err)
		}
	}
	if _, err := ReadManifest(strings.NewReader(out.String() + "x")); !errors.Is(err, ErrDamaged) {
		t.Errorf("trailing byte: error %v", err)
	}
}

// FuzzReader feeds the reader damaged archives: it may only ever return frames
// and errors, and never take a changed archive for a whole one.
func FuzzReader(f *testing.F) {
	a := threeFiles(f, 1, WriterOptions{Compress: Fast})
	f.Add(a, uint32(0), uint8(0))
	f.Add(a[:len(a)-7], uint32(40), uint8(3))
	f.Add([]byte{}, uint32(0), uint8(0))
	f.Fuzz(func(t *testing.T, in []byte, at uint32, flip uint8) {
		in = bytes.Clone(in)
		if len(in) > 0 {
			in[int(at)%len(in)] ^= flip
		}
		// Mend the header checksums, so that the fuzzer gets past them.
		for off := archiveHeaderSize; off+frameHeaderSize <= len(in) && bits.OnesCount8(flip)%2 == 1; {
			sum := headerChecksum(in[off:], (*ArchiveID)(in[12:28]))
			in[off+44], in[off+45], in[off+46], in[off+47] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
			h, err := decodeFrameHeader(in[off:], (*ArchiveID)(in[12:28]))
			if err != nil || h.check() != nil {
				break
			}
			off += frameHeaderSize + int(h.stored)
		}
		readAll(bytes.NewReader(in))
	})
}

func FuzzManifest(f *testing.F) {
	var out bytes.Buffer
	check(f, EncodeManifest(&out, &Manifest{Files: []File{{No: 1, Path: "a", Kind: KindFile}}}))
	f.Add(out.Bytes())
	f.Add([]byte(`{"format":1` + filesOpen + "\n" + filesClose + "\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := ReadManifest(bytes.NewReader(in))
		if err != nil {
			return
		}
		var again bytes.Buffer
		check(t, EncodeManifest(&again, m))
		if _, err := ReadManifest(&again); err != nil {
			t.Errorf("a manifest that was read cannot be read after writing: %v", err)
		}
	})
}
