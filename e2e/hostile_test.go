package e2e

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
)

// maxResident is what no archive may make xbstream exceed (P9).
const maxResident = 256 << 20

// run runs xbstream and returns its standard output, how it ended and the most
// memory it had at a time, in bytes.
func run(t *testing.T, in io.Reader, out io.Writer, args ...string) (stderr string, resident int64, err error) {
	t.Helper()
	_, xbstream := binaries(t)
	c := exec.CommandContext(t.Context(), xbstream, args...)
	var log strings.Builder
	c.Stdin, c.Stdout, c.Stderr = in, out, &log
	// A child's peak begins with that of its parent, which earlier tests may
	// have made large: 5 sets it back to what is in use.
	debug.FreeOSMemory()
	check(t, os.WriteFile("/proc/self/clear_refs", []byte("5"), 0))
	err = c.Run()
	if c.ProcessState == nil {
		t.Fatal(err)
	}
	return log.String(), c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10, err // Linux counts KiB
}

// rawArchive writes frames without keeping anything: a child's peak memory, as
// the kernel counts it, begins with that of its parent.
type rawArchive struct {
	t      *testing.T
	w      *bufio.Writer
	id     [16]byte
	digest hash.Hash
	seq    uint64
	off    uint64
}

func (a *rawArchive) write(p []byte) {
	a.off += uint64(len(p))
	_, err := a.w.Write(p)
	check(a.t, err)
}

// header is SPEC.md §2.
func (a *rawArchive) header() {
	h := append([]byte("\x89XBA\r\n\x1a\n\x00\x01\x00\x00"), a.id[:]...)
	h = binary.BigEndian.AppendUint32(h, crc32.Checksum(h, castagnoli))
	a.digest = sha256.New()
	a.digest.Write(h)
	a.write(h)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame is SPEC.md §3.
func (a *rawArchive) frame(kind byte, file uint32, pos uint64, payload []byte) {
	be := binary.BigEndian
	h := be.AppendUint64([]byte{'X', 'B', 'F', '1', kind, 0, 0, 0}, a.seq)
	h = be.AppendUint32(h, file)
	h = be.AppendUint32(h, uint32(len(payload)))
	h = be.AppendUint64(h, pos)
	h = be.AppendUint32(h, uint32(len(payload)))
	h = be.AppendUint32(h, crc32.Checksum(payload, castagnoli))
	h = be.AppendUint32(h, 0)
	h = be.AppendUint32(h, crc32.Update(crc32.Checksum(a.id[:], castagnoli), castagnoli, h))
	a.digest.Write(h)
	a.seq++
	a.write(h)
	a.write(payload)
}

// manyFiles writes an archive of n empty files without an index.
func manyFiles(t *testing.T, name string, n int) {
	t.Helper()
	f, err := os.Create(name)
	check(t, err)
	defer f.Close()
	a := &rawArchive{t: t, w: bufio.NewWriterSize(f, 1<<20), id: [16]byte{42}}
	a.header()
	entry := func(i int) string { return fmt.Sprintf(`"path":"d%d/one-file-of-many-%d","kind":"file"`, i/1000, i) }
	for i := range n {
		a.frame(1, uint32(i+1), 0, []byte("{"+entry(i)+"}"))
		a.frame(4, uint32(i+1), 0, nil)
	}
	manifest, pos := a.off, uint64(0)
	text := fmt.Appendf(nil, `{"format":1,"archive_id":"%x","files":[`+"\n", a.id)
	for i := range n {
		comma := ","
		if i == n-1 {
			comma = ""
		}
		text = fmt.Appendf(text, `{"no":%d,%s,"mode":384}%s`+"\n", i+1, entry(i), comma)
		if len(text) > 1<<19 || i == n-1 {
			a.frame(6, 0, pos, text)
			pos, text = pos+uint64(len(text)), text[:0]
		}
	}
	a.frame(6, 0, pos, []byte("]}\n"))
	end := binary.BigEndian.AppendUint64(nil, a.seq)
	for _, v := range []uint64{uint64(n), 0, 0, 0, manifest, 0} {
		end = binary.BigEndian.AppendUint64(end, v)
	}
	a.frame(8, 0, 0, a.digest.Sum(end))
	check(t, a.w.Flush())
}

// A million empty files cost time and room on disk, not memory. Fewer, which take
// less time, get a smaller share of it.
func TestManyTinyFilesTakeLittleMemory(t *testing.T) {
	const n = 250_000
	const limit = 32<<20 + maxResident*n/1_000_000
	name := filepath.Join(t.TempDir(), "many.xb")
	manyFiles(t, name, n)
	few := filepath.Join(t.TempDir(), "few.xb")
	manyFiles(t, few, n/5) // all of them would take minutes to make
	dir := t.TempDir()
	for _, c := range []struct {
		what string
		pipe bool
		args []string
	}{
		{"verify", false, []string{"verify", name}},
		{"list", false, []string{"list", name}},
		{"list of a pipe", true, []string{"list"}},
		{"info", false, []string{"info", name}},
		{"info of a pipe", true, []string{"info"}},
		{"extract", false, []string{"extract", "-C", dir + "/all", few}},
		{"extract --only", false, []string{"extract", "--only", "d7/*", "-C", dir + "/some", few}},
	} {
		var in io.Reader
		if c.pipe {
			f, err := os.Open(name)
			check(t, err)
			defer f.Close()
			in = struct{ io.Reader }{f} // so that it is a pipe
		}
		log, resident, err := run(t, in, io.Discard, c.args...)
		if err != nil {
			t.Errorf("%s: %v\n%s", c.what, err, log)
		}
		if resident > limit {
			t.Errorf("%s: %d MiB of memory", c.what, resident>>20)
		}
		t.Logf("%s: %d MiB", c.what, resident>>20)
	}
	for what, want := range map[string]int{"all": n / 5, "some": 1000} {
		got, err := filepath.Glob(filepath.Join(dir, what, "d*", "one-file-*"))
		check(t, err)
		if len(got) != want {
			t.Errorf("extracted %s: %d files, want %d", what, len(got), want)
		}
	}
}
