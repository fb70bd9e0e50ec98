package chunker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xbstream/xbstream/format"
)

func TestReconcile(t *testing.T) {
	began := time.Unix(1000, 0)
	old := began.Add(-time.Hour).UnixNano()
	// found is a file as it is now: name, space id, inode.
	found := func(name string, id format.SpaceID, inode uint64) File {
		return File{Rel: name, Kind: format.KindTablespace, SpaceID: id, Signature: Signature{Inode: inode, Size: 1, Mtime: old, Ctime: old}}
	}
	// copied is a copy: its number and what it was then.
	copied := func(no format.FileNo, f File) Result {
		return Result{
			File: f, Signature: f.Signature, Began: began,
			Entry: format.File{No: no, Path: f.Rel, Space: &format.Space{ID: f.SpaceID, FirstPage: f.firstPage()}},
		}
	}
	rebuild := func(no format.FileNo, f File) Result {
		r := copied(no, f)
		r.Entry.Space.ID, r.Entry.Space.Rebuild = 0, true
		return r
	}
	foreign := func(r Result) Result { r.Foreign = true; return r }
	fresh := func(f File) File { f.Signature.Mtime = began.UnixNano(); return f }
	written := func(f File) File { f.Signature.Mtime++; return f }
	unwritten := func(f File) File { f.SpaceID, f.Unwritten = 0, true; return f }
	system := func(name string, first format.PageNo, inode uint64) File {
		f := found(name, 0, inode)
		f.System = &System{FirstPage: first}
		return f
	}
	a, b := found("d/a.ibd", 7, 100), found("d/b.ibd", 8, 101)

	for _, c := range []struct {
		name   string
		copied []Result
		now    []File
		away   map[format.SpaceID]bool
		want   string
	}{
		{"nothing happened", []Result{copied(1, a), copied(2, b)}, []File{a, b}, nil, "keep 1=d/a.ibd 2=d/b.ibd"},
		{"written meanwhile", []Result{copied(1, a)}, []File{written(a)}, nil, "keep 1=d/a.ibd"},
		{"dropped", []Result{copied(1, a), copied(2, b)}, []File{b}, nil, "keep 2=d/b.ibd discard 1"},
		{"gone before it was opened", []Result{{File: a, Gone: true}}, nil, nil, ""},
		{"created", []Result{copied(1, a)}, []File{a, b}, nil, "keep 1=d/a.ibd copy d/b.ibd"},
		{"renamed", []Result{copied(1, a)}, []File{found("e/c.ibd", 7, 100)}, nil, "keep 1=e/c.ibd"},
		{"swapped", []Result{copied(1, a), copied(2, b)}, []File{found("d/a.ibd", 8, 101), found("d/b.ibd", 7, 100)}, nil, "keep 1=d/b.ibd 2=d/a.ibd"},
		{"renamed before it was opened", []Result{{File: a, Gone: true}}, []File{found("d/c.ibd", 7, 100)}, nil, "copy d/c.ibd"},
		{"truncated", []Result{copied(1, a)}, []File{found("d/a.ibd", 9, 102)}, nil, "copy d/a.ibd discard 1"},
		{"dropped and created", []Result{copied(1, a)}, []File{found("d/a.ibd", 9, 100)}, nil, "copy d/a.ibd discard 1"},
		{"copied under both names", []Result{copied(1, a), copied(2, found("d/c.ibd", 7, 100))}, []File{found("d/c.ibd", 7, 100)}, nil, "keep 2=d/c.ibd discard 1"},
		{"another file with the id", []Result{copied(1, a)}, []File{found("d/a.ibd", 7, 555)}, nil, "copy d/a.ibd discard 1"},
		{"imported", []Result{copied(1, a), copied(2, b)}, []File{written(a), b}, map[format.SpaceID]bool{7: true}, "keep 2=d/b.ibd copy d/a.ibd discard 1"},
		{"imported before it was copied", []Result{copied(1, a), copied(2, b)}, []File{a, written(b)}, map[format.SpaceID]bool{7: true}, "keep 1=d/a.ibd 2=d/b.ibd"},
		{"imported just before it was copied", []Result{copied(1, fresh(a))}, []File{fresh(a)}, map[format.SpaceID]bool{7: true}, "copy d/a.ibd discard 1"},
		{"imported between two copies", []Result{copied(1, a), copied(2, written(a))}, []File{written(a)}, map[format.SpaceID]bool{7: true}, "keep 2=d/a.ibd discard 1"},
		{"not used since the server started (A1)", []Result{copied(1, a), copied(2, b)}, []File{a, b}, map[format.SpaceID]bool{7: true, 8: true}, "keep 1=d/a.ibd 2=d/b.ibd"},
		{"deleted for good", []Result{copied(1, a)}, nil, map[format.SpaceID]bool{7: true}, "discard 1"},
		{"seen during an import", []Result{foreign(copied(1, a))}, []File{written(a)}, nil, "copy d/a.ibd discard 1"},
		{"imported long ago", []Result{foreign(copied(1, a))}, []File{a}, nil, "keep 1=d/a.ibd"},
		{"not written yet, then written", []Result{rebuild(1, a)}, []File{a}, nil, "copy d/a.ibd discard 1"},
		{"never written", []Result{rebuild(1, a)}, []File{unwritten(a)}, nil, "copy d/a.ibd discard 1"},
		{"two files of the system tablespace", []Result{copied(1, system("ibdata1", 0, 1)), copied(2, system("ibdata2", 640, 2))},
			[]File{system("ibdata1", 0, 1), system("ibdata2", 640, 2)}, nil, "keep 1=ibdata1 2=ibdata2"},
		{"a table is not the system tablespace", []Result{rebuild(1, a), copied(2, system("ibdata1", 0, 1))},
			[]File{system("ibdata1", 0, 1), unwritten(a)}, nil, "keep 2=ibdata1 copy d/a.ibd discard 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := describe(Reconcile(c.copied, c.now, c.away, nil)); got != c.want {
				t.Errorf("%s\nwant %s", got, c.want)
			}
		})
	}
}

