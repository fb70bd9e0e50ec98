package extract

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
)

// scattered is a backup with tables in directories of their own, one of them
// with holes.
func scattered() source {
	s := backupOf([]byte("some redo that nobody applies"))
	s.files["db/near.ibd"] = "near"
	s.files["db/far.ibd"] = "far" + strings.Repeat("\x00", 3<<20) + "away"
	s.files["db/far2.ibd"] = "second"
	s.files["db/other.ibd"] = "other"
	s.sources = map[string]string{"db/far.ibd": "/disk/1/db/far.ibd", "db/far2.ibd": "/disk/1/deep/db/far2.ibd", "db/other.ibd": "/disk/12/db/other.ibd"}
	return s
}

// otherDisk returns a directory on another file system than temporary
// directories are on, if there is one.
func otherDisk(t *testing.T) string {
	if dir, err := os.MkdirTemp("/dev/shm", "xbstream-test-"); err == nil {
		t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
		return dir
	}
	return t.TempDir()
}

// Mapped tables go to their directories and link files into the target, whether
// the archive says early or late where a table was, and also to another disk.
func TestMappedTables(t *testing.T) {
	for _, late := range []bool{false, true} {
		for _, deep := range []bool{false, true} {
			s := scattered()
			s.late = late
			dir, disk := filepath.Join(t.TempDir(), "new"), otherDisk(t)
			far := filepath.Join(disk, "far")
			opt := Options{RedoHead: redoHead, Dir: dir, Mappings: []Mapping{{"/disk/1", far}}}
			want := map[string]string{"./": "", "db/": "", "db/far.ibd": s.files["db/far.ibd"], "deep/": "", "deep/db/": "", "deep/db/far2.ibd": "second"}
			if deep { // the deepest counts, wherever it stands
				opt.Mappings = append(opt.Mappings, Mapping{"/disk/1/deep", filepath.Join(disk, "2")})
				want = map[string]string{"./": "", "db/": "", "db/far.ibd": s.files["db/far.ibd"]}
			}
			prepared := false
			opt.Prepare = func(_ context.Context, p string) error {
				prepared = true
				for name, content := range s.files {
					if b, err := os.ReadFile(filepath.Join(p, name)); err != nil || string(b) != content {
						t.Errorf("prepare sees of %s %d bytes, %v", name, len(b), err)
					}
				}
				return nil
			}
			rep, err := Extract(t.Context(), Stream(bytes.NewReader(s.archive(t)), 2), opt)
			check(t, err)
			if got := tree(t, far); !maps.Equal(got, want) {
				t.Errorf("late %v, deep %v: in the directory of the mapping are %v", late, deep, slices.Sorted(maps.Keys(got)))
			}
			got := tree(t, dir)
			if !prepared || got["db/far.isl"] != far+"/db/far.ibd" || got["db/far.ibd"] != "" || got["db/other.ibd"] != "other" || got["db/near.ibd"] != "near" {
				t.Errorf("late %v, deep %v: in the target are %v", late, deep, slices.Sorted(maps.Keys(got)))
			}
			link := far + "/deep/db/far2.ibd"
			if deep {
				link = disk + "/2/db/far2.ibd"
			}
			if got["db/far2.isl"] != link || rep.Moved != 1 || rep.Files != 6 {
				t.Errorf("late %v, deep %v: %q, want %q; %d of %d files moved", late, deep, got["db/far2.isl"], link, rep.Moved, rep.Files)
			}
			n := 0
			for _, m := range rep.Mapped {
				n += m.Files
			}
			if n != 2 {
				t.Errorf("late %v, deep %v: reported %+v", late, deep, rep.Mapped)
			}
		}
	}
}

