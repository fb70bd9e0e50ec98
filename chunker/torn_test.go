package chunker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
)

// tablespace makes the bytes of a full_crc32 tablespace with pages of 16 KiB.
func tablespace(id format.SpaceID, pages int) []byte {
	f := innodb.PageFormat{FullCRC32: true, Logical: 16 << 10, Physical: 16 << 10}
	data := make([]byte, pages*f.Physical)
	for no := range pages {
		p := data[no*f.Physical:][:f.Physical]
		for i := range p[100:] {
			p[100+i] = byte(no + i)
		}
		binary.BigEndian.PutUint32(p[4:], uint32(no))
		binary.BigEndian.PutUint16(p[24:], innodb.TypeIndex)
		binary.BigEndian.PutUint32(p[34:], uint32(id))
		innodb.SetLSN(p, format.LSN(1000+no))
		if no == 0 {
			binary.BigEndian.PutUint32(p[38:], uint32(id))
			binary.BigEndian.PutUint32(p[46:], uint32(pages))
			binary.BigEndian.PutUint32(p[54:], 0x15)
		}
		f.Seal(p)
	}
	return data
}

func writeFile(t *testing.T, data []byte) File {
	t.Helper()
	abs := filepath.Join(t.TempDir(), "t.ibd")
	if err := os.WriteFile(abs, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return File{Abs: abs, Rel: "d/t.ibd", Kind: format.KindTablespace, Table: "d.t"}
}

// tearing is a file some of whose pages are read half old, half new, so often.
type tearing struct {
	diskFile
	mu     sync.Mutex
	torn   map[int64]int // offset of the page to how often it is torn
	forgot map[int64]int
}

func (s *tearing) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.diskFile.ReadAt(p, off)
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, times := range s.torn {
		if at < off || at >= off+int64(n) || times == 0 {
			continue
		}
		s.torn[at]--
		half := p[at-off:][8<<10 : 16<<10]
		copy(half, bytes.Repeat([]byte{0xEE ^ byte(s.torn[at])}, len(half)))
	}
	return n, err
}

func (s *tearing) Forget(off, n int64) {
	s.diskFile.Forget(off, n)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgot[off]++
}

func copyTorn(t *testing.T, data []byte, torn map[int64]int) (got []byte, src *tearing, err error) {
	t.Helper()
	m := &memSink{}
	c := &Copier{Sink: m, PageSize: 16 << 10, Parallel: 1}
	c.openFile = func(file File) (opened, error) {
		f, err := os.Open(file.Abs)
		src = &tearing{diskFile: diskFile{f}, torn: torn, forgot: map[int64]int{}}
		return src, err
	}
	res, err := c.CopyInnoDB(t.Context(), []File{writeFile(t, data)})
	if err == nil && (len(res) != 1 || res[0].Entry.Space.ID != 7 || res[0].Entry.Size != int64(len(data)) || res[0].Foreign || res[0].Age != innodb.Age{Oldest: 1000}) {
		t.Errorf("results %+v", res)
	}
	return m.data, src, err
}

func TestTornPagesAreReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const page = 16 << 10
		data := tablespace(7, 200)
		torn := map[int64]int{0: 3, 5 * page: 1, 63 * page: 2, 64 * page: 7, 199 * page: pageTries - 1}
		got, src, err := copyTorn(t, data, torn)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, data) {
			t.Error("the copy is not the file")
		}
		for at, left := range src.torn {
			if left != 0 || src.forgot[at] == 0 {
				t.Errorf("page at %d: torn %d times more, cache dropped %d times", at, left, src.forgot[at])
			}
		}
	})
}

func TestDamagedPageEndsTheCopy(t *testing.T) {
	const page = 16 << 10
	for _, no := range []int64{0, 1, 70} {
		t.Run(fmt.Sprint(no), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, src, err := copyTorn(t, tablespace(7, 100), map[int64]int{no * page: 1 << 30})
				var pe *PageError
				if !errors.Is(err, ErrDamagedPage) || !errors.As(err, &pe) {
					t.Fatalf("error %v", err)
				}
				if pe.Table != "d.t" || !strings.HasSuffix(pe.Path, "/t.ibd") || pe.PageNo != format.PageNo(no) || pe.LSN != format.LSN(1000+no) || pe.Tries != pageTries {
					t.Errorf("%+v", pe)
				}
				if no != 0 && pe.SpaceID != 7 {
					t.Errorf("space id %d", pe.SpaceID)
				}
				var ce *innodb.ChecksumError
				if !errors.As(err, &ce) {
					t.Errorf("no cause in %v", err)
				}
				if src.Close() == nil {
					t.Error("the file was left open")
				}
			})
		})
	}
}

