package backup

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb/filename"
	"github.com/xbstream/xbstream/internal/pause"
	"github.com/xbstream/xbstream/redotail"
	"github.com/xbstream/xbstream/server"
)

// phases copies the files of one backup under its locks.
type phases struct {
	*run
	locks server.Backup // of this attempt

	// discarded are the tablespaces that may have been away when the copy
	// began: an import brings one back, and the redo has nothing of it.
	discarded map[format.SpaceID]bool

	spaces []chunker.Result          // copies of tablespace files, good and bad
	plan   chunker.Plan              // which of them stay
	late   []chunker.Result          // tablespace files copied while DDL is blocked
	early  map[string]chunker.Result // other files copied before the locks, by path
	others map[string]chunker.Result // other files as they stay, by path
	locked []server.TableName        // tables that must be locked by their names
	galera *format.GaleraPosition
	resume func(context.Context) error // of replication, while it is paused
	sent   int                         // files in the archive, superseded ones too
	dirs   []format.File
	// unwanted are the tablespaces that are left out, leftOut what the manifest
	// says of them: as they are once DDL is blocked.
	unwanted []chunker.File
	leftOut  []chunker.Result

	// pos is the moment the backup stands for. Once its LSN is known the redo
	// tail is told to stop there, and nothing can be tried again.
	pos         server.Position
	stages      []format.Stage // of earlier attempts
	lockSeconds float64        // of earlier attempts
}

