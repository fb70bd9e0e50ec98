package prepare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/spaces"
)

// This file deals with the transactions that the source had prepared by itself.
//
// A server with a binary log commits in two steps: InnoDB prepares, the binary
// log is written, InnoDB commits. BACKUP STAGE BLOCK_COMMIT waits for commits
// that run, but not for an applier of a parallel replica that has prepared its
// transaction and waits for those before it: the applier gives its lock back
// meanwhile. Such transactions are in no binary log and behind the recorded
// position, so that the copy gets them again from its source. A server that
// starts on them cannot know that, and ends with "Found N prepared
// transactions!". So they become active here, and the server rolls them back
// when it starts, as all that was not committed.

// rollBackPrepared makes the transactions active that the source had prepared by
// itself. Those of XA PREPARE stay prepared. It changes the state of undo
// segments, nothing else: no LSN, as no redo stands for the change, and a page
// must not be newer than the log. Each page is written through the journal.
func (p *preparation) rollBackPrepared(ctx context.Context) error {
	found, err := p.walkUndo(ctx)
	if err != nil {
		return err
	}
	p.rep.PreparedRolledBack = found.transactions()
	p.state.RolledBack = p.rep.PreparedRolledBack
	if len(found.prepared) == 0 {
		return nil
	}
	slot := p.journal.slot(0)
	for _, at := range found.prepared {
		if err := p.makeActive(at, slot); err != nil {
			return err
		}
	}
	again, err := p.walkUndo(ctx)
	if err != nil {
		return err
	}
	if len(again.prepared) > 0 || again.transactions() != p.rep.PreparedRolledBack {
		return fmt.Errorf("%d of %d transactions that the server had prepared itself are still prepared after they were changed: %w", len(again.prepared), p.rep.PreparedRolledBack, ErrDamaged)
	}
	p.opt.Log.Debug("transactions that the source had prepared itself are to be rolled back", "transactions", p.rep.PreparedRolledBack)
	return nil
}

// undoWalk is what the undo segments say of open transactions.
type undoWalk struct {
	// prepared are the first pages of undo segments whose transaction the
	// server had prepared itself.
	prepared []innodb.PageAddress
	// own are the transactions with an XID of the server's own that it rolls
	// back when it starts, or would if they were not prepared: an earlier run
	// that was killed may have changed some. One that the source itself was
	// rolling back after it had prepared it looks the same and counts too.
	own map[uint64]bool
}

func (w *undoWalk) transactions() int { return len(w.own) }

// walkUndo reads the first page of every undo segment.
func (p *preparation) walkUndo(ctx context.Context) (*undoWalk, error) {
	r := &pageReader{tree: p.tree, end: p.end, seen: map[innodb.PageAddress]bool{}}
	defer r.close()
	w := &undoWalk{own: map[uint64]bool{}}
	trxSys := innodb.PageAddress{Space: innodb.SystemSpace, Page: innodb.TrxSysPage}
	page, err := r.read(trxSys)
	if err != nil {
		return nil, err
	}
	for _, rseg := range innodb.RollbackSegments(page) {
		if page, err = r.read(rseg); err != nil {
			return nil, err
		}
		for _, no := range innodb.UndoSegments(page) {
			if err := ctx.Err(); err != nil {
				return nil, context.Cause(ctx)
			}
			at := innodb.PageAddress{Space: rseg.Space, Page: no}
			if page, err = r.read(at); err != nil {
				return nil, err
			}
			s, err := innodb.ParseUndoSegment(page)
			if err != nil {
				return nil, r.fail(at, fmt.Errorf("%w: %w", err, ErrDamaged))
			}
			w.add(at, s)
		}
	}
	return w, nil
}

func (w *undoWalk) add(at innodb.PageAddress, s innodb.UndoSegment) {
	if !s.XID.ServersOwn() {
		return
	}
	w.own[s.TrxID] = true
	if s.State == innodb.UndoPrepared {
		w.prepared = append(w.prepared, at)
	}
}

