package prepare

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
	"github.com/xbstream/xbstream/internal/spaces"
)

// PageError says at which page recovery failed.
type PageError struct {
	// Path is the file, relative to the directory.
	Path  string
	Space format.SpaceID
	Page  format.PageNo
	// LSN is where the record stands that could not be applied; 0 if it is
	// the page itself that is wrong.
	LSN   format.LSN
	Cause error
}

func (e *PageError) Error() string {
	if e.LSN != 0 {
		return fmt.Sprintf("%s: space %v page %v: redo at LSN %v: %v", e.Path, e.Space, e.Page, e.LSN, e.Cause)
	}
	return fmt.Sprintf("%s: space %v page %v: %v", e.Path, e.Space, e.Page, e.Cause)
}

func (e *PageError) Unwrap() error { return e.Cause }

// window is how many bytes of a file a worker holds at once: a run of
// neighbouring pages is read, and written, in one go.
const window = 1 << 20

// task is a number of touched pages of one tablespace, in order.
type task struct {
	space *spaces.Tablespace
	pages []pageChain
}

// bytes is the size of the pages, for those who watch.
func (t task) bytes() int64 { return int64(len(t.pages)) * int64(t.space.Pages.Physical) }

type pageChain struct {
	key  pageKey
	runs chain
}

// applier writes a batch into the pages.
type applier struct {
	dialect redolog.Dialect
	tree    *spaces.Tree
	journal *journal
	batch   *batch
	end     format.LSN // the backup's end
	applied atomic.Int64
	read    atomic.Int64
	written atomic.Int64
	done    func(bytes int64)
}

