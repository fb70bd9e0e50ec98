package prepare

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
	"github.com/xbstream/xbstream/internal/spaces"
)

// preparation is one Run.
type preparation struct {
	dir   string
	opt   Options
	state *backupdir.State
	log   *redoLog
	redo  *gatherer
	tree  *spaces.Tree
	end   format.LSN // where the redo ends
	// ignored are the names of tablespaces whose redo was left out.
	ignored map[format.SpaceID]string
	journal *journal
	// kept are the records that the log that is left must have.
	kept [][]byte
	rep  Report
}

// Run recovers the backup in dir in place. See the package comment for what a
// nil error proves. Errors wrap ErrNotBackup, ErrIncomplete, ErrDamaged or
// ErrEncrypted where one of them is the reason; a *PageError names the page.
func Run(ctx context.Context, dir string, opt Options) (Report, error) {
	p := &preparation{dir: dir, opt: opt.withDefaults(), ignored: map[format.SpaceID]string{}}
	var err error
	if p.state, err = backupdir.Read(dir); err != nil {
		return p.rep, fmt.Errorf("prepare %s: %w", dir, err)
	}
	p.rep.EndLSN = p.state.EndLSN
	if p.state.Prepared() {
		p.rep.AlreadyPrepared, p.rep.PreparedRolledBack = true, p.state.RolledBack
		return p.rep, nil
	}
	if err := p.run(ctx); err != nil {
		return p.rep, fmt.Errorf("prepare %s: %w", dir, err)
	}
	return p.rep, nil
}

func (p *preparation) run(ctx context.Context) error {
	var err error
	if p.log, err = openRedo(p.dir); errors.Is(err, fs.ErrNotExist) && p.hasLeft() {
		return p.sayPrepared() // an earlier run got so far
	}
	if err != nil {
		return err
	}
	defer p.log.Close()
	if err := p.checkLog(); err != nil {
		return err
	}
	if p.redo, err = p.gathered(ctx); err != nil {
		return err
	}
	defer p.forgetRedo()
	more, err := p.checkRedo(ctx)
	if err != nil {
		return err
	}
	p.tree = p.log.tree(p.dir, p.state)
	if err := p.tree.ReadLinks(p.state.Manifest); err != nil {
		return err
	}
	if err := replayJournal(p.dir, p.tree); err != nil {
		return fmt.Errorf("%s: %w", journalName, err)
	}
	if err := p.settle(); err != nil {
		return err
	}
	if !p.opt.Staged {
		if p.journal, err = startJournal(p.dir); err != nil {
			return err
		}
		defer p.journal.f.Close()
	}
	if err := p.applyAll(ctx, more); err != nil {
		return err
	}
	p.forgetRedo()
	if !p.log.dialect.RollsBack() {
		if err := p.rollBackPrepared(ctx); err != nil {
			return err
		}
	}
	if err := p.finishSizes(); err != nil {
		return err
	}
	if p.opt.Verify {
		if err := p.verify(ctx); err != nil {
			return err
		}
	}
	return p.publish()
}

// forgetRedo frees what was gathered. The log is about to be replaced, and to
// remove a large file that is cached takes long: several goroutines make the
// system forget its pages in less. A log that has just been extracted is not on
// disk yet, and need not get there.
func (p *preparation) forgetRedo() {
	if p.redo == nil {
		return
	}
	if err := p.redo.close(); err != nil {
		p.opt.Log.Debug("free the redo", "error", err)
	}
	p.redo = nil
	if p.opt.Staged {
		return
	}
	part := p.log.payload/int64(p.opt.Parallel) + 1
	var wg sync.WaitGroup
	for i := range int64(p.opt.Parallel) {
		wg.Go(func() { uncache(p.log.f, p.log.offset(p.log.first)+i*part, part) })
	}
	wg.Wait()
}

// checkLog refuses logs that are not what a backup leaves.
func (p *preparation) checkLog() error {
	l := p.log
	p.rep.CheckpointLSN = l.head.Checkpoint
	if l.head.Encrypted {
		return fmt.Errorf("%s: %w", redoName, ErrEncrypted)
	}
	if !l.linear() {
		return fmt.Errorf("%s: created by %q and in use since, not a backup's: %w", redoName, l.head.Creator, ErrNotBackup)
	}
	if m := p.state.Manifest; m != nil && l.head.Checkpoint > m.Backup.Redo.CheckpointLSN && !p.minimal() {
		return fmt.Errorf("%s: starts at LSN %v, the backup at %v: %w", redoName, l.head.Checkpoint, m.Backup.Redo.CheckpointLSN, ErrIncomplete)
	}
	return nil
}

