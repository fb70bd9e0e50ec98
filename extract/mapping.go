package extract

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/sparse"
)

// Mapping says where tables go that the source kept outside of its data
// directory, by DATA DIRECTORY: what was below Old comes below New.
type Mapping struct {
	// Old is a directory of the source: absolute, slash separated, clean.
	Old string
	// New is a directory of this machine: absolute, clean, neither in the
	// target nor around it. It is made if it does not exist and must otherwise
	// be as empty as the target.
	New string
}

// Mapped says what came of a Mapping.
type Mapped struct {
	Mapping
	Files int
}

// ErrMapping is wrapped by the error of a Mapping that the archive does not fit.
var ErrMapping = errors.New("mapping refused")

// place is a Mapping and the directory it leads to.
type place struct {
	Mapped
	at   *target // one for all with the same New
	used bool    // by a table of the archive, wanted or not
}

// below returns the path of a source's file below Old.
func (p *place) below(source string) (rest string, ok bool) {
	return strings.CutPrefix(source, strings.TrimSuffix(p.Old, "/")+"/")
}

// openPlaces opens the directories of all mappings, the deepest Old first, so
// that it is found first, and refuses those that are no good. Leftovers there
// are removed before the target's: its staging directory is what tells that
// they are leftovers.
func (t *target) openPlaces() error {
	for _, m := range t.opt.Mappings {
		at, err := t.beside(m.New)
		if err != nil {
			return err
		}
		t.places = append(t.places, &place{Mapped: Mapped{Mapping: m}, at: at})
	}
	slices.SortStableFunc(t.places, func(a, b *place) int { return len(b.Old) - len(a.Old) })
	return nil
}

// beside opens one directory beside the target.
func (t *target) beside(dir string) (*target, error) {
	for _, b := range t.others {
		if b.opt.Dir == dir {
			return b, nil
		}
	}
	b := &target{opt: t.opt, main: t}
	b.opt.Dir, b.opt.Mappings = dir, nil
	t.others = append(t.others, b) // discard closes it
	if err := b.openDir(); err != nil {
		return nil, err
	}
	for _, o := range append([]*target{t}, t.others[:len(t.others)-1]...) {
		if err := checkApart(o.opt.Dir, dir); err != nil {
			return nil, err
		}
	}
	left, err := inspect(b.root.FS(), b.opt)
	if err != nil {
		return nil, err
	}
	return b, b.clear(left)
}

// checkApart refuses two directories of which one is the other or is in it.
func checkApart(a, b string) error {
	var real [2]string
	for i, dir := range []string{a, b} {
		abs, err := filepath.Abs(dir)
		if err == nil {
			abs, err = filepath.EvalSymlinks(abs)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrTarget, err)
		}
		real[i] = strings.TrimSuffix(abs, string(filepath.Separator)) + string(filepath.Separator)
	}
	if strings.HasPrefix(real[0], real[1]) || strings.HasPrefix(real[1], real[0]) {
		return fmt.Errorf("%w: %q and %q are the same directory, or one is inside of the other", ErrTarget, a, b)
	}
	return nil
}

// stageOf returns the target whose staging directory takes a file that lay at
// that path at the source.
func (t *target) stageOf(kind format.FileKind, source string) *target {
	if p := t.placeOf(kind, source); p != nil {
		return p.at
	}
	return t
}

// placeOf returns the place of a file, nil for the target. Only tablespaces
// can be elsewhere: the files of other engines and those that the server's
// variables name are restored inside of the target.
func (t *target) placeOf(kind format.FileKind, source string) *place {
	if kind != format.KindTablespace {
		return nil
	}
	for _, p := range t.places {
		if _, ok := p.below(source); ok {
			return p
		}
	}
	return nil
}

// manySources is how many directories an error names.
const manySources = 5

// note looks at an entry of the manifest for what the mappings are about.
func (a *assembly) note(f *format.File) {
	if f.Kind != format.KindTablespace || f.Source == "" {
		return
	}
	if p := a.t.placeOf(f.Kind, f.Source); p != nil {
		p.used = true
	}
	dir := strings.TrimSuffix(f.Source, "/"+f.Path)
	if len(a.sources) <= manySources && !slices.Contains(a.sources, dir) {
		a.sources = append(a.sources, dir)
	}
}

// mayMap refuses mappings for a family of servers that knows no link files: a server
// would start without the tables. MySQL looks below its data directory, and where
// innodb_directories says.
func (t *target) mayMap(dialect string) error {
	if dialect == format.DialectMySQL && len(t.places) > 0 {
		return fmt.Errorf("%w: it is not supported for MySQL; without it, tables with a DATA DIRECTORY are restored into the target, where the server finds them", ErrMapping)
	}
	return nil
}

// checkMappings refuses a mapping that no table uses: it is a slip of the pen,
// and what was meant would be somewhere else.
func (a *assembly) checkMappings() error {
	for _, p := range a.t.places {
		if !p.used {
			return fmt.Errorf("%w: no InnoDB table of the archive lay below %q at the source; %s", ErrMapping, p.Old, a.dataDirectories())
		}
	}
	return nil
}

