package classic_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/xbstream/xbstream/classic"
	"github.com/xbstream/xbstream/format"
)

// What chunks mean is what the real mbstream makes of them.
func TestReaderAgreesWithMbstream(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 200_000) // several frames
	a := stream{}.file("a", "aaaaaaaa")
	for _, row := range []struct {
		name string
		s    stream
	}{
		{"two files at the same time", stream{}.payload("a", 0, "a1").payload("d/b", 0, "b1").payload("a", 2, "a2").end("d/b").end("a")},
		{"empty file", stream{}.end("empty")},
		{"empty payload", stream{}.file("a", "")},
		{"long payload", stream{}.file("a", long)},
		{"ignorable payload", stream{}.data(1, 'P', "a", 0, "x").end("a")},
		{"written again", append(a, stream{}.again("a", "bb")...)},
		{"written again in two chunks", append(a, stream{}.data(2, 'P', "a", 0, "bb").data(2, 'P', "a", 2, "cc").end("a")...)},
		{"again, but new", stream{}.again("a", "bb")},
		{"again, empty", append(a, stream{}.head(2, 'E', "a")...)},
		{"seek back", stream{}.payload("a", 0, "aaaaaaaa").seek("a", 2).payload("a", 2, "bb").end("a")},
		{"seek beyond", stream{}.payload("a", 0, "aaaaaaaa").seek("a", 12).payload("a", 12, "bb").end("a")},
		{"seek beyond, nothing there", stream{}.payload("a", 0, "aaaaaaaa").seek("a", 12).end("a")},
		{"seek first", stream{}.seek("a", 3).payload("a", 3, "bb").end("a")},
		{"removed", append(a, stream{}.file("b", "x").remove("a")...)},
		{"removed, there is none", append(a, stream{}.remove("b")...)},
		{"removed and sent again", append(a, stream{}.remove("a").file("a", "x")...)},
		{"renamed", append(a, stream{}.rename("a", "b")...)},
		{"renamed, there is none", append(a, stream{}.rename("z", "b").rename("z", "a")...)},
		{"renamed in the place of another", append(a, stream{}.file("b", "x").rename("a", "b")...)},
		{"renamed to itself", append(a, stream{}.rename("a", "a")...)},
		{"swapped by renames", append(a, stream{}.file("b", "x").rename("a", "c").rename("b", "a").rename("c", "b")...)},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := row.s.tail()
			got, err := content(bytes.NewReader(s), classic.Options{})
			check(t, err)
			same(t, row.name, got, extracted(t, s))
			slow, err := content(iotest.OneByteReader(bytes.NewReader(s[:min(len(s), 2000)])), classic.Options{})
			if len(s) <= 2000 {
				check(t, err)
				same(t, "one byte at a time", slow, got)
			}
		})
	}
}

// Chunks that mbstream does not know or does worse with; the facts are those of
// Percona's description of its format.
func TestReaderBeyondMbstream(t *testing.T) {
	z := func(n int) string { return strings.Repeat("\x00", n) }
	for _, row := range []struct {
		name string
		s    stream
		want map[string]string
	}{
		{"sparse", stream{}.sparse("a", 0, "aabbb", 0, 2, 10, 3).end("a"), map[string]string{"a": "aa" + z(10) + "bbb"}},
		{"sparse, hole first and last", stream{}.sparse("a", 0, "xy", 5, 2, 7, 0).end("a"), map[string]string{"a": z(5) + "xy" + z(7)}},
		{"sparse, nothing present", stream{}.sparse("a", 0, "", 4096, 0).end("a"), map[string]string{"a": z(4096)}},
		{"sparse, then payload, then sparse", stream{}.sparse("a", 0, "xy", 1, 2).payload("a", 3, "p").sparse("a", 4, "z", 2, 1).end("a"),
			map[string]string{"a": "\x00xyp\x00\x00z"}},
		{"sparse without a map", stream{}.sparse("a", 0, "").end("a"), map[string]string{"a": ""}},
		{"unknown, ignorable", stream{}.file("a", "x").data(1, 'Z', "/../u", 7, "zz").file("b", "y"), map[string]string{"a": "x", "b": "y"}},
		{"names as find prints them", stream{}.file("./d/a", "x"), map[string]string{"d/a": "x"}},
		{"an empty file sent again", stream{}.end("a").file("b", "x").end("a"), map[string]string{"a": "", "b": "x"}},
		{"renamed, then an empty file", stream{}.file("a", "x").rename("a", "b").end("c"), map[string]string{"b": "x", "c": ""}},
		{"renamed into a new directory", stream{}.file("a", "x").rename("a", "d/b"), map[string]string{"d/b": "x"}},
	} {
		got, err := content(bytes.NewReader(row.s.tail()), classic.Options{})
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		delete(got, "xtrabackup_checkpoints")
		delete(got, "xtrabackup_info")
		same(t, row.name, got, row.want)
	}
}