// makeActive changes the state of one undo segment.
func (p *preparation) makeActive(at innodb.PageAddress, slot *slot) error {
	r := &pageReader{tree: p.tree, end: p.end, seen: map[innodb.PageAddress]bool{}}
	defer r.close()
	page, err := r.read(at)
	if err != nil {
		return err
	}
	t := p.tree.Spaces[at.Space]
	t.Touched = true
	innodb.SetUndoState(page, innodb.UndoActive)
	t.Pages.Seal(page)
	if err := t.Pages.Verify(page, at.Page); err != nil {
		return r.fail(at, fmt.Errorf("after its state was changed: %w: %w", err, ErrDamaged))
	}
	i, off := t.File(at.Page)
	if err := slot.keep(t.Files[i].Path, off, page); err != nil {
		return err
	}
	f, err := os.OpenFile(p.tree.Path(t.Files[i].Path), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(page, off)
	return errors.Join(err, f.Close())
}

// What can be wrong with a page that a rollback segment names.
var (
	errSamePage     = errors.New("the rollback segments name this page twice")
	errNotForUndo   = errors.New("undo logs cannot be in a page of this form")
	errBehindEnd    = errors.New("the rollback segments name a page behind the end of the file")
	errNeverWritten = errors.New("the rollback segments name a page that was never written")
)

// pageReader reads single pages of recovered tablespaces and trusts none of them,
// nor the addresses found in them.
type pageReader struct {
	tree *spaces.Tree
	end  format.LSN // the backup's end
	// seen are the pages read: none is named twice, so that reading ends.
	seen map[innodb.PageAddress]bool
	buf  [innodb.MaxPageSize]byte
	file *os.File
	path string
}

func (r *pageReader) close() {
	if r.file != nil {
		r.file.Close() // only read from
	}
}

// fail names the page.
func (r *pageReader) fail(at innodb.PageAddress, cause error) error {
	path := "(no file)"
	if t := r.tree.Spaces[at.Space]; t != nil {
		i, _ := t.File(at.Page)
		path = t.Files[i].Path
	}
	return &PageError{Path: path, Space: at.Space, Page: at.Page, Cause: cause}
}

// read returns a page of uncompressed form, which is innodb_page_size long and
// valid until the next call.
func (r *pageReader) read(at innodb.PageAddress) ([]byte, error) {
	damaged := func(cause error) ([]byte, error) {
		return nil, r.fail(at, fmt.Errorf("%w: %w", cause, ErrDamaged))
	}
	t := r.tree.Spaces[at.Space]
	switch {
	case t == nil:
		return nil, r.fail(at, fmt.Errorf("a rollback segment is in this tablespace, and it is missing: %w", ErrIncomplete))
	case r.seen[at]:
		return damaged(errSamePage)
	case !t.Known || t.Pages.Zip || t.Pages.Physical != r.tree.PageSize:
		return damaged(errNotForUndo)
	}
	r.seen[at] = true
	i, off := t.File(at.Page)
	if err := r.open(t.Files[i].Path); err != nil {
		return nil, err
	}
	page := r.buf[:t.Pages.Physical]
	switch _, err := r.file.ReadAt(page, off); {
	case errors.Is(err, io.EOF):
		return damaged(errBehindEnd)
	case err != nil:
		return nil, err
	}
	if err := t.Pages.Verify(page, at.Page); err != nil {
		return damaged(err)
	}
	switch lsn := innodb.LSN(page); {
	case innodb.IsZero(page):
		return damaged(errNeverWritten)
	case t.Pages.PageEncrypted(page):
		return nil, r.fail(at, ErrEncrypted)
	case t.Pages.Compressed(page):
		return damaged(errNotForUndo)
	case lsn > r.end:
		return damaged(fmt.Errorf("its LSN %v is after the backup's end %v", lsn, r.end))
	}
	return page, nil
}

// open makes the file the current one: most undo segments of a rollback segment
// are in one.
func (r *pageReader) open(rel string) error {
	if r.path == rel {
		return nil
	}
	r.close()
	r.file, r.path = nil, ""
	f, err := os.Open(r.tree.Path(rel))
	if err != nil {
		return err
	}
	r.file, r.path = f, rel
	return nil
}