// Pages of an index that was built are not in the redo, and on disk before the redo
// says so.
func TestReconcileAfterAnIndexWasBuilt(t *testing.T) {
	began := time.Unix(1_000_000, 0)
	a := File{Rel: "d/a.ibd", Kind: format.KindTablespace, SpaceID: 7, Signature: Signature{Inode: 1, Size: 1}}
	r := Result{File: a, Entry: format.File{No: 1, Path: a.Rel, Space: &format.Space{ID: 7}}, Signature: a.Signature, Began: began}
	written := a
	written.Signature.Size = 2
	untold := written
	untold.Unlogged = true
	for _, c := range []struct {
		name   string
		now    File
		loaded time.Time
		want   string
	}{
		{"never", written, time.Time{}, "keep 1=d/a.ibd"},
		{"after the copy began", written, began.Add(time.Second), "copy d/a.ibd discard 1"},
		{"at any time, and no redo tells", untold, time.Time{}, "copy d/a.ibd discard 1"},
		{"after it, and nothing was written", a, began.Add(time.Second), "keep 1=d/a.ibd"},
		{"before it", written, began.Add(-time.Second), "keep 1=d/a.ibd"},
	} {
		if got := describe(Reconcile([]Result{r}, []File{c.now}, nil, map[format.SpaceID]time.Time{7: c.loaded})); got != c.want {
			t.Errorf("built %s: %s, want %s", c.name, got, c.want)
		}
	}
}

func describe(p Plan) string {
	var keep, again, discard []string
	for _, r := range p.Keep {
		keep = append(keep, fmt.Sprintf("%d=%s", r.Entry.No, r.Entry.Path))
	}
	for _, f := range p.Copy {
		again = append(again, f.Rel)
	}
	for _, no := range p.Discard {
		discard = append(discard, no.String())
	}
	var out []string
	for _, part := range []struct {
		word  string
		items []string
	}{{"keep", keep}, {"copy", again}, {"discard", discard}} {
		slices.Sort(part.items)
		if len(part.items) > 0 {
			out = append(out, part.word+" "+strings.Join(part.items, " "))
		}
	}
	return strings.Join(out, " ")
}

