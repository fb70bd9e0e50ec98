package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/filename"
	"github.com/xbstream/xbstream/internal/source"
)

// Discoverer finds the files of one server. It implements chunker.Discoverer.
type Discoverer struct {
	layout chunker.Layout
	root   *source.Root // the data directory
	// beside are the other directories that the server's variables name.
	mu     sync.Mutex
	beside map[string]*source.Root
}

var _ chunker.Discoverer = (*Discoverer)(nil)

// New returns a Discoverer for a server with the given layout. Empty
// directories in it mean DataDir.
func New(l chunker.Layout) *Discoverer {
	for _, dir := range []*string{&l.DataHome, &l.UndoDir, &l.LogDir, &l.AriaLogDir} {
		if *dir == "" {
			*dir = l.DataDir
		}
		if !filepath.IsAbs(*dir) {
			*dir = filepath.Join(l.DataDir, *dir)
		}
	}
	return &Discoverer{layout: l, root: source.NewRoot(l.DataDir), beside: map[string]*source.Root{}}
}

// InnoDB lists system, undo and table tablespaces.
func (d *Discoverer) InnoDB(ctx context.Context) ([]chunker.File, error) {
	files, err := d.system(ctx)
	if err != nil {
		return nil, err
	}
	undo, err := d.undo()
	if err != nil {
		return nil, err
	}
	files = append(files, undo...)
	err = d.eachDatabase(ctx, func(db string, entries []fs.DirEntry) error {
		for _, e := range entries {
			f, ok, err := d.tablespace(db, e.Name())
			if err != nil {
				return err
			}
			if ok {
				files = append(files, f)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return files, d.leaveOut(ctx, files)
}

// tablespace returns the tablespace that a directory entry stands for: an .ibd
// file, or an .isl file, which holds the path of one made with DATA DIRECTORY.
// That one is restored below the data directory, where the server finds it
// without the link.
func (d *Discoverer) tablespace(db, name string) (f chunker.File, ok bool, err error) {
	abs := filepath.Join(d.layout.DataDir, db, name)
	rel := path.Join(db, name)
	switch base, ext := cutExt(name); ext {
	case ".ibd":
	case ".isl":
		target, err := d.linkFile(abs)
		if errors.Is(err, fs.ErrNotExist) {
			return f, false, nil
		}
		if err != nil {
			return f, false, fmt.Errorf("read link file: %w", err)
		}
		abs, rel = target, path.Join(db, base+".ibd")
	default:
		return f, false, nil
	}
	return d.file(abs, rel, format.KindTablespace), true, nil
}

// maxLinkFile bounds what is read of an .isl file: InnoDB's OS_FILE_MAX_PATH.
const maxLinkFile = 4000

// linkFile returns the path in an .isl file, as the server reads it: without
// white space and control characters at the end.
func (d *Discoverer) linkFile(abs string) (string, error) {
	fd, _, err := d.root.Open(abs, false)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), abs)
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxLinkFile))
	if err != nil {
		return "", err
	}
	target := strings.TrimRightFunc(string(text), func(r rune) bool { return r <= ' ' })
	if !filepath.IsAbs(target) || !printable(target) || len(text) == maxLinkFile {
		if len(target) > 80 {
			target = target[:80] + "…"
		}
		return "", fmt.Errorf("%s holds %q, which is not an absolute path", abs, target)
	}
	return target, nil
}

