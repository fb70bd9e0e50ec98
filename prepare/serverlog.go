package prepare

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
	"github.com/xbstream/xbstream/internal/spaces"
)

// This file makes sure that a server recovers from the log of a backup what the
// log says.

// readyRedo reads the whole log before a server does, as a server does not tell
// a log that was cut from one that ends, and keeps from it what it would get
// wrong. A log that a server has already written to (an interrupted WithServer)
// is the server's to judge.
func readyRedo(ctx context.Context, dir string, state *backupdir.State, opt Options, rep *Report) error {
	l, err := openRedo(dir)
	if errors.Is(err, fs.ErrNotExist) && hasServerLog(dir, state) {
		return nil // an earlier run got so far, and perhaps the server further
	}
	if err != nil {
		return err
	}
	defer l.Close()
	rep.CheckpointLSN = l.head.Checkpoint
	if !l.linear() {
		return nil
	}
	s := logSurvey{
		dialect: l.dialect,
		traces:  l.dialect.Traces(),
		whole:   completeness{start: l.head, want: state.EndLSN, hidden: l.head.Encrypted},
		spaces:  spaces.Histories{},
	}
	if err := s.read(ctx, l, state.EndLSN); err != nil {
		return err
	}
	rep.RedoBytes = s.bytes
	tr := l.tree(dir, state)
	if s.whole.hidden {
		if opt.NothingImported {
			return nil
		}
		return s.refuseImported(tr)
	}
	if state.Manifest != nil {
		err := tr.FollowForServer(state.Manifest, s.spaces)
		rep.Deleted, rep.Renamed = tr.Changes.Deleted, tr.Changes.Renamed
		if err != nil {
			return err
		}
	}
	packed := l.dialect.LeftName() != redoName
	back, err := s.imported(tr, packed)
	if err != nil {
		return err
	}
	if packed {
		for id, at := range back {
			return fmt.Errorf("space %v was imported during the backup, after its DISCARD TABLESPACE at LSN %v: a server's recovery would lose rows of it; %s", id, at, insteadOfServer(state))
		}
		return l.forServer(ctx, dir, state.EndLSN)
	}
	if len(back) == 0 {
		return nil
	}
	opt.Log.Info("redo of before an import is hidden from the server", "tablespaces", len(back))
	return l.hideBeforeImport(ctx, dir, back)
}

// insteadOfServer says what to do with a backup that a server would recover wrongly.
func insteadOfServer(state *backupdir.State) string {
	encrypted := func(f format.File) bool { return f.Space != nil && f.Space.Encrypted }
	if state.Manifest != nil && slices.ContainsFunc(state.Manifest.Files, encrypted) {
		return "only a server can recover its encrypted tablespaces, so make another backup"
	}
	return "prepare the backup without --with-server"
}

// hasServerLog says whether there is a log that forServer makes.
func hasServerLog(dir string, state *backupdir.State) bool {
	_, err := os.Stat(filepath.Join(dir, filepath.FromSlash(redolog.Named(state.Server.Dialect).LeftName())))
	return err == nil
}

// forServer replaces the log by one that a server of the family recovers from. The
// redo ends at an LSN.
func (l *redoLog) forServer(ctx context.Context, dir string, end format.LSN) error {
	files := &serverFiles{dir: dir}
	err := l.packForServer(ctx, files, end)
	if err = errors.Join(err, files.close()); err == nil {
		err = files.publish()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write the log for the server: %w", err), files.remove())
	}
	return errors.Join(backupdir.SyncDir(dir), os.Remove(filepath.Join(dir, redoName)), backupdir.SyncDir(dir))
}

func (l *redoLog) packForServer(ctx context.Context, files *serverFiles, end format.LSN) error {
	out, err := l.dialect.ForServer(files.create, l.head, end)
	if err != nil {
		return err
	}
	m := l.scan(ctx, l.start(), l.atLeast(end))
	defer m.close()
	for {
		t, err := m.next()
		if errors.Is(err, io.EOF) {
			return out.Close()
		}
		if err == nil {
			err = out.Add(l.dialect.Frame(nil, t.records))
		}
		if err != nil {
			return err
		}
	}
}

// serverFiles are the files of a log for a server, which get their names when all are
// written.
type serverFiles struct {
	dir   string
	paths []string
	f     *os.File // the last one
	w     *bufio.Writer
}

func (s *serverFiles) create(name string) (w io.Writer, err error) {
	if err := s.close(); err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	s.paths = append(s.paths, path)
	if s.f, err = os.OpenFile(path+backupdir.TempSuffix, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640); err != nil {
		return nil, err
	}
	s.w = bufio.NewWriterSize(s.f, 1<<20)
	return s.w, nil
}

// close ends the last file, if there is one.
func (s *serverFiles) close() error {
	if s.f == nil {
		return nil
	}
	err := errors.Join(s.w.Flush(), s.f.Sync(), s.f.Close())
	s.f = nil
	return err
}

// publish names the files. The first is last: with it, the log is there.
func (s *serverFiles) publish() error {
	for _, path := range slices.Backward(s.paths) {
		if err := os.Rename(path+backupdir.TempSuffix, path); err != nil {
			return err
		}
	}
	return backupdir.SyncDir(filepath.Dir(s.paths[0]))
}