func (a *assembly) dataDirectories() string {
	slices.Sort(a.sources)
	switch n := len(a.sources); {
	case n == 0:
		return "none has a DATA DIRECTORY"
	case n > manySources:
		return fmt.Sprintf("there are tables in %q and others", a.sources[:manySources])
	}
	return fmt.Sprintf("there are tables in %q", a.sources)
}

// elsewhere gives a file its name in the directory of its mapping. Until it is
// published, a symbolic link stands in the tree for it.
func (a *assembly) elsewhere(f *format.File, p *place) error {
	rest, _ := p.below(f.Source)
	if rest != f.Path && !strings.HasSuffix(rest, "/"+f.Path) {
		return fmt.Errorf("%w: %q was at %q, which does not end in its name below %q", ErrMapping, f.Path, f.Source, p.Old)
	}
	if err := format.CheckPath(rest); err != nil {
		return incomplete("%q: source: %w", f.Path, err)
	}
	if strings.HasPrefix(rest, partialPrefix) {
		return incomplete("source %q has a name that extraction itself uses", f.Source)
	}
	if err := p.at.put(a.t, f, rest); err != nil {
		return err
	}
	p.Files++
	return a.t.stage.Symlink(filepath.Join(p.at.treePath(), filepath.FromSlash(rest)), treeDir+"/"+f.Path)
}

// put moves what arrived of a file to its name in a tree beside the target.
func (b *target) put(t *target, f *format.File, rest string) error {
	to := treeDir + "/" + rest
	if err := mkdirAll(b.stage, f, path.Dir(to)); err != nil {
		return b.within(err)
	}
	if _, err := b.stage.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %q, which was %q, is there twice", ErrMapping, filepath.Join(b.opt.Dir, rest), f.Source)
	}
	err := b.stage.Rename(partName(f.No), to)
	if errors.Is(err, fs.ErrNotExist) {
		// Its FILE frame did not say where it was.
		err = b.fetch(t.stage, partName(f.No), to)
	}
	if err != nil {
		return b.within(fmt.Errorf("file %q: %w", f.Path, err))
	}
	return b.within(b.stage.Chmod(to, fs.FileMode(f.Mode)&fs.ModePerm))
}

// fetch copies a file from another file system, perhaps, and leaves holes where
// there are zeros: data directories are often on a disk of their own.
func (b *target) fetch(stage *os.Root, from, to string) error {
	in, err := stage.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := b.stage.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	size, err := copySparse(out, in)
	if err == nil {
		err = out.Truncate(size)
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return stage.Remove(from)
}

func copySparse(out io.WriterAt, in io.Reader) (size int64, err error) {
	b := format.GetBuffer()
	defer b.Release()
	shortest := smallestHole
	for {
		n, err := io.ReadFull(in, b.Space())
		p := b.Space()[:n]
		if size == 0 && startsPageCompressed(p) {
			shortest = sparse.Block
		}
		for r := (sparse.Run{}); r.Off+r.Len < n; {
			if r = sparse.Next(p, r.Off+r.Len, shortest); r.Zero {
				continue
			}
			if _, err := out.WriteAt(p[r.Off:r.Off+r.Len], size+int64(r.Off)); err != nil {
				return size, err
			}
		}
		size += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return size, nil
		}
		if err != nil {
			return size, err
		}
	}
}

// linkFiles puts the server's link files in the place of the symbolic links that
// stood for files elsewhere while the tree was prepared.
func (t *target) linkFiles() error {
	if len(t.places) == 0 {
		return nil
	}
	return fs.WalkDir(t.stage.FS(), treeDir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.Type()&fs.ModeSymlink == 0 {
			return err
		}
		return t.linkFile(p)
	})
}

func (t *target) linkFile(p string) error {
	staged, err := t.stage.Readlink(p)
	if err != nil {
		return err
	}
	for _, b := range t.others {
		rest, ok := strings.CutPrefix(staged, b.treePath()+string(filepath.Separator))
		if !ok {
			continue
		}
		link := innodb.LinkName(p)
		f, err := t.stage.OpenFile(link, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o660)
		if err != nil {
			return err
		}
		_, err = f.WriteString(filepath.Join(b.opt.Dir, rest))
		if err := errors.Join(err, f.Close(), t.stage.Chmod(link, 0o660)); err != nil {
			return err
		}
		return t.stage.Remove(p)
	}
	return fmt.Errorf("symbolic link %q leads to %q", p, staged)
}

// elsewhereError is an error in a directory beside the target.
type elsewhereError struct {
	dir string
	err error
}

func (e *elsewhereError) Error() string { return "in " + e.dir + ": " + e.err.Error() }
func (e *elsewhereError) Unwrap() error { return e.err }

// within says in an error of a directory beside the target which it is.
func (t *target) within(err error) error {
	if err == nil || t.main == nil {
		return err
	}
	return &elsewhereError{t.opt.Dir, err}
}
