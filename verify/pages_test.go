package verify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/families"
	"github.com/xbstream/xbstream/internal/innodb"
	mariadb "github.com/xbstream/xbstream/internal/mariadb/redo"
)

const (
	flags    = 21 // full_crc32, pages of 16 KiB
	pageSize = 16384
	endLSN   = 5000
)

// page is a sound page.
func page(t *testing.T, no uint32, lsn uint64) []byte {
	p := make([]byte, pageSize)
	binary.BigEndian.PutUint32(p[4:], no)
	binary.BigEndian.PutUint64(p[16:], lsn)
	binary.BigEndian.PutUint32(p[34:], 7)
	copy(p[100:], "rows")
	f, err := innodb.ParseFlags(flags)
	check(t, err)
	f.Seal(p)
	return p
}

// backup is an archive of one tablespace with the content given, in frames of
// the size given, the last first.
func backup(t *testing.T, content []byte, frame int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := format.NewWriter(&out, format.WriterOptions{})
	check(t, err)
	f := format.File{Path: "ibdata1", Kind: format.KindSystem, Size: int64(len(content)), Mode: 0o660,
		Space: &format.Space{ID: 7, Flags: flags, PageSize: pageSize}}
	f.No, err = w.BeginFile(f)
	check(t, err)
	for off := (len(content) - 1) / frame * frame; off >= 0; off -= frame {
		p := content[off:min(off+frame, len(content))]
		if innodb.IsZero(p) {
			check(t, w.WriteHole(f.No, int64(off), int64(len(p))))
			continue
		}
		b := format.GetBuffer()
		b.SetLen(copy(b.Space(), p))
		check(t, w.WriteData(f.No, int64(off), b))
	}
	check(t, w.EndFile(f.No, f.Size))
	check(t, w.WriteRedo(endLSN-10, []byte("0123456789")))
	_, err = w.Close(&format.Manifest{Tool: "test", Files: []format.File{f}, Backup: &format.Backup{Type: "full-backuped",
		Redo: format.Redo{Format: mariadb.FormatName, CheckpointLSN: endLSN - 10, CheckpointEndLSN: endLSN - 10, EndLSN: endLSN}}})
	check(t, err)
	return out.Bytes()
}

func tablespace(t *testing.T) []byte {
	content := make([]byte, 0, 40*pageSize)
	for no := range 40 {
		if no%7 == 3 {
			content = append(content, make([]byte, pageSize)...)
			continue
		}
		content = append(content, page(t, uint32(no), 4000)...)
	}
	return content
}

// frameSizes: several pages to a frame, one, and a page in several frames, its
// parts in any order.
var frameSizes = []int{8 * pageSize, pageSize, 5000, 512}

// Pages are checked in archives whose every frame is sound: what was damaged
// before it was archived is found, with file and page.
func TestBadPagesAreNamed(t *testing.T) {
	for _, size := range frameSizes {
		content := tablespace(t)
		if got := problems(t, backup(t, content, size)); got != "" {
			t.Errorf("frames of %d: problems %q", size, got)
		}
		content[11*pageSize+777] ^= 1
		content[20*pageSize+8] ^= 1
		got := problems(t, backup(t, content, size))
		for _, want := range []string{"ibdata1", "page 11", "page 20"} {
			if !strings.Contains(got, want) {
				t.Errorf("frames of %d: problems %q do not name %s", size, got, want)
			}
		}
		if n := strings.Count(got, "\n") + 1; n != 2 {
			t.Errorf("frames of %d: %d problems, want 2: %s", size, n, got)
		}
	}
}

func TestPagesAreCounted(t *testing.T) {
	for _, size := range frameSizes {
		rep, err := Archive(t.Context(), bytes.NewReader(backup(t, tablespace(t), size)), families.ParseFlags)
		check(t, err)
		if rep.Pages != 40 || rep.Files != 1 {
			t.Errorf("frames of %d: %d pages, %d files", size, rep.Pages, rep.Files)
		}
	}
}

func TestMisplacedAndNewPagesAreFound(t *testing.T) {
	content := tablespace(t)
	copy(content[5*pageSize:], page(t, 6, 4000))
	if got := problems(t, backup(t, content, pageSize)); !strings.Contains(got, "page 5") {
		t.Errorf("page 6 in the place of page 5: problems %q", got)
	}
	content = tablespace(t)
	copy(content[5*pageSize:], page(t, 5, endLSN+1))
	if got := problems(t, backup(t, content, pageSize)); !strings.Contains(got, "has LSN 5001, newer than the backup's end 5000") {
		t.Errorf("page of the future: problems %q", got)
	}
	copy(content[5*pageSize:], page(t, 5, endLSN))
	if got := problems(t, backup(t, content, pageSize)); got != "" {
		t.Errorf("page of the last moment: problems %q", got)
	}
}

// Everything that is wrong is listed, not the first of it.
func TestAllDamageIsListed(t *testing.T) {
	content := tablespace(t)
	content[11*pageSize+777] ^= 1 // page 11, before it is archived
	a := backup(t, content, pageSize)
	at := bytes.Index(a, content[30*pageSize:31*pageSize])
	a[at+9000] ^= 1 // the frame of page 30, afterwards
	got := problems(t, a[:len(a)-1])
	for _, want := range []string{"page 11", "payload checksum", format.ErrTruncated.Error()} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not among the problems:\n%s", want, got)
		}
	}
}