// remove removes what has no name yet.
func (s *serverFiles) remove() (err error) {
	for _, path := range s.paths {
		if e := os.Remove(path + backupdir.TempSuffix); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// logSurvey is what a log says as a whole.
type logSurvey struct {
	dialect redolog.Dialect
	whole   completeness
	spaces  spaces.Histories
	traces  redolog.Traces // in their place, of an encrypted log
	bytes   int64
}

// read reads the log up to until and makes sure that it is whole.
func (s *logSurvey) read(ctx context.Context, l *redoLog, until format.LSN) error {
	m := l.scan(ctx, l.start(), l.atLeast(until))
	defer m.close()
	for {
		t, err := m.next()
		if errors.Is(err, io.EOF) {
			return s.whole.check(l.lsn(m.position()))
		}
		if err != nil {
			return err
		}
		s.bytes += int64(t.end - t.start)
		if err := s.see(l, t); err != nil {
			return l.damaged(t.start, err)
		}
	}
}

func (s *logSurvey) see(l *redoLog, t mtr) (err error) {
	at := l.lsn(t.start)
	if s.whole.hidden {
		return s.traces.Add(t.records, at, l.lsn(t.end))
	}
	files, err := s.dialect.Files(t.records)
	for _, f := range files {
		s.whole.see(at, f)
		if f.Op == redolog.FileCheckpoint {
			continue
		}
		s.spaces.Of(f.Space).See(at, f)
	}
	return err
}

// imported returns the tablespaces of the copy that the log deletes and changes
// afterwards, with the LSN of the last FILE_DELETE: DISCARD wrote it, and IMPORT,
// which writes nothing, brought a file back under the same id. silent says that
// nothing mentions such a file, as changes do with FILE_MODIFY.
func (s *logSurvey) imported(tr *spaces.Tree, silent bool) (map[format.SpaceID]format.LSN, error) {
	back := map[format.SpaceID]format.LSN{}
	for id, h := range s.spaces {
		if h.Deleted != 0 && (h.Alive || silent) {
			back[id] = h.Deleted
		}
	}
	if len(back) == 0 {
		return nil, nil
	}
	there := map[format.SpaceID]bool{}
	err := tr.Each("*.ibd", func(rel string) error {
		id, err := tr.SpaceID(rel)
		there[id] = true
		return err
	})
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(back, func(id format.SpaceID, _ format.LSN) bool { return !there[id] })
	return back, nil
}

// refuseImported refuses a backup with an encrypted log if a table may have been
// imported: nothing can then be kept from the server.
func (s *logSurvey) refuseImported(tr *spaces.Tree) error {
	if !s.traces.Deleted() {
		return nil
	}
	return tr.Each("*.ibd", func(rel string) error {
		id, err := tr.SpaceID(rel)
		if err != nil {
			return err
		}
		at, may, err := s.traces.Imported(id, "./"+rel, func(floor format.LSN) (innodb.Age, error) {
			return tr.Age(rel, floor)
		})
		if err != nil {
			return err
		}
		if may {
			return fmt.Errorf("%s (space %v): %w: at LSN %v stands what may be its DISCARD TABLESPACE, and a server's recovery would lose rows of it then; take another backup after the server's next checkpoint, or use --nothing-imported if no table was imported", rel, id, ErrImported, at)
		}
		return nil
	})
}

// hideBeforeImport replaces the log by one in which nothing is left of the pages
// that imported tablespaces had before, and of the end of these.
//
// A server's recovery does not see that a tablespace has had two lives (InnoDB
// log0recv.cc, fil_name_process). If the file has another name after the
// FILE_DELETE, all redo of that id counts, and the INIT_PAGE of CREATE TABLE
// makes pages anew that were imported: the table comes out empty. If it has the
// same name, no redo counts, and what changed after the import is lost. The same
// happens to a server that crashes before a checkpoint (seen with 10.11.19).
//
// No byte may move, as the LSN is a position. So records of pages become OPTION
// records, which recovery passes over, and FILE_DELETE, which has the same form,
// becomes FILE_MODIFY.
func (l *redoLog) hideBeforeImport(ctx context.Context, dir string, back map[format.SpaceID]format.LSN) error {
	path := filepath.Join(dir, redoName)
	temp := path + backupdir.TempSuffix
	if err := l.hideInCopy(ctx, temp, back); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", temp, err), os.Remove(temp))
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return backupdir.SyncDir(dir)
}

func (l *redoLog) hideInCopy(ctx context.Context, path string, back map[format.SpaceID]format.LSN) error {
	st, err := l.f.Stat()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, st.Mode().Perm())
	if err != nil {
		return err
	}
	if _, err = io.Copy(f, io.NewSectionReader(l.f, 0, st.Size())); err == nil {
		err = l.hideIn(ctx, f, back)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// hideIn writes the mini-transactions that change to their places in f.
func (l *redoLog) hideIn(ctx context.Context, f *os.File, back map[format.SpaceID]format.LSN) error {
	last := format.LSN(0)
	for _, at := range back {
		last = max(last, at)
	}
	m := l.scan(ctx, l.start(), l.atLeast(last+1))
	defer m.close()
	var records []byte
	for {
		t, err := m.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		records = append(records[:0], t.records...) // the log's memory is not to be written to
		changed, err := l.dialect.Hide(records, func(id format.SpaceID) bool {
			deleted, ok := back[id]
			return ok && l.lsn(t.start) <= deleted
		})
		if err != nil {
			return l.damaged(t.start, err)
		}
		if !changed {
			continue
		}
		if _, err := f.WriteAt(l.dialect.Frame(nil, records), l.offset(t.start)); err != nil {
			return err
		}
	}
}