// printable says whether a name has neither control characters nor bytes that
// are no text. No server gives a file such a name: it writes letters, digits and
// @0000.
func printable(name string) bool {
	return utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

// within returns the root that a directory which the server's variables name is.
func (d *Discoverer) within(dir string) *source.Root {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.beside[dir]
	if r == nil {
		r = d.root.Beside(dir)
		d.beside[dir] = r
	}
	return r
}

// named is file for one that the server's variables name by its directory, which
// its administrator may have moved and linked.
func (d *Discoverer) named(abs, rel string, kind format.FileKind) chunker.File {
	f := d.file(abs, rel, kind)
	f.Root, f.Linked = d.within(filepath.Dir(abs)), true
	return f
}

func (d *Discoverer) file(abs, rel string, kind format.FileKind) chunker.File {
	f := chunker.File{Abs: abs, Rel: rel, Kind: kind, Table: tableName(rel), Root: d.root}
	if abs != filepath.Join(d.layout.DataDir, filepath.FromSlash(rel)) {
		f.Source = abs
	}
	return f
}

// tableName turns the path of a table's file into the name the server prints:
// db.table, decoded. A file of no database keeps its name.
func tableName(rel string) string {
	db, file := path.Split(rel)
	base, _ := cutExt(file)
	if db == "" {
		return file
	}
	return filename.Decode(strings.TrimSuffix(db, "/")) + "." + filename.Decode(base)
}

// system lists the files of the system tablespace, with what only the first of
// them says. Page numbers run on from file to file, by their sizes; all but the
// last have a fixed one.
func (d *Discoverer) system(ctx context.Context) ([]chunker.File, error) {
	var files []chunker.File
	var shared chunker.System
	for i, df := range d.layout.DataFiles {
		abs := df.Name
		if !filepath.IsAbs(abs) {
			abs = filepath.Join(d.layout.DataHome, abs)
		}
		st, err := os.Stat(abs)
		if err != nil {
			return nil, fmt.Errorf("system tablespace: %w", err)
		}
		if !st.Mode().IsRegular() {
			return nil, fmt.Errorf("system tablespace: %s is not a regular file; raw partitions are not supported", abs)
		}
		if i == 0 {
			if err := d.readSystem(ctx, abs, &shared); err != nil {
				return nil, err
			}
		}
		f := d.named(abs, filepath.Base(abs), format.KindSystem)
		if slices.ContainsFunc(files, func(o chunker.File) bool { return o.Rel == f.Rel }) {
			return nil, fmt.Errorf("system tablespace: two files are called %s", f.Rel)
		}
		sys := shared
		f.System = &sys
		files = append(files, f)
		shared.FirstPage += format.PageNo(st.Size() / int64(d.layout.PageSize))
	}
	return files, nil
}

// readSystem reads flags and doublewrite areas, which never change while a
// server runs, from pages that the server may be writing just now.
func (d *Discoverer) readSystem(ctx context.Context, abs string, sys *chunker.System) error {
	const tries = 20
	var err error
	for try := range tries {
		if err = d.tryReadSystem(abs, sys); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Duration(try) * 5 * time.Millisecond):
		}
	}
	return fmt.Errorf("system tablespace %s: %w", abs, err)
}

func (d *Discoverer) tryReadSystem(abs string, sys *chunker.System) error {
	fd, _, err := d.within(filepath.Dir(abs)).Open(abs, true)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), abs)
	defer f.Close()
	size := d.layout.PageSize
	buf := make([]byte, size*int(innodb.TrxSysPage+1))
	if _, err := f.ReadAt(buf, 0); err != nil {
		return err
	}
	if sys.Unwritten = innodb.IsZero(buf[:innodb.MinPhysicalSize]); sys.Unwritten {
		return nil
	}
	sys.Flags = innodb.Flags(buf)
	pages, err := innodb.ParseFlags(sys.Flags)
	if err != nil {
		return err
	}
	trx := buf[size*int(innodb.TrxSysPage):]
	if err := errors.Join(pages.Verify(buf[:size], 0), pages.Verify(trx, innodb.TrxSysPage)); err != nil {
		return err
	}
	sys.Doublewrite, _ = pages.DoublewriteRange(trx)
	return nil
}

var undoName = regexp.MustCompile(`^undo[0-9]{3}$`)

func (d *Discoverer) undo() ([]chunker.File, error) {
	entries, err := os.ReadDir(d.layout.UndoDir)
	if err != nil {
		return nil, fmt.Errorf("undo tablespaces: %w", err)
	}
	var files []chunker.File
	for _, e := range entries {
		if undoName.MatchString(e.Name()) {
			files = append(files, d.named(filepath.Join(d.layout.UndoDir, e.Name()), e.Name(), format.KindUndo))
		}
	}
	return files, nil
}