// apply works the tasks off.
func (a *applier) apply(ctx context.Context, parallel int, tasks []task) error {
	g, ctx := errgroup.WithContext(ctx)
	queue := make(chan task)
	g.Go(func() error {
		defer close(queue)
		for _, t := range tasks {
			select {
			case queue <- t:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for i := range parallel {
		g.Go(func() error {
			w := &worker{applier: a, slot: a.journal.slot(i), buf: make([]byte, window), plain: make([]byte, innodb.MaxPageSize)}
			for t := range queue {
				if err := readable(func() error { return w.apply(t) }); err != nil {
					return errors.Join(err, w.close())
				}
			}
			return w.close()
		})
	}
	return g.Wait()
}

// worker applies tasks one after the other.
type worker struct {
	*applier
	slot       *slot
	buf, plain []byte
	file       *os.File
	path       string
	// algorithm is the one that the page in hand was compressed with when it
	// was copied.
	algorithm byte
}

func (w *worker) close() error {
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file, w.path = nil, ""
	return err
}

// open makes the file the current one: tasks come in the order of files.
func (w *worker) open(rel string) error {
	if w.path == rel {
		return nil
	}
	if err := w.close(); err != nil {
		return err
	}
	f, err := os.OpenFile(w.tree.Path(rel), os.O_RDWR|os.O_CREATE, 0o660)
	if err != nil {
		return err
	}
	w.file, w.path = f, rel
	return nil
}

func (w *worker) apply(t task) error {
	if err := w.announce(t); err != nil {
		return err
	}
	for pages := t.pages; len(pages) > 0; {
		n := w.neighbours(t.space, pages)
		if err := w.applyRun(t.space, pages[:n]); err != nil {
			return err
		}
		pages = pages[n:]
	}
	startWriteback(w.file)
	w.done(t.bytes())
	return nil
}

// nearby is how far apart in a file two runs of pages may be to be read ahead
// together: a disk gives what lies between sooner than it takes a second order.
const nearby = 64 << 10

// announce tells the kernel which parts of the files the task reads, so that it
// fetches them all at once and not one after the other.
func (w *worker) announce(t task) error {
	var path string
	var from, to int64
	tell := func() error {
		if path == "" {
			return nil
		}
		if err := w.open(path); err != nil {
			return err
		}
		willRead(w.file, from, to-from)
		return nil
	}
	for pages := t.pages; len(pages) > 0; {
		n := w.neighbours(t.space, pages)
		run := pages[:n]
		pages = pages[n:]
		if w.needed(t.space, run) == 0 {
			continue
		}
		i, off := t.space.File(run[0].key.page())
		if p := t.space.Files[i].Path; p != path || off-to > nearby {
			if err := tell(); err != nil {
				return err
			}
			path, from = p, off
		}
		to = off + int64(n*t.space.Pages.Physical)
	}
	return tell()
}

// neighbours returns how many of the first pages follow each other in one file
// and fit into the window.
func (w *worker) neighbours(t *spaces.Tablespace, pages []pageChain) int {
	limit := min(int64(len(pages)), int64(len(w.buf)/t.Pages.Physical), t.PagesAfter(pages[0].key.page()))
	n := 1
	for int64(n) < limit && pages[n].key == pages[0].key+pageKey(n) {
		n++
	}
	return n
}

// applyRun reads neighbouring pages, applies what there is for each, and writes
// those that changed.
func (w *worker) applyRun(t *spaces.Tablespace, pages []pageChain) error {
	i, off := t.File(pages[0].key.page())
	if err := w.open(t.Files[i].Path); err != nil {
		return err
	}
	size := t.Pages.Physical
	buf := w.buf[:len(pages)*size]
	if err := w.readPages(t, pages, buf, off); err != nil {
		return err
	}
	for from, at := 0, 0; at < len(pages); at++ {
		page := buf[at*size : (at+1)*size : (at+1)*size]
		changed, err := w.applyPage(t, pages[at], page)
		if err != nil {
			return err
		}
		to := at + 1
		if !changed {
			to = at
		}
		if !changed || to == len(pages) {
			if err := w.writePages(t, buf[from*size:to*size], off+int64(from*size), to-from); err != nil {
				return err
			}
			from = at + 1
		}
	}
	return nil
}

// readPages fills buf with the pages as they lie in the file, zero beyond its
// end. Pages that redo makes anew are not needed: if that is all, nothing is
// read.
func (w *worker) readPages(t *spaces.Tablespace, pages []pageChain, buf []byte, off int64) error {
	needed := w.needed(t, pages)
	if needed == 0 {
		return nil
	}
	n, err := w.file.ReadAt(buf, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	clear(buf[n:])
	w.read.Add(int64(needed))
	return nil
}

// needed returns how many of the pages redo changes, but does not replace.
func (w *worker) needed(t *spaces.Tablespace, pages []pageChain) (n int) {
	for _, p := range pages {
		if r, _, ok := w.first(t, p); ok && !w.dialect.Replaces(r.records) {
			n++
		}
	}
	return n
}

func (w *worker) writePages(t *spaces.Tablespace, buf []byte, off int64, n int) error {
	if n == 0 {
		return nil
	}
	w.written.Add(int64(n))
	if t.Pages.PageCompressed {
		return w.writeCompressed(buf, off)
	}
	if err := w.slot.keep(w.path, off, buf); err != nil {
		return err
	}
	_, err := w.file.WriteAt(buf, off)
	return err
}

// first returns the first run of a page that counts and those after it; what
// redo says of the tablespace voids all before.
func (a *applier) first(t *spaces.Tablespace, p pageChain) (r run, rest *runs, ok bool) {
	before := atLeast(a.dialect, voidBefore(t.History, p.key))
	rest = a.batch.runs(p.runs)
	for {
		if r, ok = rest.next(); !ok || r.at >= before {
			return r, rest, ok
		}
	}
}

// applyPage brings one page up to date and says whether it changed.
//
// Whether a mini-transaction is in the page already is told by the page's LSN
// as it was before any of them (reference: the server compares the start LSN);
// a page that redo makes anew needs no such test, the result is the same.
func (w *worker) applyPage(t *spaces.Tablespace, p pageChain, page []byte) (changed bool, err error) {
	r, rest, ok := w.first(t, p)
	if !ok {
		return false, nil
	}
	fail := func(at redolog.Position, err error) error {
		e := &PageError{Path: w.path, Space: t.ID, Page: p.key.page(), Cause: err}
		if at != 0 {
			e.LSN = w.dialect.LSN(at)
		}
		return e
	}
	have := redolog.Position(0)
	w.algorithm = innodb.AlgorithmNone
	if !w.dialect.Replaces(r.records) {
		if err := w.admit(t, p.key.page(), page); err != nil {
			return false, fail(0, err)
		}
		lsn := innodb.LSN(page)
		if lsn > w.end {
			return false, fail(0, fmt.Errorf("its LSN %v is after the backup's end %v: %w", lsn, w.end, ErrDamaged))
		}
		have = atLeast(w.dialect, lsn)
	}
	open := w.dialect.Open(page, redolog.Target{Space: t.ID, Page: p.key.page(), Zip: t.Pages.Zip, Logical: t.Pages.Logical})
	last, records := redolog.Position(0), 0
	for ; ok; r, ok = rest.next() {
		if r.start < have {
			continue
		}
		n, err := open.Apply(r.records)
		if err != nil {
			return false, fail(r.at, fmt.Errorf("%w: %w", errors.Join(err, open.Close()), ErrDamaged))
		}
		records += n
		last = r.end
	}
	if err := open.Close(); err != nil {
		return false, fail(last, fmt.Errorf("%w: %w", err, ErrDamaged))
	}
	if last == 0 {
		return false, nil
	}
	w.applied.Add(int64(records))
	innodb.SetLSN(page, w.dialect.LSN(last))
	t.Pages.Seal(page)
	if err := t.Pages.Verify(page, p.key.page()); err != nil {
		return false, fail(0, fmt.Errorf("after recovery: %w: %w", err, ErrDamaged))
	}
	if t.Pages.PageCompressed {
		w.compress(t, page)
	}
	return true, nil
}

// admit checks a page as it was copied and expands it if need be.
func (w *worker) admit(t *spaces.Tablespace, no format.PageNo, page []byte) error {
	if err := t.Pages.Verify(page, no); err != nil {
		return fmt.Errorf("%w: %w", err, ErrDamaged)
	}
	if innodb.IsZero(page) {
		return nil
	}
	if t.Pages.PageEncrypted(page) {
		return ErrEncrypted
	}
	if !t.Pages.Compressed(page) {
		return nil
	}
	plain := w.plain[:t.Pages.Logical]
	if err := t.Pages.Decompress(plain, page); err != nil {
		return err
	}
	w.algorithm = t.Pages.PageAlgorithm(page)
	copy(page, plain)
	return nil
}

// plan cuts the batch into tasks, in the order of files and pages.
func (p *preparation) plan() ([]task, error) {
	var pages []pageChain
	b := p.redo.batch
	b.pages.all(func(k pageKey, i int) {
		if c := b.chains[i]; c.first != 0 && !p.redo.voided(k) {
			pages = append(pages, pageChain{k, c})
		}
	})
	slices.SortFunc(pages, func(x, y pageChain) int { return cmp.Compare(x.key, y.key) })
	var tasks []task
	for len(pages) > 0 {
		n := 1
		for n < len(pages) && pages[n].key.space() == pages[0].key.space() {
			n++
		}
		t, err := p.spaceOf(pages[:n])
		if err != nil {
			return nil, err
		}
		if t != nil {
			tasks = appendTasks(tasks, t, pages[:n])
		}
		pages = pages[n:]
	}
	return tasks, nil
}

// appendTasks cuts the pages of a tablespace where the window ends.
func appendTasks(tasks []task, t *spaces.Tablespace, pages []pageChain) []task {
	perTask := max(1, window/t.Pages.Physical)
	for part := range slices.Chunk(pages, perTask) {
		tasks = append(tasks, task{t, part})
	}
	return tasks
}

// spaceOf returns the tablespace of pages that have redo, nil if they are to be
// left out, or an error if nothing explains that it is not there.
func (p *preparation) spaceOf(pages []pageChain) (*spaces.Tablespace, error) {
	id := pages[0].key.space()
	t, h := p.tree.Spaces[id], p.redo.spaces[id]
	switch {
	case t != nil:
	case p.tree.LeftOut[id] != "":
		p.ignored[id] = p.tree.LeftOut[id]
		return nil, nil
	case h == nil && inBinlog(id):
		return nil, fmt.Errorf("redo for space %v, the binary log in InnoDB (binlog_storage_engine=innodb), which no backup holds: %w", id, ErrIncomplete)
	case h == nil:
		return nil, fmt.Errorf("redo for space %v, which neither a file nor redo names: %w", id, ErrIncomplete)
	case h.Gone(), leftover(h.Name):
		p.ignored[id] = h.Name
		return nil, nil
	default:
		return nil, fmt.Errorf("%s (space %v): redo has changes to it, and the file is missing: %w", h.Name, id, ErrIncomplete)
	}
	t.History = h
	if !t.Known {
		if err := readable(func() error { return p.learnFormat(t) }); err != nil {
			return nil, err
		}
	}
	t.Touched = true
	return t, nil
}

// learnFormat takes the form of pages from the redo that makes page 0: whatever
// their size, the header is at its start.
func (p *preparation) learnFormat(t *spaces.Tablespace) error {
	fail := func(err error) error {
		return fmt.Errorf("%s (space %v): rebuild page 0 from redo: %w", t.Files[0].Path, t.ID, err)
	}
	b := p.redo.batch
	i, ok := b.pages.get(keyOf(t.ID, 0))
	if !ok || b.chains[i].first == 0 {
		return fail(fmt.Errorf("no redo for it: %w", ErrIncomplete))
	}
	page := make([]byte, innodb.MaxPageSize)
	rest := b.runs(b.chains[i])
	r, _ := rest.next()
	if !p.log.dialect.MakesPage(r.records) {
		return fail(fmt.Errorf("its redo does not start with INIT_PAGE: %w", ErrIncomplete))
	}
	open := p.log.dialect.Open(page, redolog.Target{Space: t.ID})
	for ok := true; ok; r, ok = rest.next() {
		if _, err := open.Apply(r.records); err != nil {
			return fail(fmt.Errorf("LSN %v: %w: %w", p.log.lsn(r.at), errors.Join(err, open.Close()), ErrDamaged))
		}
	}
	err := open.Close()
	if err != nil {
		return fail(fmt.Errorf("%w: %w", err, ErrDamaged))
	}
	if t.Pages, err = p.tree.ParseFlags(innodb.Flags(page)); err != nil {
		return fail(fmt.Errorf("%w: %w", err, ErrDamaged))
	}
	if t.Pages.SaysEncrypted(page) {
		return fail(ErrEncrypted)
	}
	t.Known = true
	return nil
}

// leftover says whether a name is that of a table an ALTER was building or
// about to drop. It is no loss when such a file is missing.
func leftover(name string) bool { return strings.Contains(name, "/#sql") }