// once is one attempt, the first or a later one.
func (p *phases) once(ctx context.Context) (*format.Manifest, error) {
	for _, step := range []func(context.Context) error{
		p.event("stage-start"),
		p.copySpaces,
		p.copyEarly,
		p.pauseReplication,
		p.locks.Flush, p.event("stage-flush"),
		p.locks.BlockDDL, p.event("stage-block-ddl"),
		p.reconcile,
		p.copyOthers,
		p.blockCommit, p.event("stage-block-commit"),
		p.position, p.event("end-lsn"),
		p.stillRecoverable,
		p.copyLast,
		p.locks.End,
		p.resumeReplication,
		p.awaitRedo,
		p.stillTheServersRedo,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return p.manifest(), nil
}

// event is the step that tells the test seam of an event.
func (p *phases) event(name string) func(context.Context) error {
	return func(ctx context.Context) error { return p.tell(ctx, name, "") }
}

// listDiscarded asks once, before the first attempt: what goes away later is in
// the redo. BACKUP STAGE START waits for an import that is running. So it is asked
// before that: an import that begins after the answer is of a table in it, and one
// that began earlier has ended when the first file is read.
func (p *phases) listDiscarded(ctx context.Context) (err error) {
	if p.discarded == nil {
		p.discarded, err = p.source.Discarded(ctx)
	}
	return err
}

// passes over the tablespaces before DDL is blocked: the first copies all, the
// others what has come since, so that little is left to copy under the lock.
const passes = 3

// copySpaces copies tablespace files while the server does what it likes.
func (p *phases) copySpaces(ctx context.Context) error {
	for n := range passes {
		todo, err := p.spacesToCopy(ctx)
		if err != nil {
			return err
		}
		if n == 0 {
			p.progress.Stage("data files", totalSize(todo))
			if err := p.estimate(todo); err != nil {
				return err
			}
			if err := p.tell(ctx, "tablespaces-listed", ""); err != nil {
				return err
			}
		}
		if len(todo) == 0 {
			return nil
		}
		done, err := p.copy.CopyInnoDB(ctx, todo)
		if err != nil {
			return err
		}
		p.count(done)
		p.spaces = append(p.spaces, done...)
	}
	return nil
}

// estimate tells the receiver early how much there will be, before the first of
// it. Files that are not InnoDB's are not known yet, and seldom many.
func (p *phases) estimate(files []chunker.File) error {
	if len(p.spaces) > 0 { // a later attempt
		return nil
	}
	return p.out.WriteEstimate(format.Estimate{Size: totalSize(files), Allocated: chunker.Allocated(files)})
}

// spacesToCopy lists the tablespace files of which there is no good copy yet.
func (p *phases) spacesToCopy(ctx context.Context) ([]chunker.File, error) {
	found, err := p.files.InnoDB(ctx)
	if err != nil {
		return nil, err
	}
	found, p.unwanted = divide(found)
	if len(p.spaces) == 0 { // nothing was copied yet: all are to be
		p.plan = chunker.Plan{}
		p.plan.Copy, err = chunker.ReadSignatures(ctx, found) // for their sizes
		return p.plan.Copy, err
	}
	now, err := chunker.ReadSpacesAgain(ctx, found, p.spaces)
	if err != nil {
		return nil, err
	}
	away, loaded := p.away(), p.loaded()
	p.plan = chunker.Reconcile(p.spaces, now, away, loaded)
	if trusted, err := p.trustOpen(ctx, away); err != nil || !trusted {
		return p.plan.Copy, err
	}
	p.plan = chunker.Reconcile(p.spaces, now, away, loaded)
	return p.plan.Copy, nil
}

// trustOpen removes tablespaces from away that the plan would copy again only
// because the server has written to them since it opened them: after a start of
// the server, every table that comes into use. It reports whether there were any.
// A file that the server does not have open may have been written by somebody
// else, of whose writes the redo has nothing.
func (p *phases) trustOpen(ctx context.Context, away map[format.SpaceID]bool) (trusted bool, err error) {
	if p.layout.InnoDB.HiddenImports {
		return false, nil
	}
	var open map[string]bool
	for _, f := range p.plan.Copy {
		if !away[f.SpaceID] || !f.NotImportedSince(p.redo.Start().CheckpointLSN) {
			continue
		}
		if open == nil { // asked only if need be: DDL may be blocked now
			if open, err = p.source.OpenFiles(ctx); err != nil {
				return false, err
			}
		}
		if open[f.Rel] || open[f.Source] {
			delete(away, f.SpaceID)
			trusted = true
		}
	}
	return trusted, nil
}

// away are the space ids that may have come back by an import: they may have been
// away at the start, or the redo so far says that they were deleted.
func (p *phases) away() map[format.SpaceID]bool {
	ids := maps.Clone(p.discarded)
	for _, c := range p.tail.Files() {
		// "modified" is only kept after "deleted": the file is back.
		if c.Op == redotail.FileDeleted || c.Op == redotail.FileModified {
			ids[c.Space] = true
		}
	}
	return ids
}

// loaded says when the redo so far told of pages that were written without redo.
func (p *phases) loaded() map[format.SpaceID]time.Time {
	when := map[format.SpaceID]time.Time{}
	for _, c := range p.tail.Files() {
		if !c.Loaded.IsZero() {
			when[c.Space] = c.Loaded
		}
	}
	return when
}

func totalSize(files []chunker.File) (n int64) {
	for _, f := range files {
		n += f.Signature.Size
	}
	return n
}

func (p *phases) count(results []chunker.Result) {
	for _, r := range results {
		if !r.Gone {
			p.sent++
		}
	}
}

// copyEarly copies the other files before the locks. What does not change until
// they are held need not be copied under them.
func (p *phases) copyEarly(ctx context.Context) error {
	found, err := p.files.Others(ctx)
	if err == nil && len(p.early) > 0 { // a later attempt: some have a copy
		found, err = chunker.ReadSignatures(ctx, found)
	}
	if err != nil {
		return err
	}
	var todo []chunker.File
	for _, f := range found {
		if r, ok := p.early[f.Rel]; p.mayBeEarly(f) && !(ok && r.Unchanged(f.Signature)) {
			todo = append(todo, f)
		}
	}
	done, err := p.copy.CopyFiles(ctx, todo)
	if err != nil {
		return err
	}
	p.count(done)
	for _, r := range done {
		p.early[r.File.Rel] = r
	}
	return nil
}

// mayBeEarly says whether a copy of the file that was made before the locks can
// be told to be still good.
func (p *phases) mayBeEarly(f chunker.File) bool {
	if p.layout.MyISAMMmap {
		return false // writes through a mapping leave no trace in the file's times
	}
	switch f.Class {
	case chunker.ClassSchema, chunker.ClassTable, chunker.ClassLockedTable, chunker.ClassUnknown, chunker.ClassAria:
		return true
	}
	return false
}

// reconcile settles which copies stand for the tablespaces there are, now that
// no DDL can change them, and copies what is missing.
func (p *phases) reconcile(ctx context.Context) error {
	// The redo must say all that happened to files until now: an import that
	// it has not reported yet would go unseen.
	if err := p.catchUp(ctx); err != nil {
		return err
	}
	if err := p.tell(ctx, "reconcile", ""); err != nil {
		return err
	}
	todo, err := p.spacesToCopy(ctx)
	if err != nil {
		return err
	}
	p.late, err = p.copy.CopyInnoDB(ctx, todo)
	if err != nil {
		return err
	}
	p.count(p.late)
	p.spaces = append(p.spaces, p.late...) // of use when these locks are given up
	if err := p.mustStand(p.late); err != nil {
		return err
	}
	p.warnUnused(p.late)
	if p.leftOut, err = leaveOut(ctx, p.unwanted); err != nil {
		return err
	}
	if err := p.settleUnwritten(ctx); err != nil {
		return err
	}
	if err := p.settleStrays(ctx); err != nil {
		return err
	}
	if err := p.recheckNames(ctx); err != nil {
		return err
	}
	p.dirs, err = p.files.Dirs(ctx)
	return err
}

// catchUp waits until the redo was read up to where the server is now.
func (p *phases) catchUp(ctx context.Context) error {
	lsn, err := p.source.LSN(ctx)
	if err != nil {
		return err
	}
	limit := time.Now().Add(p.flushWait())
	for p.tail.Position() < lsn {
		if time.Now().After(limit) {
			return &redotail.StuckError{Reached: p.tail.Position(), Wanted: lsn}
		}
		if err := p.written(ctx, lsn); err != nil {
			return err
		}
		if err := pause.For(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// written makes the server write its redo up to lsn, if it has not, and lets the
// tail know how far it has come: the last block of a log cannot be trusted
// without the server's word.
func (p *phases) written(ctx context.Context, lsn format.LSN) error {
	at, err := p.source.Written(ctx)
	if err != nil {
		return err
	}
	if at < lsn {
		if err := p.locks.FlushLogs(ctx); err != nil {
			return err
		}
		if at, err = p.source.Written(ctx); err != nil {
			return err
		}
	}
	p.tail.Written(at)
	return nil
}

// mustStand makes sure that nothing disappeared that the lock should have kept.
// It does not keep the files of a running ALTER, which prepare settles by redo,
// nor those of somebody else.
func (p *phases) mustStand(results []chunker.Result) error {
	for _, r := range results {
		switch {
		case !r.Gone || r.Unused || filename.Internal(r.File.Rel):
		case r.File.Class == chunker.ClassUnknown:
			p.Log.Warn("a file that is none of a table's was removed meanwhile and is left out", "file", r.File.Abs)
		default:
			return fmt.Errorf("%s: file %s disappeared while DDL was blocked", r.File.Table, r.File.Abs)
		}
	}
	return nil
}

// copyOthers copies the files that stand still while DDL is blocked, unless they
// were copied early and have not changed.
func (p *phases) copyOthers(ctx context.Context) error {
	now, err := p.listOthers(ctx)
	if err != nil {
		return err
	}
	p.locked = lockedTables(now)
	return p.copyChanged(ctx, now, func(f chunker.File) bool { return f.Class.Stage() == chunker.StageBlockDDL })
}

// blockCommit also locks the tables that no other lock keeps still.
func (p *phases) blockCommit(ctx context.Context) error { return p.locks.BlockCommit(ctx, p.locked) }

func (p *phases) listOthers(ctx context.Context) ([]chunker.File, error) {
	found, err := p.files.Others(ctx)
	if err != nil {
		return nil, err
	}
	return chunker.ReadSignatures(ctx, found)
}

// copyChanged copies those of files that are wanted and have no valid copy yet.
func (p *phases) copyChanged(ctx context.Context, files []chunker.File, wanted func(chunker.File) bool) error {
	var todo []chunker.File
	for _, f := range files {
		if !wanted(f) {
			continue
		}
		if r, ok := p.others[f.Rel]; ok && r.Signature == f.Signature && !r.Changed {
			continue
		}
		if r, ok := p.early[f.Rel]; ok && r.Unchanged(f.Signature) {
			p.others[f.Rel] = r
			continue
		}
		todo = append(todo, f)
	}
	done, err := p.copy.CopyFiles(ctx, todo)
	if err != nil {
		return err
	}
	p.count(done)
	for _, r := range done {
		p.others[r.File.Rel] = r
	}
	return p.mustStand(done)
}

// position reads the moment the backup stands for, while nothing can commit,
// and tells the redo tail to end there.
func (p *phases) position(ctx context.Context) (err error) {
	if err := p.locks.FlushLogs(ctx); err != nil {
		return err
	}
	if err := p.replication(ctx); err != nil {
		return err
	}
	// The hold ends here: while it waits for the tail, a server whose log is full does
	// not answer. The rest is read in a moment.
	if p.hold != nil {
		p.letGo()
		if err := p.hold.Close(); err != nil {
			return err
		}
	}
	// Where commits go on, redo read after this moment would hold commits that are
	// not before the position.
	resume := p.tail.Pause()
	defer resume()
	read := p.tail.Position()
	if p.pos, err = p.locks.Position(ctx); err != nil {
		return err
	}
	if read > p.pos.LSN {
		return p.foreignRedo(fmt.Errorf("it reaches to LSN %v, and the server has only come to %v", read, p.pos.LSN))
	}
	// What the tail has read until now holds no commit after the position, and it
	// reads nothing more than up to it.
	p.tail.StopAt(p.pos.LSN)
	return p.written(ctx, p.pos.LSN)
}

// awaitRedo tells the tail of the server's flushes until it has all that the
// backup needs. A server with innodb_flush_log_at_trx_commit=0 flushes when it
// likes; nothing is locked any more.
func (p *phases) awaitRedo(ctx context.Context) error {
	for {
		at, err := p.source.Written(ctx)
		if err != nil {
			return err
		}
		p.tail.Written(at)
		if at >= p.pos.LSN {
			return nil
		}
		if err := pause.For(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// copyLast copies what stands still only while commits are blocked. Aria's
// control file comes first and its logs last: recovery begins at what the one
// says and finds in the others all that happened to the tables meanwhile.
func (p *phases) copyLast(ctx context.Context) error {
	now, err := p.listOthers(ctx)
	if err != nil {
		return err
	}
	first := func(f chunker.File) bool { return f.Class == chunker.ClassAriaControl }
	last := func(f chunker.File) bool { return f.Class == chunker.ClassAriaLog }
	// Tables without transactions are looked at again: nothing can have
	// changed since DDL is blocked, and if it has, it is copied again.
	rest := func(f chunker.File) bool { return !first(f) && !last(f) }
	for _, wanted := range []func(chunker.File) bool{first, rest} {
		if err := p.copyChanged(ctx, now, wanted); err != nil {
			return err
		}
	}
	if err := p.tell(ctx, "aria-logs-listed", ""); err != nil {
		return err
	}
	return p.copyChanged(ctx, now, last)
}

// manifest says what the archive holds.
func (p *phases) manifest() *format.Manifest {
	p.warnReplication()
	p.warnBig()
	p.warnUnmatched()
	pos := &p.pos
	m := &format.Manifest{
		Tool: p.Tool, Command: p.Command, Started: p.started,
		Backup: &format.Backup{
			Type: format.TypeFull, Filter: p.Asked, Server: describe(&p.layout), Binlog: pos.Binlog, GTID: pos.GTID,
			Stages: append(p.stages, p.locks.Stages()...), LockSeconds: p.lockSeconds + p.locks.LockSeconds(), Galera: p.galera,
		},
		Files: slices.Clone(p.dirs),
	}
	if p.SlaveInfo && len(pos.Replication) > 0 {
		m.Backup.Replication, m.Backup.GTIDReplicated = pos.Replication, pos.GTIDReplicated
	}
	add := func(r chunker.Result) {
		if r.Gone {
			return
		}
		if r.Entry.Kind == format.KindUndo {
			m.Backup.Server.UndoTablespaces++
		}
		m.Files = append(m.Files, r.Entry)
	}
	for _, r := range p.plan.Keep {
		add(r)
	}
	for _, r := range p.late {
		add(r)
	}
	for _, r := range p.others {
		add(r)
	}
	m.Discarded = p.sent - (len(m.Files) - len(p.dirs))
	for _, r := range p.leftOut {
		if r.Entry.Space != nil {
			m.Files = append(m.Files, r.Entry)
		}
	}
	if p.Filter != nil && !slices.ContainsFunc(m.Files, ofTable) {
		p.Log.Warn("no table has a name that was asked for: the backup holds none")
	}
	slices.SortFunc(m.Files, func(a, b format.File) int { return cmp.Compare(a.Path, b.Path) })
	return m
}