// P8: each of these is damage with a place, and allocates next to nothing.
func TestReaderRefusesHostileStreams(t *testing.T) {
	a := stream{}.file("a", "aaaaaaaa")
	huge := func(size, off uint64) stream {
		s := le.AppendUint64(stream{}.head(0, 'P', "a"), size)
		return append(le.AppendUint64(s, off), "\x00\x00\x00\x00 and no more"...)
	}
	manyOpen := stream{}
	for i := range format.MaxOpenFiles + 1 {
		manyOpen = manyOpen.payload(fmt.Sprint("f", i), 0, "x")
	}
	for _, row := range []struct {
		name, want string
		s          stream
	}{
		{"absolute path", "absolute", a.file("/etc/passwd", "x")},
		{"parent directory", `element ".."`, a.file("../a", "x")},
		{"parent directory within", `element ".."`, a.file("a/../../b", "x")},
		{"dot twice", `element "."`, a.file("././a", "x")},
		{"empty path", "empty", a.file("", "x")},
		{"only a dot", "empty", a.file("./", "x")},
		{"NUL", "control character", a.file("b\x00c", "x")},
		{"backslash", "backslash", a.file(`..\b`, "x")},
		{"line end", "control character", a.file("b\nc", "x")}, // B2
		{"not UTF-8", "not UTF-8", a.file("b\xff", "x")},
		{"path element too long", "over the limit", a.file(strings.Repeat("x", 256), "x")},
		{"path too long", "path of 5000 bytes", a.file(strings.Repeat("x/", 2500), "x")},
		{"path of 4 GiB", "path of 4294967295 bytes", append(stream{}, "XBSTCK01\x00P\xff\xff\xff\xffa"...)},
		{"removes outside", `element ".."`, a.remove("../../x")},
		{"renames from outside", "absolute", a.rename("/etc/shadow", "b")},
		{"renames to outside", `element ".."`, a.rename("a", "../b")},
		{"renames to a path of 4 GiB", "path of 4294967295 bytes", append(a.head(0, 'R', "a"), "\xff\xff\xff\xffb"...)},
		{"16 GiB announced", "ends too early", huge(16<<30, 0)},
		{"2^63 bytes", "over the limit", huge(1<<63, 0)},
		{"2^64-1 bytes", "over the limit", huge(1<<64-1, 0)},
		{"offset 2^64-1", "over the limit", huge(1, 1<<64-1)},
		{"offset does not join", "data at offset 7, expected 0", a.payload("b", 7, "x")},
		{"data twice", "data at offset 0, expected 1", a.payload("b", 0, "x").payload("b", 0, "x")},
		{"data missing", "data at offset 2, expected 1", a.payload("b", 0, "x").payload("b", 2, "x")},
		{"again, not from the start", "data at offset 8, expected 0", a.data(2, 'P', "a", 8, "x")},
		{"same name twice", "two files have this name", append(a, a...)},
		{"same name twice, empty", "the second is empty", a.end("a")},
		{"same name twice, ./", "two files have this name", a.file("./a", "x")},
		{"seek in a closed file", "two files have this name", a.seek("a", 0).end("a")},
		{"seek to 2^63", "over the limit", a.seek("b", 1<<63).end("b")},
		{"file where a directory must be", `"d" is a file`, a.file("d", "x").file("d/b", "x")},
		{"directory where a file must be", `"d" is a file`, a.file("d/e/b", "x").file("c", "x").rename("c", "d")},
		{"unknown type", "unknown type", a.data(0, 'Z', "b", 0, "x")},
		{"unknown flag", "unknown flags 0x80", a.data(0x80, 'P', "b", 0, "x")},
		{"unknown type, ignorable, bad checksum", "checksum", func() stream {
			s := a.data(1, 'Z', "b", 0, "x")
			s[len(s)-1]++
			return s
		}()},
		{"removed while open", "removed before it was closed", stream{}.payload("a", 0, "x").remove("a")},
		{"renamed while open", "before one of them was closed", stream{}.payload("a", 0, "x").rename("a", "b")},
		{"renamed to one that is open", "before one of them was closed", a.payload("b", 0, "x").rename("a", "b")},
		{"sparse map too large", "over the limit of 65536", append(a.head(0, 'S', "b"), "\xff\xff\xff\xff0123456701234567abcd"...)},
		{"sparse map and payload differ", "sparse map of 3 bytes, payload of 2", a.sparse("b", 0, "xy", 0, 3).end("b")},
		{"sparse map flipped", "checksum", func() stream {
			s := a.sparse("b", 0, "xy", 1, 2)
			s[len(s)-10]++ // the bytes left out
			return s.end("b")
		}()},
		{"sparse at another offset", "expected 0", a.sparse("b", 1, "xy", 0, 2).end("b")},
		{"too many open", "files open at once", manyOpen},
		{"no chunk", "no chunk here", append(a, "XBSTCK02 and then some"...)},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := row.s.tail()
			if strings.HasSuffix(row.want, "too early") {
				s = row.s
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := content(bytes.NewReader(s), classic.Options{})
			runtime.ReadMemStats(&after)
			var place *classic.ChunkError
			if !errors.Is(err, format.ErrDamaged) || !errors.As(err, &place) || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error is %v, want damage with a place and %q", err, row.want)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 {
				t.Errorf("%d bytes allocated", n)
			}
		})
	}
}

