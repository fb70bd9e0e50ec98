package chunker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
)

// rangeSize is what a worker takes of a file at a time: small enough that one
// large table keeps all workers busy, large enough for long reads. It is a
// multiple of every page size and of the chunk size.
const rangeSize = 4 * format.ChunkSize

// space is an open file of a tablespace while workers copy it.
type space struct {
	file  File
	src   opened
	no    format.FileNo
	pages innodb.PageFormat
	entry format.File
	sig   Signature
	size  int64 // whole pages
	began time.Time
	// patience is shared by the workers at this file.
	patience patience
	maxLSN   atomic.Uint64
	// foreign is set when a page has another space id than page 0.
	foreign atomic.Bool
	// encrypted is set when a page is, or page 0 says that some may be.
	encrypted atomic.Bool
	ageMu     sync.Mutex
	age       innodb.Age

	// next is where the next range starts; guarded by schedule.mu.
	next int64
	// left counts ranges not yet finished.
	left atomic.Int64
}

// CopyInnoDB copies tablespace files. The results are in no particular order;
// each file has one. The first error ends the copy and is returned.
func (c *Copier) CopyInnoDB(ctx context.Context, files []File) ([]Result, error) {
	r := &run{Copier: c, schedule: newSchedule(files)}
	g, gctx := errgroup.WithContext(ctx)
	// Workers may wait for each other; the first error wakes them.
	stopWaiting := context.AfterFunc(gctx, r.schedule.stop)
	for range c.workers() {
		g.Go(func() error { return r.work(gctx) })
	}
	err := g.Wait()
	stopWaiting()
	if err == nil && len(r.results) != len(files) {
		err = fmt.Errorf("copy data files: %w", context.Cause(ctx))
	}
	if err != nil {
		return nil, errors.Join(err, r.schedule.closeAll())
	}
	return r.results, nil
}

// run is one call of CopyInnoDB.
type run struct {
	*Copier
	schedule *schedule
	mu       sync.Mutex
	results  []Result
}

func (r *run) add(res Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results = append(r.results, res)
}

