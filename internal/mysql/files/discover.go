package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
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
	"github.com/xbstream/xbstream/internal/mysql/pages"
	"github.com/xbstream/xbstream/internal/pause"
	"github.com/xbstream/xbstream/internal/source"
)

// Discoverer finds the files of one server. It implements chunker.Discoverer.
type Discoverer struct {
	layout chunker.Layout
	root   *source.Root // the data directory
	// beside are the other directories that the server's variables or its
	// dictionary name.
	mu     sync.Mutex
	beside map[string]*source.Root
}

var _ chunker.Discoverer = (*Discoverer)(nil)

// New returns a Discoverer for a server with the given layout. Empty
// directories in it mean DataDir.
func New(l chunker.Layout) *Discoverer {
	for _, dir := range []*string{&l.DataHome, &l.UndoDir, &l.LogDir} {
		if *dir == "" {
			*dir = l.DataDir
		}
		if !filepath.IsAbs(*dir) {
			*dir = filepath.Join(l.DataDir, *dir)
		}
	}
	return &Discoverer{layout: l, root: source.NewRoot(l.DataDir), beside: map[string]*source.Root{}}
}

// InnoDB lists system, undo, general and table tablespaces: those in the data
// directory and in the directories of its databases, and wherever else the server
// says that it has one.
func (d *Discoverer) InnoDB(ctx context.Context) ([]chunker.File, error) {
	list := &spaces{d: d, byPath: map[string]bool{}, byName: map[string]string{}}
	// The dictionary first: what is made after the answer is found by the walk, and
	// what is dropped is gone when it is opened.
	var known map[string]bool
	if d.layout.OpenFiles != nil {
		var err error
		if known, err = d.layout.OpenFiles(ctx); err != nil {
			return nil, err
		}
	}
	if err := d.system(ctx, list); err != nil {
		return nil, err
	}
	if err := d.top(list); err != nil {
		return nil, err
	}
	err := d.eachDatabase(ctx, func(db string, entries []fs.DirEntry) error {
		for _, e := range entries {
			if filepath.Ext(e.Name()) == ".ibd" {
				if err := list.add(d.file(filepath.Join(d.layout.DataDir, db, e.Name()), path.Join(db, e.Name()), format.KindTablespace)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := d.elsewhere(list, known); err != nil {
		return nil, err
	}
	if err := d.leaveOut(ctx, list.files); err != nil {
		return nil, err
	}
	return list.files, d.mustSee(ctx, known)
}

// spaces collects the files of tablespaces, each once.
type spaces struct {
	d      *Discoverer
	files  []chunker.File
	byPath map[string]bool
	byName map[string]string // by the name in the backup
}

// add refuses two files that would have one name in the backup.
func (s *spaces) add(f chunker.File) error {
	if s.byPath[f.Abs] {
		return nil
	}
	if other, ok := s.byName[f.Rel]; ok {
		return fmt.Errorf("tablespaces %s and %s would both be restored as %s", other, f.Abs, f.Rel)
	}
	s.byPath[f.Abs], s.byName[f.Rel] = true, f.Abs
	s.files = append(s.files, f)
	return nil
}

// undoName are undo tablespaces: the two that the server makes itself, and those
// of CREATE UNDO TABLESPACE (InnoDB fil0fil.cc, Fil_path::is_undo_tablespace_name).
var undoName = regexp.MustCompile(`^(undo_?[0-9]{3}|.+\.ibu)$`)

// kindOf says what a file of that name in a directory for tablespaces is; it is
// empty for one that is none.
func kindOf(name string) format.FileKind {
	switch {
	case undoName.MatchString(name):
		return format.KindUndo
	case filepath.Ext(name) == ".ibd":
		return format.KindTablespace
	}
	return ""
}

// top lists the tablespaces in the data directory itself, mysql.ibd and general
// ones, and those for undo.
func (d *Discoverer) top(list *spaces) error {
	for _, dir := range slices.Compact([]string{d.layout.DataDir, d.layout.UndoDir}) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("tablespaces: %w", err)
		}
		for _, e := range entries {
			kind := kindOf(e.Name())
			abs := filepath.Join(dir, e.Name())
			if kind == "" || kind == format.KindTablespace && dir != d.layout.DataDir || d.isSystem(abs) || d.excluded(abs) {
				continue
			}
			if !printable(e.Name()) {
				d.leftOut(abs, "the server gives no file such a name")
				continue
			}
			if err := list.add(d.named(abs, e.Name(), kind)); err != nil {
				return err
			}
		}
	}
	return nil
}

// isSystem says whether a path is a file of the system tablespace, which may have
// any name.
func (d *Discoverer) isSystem(abs string) bool {
	return slices.ContainsFunc(d.layout.DataFiles, func(df chunker.DataFile) bool { return d.dataFile(df) == abs })
}

func (d *Discoverer) dataFile(df chunker.DataFile) string {
	if filepath.IsAbs(df.Name) {
		return filepath.Clean(df.Name)
	}
	return filepath.Join(d.layout.DataHome, df.Name)
}

// elsewhere adds tablespaces that only the dictionary knows: of tables with a DATA
// DIRECTORY, and general and undo tablespaces with a path. A server finds them in
// the restored data directory by their space ids, and notes that they have moved.
func (d *Discoverer) elsewhere(list *spaces, known map[string]bool) error {
	for _, name := range slices.Sorted(maps.Keys(known)) {
		abs := name
		if !filepath.IsAbs(abs) {
			abs = filepath.Join(d.layout.DataDir, name)
		}
		kind := kindOf(filepath.Base(abs))
		if kind == "" || list.byPath[abs] || d.isSystem(abs) {
			continue
		}
		if _, err := os.Lstat(abs); errors.Is(err, fs.ErrNotExist) {
			continue // dropped since, or renamed: then the walk has found it
		}
		if err := list.add(d.named(abs, d.restored(name, kind), kind)); err != nil {
			return err
		}
	}
	return nil
}

// patience is how long a file that the dictionary names may be away: one that is
// renamed, or an undo tablespace that is made anew, is for a moment.
var patience = 10 * time.Second

// mustSee makes sure that the files outside the data directory that the dictionary
// names are there: they may be on a file system that this process does not see, as
// that of a container. What is in the data directory is found without the dictionary.
func (d *Discoverer) mustSee(ctx context.Context, known map[string]bool) error {
	away := func() string {
		for _, name := range slices.Sorted(maps.Keys(known)) {
			if !filepath.IsAbs(name) || kindOf(filepath.Base(name)) == "" || !d.wantsElsewhere(name) {
				continue
			}
			if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
				return name
			}
		}
		return ""
	}
	for limit := time.Now().Add(patience); ; {
		name := away()
		switch {
		case name == "":
			return nil
		case time.Now().After(limit):
			return fmt.Errorf("the server has a tablespace %s, and there is no such file here: mount its directory at the same path, or leave its table out", name)
		}
		if err := pause.For(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		var err error
		if known, err = d.layout.OpenFiles(ctx); err != nil {
			return err
		}
	}
}

// wantsElsewhere says whether a file outside the data directory is of a table that is wanted.
func (d *Discoverer) wantsElsewhere(name string) bool {
	db, file := path.Split(d.restored(name, kindOf(filepath.Base(name))))
	return db == "" || d.wants(path.Clean(db), file)
}

// restored is where a file is put that is not found by the walk: below its
// database if it is in a directory of that name, as a table's is.
func (d *Discoverer) restored(name string, kind format.FileKind) string {
	if !filepath.IsAbs(name) {
		return filepath.ToSlash(name)
	}
	db := filepath.Base(filepath.Dir(name))
	if st, err := os.Stat(filepath.Join(d.layout.DataDir, db)); kind == format.KindTablespace && err == nil && st.IsDir() && filename.IsEncoded(db) {
		return path.Join(db, filepath.Base(name))
	}
	return filepath.Base(name)
}

// printable says whether a name has neither control characters nor bytes that
// are no text. No server gives a file such a name: it writes letters, digits and
// @0000.
func printable(name string) bool {
	return utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

// within returns the root that a directory beside the data directory is.
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

// named is file for one that the server names by its directory, which its
// administrator may have moved and linked.
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
	// A full-text index is built by loading its tables without redo, and the
	// INDEX_LOAD that tells of it names the user's table instead (MySQL ddl0fts.cc,
	// FTS::Inserter::insert; ddl0builder.cc, Builder::write_redo).
	f.Unlogged = filename.Internal(rel)
	return f
}

// tableName turns the path of a table's file into the name the server prints:
// db.table, decoded. A file of no database keeps its name.
func tableName(rel string) string {
	db, file := path.Split(rel)
	if db == "" {
		return file
	}
	base, _ := cutExt(file)
	return filename.Decode(strings.TrimSuffix(db, "/")) + "." + filename.Decode(base)
}

// system lists the files of the system tablespace, with what only the first of
// them says. Page numbers run on from file to file, by their sizes; all but the
// last have a fixed one.
func (d *Discoverer) system(ctx context.Context, list *spaces) error {
	var shared chunker.System
	for i, df := range d.layout.DataFiles {
		abs := d.dataFile(df)
		st, err := os.Stat(abs)
		if err != nil {
			return fmt.Errorf("system tablespace: %w", err)
		}
		if !st.Mode().IsRegular() {
			return fmt.Errorf("system tablespace: %s is not a regular file; raw partitions are not supported", abs)
		}
		if i == 0 {
			if err := d.readSystem(ctx, abs, &shared); err != nil {
				return err
			}
		}
		f := d.named(abs, filepath.Base(abs), format.KindSystem)
		sys := shared
		f.System = &sys
		if err := list.add(f); err != nil {
			return fmt.Errorf("system tablespace: %w", err)
		}
		shared.FirstPage += format.PageNo(st.Size() / int64(d.layout.PageSize))
	}
	return nil
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
	form, err := pages.ParseFlags(sys.Flags)
	if err != nil {
		return err
	}
	trx := buf[size*int(innodb.TrxSysPage):]
	if err := errors.Join(form.Verify(buf[:size], 0), form.Verify(trx, innodb.TrxSysPage)); err != nil {
		return err
	}
	// It still has the area where servers before 8.0.20 wrote pages twice.
	sys.Doublewrite, _ = form.DoublewriteRange(trx)
	return nil
}

// system is the database of the server's own tables. They are in mysql.ibd, which
// every copy has. No server starts without the directory, empty or not (MySQL
// dd/impl/bootstrap).
const system = "mysql"

// Dirs lists the directories of the databases.
func (d *Discoverer) Dirs(ctx context.Context) ([]format.File, error) {
	var dirs []format.File
	err := d.eachDatabase(ctx, func(db string, entries []fs.DirEntry) error {
		if db != system && !d.wantsDatabase(db, entries) {
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

// database returns what is in a directory, nil if it is not a database. The
// server's own directories, of redo, of temporary tablespaces, of a clone, begin
// with #.
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
		return known || ext == ".ibd"
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
var numbered = regexp.MustCompile(`^\.([0-9]{6,}|index|~rec~)$`)

func cutExt(name string) (base, ext string) {
	ext = filepath.Ext(name)
	return strings.TrimSuffix(name, ext), ext
}