// The number of files and the length of all their names are bounded.
func TestReaderBoundsNames(t *testing.T) {
	name := strings.Repeat(strings.Repeat("n", 250)+"/", 16)
	for what, name := range map[string]func(i int) string{
		"more than 524288 files":        func(i int) string { return fmt.Sprint(i) },
		"paths of more than 67108864 b": func(i int) string { return fmt.Sprint(name, i) },
	} {
		i, rest := 0, []byte{}
		endless := readerFunc(func(p []byte) (int, error) {
			if len(rest) == 0 {
				for len(rest) < 64<<10 {
					rest = stream(rest).end(name(i))
					i++
				}
			}
			n := copy(p, rest)
			rest = rest[n:]
			return n, nil
		})
		cr := classic.NewReader(endless, classic.Options{})
		err := error(nil)
		for err == nil {
			_, err = cr.Next()
		}
		if !errors.Is(err, format.ErrDamaged) || !strings.Contains(err.Error(), what) {
			t.Errorf("error is %v, want %q", err, what)
		}
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// made is a small stream that the real mbstream made of the files of a backup.
func made(t testing.TB) (s []byte, want map[string]string) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 700)
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	names := []string{"ibdata1", "shop/orders.ibd", "shop/orders.frm", "ib_logfile0", "xtrabackup_checkpoints", "backup-my.cnf", "xtrabackup_info"}
	want, dir := map[string]string{}, t.TempDir()
	check(t, os.Mkdir(filepath.Join(dir, "shop"), 0o700))
	for i, name := range names {
		want[name] = string(noise[i*100:][:20+i*10])
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(want[name]), 0o600))
	}
	cmd := exec.CommandContext(t.Context(), "mbstream", append([]string{"-c"}, names...)...)
	cmd.Dir = dir
	s, err := cmd.Output()
	check(t, err)
	return s, want
}