// Dirs lists the directories of the databases.
func (d *Discoverer) Dirs(ctx context.Context) ([]format.File, error) {
	var dirs []format.File
	err := d.eachDatabase(ctx, func(db string, entries []fs.DirEntry) error {
		if !d.wantsDatabase(db, entries) {
			return nil
		}
		st, err := os.Stat(filepath.Join(d.layout.DataDir, db))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		dirs = append(dirs, format.File{
			Path: db, Kind: format.KindDir, Mode: uint32(st.Mode().Perm()), ModTime: st.ModTime().UTC(),
		})
		return nil
	})
	return dirs, err
}

// eachDatabase calls fn for every directory that is a database, with what is
// in it.
func (d *Discoverer) eachDatabase(ctx context.Context, fn func(db string, entries []fs.DirEntry) error) error {
	dirs, err := os.ReadDir(d.layout.DataDir)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	for _, dir := range dirs {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		entries, err := d.database(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("database %s: %w", filename.Decode(dir.Name()), err)
		}
		if entries == nil {
			continue
		}
		if err := fn(dir.Name(), entries); err != nil {
			return err
		}
	}
	return nil
}

// database returns what is in a directory, nil if it is not a database.
func (d *Discoverer) database(dir fs.DirEntry) ([]fs.DirEntry, error) {
	abs := filepath.Join(d.layout.DataDir, dir.Name())
	if strings.HasPrefix(dir.Name(), "#") || strings.HasPrefix(dir.Name(), ".") || d.excluded(abs) {
		return nil, nil
	}
	st, err := os.Stat(abs) // databases may be symbolic links
	if errors.Is(err, unix.ELOOP) {
		d.leftOut(abs, "it is a symbolic link that leads nowhere")
		return nil, nil
	}
	if err != nil || !st.IsDir() {
		return nil, err
	}
	entries, err := d.root.ReadDir(abs)
	if err != nil {
		// A foreign directory need not be readable: lost+found is not.
		if errors.Is(err, fs.ErrPermission) && !filename.IsEncoded(dir.Name()) {
			return nil, nil
		}
		return nil, err
	}
	if !isDatabase(dir.Name(), entries) {
		return nil, nil
	}
	if !printable(dir.Name()) {
		d.leftOut(abs, "the server gives no database such a name")
		return nil, nil
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool {
		if printable(e.Name()) {
			return false
		}
		d.leftOut(filepath.Join(abs, e.Name()), "the server gives no file such a name")
		return true
	})
	if entries == nil {
		entries = []fs.DirEntry{}
	}
	return entries, nil
}

func (d *Discoverer) leftOut(abs, why string) {
	if d.layout.LeftOut != nil {
		d.layout.LeftOut(abs, why)
	}
}

// isDatabase says whether a directory is a database: it holds what only the
// server makes, or it is empty and has a name the server would give it. Others,
// such as lost+found or a directory of somebody's dumps, are not.
func isDatabase(name string, entries []fs.DirEntry) bool {
	if len(entries) == 0 {
		return filename.IsEncoded(name)
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		_, ext := cutExt(e.Name())
		_, known := classes[ext]
		return known || ext == ".ibd" || ext == ".isl"
	})
}

// excluded says whether a path, or what it is below or a number of, is in the
// layout's lists.
func (d *Discoverer) excluded(abs string) bool {
	after := func(x string) (rest string, ok bool) { return strings.CutPrefix(abs, filepath.Clean(x)) }
	return slices.ContainsFunc(d.layout.ExcludePaths, func(x string) bool {
		rest, ok := after(x)
		return ok && (rest == "" || rest[0] == filepath.Separator)
	}) || slices.ContainsFunc(d.layout.ExcludeBases, func(x string) bool {
		rest, ok := after(x)
		return ok && numbered.MatchString(rest)
	})
}

// numbered are the endings of binary and relay logs of a base name.
var numbered = regexp.MustCompile(`^\.([0-9]{6,}|index|state)$`)

func cutExt(name string) (base, ext string) {
	ext = filepath.Ext(name)
	return strings.TrimSuffix(name, ext), ext
}