// minimal says that the log is the one publish leaves: an earlier run got that
// far, and data files are done.
func (p *preparation) minimal() bool {
	return p.log.payload == p.log.dialect.LeftSize() && p.log.lsn(p.log.end()) >= p.state.EndLSN
}

// gathered returns the first batch and what the log as a whole says. If
// Options.Feed read this very log while it arrived, that is done already.
func (p *preparation) gathered(ctx context.Context) (*gatherer, error) {
	progress := p.progress("read redo", p.log.payload)
	if g := p.opt.Feed.take(ctx, p.log, p.until()); g != nil {
		p.rep.RedoBytes = int64(g.pos - p.log.start())
		progress(p.rep.RedoBytes)
		return g, nil
	}
	return gather(ctx, p.log, p.until(), p.opt, func(n int64) {
		p.rep.RedoBytes += n
		progress(n)
	})
}

// checkRedo makes sure that the redo is whole; more says that there is redo
// behind the first batch, which the gatherer is then about to read again.
func (p *preparation) checkRedo(ctx context.Context) (more bool, err error) {
	end := p.redo.pos
	p.end, p.kept = p.log.lsn(end), p.redo.kept.list()
	p.rep.EndLSN, p.rep.Records = p.end, p.redo.records
	if more = p.redo.end < end; more {
		p.redo.log = p.log.scan(ctx, p.redo.end, end)
		p.redo.pos = p.redo.end
	}
	p.redo.whole.start, p.redo.whole.want = p.log.head, p.state.EndLSN
	return more, p.redo.whole.check(p.end)
}

// until is the position to stop at: the backup's end, or what an earlier run made
// of it.
func (p *preparation) until() redolog.Position {
	if p.minimal() {
		return p.log.end()
	}
	return p.log.atLeast(p.state.EndLSN)
}

// settle finds out which file is which tablespace, and reports what it changed,
// also when it fails.
func (p *preparation) settle() error {
	p.tree.Recovered = p.minimal()
	err := p.settleFiles()
	p.rep.Deleted, p.rep.Renamed = p.tree.Changes.Deleted, p.tree.Changes.Renamed
	return err
}

func (p *preparation) settleFiles() error {
	if m := p.state.Manifest; m != nil {
		return p.tree.SettleManifest(m, p.redo.spaces, p.opt.Parallel)
	}
	// Before anything is changed: without it there is nothing to recover.
	if err := p.tree.ClaimSystem(p.state.SystemFiles()); err != nil {
		return err
	}
	if err := p.tree.SettleMarkers(); err != nil {
		return err
	}
	return p.tree.SettleFound(p.redo.spaces, p.opt.Parallel)
}

// applyAll applies the first batch and, if there are more, the others.
func (p *preparation) applyAll(ctx context.Context, more bool) error {
	if err := p.trimSpaces(); err != nil {
		return err
	}
	for {
		if err := p.applyBatch(ctx); err != nil {
			return err
		}
		if !more {
			break
		}
		var err error
		if more, err = p.redo.next(); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(p.ignored)) {
		p.rep.Ignored = append(p.rep.Ignored, p.ignored[id])
	}
	return nil
}

func (p *preparation) applyBatch(ctx context.Context) error {
	tasks, err := p.plan()
	if err != nil {
		return err
	}
	total, bytes := 0, int64(0)
	for _, t := range tasks {
		total += len(t.pages)
		bytes += t.bytes()
	}
	progress := p.progress("apply redo", bytes)
	a := &applier{dialect: p.log.dialect, tree: p.tree, journal: p.journal, batch: p.redo.batch, end: p.end, done: progress}
	if err := a.apply(ctx, p.opt.Parallel, tasks); err != nil {
		return err
	}
	if err := p.punchFreed(); err != nil {
		return err
	}
	p.rep.Batches++
	p.rep.PagesTouched += int64(total)
	p.rep.Applied += a.applied.Load()
	p.rep.PagesRead += a.read.Load()
	p.rep.PagesWritten += a.written.Load()
	return nil
}

// progress returns a function that adds to what is done in a stage.
func (p *preparation) progress(stage string, total int64) func(n int64) {
	var mu sync.Mutex
	var done, shown int64
	step := total/200 + 1
	return func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		if done += n; done >= shown || done == total {
			shown = done + step
			p.opt.Progress(stage, done, total)
		}
	}
}