// P2: cut anywhere, a stream is damaged; cut between two chunks, it can be
// accepted all the same.
func TestCutAnywhere(t *testing.T) {
	s, want := made(t)
	got, err := content(bytes.NewReader(s), classic.Options{})
	check(t, err)
	same(t, "whole", got, want)
	between := map[int]bool{}
	for _, c := range chunks(t, s) {
		between[c.at] = true
	}
	for n := 1; n < len(s); n++ {
		_, err := content(bytes.NewReader(s[:n]), classic.Options{})
		if !errors.Is(err, format.ErrDamaged) || !errors.Is(err, classic.ErrIncomplete) {
			t.Errorf("cut after %d bytes: error is %v", n, err)
		}
		told := error(nil)
		got, err := content(bytes.NewReader(s[:n]), classic.Options{Incomplete: func(reason error) { told = reason }})
		switch {
		case !between[n] && !errors.Is(err, classic.ErrIncomplete):
			t.Errorf("cut after %d bytes, within a chunk, accepted: error is %v", n, err)
		case between[n] && (err != nil || told == nil || len(got) == 0):
			t.Errorf("cut after %d bytes: error is %v, told %v, %d files", n, err, told, len(got))
		}
	}
	t.Logf("%d cuts, %d of them between chunks", len(s)-1, len(between)-1)
}

// P2: every bit, except the two flags that change nothing here.
func TestFlippedAnywhere(t *testing.T) {
	s, _ := made(t)
	harmless := map[int]byte{}
	for _, c := range chunks(t, s) {
		harmless[c.at+8] = 0x03
	}
	n := 0
	for i := range s {
		for bit := range 8 {
			if harmless[i]&(1<<bit) != 0 {
				continue
			}
			n++
			bad := bytes.Clone(s)
			bad[i] ^= 1 << bit
			if _, err := content(bytes.NewReader(bad), classic.Options{}); !errors.Is(err, format.ErrDamaged) {
				t.Errorf("bit %d of byte %d flipped: error is %v", bit, i, err)
			}
		}
	}
	t.Logf("%d bits flipped", n)
}

// Chunks doubled, swapped and dropped, streams joined: an error, or the same
// tree. The exception is the format's own: a file without its only data chunk
// is an empty file.
func TestChunksMoved(t *testing.T) {
	s, want := made(t)
	all := chunks(t, s)
	part := func(i int) []byte { return s[all[i].at:all[i].end] }
	try := func(what string, parts ...[]byte) {
		t.Helper()
		got, err := content(bytes.NewReader(bytes.Join(parts, nil)), classic.Options{})
		if err == nil {
			same(t, what, got, want)
		} else if !errors.Is(err, format.ErrDamaged) {
			t.Errorf("%s: error is %v", what, err)
		}
	}
	for i, c := range all {
		try(fmt.Sprintf("chunk %d doubled", i), s[:c.end], s[c.at:])
		if i > 0 {
			try(fmt.Sprintf("chunks %d and %d swapped", i-1, i), s[:all[i-1].at], part(i), part(i-1), s[c.end:])
		}
		if c.typ == 'E' {
			try(fmt.Sprintf("chunk %d dropped", i), s[:c.at], s[c.end:])
		}
	}
	_, err := content(bytes.NewReader(append(bytes.Clone(s), s...)), classic.Options{})
	if !errors.Is(err, format.ErrDamaged) {
		t.Errorf("two streams joined: error is %v", err)
	}
}

// An error of the source is no damage.
func TestReadErrorIsNoDamage(t *testing.T) {
	s, _ := made(t)
	bad := errors.New("cable pulled")
	for n := range len(s) {
		_, err := content(io.MultiReader(bytes.NewReader(s[:n]), iotest.ErrReader(bad)), classic.Options{})
		if !errors.Is(err, bad) || errors.Is(err, format.ErrDamaged) {
			t.Fatalf("after %d bytes: error is %v", n, err)
		}
	}
}

// A stream of nothing but what may be ignored.
func TestNothingInIt(t *testing.T) {
	s := stream{}.data(1, 0, "", 0, "")
	if _, err := content(bytes.NewReader(s), classic.Options{}); !errors.Is(err, classic.ErrIncomplete) {
		t.Errorf("error is %v", err)
	}
	got, err := content(bytes.NewReader(s), classic.Options{Incomplete: func(error) {}})
	if err != nil || len(got) != 0 {
		t.Errorf("accepted: %d files, error is %v", len(got), err)
	}
}

