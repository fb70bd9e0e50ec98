package verify

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/families"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// problems verifies an archive and returns what is wrong with it, one a line.
func problems(t testing.TB, a []byte) string {
	t.Helper()
	rep, err := Archive(t.Context(), bytes.NewReader(a), families.ParseFlags)
	if err != nil {
		if !errors.Is(err, format.ErrDamaged) && !errors.Is(err, format.ErrNotArchive) && !errors.Is(err, format.ErrUnsupported) {
			t.Errorf("error %v, want ErrDamaged, ErrNotArchive or ErrUnsupported", err)
		}
		return err.Error()
	}
	return strings.Join(rep.Problems, "\n")
}

const vectors = "../format/testdata/"

// SPEC.md §10: every one of the bad archives is refused for what is wrong with
// it, and the good ones are not.
func TestVectors(t *testing.T) {
	names, err := filepath.Glob(vectors + "v1-*.xb")
	check(t, err)
	bad := 0
	for _, name := range names {
		a, err := os.ReadFile(name)
		check(t, err)
		text, err := os.ReadFile(strings.TrimSuffix(name, ".xb") + ".txt")
		check(t, err)
		got := problems(t, a)
		switch base := filepath.Base(name); {
		case base == "v1-age.xb":
			// The layer around it is package format's.
		case strings.HasPrefix(base, "v1-bad-"):
			bad++
			_, words, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
			if !strings.Contains(got, words) {
				t.Errorf("%s: problems %q, want %q among them", base, got, words)
			}
		case got != "":
			t.Errorf("%s: problems %q", base, got)
		}
	}
	if bad < 40 {
		t.Errorf("only %d bad archives found", bad)
	}
}

// A reader written by somebody else, from SPEC.md alone and in another language,
// agrees with ours on what is sound and what is damaged. Compressed and
// encrypted archives it does not read.
func TestIndependentReaderAgrees(t *testing.T) {
	dir := t.TempDir()
	ours := map[string]string{}
	add := func(a []byte) {
		name := filepath.Join(dir, fmt.Sprintf("%05d", len(ours)))
		check(t, os.WriteFile(name, a, 0o600))
		ours[name] = problems(t, a)
	}
	names, err := filepath.Glob(vectors + "v1-*.xb")
	check(t, err)
	for _, name := range names {
		if strings.HasPrefix(filepath.Base(name), "v1-age") {
			continue
		}
		a, err := os.ReadFile(name)
		check(t, err)
		add(a)
	}
	add(written(t))
	backup, err := os.ReadFile(vectors + "v1-backup.xb")
	check(t, err)
	for _, a := range [][]byte{written(t), backup} {
		for i := 0; i < len(a); i += 3 {
			add(a[:i])
			bit := byte(1) << (i / 3 % 8)
			a[i] ^= bit
			add(a)
			a[i] ^= bit
		}
	}
	compare(t, dir, ours)
}

// written is a small archive of our own writer.
func written(t *testing.T) []byte {
	var out bytes.Buffer
	w, err := format.NewWriter(&out, format.WriterOptions{})
	check(t, err)
	f := format.File{Path: "größe", Kind: format.KindFile, Size: 20, Mode: 0o600}
	f.No, err = w.BeginFile(f)
	check(t, err)
	check(t, w.WriteHole(f.No, 10, 10))
	b := format.GetBuffer()
	b.SetLen(copy(b.Space(), "0123456789"))
	check(t, w.WriteData(f.No, 0, b))
	check(t, w.EndFile(f.No, f.Size))
	_, err = w.Close(&format.Manifest{Tool: "test", Files: []format.File{f}})
	check(t, err)
	return out.Bytes()
}

func compare(t *testing.T, dir string, ours map[string]string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "python3", append([]string{vectors + "read_archive.py"}, paths(t, dir)...)...)
	out, err := command.Output()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) {
		t.Fatalf("read_archive.py: %v\n%s", err, exit.Stderr)
	}
	count := map[string]int{}
	for line := range strings.Lines(string(out)) {
		status, rest, _ := strings.Cut(line, " ")
		name, reason, _ := strings.Cut(rest, " ")
		if status != "2" && (status == "0") != (ours[name] == "") {
			t.Errorf("%s: python says %q, we say %q", filepath.Base(name), strings.TrimSpace(reason), ours[name])
		}
		count[status]++
	}
	if count["0"] < 3 || count["0"]+count["2"]+count["3"] != len(ours) {
		t.Errorf("%d archives, results %v", len(ours), count)
	}
	t.Logf("%d archives: %d sound, %d damaged, %d not read by it", len(ours), count["0"], count["3"], count["2"])
}

func paths(t *testing.T, dir string) []string {
	p, err := filepath.Glob(dir + "/*")
	check(t, err)
	return p
}