// trimSpaces shortens tablespaces that redo shrank. All pages in use behind
// the cut are made anew by later redo, so that doing it again does no harm.
func (p *preparation) trimSpaces() error {
	for id, h := range p.redo.spaces {
		t := p.tree.Spaces[id]
		if t == nil || len(h.Trims) == 0 {
			continue
		}
		t.Touched = true
		cut := h.Trims[len(h.Trims)-1]
		i, off := t.File(cut.Page)
		if i != len(t.Files)-1 {
			return fmt.Errorf("%s: redo at LSN %v cuts it at page %v, which is not in the last file: %w", t, cut.At, cut.Page, ErrDamaged)
		}
		if t.Files[i].Size <= off && id == 0 {
			continue
		}
		if err := p.resize(t.Files[i].Path, off); err != nil {
			return err
		}
	}
	return nil
}

func (p *preparation) resize(rel string, size int64) error {
	f, err := os.OpenFile(p.tree.Path(rel), os.O_RDWR|os.O_CREATE, 0o660)
	if err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// finishSizes lets the files of touched tablespaces reach the size page 0 gives
// them. They may be longer, and stay so: the server makes files larger than
// it uses.
func (p *preparation) finishSizes() error {
	for _, t := range p.tree.Spaces {
		if t.ID == 0 && !t.Known {
			return fmt.Errorf("%s: page 0 was never written and redo does not create it: %w", t, ErrIncomplete)
		}
		if !t.Touched {
			continue
		}
		if err := p.finishSize(t); err != nil {
			return err
		}
		if t.Fresh {
			p.rep.Rebuilt = append(p.rep.Rebuilt, t.Files[0].Path)
		}
	}
	slices.Sort(p.rep.Rebuilt)
	return nil
}

func (p *preparation) finishSize(t *spaces.Tablespace) error {
	head := make([]byte, innodb.HeaderSize)
	f, err := os.Open(p.tree.Path(t.Files[0].Path))
	if err != nil {
		return err
	}
	_, err = f.ReadAt(head, 0)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s: page 0: %w", t, err)
	}
	if id := innodb.FSPSpaceID(head); id != t.ID {
		return fmt.Errorf("%s: page 0 says space %v: %w", t, id, ErrDamaged)
	}
	last := t.Files[len(t.Files)-1]
	pages := int64(innodb.FSPSize(head)) - int64(last.First)
	// The server rounds down too: the pages behind are not in use.
	want := pages * int64(t.Pages.Physical) &^ 4095
	st, err := os.Stat(p.tree.Path(last.Path))
	if err != nil || st.Size() >= want {
		return err
	}
	return p.resize(last.Path, want)
}

// publish makes the result durable and says that the directory is prepared, in
// an order that holds at any moment: data first, then the log that says they
// are up to date, then the state.
func (p *preparation) publish() error {
	if !p.opt.Staged {
		if err := p.state.GiveToOwner(p.dir); err != nil {
			return err
		}
		if err := p.syncData(); err != nil {
			return err
		}
		if err := p.journal.remove(p.dir); err != nil {
			return err
		}
	}
	if err := p.tree.UpdateManifest(p.state.Manifest); err != nil {
		return err
	}
	if !p.minimal() {
		if err := p.leave(); err != nil {
			return err
		}
	}
	return p.sayPrepared()
}