// TestPatienceIsBoundedForAFile: many torn pages share the file's patience.
func TestPatienceIsBoundedForAFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		torn := map[int64]int{}
		for no := range int64(100) {
			torn[no*(16<<10)] = pageTries - 1
		}
		if _, _, err := copyTorn(t, tablespace(7, 100), torn); !errors.Is(err, ErrDamagedPage) {
			t.Fatalf("error %v", err)
		}
	})
}

func TestUnwrittenTablespaceIsRebuilt(t *testing.T) {
	for _, c := range []struct {
		name string
		data []byte
		size int64
	}{
		{"empty", nil, 0},
		{"shorter than a page", make([]byte, 5000), 0},
		{"zero", make([]byte, 64<<10), 64 << 10},
		{"page 0 zero", append(make([]byte, 16<<10), tablespace(7, 4)[16<<10:]...), 64 << 10},
		{"half of page 0", tablespace(7, 1)[:8<<10], 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &memSink{}
			cp := &Copier{Sink: m, PageSize: 16 << 10}
			res, err := cp.CopyInnoDB(t.Context(), []File{writeFile(t, c.data)})
			if err != nil {
				t.Fatal(err)
			}
			if s := res[0].Entry.Space; !s.Rebuild || s.ID != 0 || res[0].Entry.Size != c.size {
				t.Errorf("%+v %+v", res[0].Entry, s)
			}
			if !bytes.Equal(m.data, make([]byte, c.size)) || strings.Contains(fmt.Sprint(m.pieces), "data") {
				t.Errorf("pieces %v", m.pieces)
			}
		})
	}
}

// shrinking is a file that is truncated after so many reads.
type shrinking struct {
	diskFile
	reads, at int
}

func (s *shrinking) ReadAt(p []byte, off int64) (int, error) {
	if s.reads++; s.reads == s.at {
		if err := os.Truncate(s.Name(), 3<<20+100); err != nil {
			return 0, err
		}
	}
	return s.diskFile.ReadAt(p, off)
}

func TestFileThatShrinksEndsInAHole(t *testing.T) {
	data := tablespace(7, 640)
	m := &memSink{}
	c := &Copier{Sink: m, PageSize: 16 << 10, Parallel: 1}
	c.openFile = func(file File) (opened, error) {
		f, err := os.Open(file.Abs)
		return &shrinking{diskFile: diskFile{f}, at: 3}, err
	}
	if _, err := c.CopyInnoDB(t.Context(), []File{writeFile(t, data)}); err != nil {
		t.Fatal(err)
	}
	if len(m.data) != len(data) || !bytes.Equal(m.data[:3<<20], data[:3<<20]) || !innodb.IsZero(m.data[3<<20:]) {
		t.Error("not the pages up to the new end and zeros behind it")
	}
}

func TestPagesOfAnotherTablespaceAreNoticed(t *testing.T) {
	data := append(tablespace(7, 10)[:160<<10], tablespace(8, 11)[160<<10:]...)
	c := &Copier{Sink: &memSink{}, PageSize: 16 << 10, Parallel: 1}
	res, err := c.CopyInnoDB(t.Context(), []File{writeFile(t, data)})
	if err != nil || !res[0].Foreign {
		t.Errorf("%+v, %v", res, err)
	}
}

// later is a file that changed after its page 0 was read.
type later struct {
	diskFile
	reads int
	data  []byte
}

func (s *later) ReadAt(p []byte, off int64) (int, error) {
	if s.reads++; s.reads == 1 {
		return s.diskFile.ReadAt(p, off)
	}
	return bytes.NewReader(s.data).ReadAt(p, off)
}

// TestEncryptionIsNoticed also when it begins after page 0 was read.
func TestEncryptionIsNoticed(t *testing.T) {
	const size = 16 << 10
	f := innodb.PageFormat{FullCRC32: true, Logical: size, Physical: size}
	plain := tablespace(7, 10)
	changed := func(change func(data []byte)) []byte {
		data := bytes.Clone(plain)
		change(data)
		return data
	}
	said := changed(func(data []byte) {
		// Type 1, 16 bytes of IV, no key version yet, key 1, on.
		copy(data[10428:], "s\x0E\x0CRE\x74\x01\x10iviviviviviviviv\x00\x00\x00\x00\x00\x00\x00\x01\x01")
		f.Seal(data[:size])
	})
	one := changed(func(data []byte) {
		binary.BigEndian.PutUint32(data[3*size:], 1) // key version
		f.Seal(data[3*size:][:size])
	})
	for _, c := range []struct {
		name        string
		first, then []byte
		want, entry bool
	}{
		{"no", plain, plain, false, false},
		{"from the start", said, said, true, true},
		{"page 0 says it later", plain, said, true, false},
		{"a page is", plain, one, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cp := &Copier{Sink: &memSink{}, PageSize: size, Parallel: 1}
			cp.openFile = func(file File) (opened, error) {
				f, err := os.Open(file.Abs)
				return &later{diskFile: diskFile{f}, data: c.then}, err
			}
			res, err := cp.CopyInnoDB(t.Context(), []File{writeFile(t, c.first)})
			if err != nil || res[0].Encrypted != c.want || res[0].Entry.Space.Encrypted != c.entry {
				t.Errorf("%+v, %v", res, err)
			}
		})
	}
}

