package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
)

// Dir verifies a restored directory that no server has used since: that every
// file of its manifest is there and every page is sound and not newer than the
// backup's end. Sizes are those of the manifest or, once prepared, larger.
func Dir(ctx context.Context, dir string, parallel int, parse ParseFlags) (*Report, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	mf, err := root.Open(format.ManifestName)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotDir, err)
	}
	defer mf.Close()
	if parallel <= 0 {
		parallel = runtime.GOMAXPROCS(0)
	}
	head, err := format.DecodeManifestHead(mf)
	if err != nil {
		return nil, err
	}
	if _, err := mf.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	d := &directory{root: root, parse: func(flags uint32) (innodb.PageFormat, error) {
		return parse(dialectOf(head), flags)
	}}
	// later are files of the system tablespace whose flags only its first file
	// has, which may come after them.
	var later []*format.File
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	d.rep.Manifest, err = format.DecodeRestored(mf, func(f *format.File) error {
		if f.Space != nil && f.Space.FirstPage == 0 && f.Kind == format.KindSystem {
			d.system(f)
		}
		if f.Kind == format.KindSystem && f.Space != nil && f.Space.Rebuild && f.Space.FirstPage != 0 {
			later = append(later, f)
			return context.Cause(ctx)
		}
		if f.Arrived() {
			g.Go(func() error { return d.file(ctx, f) })
		}
		return context.Cause(ctx)
	})
	for _, f := range later {
		g.Go(func() error { return d.file(ctx, f) })
	}
	if err := errors.Join(err, g.Wait()); err != nil {
		return nil, err
	}
	if b := d.rep.Manifest.Backup; b != nil && d.newest > b.Redo.EndLSN {
		d.rep.problem("file %q: a page has LSN %d, newer than the backup's end %d; has a server used the directory?", d.newestFile, d.newest, b.Redo.EndLSN)
	}
	return &d.rep, nil
}

// dialectOf is the family of the server of a backup.
func dialectOf(m *format.Manifest) string {
	if m.Backup == nil {
		return format.DialectMariaDB // there are no tablespaces
	}
	return cmp.Or(m.Backup.Server.Dialect, format.DialectMariaDB)
}

type directory struct {
	root  *os.Root
	parse func(flags uint32) (innodb.PageFormat, error)

	mu         sync.Mutex
	rep        Report
	newest     format.LSN
	newestFile string
	flags      uint32              // of the system tablespace
	skip       [2]innodb.PageRange // doublewrite pages of the system tablespace
}

// system learns the flags of the system tablespace, and which of its pages are
// copies of others.
func (d *directory) system(f *format.File) {
	h, err := d.root.Open(f.Path)
	if err != nil {
		return // file says so
	}
	defer h.Close()
	if d.flags, err = flagsOf(h, f); err != nil {
		return
	}
	pages, err := d.parse(d.flags)
	if err != nil {
		return
	}
	page := make([]byte, pages.Physical)
	if _, err := h.ReadAt(page, int64(innodb.TrxSysPage)*int64(len(page))); err == nil {
		if r, ok := pages.DoublewriteRange(page); ok {
			d.skip = r
		}
	}
}

func (d *directory) problem(msg string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rep.problem(msg, args...)
}

func (d *directory) file(ctx context.Context, f *format.File) error {
	st, open, err := d.find(f)
	if errors.Is(err, fs.ErrNotExist) {
		d.problem("file %q is missing", f.Path)
		return nil
	}
	if err != nil {
		return err
	}
	if dir := f.Kind == format.KindDir; dir != st.IsDir() || !dir && !st.Mode().IsRegular() {
		d.problem("file %q is no %s", f.Path, f.Kind)
		return nil
	}
	if f.Kind != format.KindUndo && st.Size() < f.Size {
		d.problem("file %q has %d bytes, the manifest says %d", f.Path, st.Size(), f.Size)
	}
	if f.Space != nil {
		h, err := open()
		if err != nil {
			return err
		}
		defer h.Close()
		return d.readPages(ctx, h, f)
	}
	if f.Kind == format.KindFile {
		d.count(&file{})
	}
	return nil
}

// find finds a file of the manifest: in the directory or, if it is of a table
// with a DATA DIRECTORY, where the link file says.
func (d *directory) find(f *format.File) (st fs.FileInfo, open func() (*os.File, error), err error) {
	rel := path.Clean(f.Path)
	st, err = d.root.Lstat(rel)
	if err == nil || !errors.Is(err, fs.ErrNotExist) || f.Kind != format.KindTablespace || f.Source == "" {
		return st, func() (*os.File, error) { return d.root.Open(rel) }, err
	}
	content, err := d.root.ReadFile(innodb.LinkName(rel))
	if err != nil {
		return nil, nil, err
	}
	to, err := innodb.ParseLink(rel, content)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", format.ErrDamaged, err)
	}
	st, err = os.Lstat(to)
	return st, func() (*os.File, error) { return os.Open(to) }, err
}

// flagsOf returns a tablespace's flags: those of the manifest, or of page 0 where
// redo made it.
func flagsOf(h *os.File, f *format.File) (uint32, error) {
	if !f.Space.Rebuild {
		return f.Space.Flags, nil
	}
	head := make([]byte, innodb.HeaderSize)
	if _, err := h.ReadAt(head, 0); err != nil && err != io.EOF {
		return 0, err
	}
	return innodb.Flags(head), nil
}

// readPages checks the pages of one file. The format comes from its page 0: a
// tablespace rebuilt from redo has flags that the manifest does not know.
func (d *directory) readPages(ctx context.Context, h *os.File, f *format.File) error {
	flags, err := d.flags, error(nil)
	if !f.Space.Rebuild || f.Space.FirstPage == 0 {
		flags, err = flagsOf(h, f)
	}
	if err != nil {
		return err
	}
	pages, err := d.parse(flags)
	if err != nil {
		d.problem("file %q: %v", f.Path, err)
		return nil
	}
	o := &file{path: f.Path, pages: &pages, first: f.Space.FirstPage}
	err = d.pages(ctx, h, o, f.Kind == format.KindSystem)
	d.count(o)
	return err
}

// count adds a file that was read to the report.
func (d *directory) count(o *file) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rep.Files++
	d.rep.Pages += o.checked
	d.rep.Unchecked += o.unchecked
	if o.newest > d.newest {
		d.newest, d.newestFile = o.newest, o.path
	}
}

func (d *directory) pages(ctx context.Context, r io.Reader, o *file, system bool) error {
	b := format.GetBuffer()
	defer b.Release()
	size := o.pages.Physical
	for index := int64(0); ; {
		n, err := io.ReadFull(r, b.Space())
		for p := b.Space()[:n-n%size]; len(p) > 0; p = p[size:] {
			no := o.first + format.PageNo(index)
			if !system || !d.skip[0].Contains(no) && !d.skip[1].Contains(no) {
				o.check(p[:size], index, d.problem)
			}
			index++
		}
		d.mu.Lock()
		d.rep.Bytes += int64(n)
		d.mu.Unlock()
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			if n%size != 0 {
				d.problem("file %q ends within page %d", o.path, o.first+format.PageNo(index))
			}
			return nil
		}
		if err = errors.Join(err, context.Cause(ctx)); err != nil {
			return err
		}
	}
}