// leave replaces the log by the one that a server starts from.
func (p *preparation) leave() error {
	left, err := p.log.dialect.Leave(p.end, p.log.head.Creator, p.kept)
	if err != nil {
		return err
	}
	if left.FlushLSN != 0 {
		if err := p.setFlushLSN(left.FlushLSN); err != nil {
			return err
		}
	}
	path := filepath.Join(p.dir, filepath.FromSlash(left.Name))
	if left.Name == redoName {
		return backupdir.ReplaceFile(path, left.Content)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	if err := backupdir.ReplaceFile(path, left.Content); err != nil {
		return err
	}
	if err := backupdir.SyncDir(p.dir); err != nil {
		return err
	}
	// From here on a run finds the new log only, and all that is left to do is to
	// say so.
	if err := os.Remove(filepath.Join(p.dir, redoName)); err != nil {
		return err
	}
	return backupdir.SyncDir(p.dir)
}

// setFlushLSN tells a server that all files hold what was done up to an LSN. It is
// not part of the page's checksum.
func (p *preparation) setFlushLSN(lsn format.LSN) error {
	f, err := os.OpenFile(p.tree.Path(p.tree.Spaces[innodb.SystemSpace].Files[0].Path), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(binary.BigEndian.AppendUint64(nil, uint64(lsn)), innodb.SystemFlushLSN)
	if err == nil && !p.opt.Staged {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// hasLeft says whether an earlier run has replaced the log by one of another name.
func (p *preparation) hasLeft() bool {
	for _, d := range redolog.All() {
		if d.LeftName() == redoName {
			continue
		}
		f, err := os.Open(filepath.Join(p.dir, filepath.FromSlash(d.LeftName())))
		if err != nil {
			continue
		}
		head := make([]byte, d.HeadSize())
		_, err = io.ReadFull(f, head)
		if end, ok := d.LeftEnd(head); f.Close() == nil && err == nil && ok && end >= p.state.EndLSN {
			return true
		}
	}
	return false
}

// sayPrepared says that the directory is prepared. What was made last is given to its
// owner.
func (p *preparation) sayPrepared() error {
	if !p.opt.Staged {
		if err := p.state.GiveToOwner(p.dir); err != nil {
			return err
		}
	}
	if err := p.removeUnfinished(); err != nil {
		return err
	}
	return p.state.MarkPrepared(p.dir)
}

// removeUnfinished removes what an ALTER that had not ended left. Its redo is there
// no more, so that nobody asks for these files when a run that was interrupted here
// is repeated.
func (p *preparation) removeUnfinished() (err error) {
	if p.tree == nil { // see hasLeft: MySQL blocks DDL, so that no ALTER is under way
		return nil
	}
	p.rep.Unfinished, err = p.tree.RemoveUnfinished()
	if err == nil && !p.opt.Staged {
		err = p.tree.SyncNames()
	}
	if err != nil {
		return err
	}
	return p.tree.UpdateManifest(p.state.Manifest)
}

// syncData makes every file that was written durable, and the names.
func (p *preparation) syncData() error {
	var g errgroup.Group
	g.SetLimit(8 * p.opt.Parallel)
	dirs := map[string]bool{p.dir: true}
	for _, t := range p.tree.Spaces {
		if !t.Touched {
			continue
		}
		for _, f := range t.Files {
			path := p.tree.Path(f.Path)
			dirs[filepath.Dir(path)] = true
			g.Go(func() error { return syncFile(path) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for dir := range dirs {
		if err := backupdir.SyncDir(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return p.tree.SyncNames()
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// verify reads every page of every tablespace: sound, and not newer than the
// end LSN.
func (p *preparation) verify(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(p.opt.Parallel)
	var mu sync.Mutex
	for _, t := range p.tree.Spaces {
		if !t.Known {
			continue
		}
		skip := p.doublewrite(t)
		for i := range t.Files {
			g.Go(func() error {
				n, err := p.verifyFile(ctx, t, i, skip)
				mu.Lock()
				p.rep.PagesVerified += n
				mu.Unlock()
				return err
			})
		}
	}
	return g.Wait()
}

// doublewrite returns the pages of the system tablespace that hold copies of
// other pages.
func (p *preparation) doublewrite(t *spaces.Tablespace) func(format.PageNo) bool {
	none := func(format.PageNo) bool { return false }
	if t.ID != 0 {
		return none
	}
	f, err := os.Open(p.tree.Path(t.Files[0].Path))
	if err != nil {
		return none
	}
	defer f.Close()
	page := make([]byte, t.Pages.Physical)
	if _, err := f.ReadAt(page, int64(innodb.TrxSysPage)*int64(len(page))); err != nil {
		return none
	}
	r, ok := t.Pages.DoublewriteRange(page)
	if !ok {
		return none
	}
	return func(no format.PageNo) bool { return r[0].Contains(no) || r[1].Contains(no) }
}

func (p *preparation) verifyFile(ctx context.Context, t *spaces.Tablespace, i int, skip func(format.PageNo) bool) (n int64, err error) {
	file := t.Files[i]
	f, err := os.Open(p.tree.Path(file.Path))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size := t.Pages.Physical
	buf := make([]byte, window)
	for no := file.First; ; {
		got, err := io.ReadFull(f, buf)
		for at := 0; at+size <= got; at += size {
			page := buf[at : at+size]
			if !skip(no) {
				if err := p.verifyPage(t, file.Path, no, page); err != nil {
					return n, err
				}
				n++
			}
			no++
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return n, nil
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return n, err
		}
	}
}

func (p *preparation) verifyPage(t *spaces.Tablespace, path string, no format.PageNo, page []byte) error {
	if err := t.Pages.Verify(page, no); err != nil {
		return &PageError{Path: path, Space: t.ID, Page: no, Cause: fmt.Errorf("%w: %w", err, ErrDamaged)}
	}
	if lsn := innodb.LSN(page); lsn > p.end {
		return &PageError{Path: path, Space: t.ID, Page: no, Cause: fmt.Errorf("its LSN %v is after the backup's end %v: %w", lsn, p.end, ErrDamaged)}
	}
	return nil
}