// TestUnknownFormatIsRefused: flags of the future on a sound page are no damage;
// the same flags on a page that fails its check are.
func TestUnknownFormatIsRefused(t *testing.T) {
	sealed := innodb.PageFormat{FullCRC32: true, Logical: 16 << 10, Physical: 16 << 10}
	for _, c := range []struct {
		name             string
		pageSize         int
		strange, corrupt bool
	}{
		{"unknown flags", 16 << 10, true, false},
		{"damaged flags", 16 << 10, true, true},
		{"other page size", 8 << 10, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				data := tablespace(7, 4)
				if c.strange {
					binary.BigEndian.PutUint32(data[54:], 0x80000015)
				}
				if !c.corrupt {
					sealed.Seal(data[:16<<10])
				}
				cp := &Copier{Sink: &memSink{}, PageSize: c.pageSize}
				_, err := cp.CopyInnoDB(t.Context(), []File{writeFile(t, data)})
				if !errors.Is(err, innodb.ErrFormat) || c.pageSize == 16<<10 && errors.Is(err, ErrDamagedPage) != c.corrupt {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// TestOpenFilesAreBounded: however many files there are, no more are open than
// twice the workers.
func TestOpenFilesAreBounded(t *testing.T) {
	var files []File
	for i := range 120 {
		files = append(files, writeFile(t, tablespace(format.SpaceID(i+1), 4+i%3*300)))
	}
	var open, most atomic.Int64
	c := &Copier{Sink: failingSink{}, PageSize: 16 << 10, Parallel: 5}
	c.openFile = func(file File) (opened, error) {
		f, err := os.Open(file.Abs)
		n := open.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		return counted{diskFile{f}, &open}, err
	}
	res, err := c.CopyInnoDB(t.Context(), files)
	if err != nil || len(res) != len(files) {
		t.Fatalf("%d results, %v", len(res), err)
	}
	if most.Load() > 10 || most.Load() < 2 || open.Load() != 0 {
		t.Errorf("%d files open at once, %d in the end", most.Load(), open.Load())
	}
}

type counted struct {
	diskFile
	open *atomic.Int64
}

func (c counted) Close() error {
	c.open.Add(-1)
	return c.diskFile.Close()
}

func TestErrorsEndTheCopy(t *testing.T) {
	files := []File{writeFile(t, tablespace(7, 400)), writeFile(t, tablespace(8, 400)), writeFile(t, tablespace(9, 3))}
	boom := errors.New("boom")
	for _, c := range []struct {
		name string
		c    *Copier
	}{
		{"hook before", &Copier{Sink: failingSink{}, Before: func(File) error { return boom }}},
		{"hook after", &Copier{Sink: failingSink{}, After: func(File) error { return boom }}},
		{"begin", &Copier{Sink: failingSink{begin: boom}}},
		{"data", &Copier{Sink: failingSink{data: boom}}},
		{"end", &Copier{Sink: failingSink{end: boom}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.c.PageSize, c.c.Parallel = 16<<10, 4
			if _, err := c.c.CopyInnoDB(t.Context(), files); !errors.Is(err, boom) {
				t.Errorf("%v", err)
			}
		})
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(boom)
	c := &Copier{Sink: failingSink{}, PageSize: 16 << 10}
	if _, err := c.CopyInnoDB(ctx, files); !errors.Is(err, boom) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := c.CopyFiles(ctx, files); !errors.Is(err, boom) {
		t.Errorf("cancelled: %v", err)
	}
}

type failingSink struct{ begin, data, end error }

func (s failingSink) BeginFile(format.File) (format.FileNo, error) { return 1, s.begin }
func (s failingSink) WriteData(_ format.FileNo, _ int64, b *format.Buffer) error {
	b.Release()
	return s.data
}
func (s failingSink) WriteHole(format.FileNo, int64, int64) error { return nil }
func (s failingSink) EndFile(format.FileNo, int64) error          { return s.end }

func TestRateIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		start, c := time.Now(), &Copier{Rate: 1 << 20}
		for range 11 {
			if err := c.pace(ctx, 1<<20); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("11 MiB passed in %v", took)
		}
	})
}

func BenchmarkCopyInnoDB(b *testing.B) {
	const pages = 16384
	dir := b.TempDir()
	abs := filepath.Join(dir, "t.ibd")
	if err := os.WriteFile(abs, tablespace(7, pages), 0o600); err != nil {
		b.Fatal(err)
	}
	files := []File{{Abs: abs, Rel: "d/t.ibd", Kind: format.KindTablespace, Table: "d.t"}}
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			b.SetBytes(pages * 16 << 10)
			b.ReportAllocs()
			c := &Copier{Sink: failingSink{}, PageSize: 16 << 10, Parallel: workers}
			for b.Loop() {
				if _, err := c.CopyInnoDB(b.Context(), files); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCopyManyTables(b *testing.B) {
	const tables = 5000
	dir := b.TempDir()
	files := make([]File, tables)
	for i := range files {
		files[i] = File{Abs: filepath.Join(dir, fmt.Sprint(i)), Rel: fmt.Sprint("d/", i), Kind: format.KindTablespace}
		if err := os.WriteFile(files[i].Abs, tablespace(format.SpaceID(i+1), 4), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(tables * 64 << 10)
	b.ReportAllocs()
	c := &Copier{Sink: failingSink{}, PageSize: 16 << 10}
	for b.Loop() {
		if _, err := c.CopyInnoDB(b.Context(), files); err != nil {
			b.Fatal(err)
		}
	}
}

// parseMySQL reads the one bit of a MySQL tablespace's flags that tests set.
func parseMySQL(flags uint32) (innodb.PageFormat, error) {
	return innodb.PageFormat{MySQL: true, Encrypted: flags&(1<<13) != 0, Logical: 16 << 10, Physical: 16 << 10}, nil
}

// encryptedTablespace makes one of MySQL's whose first half is encrypted, but for page
// 0, and whose other half is not yet.
func encryptedTablespace(id format.SpaceID, pages int) []byte {
	const size = 16 << 10
	data := tablespace(id, pages)
	binary.BigEndian.PutUint32(data[54:], 1<<13)
	f, _ := parseMySQL(1 << 13)
	for no := range pages {
		p := data[no*size:][:size]
		if f.Seal(p); no > 0 && no < pages/2 {
			binary.BigEndian.PutUint16(p[24:], 15)
			for i := range p[38:] {
				p[38+i] ^= 0x5A // nothing checks it
			}
		}
	}
	return data
}

func copyEncrypted(t *testing.T, data []byte, torn map[int64]int) (got []byte, src *tearing, err error) {
	t.Helper()
	m := &memSink{}
	c := &Copier{Sink: m, PageSize: 16 << 10, Parallel: 1, ParseFlags: parseMySQL}
	c.openFile = func(file File) (opened, error) {
		f, err := os.Open(file.Abs)
		src = &tearing{diskFile: diskFile{f}, torn: torn, forgot: map[int64]int{}}
		return src, err
	}
	res, err := c.CopyInnoDB(t.Context(), []File{writeFile(t, data)})
	if err == nil && (len(res) != 1 || res[0].Foreign || !res[0].Encrypted || !res[0].Entry.Space.Encrypted) {
		t.Errorf("results %+v", res)
	}
	return m.data, src, err
}

// TestTornEncryptedPagesAreReadAgain: nothing tells such a page from a sound one but
// another read. The torn half is another one each time.
func TestTornEncryptedPagesAreReadAgain(t *testing.T) {
	const page, chunk = 16 << 10, format.ChunkSize
	synctest.Test(t, func(t *testing.T) {
		data := encryptedTablespace(7, 400)
		for _, torn := range []map[int64]int{
			{},
			{0: 1, 5 * page: 1, 64 * page: 1, 199 * page: 1},       // the first read
			{250 * page: 1, 399 * page: 5},                         // plain pages
			{7 * page: 2, 8 * page: 3, 9 * page: 20, 70 * page: 7}, // others too
		} {
			got, src, err := copyEncrypted(t, data, torn)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, data) {
				t.Errorf("%v: the copy is not the file", torn)
			}
			for at, left := range torn {
				if left != 0 {
					t.Errorf("page at %d: to be torn %d times more", at, left)
				}
			}
			// What has no encrypted page is read once.
			for off := int64(0); off < int64(len(data)); off += chunk {
				if again, want := src.forgot[off] > 0, off < 200*page; again != want && torn[off] == 0 {
					t.Errorf("%v: chunk at %d read again: %v, want %v", torn, off, again, want)
				}
			}
		}
	})
}

func TestEncryptedPageThatNeverAgreesEndsTheCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, err := copyEncrypted(t, encryptedTablespace(7, 100), map[int64]int{3 * 16 << 10: 1 << 30})
		var pe *PageError
		if !errors.Is(err, ErrDamagedPage) || !errors.As(err, &pe) || !errors.Is(err, errUnsettled) {
			t.Fatalf("error %v", err)
		}
		if pe.PageNo != 3 || pe.LSN != 1003 || pe.SpaceID != 7 || pe.Tries != pageTries {
			t.Errorf("%+v", pe)
		}
	})
}