// P3: whatever fails, nothing is left, in no directory.
func TestFailedMappingLeavesNothing(t *testing.T) {
	far := Mapping{"/disk/1", "far"}
	for name, c := range map[string]struct {
		change   func(*source)
		mappings []Mapping
		prepare  func(dir string) error
		want     error
	}{
		"prepare fails":        {prepare: func(string) error { return errors.New("boom") }, want: ErrPrepare},
		"a name comes up":      {prepare: func(dir string) error { return os.Mkdir(filepath.Join(dir, "far", "db"), 0o700) }, want: ErrTarget},
		"no such table":        {mappings: []Mapping{far, {"/disk/3", "3"}}, want: ErrMapping},
		"a part of a name":     {mappings: []Mapping{{"/disk", "far"}, {"/dis", "3"}}, want: ErrMapping},
		"inside of the target": {mappings: []Mapping{{"/disk/1", "new/far"}}, want: ErrTarget},
		"the target":           {mappings: []Mapping{{"/disk/1", "new"}}, want: ErrTarget},
		"around the target":    {mappings: []Mapping{{"/disk/1", "."}}, want: ErrTarget},
		"one in the other":     {mappings: []Mapping{far, {"/disk/12", "far/2"}}, want: ErrTarget},
		"no parent":            {mappings: []Mapping{{"/disk/1", "no/far"}}, want: ErrTarget},
		"two of one name":      {change: func(s *source) { s.manifest = clash }, mappings: []Mapping{far, {"/disk/2", "far"}}, want: ErrMapping},
		"its directory only":   {mappings: []Mapping{{"/disk/1/db", "far"}}, want: ErrMapping},
		"..":                   {change: func(s *source) { s.sources["db/far.ibd"] = "/disk/1/../../db/far.ibd" }, want: format.ErrDamaged},
		"//":                   {change: func(s *source) { s.sources["db/far.ibd"] = "/disk/1//db/far.ibd" }, want: format.ErrDamaged},
		"NUL":                  {change: func(s *source) { s.manifest = func(m *format.Manifest) { farFrom(m, "/disk/1/\x00/db/far.ibd") } }, want: format.ErrDamaged},
		"staging":              {change: func(s *source) { s.sources["db/far.ibd"] = "/disk/1/" + partialPrefix + "x/db/far.ibd" }, want: format.ErrDamaged},
		"another name":         {change: func(s *source) { s.sources["db/far.ibd"] = "/disk/1/etc/passwd" }, want: ErrMapping},
		"a link file": {change: func(s *source) {
			s.files["db/far.txt"] = "/etc/passwd"
			s.manifest = func(m *format.Manifest) {
				i := slices.IndexFunc(m.Files, func(f format.File) bool { return f.Path == "db/far.txt" })
				m.Files[i].Path = "db/far.isl"
			}
		}, want: format.ErrDamaged},
		"a cut archive": {change: func(s *source) { s.manifest = func(m *format.Manifest) { m.Files[0].Size++ } }, want: format.ErrDamaged},
	} {
		s := scattered()
		if c.change != nil {
			c.change(&s)
		}
		if c.mappings == nil {
			c.mappings = []Mapping{far}
		}
		parent := t.TempDir()
		opt := Options{RedoHead: redoHead, Dir: filepath.Join(parent, "new"), RemovePartial: true}
		for _, m := range c.mappings {
			opt.Mappings = append(opt.Mappings, Mapping{m.Old, filepath.Join(parent, m.New)})
		}
		if c.prepare != nil {
			opt.Prepare = func(context.Context, string) error { return c.prepare(parent) }
		}
		for _, late := range []bool{false, true} {
			s.late = late
			_, err := Extract(t.Context(), Stream(bytes.NewReader(s.archive(t)), 2), opt)
			if !errors.Is(err, c.want) {
				t.Errorf("%s, late %v: error %v, want %v", name, late, err, c.want)
			}
			os.RemoveAll(filepath.Join(parent, "far", "db")) // what came up is not ours
			os.Remove(filepath.Join(parent, "far"))
			if got := tree(t, parent); len(got) != 1 {
				t.Errorf("%s, late %v: left %v", name, late, slices.Sorted(maps.Keys(got)))
			}
		}
	}
}

// clash gives two tables, which are called differently, one path below the
// directories they were in.
func clash(m *format.Manifest) {
	for i, f := range m.Files {
		switch f.Path {
		case "db/far.ibd":
			m.Files[i].Source = "/disk/1/x/db/far.ibd"
		case "db/other.ibd":
			m.Files[i].Path, m.Files[i].Source = "x/db/far.ibd", "/disk/2/x/db/far.ibd"
		}
	}
}

