package classic_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/xbstream/xbstream/classic"
	"github.com/xbstream/xbstream/format"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stream is one that is put together by hand.
type stream []byte

var le = binary.LittleEndian

func (s stream) head(flags, typ byte, path string) stream {
	s = append(append(s, classic.Magic...), flags, typ)
	return append(le.AppendUint32(s, uint32(len(path))), path...)
}

func (s stream) data(flags, typ byte, path string, off uint64, p string) stream {
	s = le.AppendUint64(s.head(flags, typ, path), uint64(len(p)))
	s = le.AppendUint32(le.AppendUint64(s, off), crc32.ChecksumIEEE([]byte(p)))
	return append(s, p...)
}

func (s stream) payload(path string, off uint64, p string) stream {
	return s.data(0, 'P', path, off, p)
}

func (s stream) end(path string) stream { return s.head(0, 'E', path) }

func (s stream) file(path, p string) stream { return s.payload(path, 0, p).end(path) }

func (s stream) again(path, p string) stream { return s.data(2, 'P', path, 0, p).end(path) }

func (s stream) seek(path string, off uint64) stream {
	return le.AppendUint64(s.head(0, 'S', path), off)
}

func (s stream) remove(path string) stream { return s.head(0, 'D', path) }

func (s stream) rename(from, to string) stream {
	return append(le.AppendUint32(s.head(0, 'R', from), uint32(len(to))), to...)
}

// sparse is Percona's; runs are pairs of bytes left out and bytes present.
func (s stream) sparse(path string, off uint64, p string, runs ...uint32) stream {
	var m []byte
	for _, n := range runs {
		m = le.AppendUint32(m, n)
	}
	s = le.AppendUint32(s.head(0, 'S', path), uint32(len(runs)/2))
	s = le.AppendUint64(le.AppendUint64(s, uint64(len(p))), off)
	s = le.AppendUint32(s, crc32.ChecksumIEEE(append(m, p...)))
	return append(append(s, m...), p...)
}

// tail ends a backup as mariabackup does.
func (s stream) tail() stream {
	return s.file("xtrabackup_checkpoints", "backup_type = full-backuped\n").file("xtrabackup_info", "uuid = 1\n")
}

// readAll reads a stream and keeps nothing.
func readAll(s []byte) error {
	cr := classic.NewReader(bytes.NewReader(s), classic.Options{})
	defer cr.Close()
	for {
		f, err := cr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		f.Release()
	}
}

// content reads a whole stream into memory: path to content.
func content(r io.Reader, opt classic.Options) (map[string]string, error) {
	cr := classic.NewReader(r, opt)
	defer cr.Close()
	files := map[format.FileNo][]byte{}
	var manifest bytes.Buffer
	for {
		f, err := cr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		switch f.Type {
		case format.FrameFile:
			files[f.File] = []byte{}
		case format.FrameData:
			files[f.File] = put(files[f.File], int(f.Pos), f.Bytes())
		case format.FrameClose:
			files[f.File] = put(files[f.File], int(f.Pos), nil)
		case format.FrameManifest:
			manifest.Write(f.Bytes())
		}
		f.Release()
	}
	return named(&manifest, files)
}

func put(b []byte, at int, p []byte) []byte {
	if n := at + len(p) - len(b); n > 0 {
		b = append(b, make([]byte, n)...)
	}
	copy(b[at:], p)
	return b
}

func named(manifest io.Reader, files map[format.FileNo][]byte) (map[string]string, error) {
	m, err := format.ReadManifest(manifest)
	if err != nil {
		return nil, err
	}
	got := map[string]string{}
	for _, f := range m.Files {
		if f.Size != int64(len(files[f.No])) {
			return nil, fmt.Errorf("manifest: %q has %d bytes, %d arrived", f.Path, f.Size, len(files[f.No]))
		}
		got[f.Path] = string(files[f.No])
	}
	if len(files)-len(got) != m.Discarded {
		return nil, fmt.Errorf("manifest: %d files discarded, counted %d", m.Discarded, len(files)-len(got))
	}
	return got, nil
}

// extracted is what the real mbstream makes of a stream. It ends with 0 where
// it should not, so what it says on standard error counts as well.
func extracted(t testing.TB, s []byte) map[string]string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "mbstream", "-x", "-C", dir)
	cmd.Stdin = bytes.NewReader(s)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("mbstream: %v: %s", err, out)
	}
	return tree(t, dir)
}

// tree reads a directory: path to content.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	check(t, filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		check(t, err)
		b, err := os.ReadFile(p)
		got[filepath.ToSlash(rel)] = string(b)
		return err
	}))
	return got
}

// same compares two trees.
func same(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	for p, w := range want {
		if g, ok := got[p]; !ok || g != w {
			t.Errorf("%s: %q: there is %t, %d bytes, want %d", what, p, ok, len(g), len(w))
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			t.Errorf("%s: %q should not be there", what, p)
		}
	}
}