// work takes files as long as there are any, then ranges of files that others
// have opened.
func (r *run) work(ctx context.Context) error {
	for {
		file, s, off := r.schedule.take()
		switch {
		case file != nil:
			if err := r.begin(ctx, *file); err != nil {
				return err
			}
		case s != nil:
			if err := r.copyRange(ctx, s, off); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// begin opens a file, so that its ranges can be taken.
func (r *run) begin(ctx context.Context, file File) error {
	s, err := r.open(ctx, file)
	switch {
	case errors.Is(err, errUnused):
		r.add(Result{File: file, Gone: true, Unused: true})
		r.schedule.opened(nil)
		return nil
	case err != nil:
		r.schedule.opened(nil)
		return err
	case s == nil:
		r.add(Result{File: file, Gone: true})
		r.schedule.opened(nil)
		return nil
	case s.entry.Space.Rebuild || s.size == 0:
		r.schedule.opened(nil)
		return r.finish(s)
	}
	s.left.Store((s.size + rangeSize - 1) / rangeSize)
	r.schedule.opened(s)
	return nil
}

// open opens a file, learns its format and announces it; nil says it is gone.
func (r *run) open(ctx context.Context, file File) (*space, error) {
	if err := r.before(file); err != nil {
		return nil, err
	}
	src, err := r.opener()(file)
	if isGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open tablespace: %w", err)
	}
	s, err := r.announce(ctx, file, src)
	if err != nil {
		return nil, errors.Join(err, src.Close())
	}
	return s, nil
}

func (r *run) announce(ctx context.Context, file File, src opened) (*space, error) {
	began := time.Now() // before the file's times are read: see Result.Unchanged
	st, err := src.Stat()
	if err != nil {
		return nil, err
	}
	s := &space{file: file, src: src, began: began, sig: signature(&st), entry: entry(file, &st), size: st.Size}
	s.entry.Space = &format.Space{FirstPage: file.firstPage()}
	if err := r.identify(ctx, s); err != nil {
		return nil, err
	}
	s.size -= s.size % int64(s.entry.Space.PageSize)
	s.entry.Size = s.size
	s.no, err = r.Sink.BeginFile(s.entry)
	s.entry.No = s.no
	return s, err
}

// identify fills in what page 0 says. The open descriptor is asked and nothing
// else: the name may belong to another tablespace by now.
func (r *run) identify(ctx context.Context, s *space) error {
	b := format.GetBuffer()
	defer b.Release()
	info := s.entry.Space
	if sys := s.file.System; sys != nil && sys.Unwritten {
		// It may be written by now, but where its doublewrite areas lie was
		// not known when the file was found.
		info.Rebuild, info.PageSize = true, r.PageSize
		return nil
	}
	if sys := s.file.System; sys != nil && sys.FirstPage != 0 {
		info.Flags = sys.Flags
		return r.setFormat(s)
	}
	head, err := r.readHead(ctx, s, b.Space()[:innodb.MaxPageSize])
	if err != nil || info.Rebuild {
		info.PageSize = r.PageSize
		return err
	}
	info.ID, s.file.HeadLSN = innodb.FSPSpaceID(head), innodb.LSN(head)
	info.Encrypted = s.pages.SaysEncrypted(head)
	s.encrypted.Store(info.Encrypted)
	return nil
}

// unusedAfter is how often page 0 is read before it is asked whether the file is
// used: usually it is torn, and whole the next time.
const unusedAfter = 6

// errUnused says that no table uses a file.
var errUnused = errors.New("no table uses the file")

// readHead reads page 0 until it is sound, or finds that it was never written.
func (r *run) readHead(ctx context.Context, s *space, buf []byte) ([]byte, error) {
	for try := 1; ; try++ {
		n, err := readAt(s.src, buf, 0)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", s.file.Abs, err)
		}
		head, err := r.checkHead(s, buf[:n])
		if err == nil {
			return head, nil
		}
		if try == unusedAfter && r.Unused != nil && s.file.Kind == format.KindTablespace {
			unused, err := r.Unused(ctx, s.file)
			if err != nil {
				return nil, err
			}
			if unused {
				return nil, errUnused
			}
		}
		if !s.patience.wait(ctx, try) {
			if r.isStrange(buf[:n], err) {
				return nil, err
			}
			return nil, s.giveUp(ctx, 0, buf, try, err)
		}
		s.src.Forget(0, int64(len(buf)))
	}
}

// isStrange tells flags that we do not know on a sound page 0, which is no
// damage, from flags that make no sense because the page is damaged.
func (r *run) isStrange(buf []byte, err error) bool {
	if !errors.Is(err, innodb.ErrFormat) {
		return false
	}
	for _, full := range []bool{true, false} {
		f := innodb.PageFormat{FullCRC32: full, Logical: r.PageSize, Physical: r.PageSize}
		if len(buf) >= r.PageSize && f.Verify(buf[:r.PageSize], 0) == nil {
			return true
		}
	}
	return false
}

func (r *run) checkHead(s *space, buf []byte) ([]byte, error) {
	info := s.entry.Space
	if len(buf) < innodb.MinPhysicalSize || innodb.IsZero(buf[:innodb.MinPhysicalSize]) {
		// Created but not flushed yet: all of it is in the redo log, which
		// starts before this file was opened.
		info.Rebuild = true
		return nil, nil
	}
	info.Flags = innodb.Flags(buf)
	if err := r.setFormat(s); err != nil {
		return nil, err
	}
	if len(buf) < s.pages.Physical {
		info.Rebuild = true
		return nil, nil
	}
	head := buf[:s.pages.Physical]
	if err := s.pages.Verify(head, 0); err != nil {
		return nil, err
	}
	if a, b := innodb.SpaceID(head), innodb.FSPSpaceID(head); a != b {
		return nil, fmt.Errorf("page 0 has two space ids, %d and %d", a, b)
	}
	return head, nil
}

// setFormat derives the page format from the flags.
func (r *run) setFormat(s *space) error {
	f, err := r.parseFlags(s.entry.Space.Flags)
	if err != nil {
		return fmt.Errorf("tablespace %s: %w", s.file.Abs, err)
	}
	if f.Logical != r.PageSize {
		return fmt.Errorf("tablespace %s has pages of %d bytes in a server with %d: %w", s.file.Abs, f.Logical, r.PageSize, innodb.ErrFormat)
	}
	s.pages, s.entry.Space.PageSize = f, f.Physical
	return nil
}

// copyRange copies one range, chunk by chunk, and finishes the file if it was
// the last one.
func (r *run) copyRange(ctx context.Context, s *space, off int64) error {
	end := min(off+rangeSize, s.size)
	out := runs{sink: r.Sink, no: s.no}
	for off < end {
		n := min(end-off, format.ChunkSize)
		if err := r.pace(ctx, n); err != nil {
			return err
		}
		if err := r.copyChunk(ctx, s, &out, off, int(n)); err != nil {
			return err
		}
		off += n
		r.progress(n)
	}
	if err := out.flush(); err != nil {
		return err
	}
	if s.left.Add(-1) == 0 {
		return r.finish(s)
	}
	return nil
}

// copyChunk reads n bytes, checks their pages and sends them. What lies behind
// an end of file that came nearer, as when an undo tablespace is truncated, is
// sent as a hole: the redo log says the same.
func (r *run) copyChunk(ctx context.Context, s *space, out *runs, off int64, n int) error {
	b := format.GetBuffer()
	p := b.Space()[:n]
	got, err := readAt(s.src, p, off)
	if err != nil {
		b.Release()
		return fmt.Errorf("read %s at %d: %w", s.file.Abs, off, err)
	}
	clear(p[got-got%s.pages.Physical:])
	again, err := r.readTwice(ctx, s, p, off)
	if err != nil {
		b.Release()
		return err
	}
	compressed, err := r.checkPages(ctx, s, p, again, off)
	again.Release()
	if err != nil {
		b.Release()
		return err
	}
	b.SetLen(n)
	return out.write(off, b, s.grain(compressed))
}

// grain is the unit in which zeros become holes: whole pages, or what a file
// system can punch out of a page_compressed page, of which there are some.
func (s *space) grain(compressed bool) int {
	if compressed || s.pages.PageCompressed {
		return punchSize
	}
	return s.pages.Physical
}

const punchSize = innodb.PunchSize

// checkPages checks the pages of p, which starts at off, reads torn ones again
// and clears what is no content. again is what readTwice returned for them. It says
// whether any is page_compressed.
func (r *run) checkPages(ctx context.Context, s *space, p []byte, again *format.Buffer, off int64) (compressed bool, err error) {
	size := s.pages.Physical
	no := s.file.firstPage() + format.PageNo(off/int64(size))
	var newest format.LSN
	var age innodb.Age
	for start := off; len(p) > 0; p, no, off = p[size:], no+1, off+int64(size) {
		page := p[:size]
		if s.isDoublewrite(no) {
			clear(page) // copies of pages that were checked where they belong
			continue
		}
		err := s.pages.Verify(page, no)
		if err == nil && again != nil && s.pages.Unchecked(page) {
			err = agree(page, again.Bytes()[off-start:][:size], no)
		}
		if err != nil {
			if err := r.readAgain(ctx, s, page, no, off, err); err != nil {
				return false, err
			}
		}
		newest = max(newest, innodb.LSN(page))
		age.See(page)
		compressed = s.inspect(page, no) || compressed
	}
	s.raise(newest)
	s.ageMu.Lock()
	defer s.ageMu.Unlock()
	s.age.Join(age)
	return compressed, nil
}

// inspect looks at a sound page for what is not about damage, and says whether it is
// page_compressed: then it clears what is no content.
func (s *space) inspect(page []byte, no format.PageNo) (compressed bool) {
	if s.pages.PageEncrypted(page) || no == 0 && s.pages.SaysEncrypted(page) {
		s.encrypted.Store(true)
	}
	if compressed = s.pages.Compressed(page); compressed {
		clear(page[s.pages.Used(page):])
	}
	if s.pages.FullCRC32 && (s.pages.Compressed(page) || s.pages.PageEncrypted(page)) {
		return compressed // the space id is part of the stream
	}
	// IMPORT TABLESPACE rewrites a file in place, page by page. A page of
	// another tablespace means that we met it half way.
	if id := innodb.SpaceID(page); id != s.entry.Space.ID && !innodb.IsZero(page) {
		s.foreign.Store(true)
	}
	return compressed
}

func (s *space) raise(lsn format.LSN) {
	for {
		old := s.maxLSN.Load()
		if uint64(lsn) <= old || s.maxLSN.CompareAndSwap(old, uint64(lsn)) {
			return
		}
	}
}

func (s *space) isDoublewrite(no format.PageNo) bool {
	sys := s.file.System
	return sys != nil && (sys.Doublewrite[0].Contains(no) || sys.Doublewrite[1].Contains(no))
}

// readAgain reads a page until it is sound: the server may have been writing
// it. cause is why it is not sound now. A page that only its key can check is sound
// once it is read as it was the time before.
func (r *run) readAgain(ctx context.Context, s *space, page []byte, no format.PageNo, off int64, cause error) error {
	try := 1
	var before []byte
	if s.pages.MySQL {
		before = make([]byte, len(page))
	}
	for ; s.patience.wait(ctx, try); try++ {
		copy(before, page)
		s.src.Forget(off, int64(len(page)))
		n, err := readAt(s.src, page, off)
		if err != nil {
			return fmt.Errorf("read %s at %d again: %w", s.file.Abs, off, err)
		}
		if n < len(page) {
			clear(page) // the file became shorter
			return nil
		}
		if cause = s.pages.Verify(page, no); cause == nil && s.pages.Unchecked(page) {
			cause = agree(page, before, no)
		}
		if cause == nil {
			r.log().Debug("torn page read again", "table", s.file.Table, "page", uint32(no), "tries", try+1)
			return nil
		}
	}
	return s.giveUp(ctx, no, page, try, cause)
}

// giveUp says why a page could not be had after some tries.
func (s *space) giveUp(ctx context.Context, no format.PageNo, page []byte, tries int, cause error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &PageError{
		Table: s.file.Table, Path: s.file.Abs, SpaceID: s.entry.Space.ID,
		PageNo: no, LSN: innodb.LSN(page), Tries: tries, Cause: cause,
	}
}

// finish closes a file all of whose ranges were sent.
func (r *run) finish(s *space) error {
	r.schedule.finished(s)
	if err := s.src.Close(); err != nil {
		return fmt.Errorf("close %s: %w", s.file.Abs, err)
	}
	if s.entry.Space.Rebuild && s.size > 0 {
		if err := r.Sink.WriteHole(s.no, 0, s.size); err != nil {
			return err
		}
	}
	if err := r.Sink.EndFile(s.no, s.size); err != nil {
		return err
	}
	r.add(Result{
		File: s.file, Entry: s.entry, Signature: s.sig, Began: s.began,
		MaxLSN: format.LSN(s.maxLSN.Load()), Foreign: s.foreign.Load(), Encrypted: s.encrypted.Load(), Age: s.age,
	})
	return r.after(s.file)
}

// readAt reads until p is full or the file ends, which is no error.
func readAt(src opened, p []byte, off int64) (int, error) {
	n, err := src.ReadAt(p, off)
	if err == io.EOF {
		err = nil
	}
	return n, err
}
