package format

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

// SPEC.md §9 and §10: every released version stays readable. The archives were
// written by make_vectors.py and the age command, not by this package.
func TestVectors(t *testing.T) {
	archives, err := filepath.Glob("testdata/v*.xb")
	check(t, err)
	if len(archives) == 0 {
		t.Fatal("no test vectors found")
	}
	keys, err := os.Open("testdata/v1-age-test-key.txt")
	check(t, err)
	defer keys.Close()
	ids, err := age.ParseIdentities(keys)
	check(t, err)
	for _, name := range archives {
		if strings.HasPrefix(filepath.Base(name), "v1-bad-") {
			continue // package verify has those
		}
		f, err := os.Open(name)
		check(t, err)
		defer f.Close()
		opened, err := Open(f, ids)
		check(t, err)
		a, err := io.ReadAll(opened)
		check(t, err)
		want, err := os.ReadFile(strings.TrimSuffix(name, ".xb") + ".txt")
		check(t, err)
		if got := describe(t, a); got != string(want) {
			t.Errorf("%s: got\n%swant\n%s", name, got, want)
		}
	}
}

func describe(t *testing.T, a []byte) string {
	var out strings.Builder
	var manifest bytes.Buffer
	r, err := NewReader(bytes.NewReader(a), ReaderOptions{})
	check(t, err)
	for {
		f, err := r.Next()
		if err == io.EOF {
			break
		}
		check(t, err)
		if f.Type == FrameManifest {
			manifest.Write(f.Bytes())
		} else {
			fmt.Fprintln(&out, strings.TrimSpace(fmt.Sprintf("%s %d %d %d %s", f.Type, f.File, f.Pos, f.Len, f.Path)))
		}
		f.Release()
	}
	m, err := ReadManifest(&manifest)
	check(t, err)
	for _, f := range m.Files {
		fmt.Fprintln(&out, f.Kind, f.Path, f.Size)
	}
	return out.String()
}