// A directory of a mapping is refused as a target is, before the first byte is
// read, and what a link in it leads to is left alone.
func TestMappingIsRefusedBeforeReading(t *testing.T) {
	outside := t.TempDir()
	check(t, os.WriteFile(filepath.Join(outside, "kept"), []byte("kept"), 0o600))
	full, linked, partial := t.TempDir(), t.TempDir(), t.TempDir()
	check(t, os.Mkdir(filepath.Join(full, "db"), 0o700))
	check(t, os.Symlink(outside, filepath.Join(linked, "db")))
	check(t, os.Mkdir(filepath.Join(partial, partialPrefix+"x"), 0o700))
	for name, dir := range map[string]string{"not empty": full, "a link": linked, "unfinished": partial, "a file": filepath.Join(outside, "kept")} {
		parent := t.TempDir()
		opt := Options{RedoHead: redoHead, Dir: filepath.Join(parent, "new"), Mappings: []Mapping{{"/disk/1", dir}}}
		for _, err := range []error{CheckTarget(opt), extractOf(t, noRead{t}, opt)} {
			if !errors.Is(err, ErrTarget) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%s: error %v, want ErrTarget and %s", name, err, dir)
			}
		}
		if got := tree(t, parent); len(got) != 1 {
			t.Errorf("%s: left %v", name, got)
		}
	}
	// A collision is one, whatever has the name.
	opt := Options{RedoHead: redoHead, Dir: filepath.Join(t.TempDir(), "new"), Mappings: []Mapping{{"/disk/1", linked}}, IntoNonEmpty: true}
	if err := extractOf(t, bytes.NewReader(scattered().archive(t)), opt); !errors.Is(err, ErrTarget) {
		t.Errorf("into a directory with a link: %v, want ErrTarget", err)
	}
	if got := tree(t, outside); len(got) != 2 || got["kept"] != "kept" {
		t.Errorf("outside are %v", got)
	}
	check(t, os.Remove(filepath.Join(linked, "db")))
	check(t, extractOf(t, bytes.NewReader(scattered().archive(t)), opt))
}

// P3: what a killed extraction had moved into the directory of a mapping is told
// from tables in use by the target's staging directory.
func TestMappingKilledWhilePublishing(t *testing.T) {
	for name, c := range map[string]struct {
		target  []string // what there is, after data/
		cleared bool
	}{
		"before the target":      {[]string{partialPrefix + "x/"}, true},
		"target announced":       {[]string{partialPrefix + "x/publish"}, true},
		"among the target":       {[]string{partialPrefix + "x/publish", "db/"}, true},
		"after the target":       {[]string{partialPrefix + "x/publish", "db/", "ibdata1"}, false},
		"the target is gone":     {nil, false},
		"the target is finished": {[]string{"db/", "ibdata1"}, false},
	} {
		parent := t.TempDir()
		dir, far := filepath.Join(parent, "data"), filepath.Join(parent, "far")
		stage := filepath.Join(dir, partialPrefix+"x")
		put := func(name, content string) {
			name = filepath.Join(parent, name)
			check(t, os.MkdirAll(filepath.Dir(name), 0o700))
			check(t, os.WriteFile(name, []byte(content), 0o600))
		}
		put("far/db/far.ibd", "precious")
		put("far/"+partialPrefix+"y/publish", "db\n")
		put("far/"+partialPrefix+"y/target", stage)
		for _, n := range c.target {
			if strings.HasSuffix(n, "/") {
				check(t, os.MkdirAll(filepath.Join(dir, n), 0o700))
			} else {
				put("data/"+n, "db\nibdata1\n")
			}
		}
		// The new extraction goes somewhere else, or the target would be
		// refused first.
		opt := Options{RedoHead: redoHead, Dir: dir, Mappings: []Mapping{{"/disk/1", far}}}
		if !c.cleared {
			opt.Dir = filepath.Join(parent, "new")
		}
		s := scattered()
		if err := extractOf(t, bytes.NewReader(s.archive(t)), opt); !errors.Is(err, ErrTarget) || !strings.Contains(err.Error(), "--remove-partial") {
			t.Errorf("%s: error %v, want one that names --remove-partial", name, err)
		}
		opt.RemovePartial = true
		err := extractOf(t, bytes.NewReader(s.archive(t)), opt)
		got := tree(t, far)
		if c.cleared && (err != nil || got["db/far.ibd"] != s.files["db/far.ibd"] || len(got) != 6) {
			t.Errorf("%s: %v, %v", name, err, slices.Sorted(maps.Keys(got)))
		}
		if !c.cleared && (!errors.Is(err, ErrTarget) || got["db/far.ibd"] != "precious") {
			t.Errorf("%s: %v, %v", name, err, slices.Sorted(maps.Keys(got)))
		}
	}
}

func extractOf(t *testing.T, r interface{ Read([]byte) (int, error) }, opt Options) error {
	_, err := Extract(t.Context(), Stream(r, 2), opt)
	return err
}

// farFrom says of the table db/far.ibd that it lay there at the source.
func farFrom(m *format.Manifest, source string) {
	for i := range m.Files {
		if m.Files[i].Path == "db/far.ibd" {
			m.Files[i].Source = source
		}
	}
}
