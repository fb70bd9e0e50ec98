package e2e

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"filippo.io/age"
)

// readBy runs xbstream under strace and returns how many bytes of the file name
// it read.
func readBy(t *testing.T, name string, args ...string) (n int64) {
	t.Helper()
	_, xbstream := binaries(t)
	trace := filepath.Join(t.TempDir(), "trace")
	c := exec.CommandContext(t.Context(), "strace", append([]string{"-f", "-qq", "-y", "-s", "0", "-e", "trace=read,pread64,readv,preadv,mmap,sendfile,splice,copy_file_range", "-o", trace, xbstream}, args...)...)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", args, err, out)
	}
	text, err := os.ReadFile(trace)
	check(t, err)
	calls := 0
	for line := range strings.Lines(string(text)) {
		// What another thread interrupts is in two lines; the second has the
		// result and lacks the name.
		if strings.Contains(line, "<"+name+">") {
			calls++
		}
	}
	for _, m := range readCall.FindAllStringSubmatch(join(string(text)), -1) {
		if m[2] != name {
			continue
		}
		if m[1] != "read" && m[1] != "pread64" {
			t.Errorf("%q: %s of the archive is not counted", args, m[1])
		}
		got, err := strconv.ParseInt(m[3], 10, 64)
		check(t, err)
		n += got
		calls--
	}
	if calls != 0 || n == 0 {
		t.Errorf("%q: %d calls without a result, %d bytes", args, calls, n)
	}
	return n
}

var (
	readCall   = regexp.MustCompile(`(?m)^\d+ +(\w+)\(\d+<([^>]*)>.*\) += (-?\d+)`)
	unfinished = regexp.MustCompile(`^(\d+) +(.*) <unfinished \.\.\.>$`)
	resumed    = regexp.MustCompile(`^(\d+) +<\.\.\. \w+ resumed>(.*)$`)
)

// join puts calls that strace tells in two lines into one.
func join(trace string) string {
	var out strings.Builder
	begun := map[string]string{}
	for line := range strings.Lines(trace) {
		line = strings.TrimSuffix(line, "\n")
		if m := unfinished.FindStringSubmatch(line); m != nil {
			begun[m[1]] = m[2]
			continue
		}
		if m := resumed.FindStringSubmatch(line); m != nil {
			line = m[1] + " " + begun[m[1]] + m[2]
		}
		fmt.Fprintln(&out, line)
	}
	return out.String()
}

// Of an archive in a file, list and extract --only read the end and what they
// want: less than a hundredth of the archive beyond the table's own bytes,
// encrypted or not. The same commands on a pipe give the same.
func TestRandomAccessReadsLittle(t *testing.T) {
	const fileSize, files = 10 << 20, 30
	source, dir := t.TempDir(), t.TempDir()
	content := make([]byte, fileSize)
	rnd := rand.NewChaCha8([32]byte{1})
	for i := range files {
		io.ReadFull(rnd, content)
		sub := filepath.Join(source, fmt.Sprintf("db%d", i%5))
		check(t, os.MkdirAll(sub, 0o700))
		check(t, os.WriteFile(filepath.Join(sub, fmt.Sprintf("t%d.ibd", i)), content, 0o600))
	}
	want := content // db4/t29.ibd
	id, err := age.GenerateX25519Identity()
	check(t, err)
	key := filepath.Join(dir, "key")
	check(t, os.WriteFile(key, []byte(id.String()+"\n"), 0o600))

	for _, c := range []struct {
		what   string
		create []string
	}{
		{"plain", nil},
		{"encrypted", []string{"-r", id.Recipient().String()}},
	} {
		name := filepath.Join(dir, c.what+".xb")
		archive, err := os.Create(name)
		check(t, err)
		log, _, err := run(t, nil, archive, append([]string{"create", "-C", source, "."}, c.create...)...)
		if err != nil {
			t.Fatalf("create: %v\n%s", err, log)
		}
		st, err := archive.Stat()
		check(t, err)
		check(t, archive.Close())
		limit := st.Size() / 100
		listed := readBy(t, name, "list", "-i", key, name)
		if listed > limit {
			t.Errorf("%s: list read %d of %d bytes", c.what, listed, st.Size())
		}
		out := filepath.Join(dir, c.what)
		got := readBy(t, name, "extract", "-i", key, "--only", "db4.t29", "-C", out, name)
		if got < fileSize || got > fileSize+limit {
			t.Errorf("%s: extract --only read %d of %d bytes for a table of %d", c.what, got, st.Size(), fileSize)
		}
		t.Logf("%s: of %d bytes list read %d, extract --only %d beyond the table's %d", c.what, st.Size(), listed, got-fileSize, fileSize)
		sameFromPipe(t, name, key, out, want)
		check(t, os.Remove(name))
	}
}

// sameFromPipe compares what was extracted from the file with what comes of it
// through a pipe.
func sameFromPipe(t *testing.T, name, key, fromFile string, want []byte) {
	t.Helper()
	piped := fromFile + "-piped"
	var lists [2]bytes.Buffer
	for i, args := range [][]string{{"list", "-i", key, name}, {"list", "-i", key}, {"extract", "-i", key, "--only", "db4.t29", "-C", piped}} {
		f, err := os.Open(name)
		check(t, err)
		var out io.Writer = io.Discard
		if i < 2 {
			out = &lists[i]
		}
		log, _, err := run(t, struct{ io.Reader }{f}, out, args...)
		if err != nil {
			t.Errorf("%q: %v\n%s", args, err, log)
		}
		check(t, f.Close())
	}
	if lists[0].Len() == 0 || lists[0].String() != lists[1].String() {
		t.Errorf("list of the file and of the pipe differ:\n%s\n%s", &lists[0], &lists[1])
	}
	for _, dir := range []string{fromFile, piped} {
		got, err := os.ReadFile(filepath.Join(dir, "db4", "t29.ibd"))
		check(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the table differs", dir)
		}
		all, err := filepath.Glob(filepath.Join(dir, "*", "*"))
		check(t, err)
		if len(all) != 1 {
			t.Errorf("%s holds %v", dir, all)
		}
	}
}
