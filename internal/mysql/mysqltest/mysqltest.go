// Package mysqltest gives tests the data that was captured from a real MySQL
// 8.0.30 server: copies of its redo log, and hot copies of its files with what
// the server itself made of them.
//
// The data, of some 60 MB, is not part of the repository. XB_MYSQL_FIXTURES
// names the directory; without it, it is looked for in the directory shared
// beside a checkout. Tests that need it are skipped where it is not there.
package mysqltest

import (
	"archive/tar"
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

const variable = "XB_MYSQL_FIXTURES"

// Fixtures returns the directory of the data.
func Fixtures(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv(variable); dir != "" {
		return dir
	}
	for dir, err := os.Getwd(); err == nil && dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		found := filepath.Join(dir, "shared", "fixtures", "mysql-8.0.30")
		if st, err := os.Stat(found); err == nil && st.IsDir() {
			return found
		}
	}
	t.Skipf("no data of MySQL 8.0.30: set %s", variable)
	return ""
}

// Unpack unpacks a .tar.zst into a directory of the test's.
func Unpack(t testing.TB, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unpack(dir, name); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return dir
}

func unpack(dir, name string) error {
	z, err := Open(name)
	if err != nil {
		return err
	}
	defer z.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		rel := filepath.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(rel, 0o700)
		case tar.TypeReg:
			err = errors.Join(root.MkdirAll(filepath.Dir(rel), 0o700), write(root, rel, t))
		}
		if err != nil {
			return err
		}
	}
}

func write(root *os.Root, rel string, r io.Reader) error {
	f, err := root.Create(rel)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// compressed closes both file and decoder.
type compressed struct {
	*zstd.Decoder
	f *os.File
}

func (c compressed) Close() error {
	c.Decoder.Close()
	return c.f.Close()
}

// Open reads a .zst.
func Open(name string) (io.ReadCloser, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewReader(f, zstd.WithDecoderMaxWindow(1<<27), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return compressed{z, f}, nil
}

// Find returns the directory of that name below dir.
func Find(t testing.TB, dir, name string) string {
	t.Helper()
	var found string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == name {
			found = path
		}
		return err
	})
	if err != nil || found == "" {
		t.Fatalf("no %s in %s: %v", name, dir, err)
	}
	return found
}

// Table reads a .tsv or .tsv.zst with a header row.
func Table(t testing.TB, name string) []map[string]string {
	t.Helper()
	r, err := open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var header []string
	var rows []map[string]string
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		cells := strings.Split(lines.Text(), "\t")
		if header == nil {
			header = cells
			continue
		}
		row := map[string]string{}
		for i, c := range cells {
			row[header[i]] = c
		}
		rows = append(rows, row)
	}
	if lines.Err() != nil {
		t.Fatal(lines.Err())
	}
	return rows
}

func open(name string) (io.ReadCloser, error) {
	if strings.HasSuffix(name, ".zst") {
		return Open(name)
	}
	return os.Open(name)
}

// Facts reads lines of a name, a tab and a value.
func Facts(t testing.TB, name string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	facts := map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		facts[k] = v
	}
	return facts
}

// Number reads a decimal number out of a table or of facts.
func Number(t testing.TB, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