// A directory is checked as an archive is.
func TestDirProblems(t *testing.T) {
	content := tablespace(t)
	for what, c := range map[string]struct {
		change func(dir string)
		want   string
	}{
		"sound":   {func(string) {}, ""},
		"a bit":   {func(dir string) { overwrite(t, dir, 11*pageSize+777, "x") }, "page 11"},
		"cut":     {func(dir string) { check(t, os.Truncate(dir+"/ibdata1", 39*pageSize)) }, "the manifest says"},
		"cut odd": {func(dir string) { check(t, os.Truncate(dir+"/ibdata1", 40*pageSize+1)) }, "ends within page 40"},
		"new":     {func(dir string) { overwrite(t, dir, 5*pageSize, string(page(t, 5, endLSN+1))) }, "newer than the backup's end"},
		"missing": {func(dir string) { check(t, os.Remove(dir+"/ibdata1")) }, "missing"},
		"a directory": {func(dir string) {
			check(t, os.Remove(dir+"/ibdata1"))
			check(t, os.Mkdir(dir+"/ibdata1", 0o700))
		}, "is no system"},
	} {
		dir := t.TempDir()
		check(t, os.WriteFile(dir+"/ibdata1", content, 0o600))
		m := format.Manifest{Backup: &format.Backup{Redo: format.Redo{Format: mariadb.FormatName, EndLSN: endLSN}}, Files: []format.File{{No: 1, Path: "ibdata1",
			Kind: format.KindSystem, Size: int64(len(content)), Space: &format.Space{ID: 7, Flags: flags, PageSize: pageSize}}}}
		f, err := os.Create(filepath.Join(dir, format.ManifestName))
		check(t, err)
		check(t, format.EncodeManifest(f, &m))
		check(t, f.Close())
		c.change(dir)
		rep, err := Dir(t.Context(), dir, 2, families.ParseFlags)
		check(t, err)
		got := strings.Join(rep.Problems, "\n")
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: problems %q, want %q", what, got, c.want)
		}
	}
}

// A table that was put elsewhere is found through its link file.
func TestTablesElsewhere(t *testing.T) {
	good, bad := tablespace(t), tablespace(t)
	bad[11*pageSize+777] ^= 1
	for what, c := range map[string]struct {
		content []byte // nil for a directory
		link    string // of the directory in front of the name
		want    string
		err     error
	}{
		"sound":       {good, "/far/db/t.ibd", "", nil},
		"a bit":       {bad, "/far/db/t.ibd", "page 11", nil},
		"cut":         {good[:39*pageSize], "/far/db/t.ibd", "the manifest says", nil},
		"missing":     {good, "/farther/db/t.ibd", "missing", nil},
		"no file":     {nil, "/far/db/t.ibd", "is no tablespace", nil},
		"other table": {good, "/far/db/u.ibd", "", format.ErrDamaged},
		"dots":        {good, "/far/../far/db/t.ibd", "", format.ErrDamaged},
	} {
		dir := t.TempDir()
		check(t, errors.Join(os.Mkdir(dir+"/db", 0o700), os.MkdirAll(dir+"/far/db", 0o700), os.WriteFile(dir+"/db/t.isl", []byte(dir+c.link), 0o600)))
		if c.content == nil {
			check(t, os.Mkdir(dir+"/far/db/t.ibd", 0o700))
		} else {
			check(t, os.WriteFile(dir+"/far/db/t.ibd", c.content, 0o600))
		}
		m := format.Manifest{Partial: true, Backup: &format.Backup{Redo: format.Redo{Format: mariadb.FormatName, EndLSN: endLSN}}, Files: []format.File{{No: 1, Path: "db/t.ibd", Source: "/old/db/t.ibd",
			Kind: format.KindTablespace, Size: int64(len(good)), Space: &format.Space{ID: 7, Flags: flags, PageSize: pageSize}}}}
		f, err := os.Create(filepath.Join(dir, format.ManifestName))
		check(t, err)
		check(t, errors.Join(format.EncodeManifest(f, &m), f.Close()))
		rep, err := Dir(t.Context(), dir, 2, families.ParseFlags)
		if !errors.Is(err, c.err) || err != nil && c.err == nil {
			t.Errorf("%s: error %v, want %v", what, err, c.err)
		}
		if err != nil {
			continue
		}
		got := strings.Join(rep.Problems, "\n")
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) || rep.Files != 1 && c.content != nil && c.want != "missing" {
			t.Errorf("%s: %d files, problems %q, want %q", what, rep.Files, got, c.want)
		}
	}
}

func overwrite(t *testing.T, dir string, off int64, s string) {
	f, err := os.OpenFile(dir+"/ibdata1", os.O_RDWR, 0)
	check(t, err)
	_, err = f.WriteAt([]byte(s), off)
	check(t, err)
	check(t, f.Close())
}

// TestEncryptedPagesOfMySQLAreCountedApart: their checksum needs the key. Their number
// does not.
func TestEncryptedPagesOfMySQLAreCountedApart(t *testing.T) {
	for no, want := range []struct{ checked, unchecked, problems int64 }{{1, 0, 0}, {0, 1, 0}, {0, 1, 1}} {
		p := page(t, uint32(no), 4000)
		innodb.PageFormat{MySQL: true}.Seal(p)
		if no > 0 {
			p[25], p[1000] = 15, p[1000]+1
		}
		f := &file{pages: &innodb.PageFormat{MySQL: true, Logical: pageSize, Physical: pageSize}}
		var problems int64
		f.check(p, int64(no)+want.problems, func(string, ...any) { problems++ })
		if f.checked != want.checked || f.unchecked != want.unchecked || problems != want.problems {
			t.Errorf("page %d: %d checked, %d not, %d problems, want %+v", no, f.checked, f.unchecked, problems, want)
		}
	}
}