func TestUnchanged(t *testing.T) {
	began := time.Unix(1000, 0)
	sig := Signature{Dev: 1, Inode: 2, Size: 3, Mtime: began.Add(-time.Minute).UnixNano(), Ctime: began.Add(-time.Minute).UnixNano()}
	with := func(change func(*Signature)) Signature { s := sig; change(&s); return s }
	base := Result{Signature: sig, Began: began}
	for _, c := range []struct {
		name string
		r    Result
		now  Signature
		want bool
	}{
		{"same", base, sig, true},
		{"other inode", base, with(func(s *Signature) { s.Inode++ }), false},
		{"other device", base, with(func(s *Signature) { s.Dev++ }), false},
		{"other size", base, with(func(s *Signature) { s.Size++ }), false},
		{"written", base, with(func(s *Signature) { s.Mtime++ }), false},
		{"time set back after writing", base, with(func(s *Signature) { s.Ctime++ }), false},
		{"changed while read", Result{Signature: sig, Began: began, Changed: true}, sig, false},
		{"gone", Result{Signature: sig, Began: began, Gone: true}, sig, false},
		{"written just before", Result{Signature: sig, Began: time.Unix(0, sig.Mtime).Add(settle)}, sig, false},
		{"written a little longer before", Result{Signature: sig, Began: time.Unix(0, sig.Mtime).Add(settle + 1)}, sig, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.r.Unchanged(c.now); got != c.want {
				t.Errorf("%v", got)
			}
		})
	}
}

// A3: the first page of a file that is unchanged since it was copied is not read
// again; that of every other file is.
func TestReadSpacesAgain(t *testing.T) {
	dir := t.TempDir()
	page := func(id byte) []byte {
		p := make([]byte, 16<<10)
		p[37], p[41], p[23] = id, id, 9 // the space id, twice, and the LSN
		return p
	}
	var files []File
	for i, name := range []string{"same.ibd", "written.ibd", "new.ibd", "unsettled.ibd", "rebuilt.ibd", "unwritten.ibd"} {
		f := File{Abs: filepath.Join(dir, name), Rel: "d/" + name, Kind: format.KindTablespace}
		content := page(byte(i + 1))
		if name == "unwritten.ibd" {
			clear(content)
		}
		if err := os.WriteFile(f.Abs, content, 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	now, err := ReadSpaces(t.Context(), files)
	if err != nil {
		t.Fatal(err)
	}
	// The copies say that their ids are 100 more, to tell where an answer is from.
	var copied []Result
	for _, f := range now {
		r := Result{File: f, Signature: f.Signature, Began: time.Now().Add(time.Minute), Entry: format.File{Space: &format.Space{ID: f.SpaceID + 100}}}
		switch f.Rel {
		case "d/new.ibd":
			r = Result{File: f, Gone: true}
		case "d/unsettled.ibd":
			r.Began = time.Now()
		case "d/rebuilt.ibd", "d/unwritten.ibd":
			r.Entry.Space.Rebuild = true
		}
		copied = append(copied, r)
	}
	if err := os.WriteFile(files[1].Abs, append(page(2), 0), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := ReadSpacesAgain(t.Context(), files, copied)
	if err != nil || len(again) != len(files) {
		t.Fatal(len(again), err)
	}
	for i, want := range []format.SpaceID{101, 2, 3, 4, 5, 0} {
		if f := again[i]; f.SpaceID != want || f.Unwritten != (want == 0) || !f.Unwritten && f.HeadLSN != 9 || f.Signature.Inode == 0 {
			t.Errorf("%s has id %v, want %v: %+v", f.Rel, f.SpaceID, want, f)
		}
	}
}