// A stream need not have been read to its end to be closed.
func TestCloseEarly(t *testing.T) {
	s, _ := made(t)
	for n := range 40 {
		cr := classic.NewReader(bytes.NewReader(s), classic.Options{})
		for range n {
			if _, err := cr.Next(); err != nil && err != io.EOF {
				t.Fatal(err)
			}
		}
		cr.Close()
	}
}

// chunk is one of a good stream of mbstream or mariabackup.
type chunk struct {
	at, end int
	typ     byte
	path    string
	to      string // of a rename
}

// chunks is a second reading of the format, which knows no bounds.
func chunks(t testing.TB, s []byte) (all []chunk) {
	t.Helper()
	for at := 0; at < len(s); {
		if string(s[at:at+8]) != classic.Magic {
			t.Fatalf("no chunk at %d", at)
		}
		c := chunk{at: at, typ: s[at+9]}
		end := at + 14 + int(le.Uint32(s[at+10:]))
		c.path = string(s[at+14 : end])
		switch c.typ {
		case 'P':
			end += 20 + int(le.Uint64(s[end:]))
		case 'R':
			n := int(le.Uint32(s[end:]))
			c.to = string(s[end+4 : end+4+n])
			end += 4 + n
		case 'S':
			end += 8
		}
		c.end, at = end, end
		all = append(all, c)
	}
	return all
}

func FuzzReader(f *testing.F) {
	small, _ := made(f)
	seeds := [][]byte{
		small, nil, []byte(classic.Magic),
		stream{}.file("a", "x").rename("a", "d/b").remove("c").again("a", "y").tail(),
		stream{}.sparse("a", 0, "aabbb", 0, 2, 10, 3).end("a").tail(),
		stream{}.payload("a", 0, "aaaa").seek("a", 1).payload("a", 1, "b").end("a").tail(),
		stream{}.data(1, 'Z', "u", 0, "zz").tail(),
		stream{}.payload("open", 0, "x"),
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		for _, opt := range []classic.Options{{}, {Incomplete: func(error) {}}} {
			frames(t, s, opt)
		}
	})
}

// frames reads a stream and makes sure that what comes out could be extracted.
func frames(t *testing.T, s []byte, opt classic.Options) {
	cr := classic.NewReader(bytes.NewReader(s), opt)
	defer cr.Close()
	sizes := map[format.FileNo]int64{} // -1 while open
	var manifest bytes.Buffer
	for {
		f, err := cr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			if !errors.Is(err, format.ErrDamaged) {
				t.Fatalf("error is %v", err)
			}
			return
		}
		switch f.Type {
		case format.FrameFile:
			if int(f.File) != len(sizes)+1 || format.CheckPath(f.Path) != nil {
				t.Fatalf("file %d, %q after %d", f.File, f.Path, len(sizes))
			}
			sizes[f.File] = -1
		case format.FrameData, format.FrameClose:
			if sizes[f.File] != -1 {
				t.Fatalf("%s for file %d, which is not open", f.Type, f.File)
			}
			if f.Type == format.FrameClose {
				sizes[f.File] = int64(f.Pos)
			}
			if f.Len > format.MaxPayload || f.Pos+uint64(f.Len) > format.MaxFileSize {
				t.Fatalf("%d bytes at %d", f.Len, f.Pos)
			}
		case format.FrameManifest:
			manifest.Write(f.Bytes())
		}
		f.Release()
	}
	m, err := format.ReadManifest(&manifest)
	check(t, err)
	for _, e := range m.Files {
		if size, ok := sizes[e.No]; !ok || size != e.Size {
			t.Fatalf("%q: %d bytes in the manifest, %d arrived", e.Path, e.Size, size)
		}
		delete(sizes, e.No)
	}
	if len(sizes) != m.Discarded {
		t.Fatalf("%d files left over, %d announced", len(sizes), m.Discarded)
	}
}
