package extract

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/xbstream/xbstream/format"
)

// assemble compares the manifest with what arrived and gives every file its
// name below tree.
func (t *target) assemble(ctx context.Context, got *arrival) (*Report, error) {
	a := &assembly{t: t, got: got, seen: format.NewEntries(got.foreign())}
	if t.opt.Only != nil {
		a.choice = NewChoice(t.opt.Only)
	}
	if a.choice != nil && !got.foreign() {
		if _, err := t.readManifest(ctx, func(f *format.File) error { a.choice.Survey(f); return nil }); err != nil {
			return nil, err
		}
	}
	m, err := t.readManifest(ctx, a.entry)
	if err != nil {
		return nil, err
	}
	if err := a.complete(m); err != nil {
		return nil, err
	}
	if a.choice != nil {
		if err := t.opt.Chosen(); err != nil {
			return nil, err
		}
	}
	if err := a.checkMappings(); err != nil {
		return nil, err
	}
	if got.foreign() {
		err = a.foreign()
	} else {
		err = a.keepManifest(ctx, m)
	}
	if err != nil {
		return nil, err
	}
	if m.Backup != nil {
		if err := a.redoLog(m); err != nil {
			return nil, err
		}
		if err := a.infoFiles(m); err != nil {
			return nil, err
		}
	}
	if err := a.attributes(ctx, m); err != nil {
		return nil, err
	}
	if err := t.chmodAll(); err != nil {
		return nil, err
	}
	t.last = []string{logName, logDir, a.system}
	rep := &Report{Manifest: m, Totals: got.totals, Files: a.files, Moved: a.moved}
	for _, p := range t.places {
		rep.Mapped = append(rep.Mapped, p.Mapped)
	}
	return rep, nil
}

// readManifest calls each for every entry of the manifest that arrived.
func (t *target) readManifest(ctx context.Context, each func(*format.File) error) (*format.Manifest, error) {
	if _, err := t.manifest.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return format.DecodeManifest(t.manifest, func(f *format.File) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		return each(f)
	})
}

// logName is the name of MariaDB's redo log, which no file of the manifest may
// bear.
const logName = "ib_logfile0"

// logDir is where MySQL has its redo log: recovery makes it.
const logDir = "#innodb_redo"

type assembly struct {
	t      *target
	got    *arrival
	files  int    // named and kept
	moved  int    // of these, from outside of the source's data directory
	system string // top-level name of the first file of the system tablespace
	seen   *format.Entries
	choice *Choice // of what is kept, nil for all
	// sources are the first DATA DIRECTORYs.
	sources []string
}

// entry makes one entry of the manifest real.
func (a *assembly) entry(f *format.File) error {
	if err := a.seen.Add(f); err != nil {
		return incomplete("%w", err)
	}
	p := treeDir + "/" + f.Path
	if !f.Arrived() {
		return nil
	}
	a.note(f)
	if a.choice != nil && !a.choice.Keeps(f) {
		return a.leave(f)
	}
	if f.Kind == format.KindDir {
		return a.makeDir(f, p)
	}
	if err := a.got.Take(f); err != nil {
		return incomplete("%w", err)
	}
	if err := mkdirAll(a.t.stage, f, path.Dir(p)); err != nil {
		return err
	}
	if _, err := a.t.stage.Lstat(p); !errors.Is(err, fs.ErrNotExist) {
		return incomplete("two files are called %q", f.Path)
	}
	if to := a.t.placeOf(f.Kind, f.Source); to != nil {
		a.files++
		return a.elsewhere(f, to)
	}
	if err := a.t.stage.Rename(partName(f.No), p); err != nil {
		return fmt.Errorf("file %q: %w", f.Path, err)
	}
	if f.Kind == format.KindSystem && f.Space.FirstPage == 0 {
		a.system = f.Path
	}
	a.files++
	if f.Source != "" {
		a.moved++
	}
	return a.t.stage.Chmod(p, fs.FileMode(f.Mode)&fs.ModePerm)
}

// makeDir makes a directory, which may be there already because something in it
// came first.
func (a *assembly) makeDir(f *format.File, p string) error {
	if st, err := a.t.stage.Lstat(p); err == nil && !st.IsDir() {
		return incomplete("%q is a file and a directory", f.Path)
	}
	return mkdirAll(a.t.stage, f, p)
}

// mkdirAll makes p and what is above it, for f.
func mkdirAll(stage *os.Root, f *format.File, p string) error {
	err := stage.MkdirAll(p, 0o700)
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fs.ErrExist) {
		return incomplete("%q lies below a file", f.Path)
	}
	return err
}

// leave passes over what is not kept, whether it arrived or not.
func (a *assembly) leave(f *format.File) error {
	if f.Kind == format.KindDir {
		return nil
	}
	if !a.got.Has(f.No) {
		return nil
	}
	if err := a.got.Take(f); err != nil {
		return incomplete("%w", err)
	}
	return nil
}

// keepManifest puts the manifest into the tree, as it came or, when files were
// left out, without them.
func (a *assembly) keepManifest(ctx context.Context, m *format.Manifest) error {
	name := treeDir + "/" + format.ManifestName
	if a.t.opt.Only == nil {
		return a.t.stage.Rename(manifestPart, name)
	}
	if a.files == 0 {
		return fmt.Errorf("%w: no file of the archive was asked for", ErrNothing)
	}
	m.Partial, m.Discarded = true, 0
	f, err := a.t.stage.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	err = a.copyKept(ctx, w, m)
	return errors.Join(err, w.Flush(), f.Close())
}

// copyKept writes a manifest of the files that are kept, and of the tablespaces
// that are not: their redo came along.
func (a *assembly) copyKept(ctx context.Context, w io.Writer, m *format.Manifest) error {
	enc, err := format.NewManifestEncoder(w, m)
	if err != nil {
		return err
	}
	_, err = a.t.readManifest(ctx, func(f *format.File) error {
		if !a.choice.Keeps(f) {
			f = leftOut(f)
		}
		if f == nil {
			return nil
		}
		return enc.Add(f)
	})
	if err != nil {
		return err
	}
	return enc.Close()
}

// complete makes sure that nothing is missing and nothing is left over.
func (a *assembly) complete(m *format.Manifest) error {
	check := a.got.Check
	if a.t.opt.Only != nil {
		check = a.got.CheckPart
	}
	if err := check(m, a.got.id); err != nil {
		return incomplete("%w", err)
	}
	if err := a.seen.Check(m, false); err != nil {
		return incomplete("%w", err)
	}
	return nil
}

// redoLog puts the head in front of the joined redo and the log in its place.
func (a *assembly) redoLog(m *format.Manifest) error {
	head, err := a.t.opt.RedoHead(m.Backup)
	if errors.Is(err, format.ErrUnsupported) {
		return err
	}
	if err != nil {
		return incomplete("%w", err)
	}
	if len(head) > RedoStart {
		return fmt.Errorf("the head of the redo log has %d bytes, there is room for %d", len(head), RedoStart)
	}
	f, err := a.t.stage.OpenFile(redoPart, os.O_CREATE|os.O_WRONLY, 0o600) // a log may have no redo
	if err != nil {
		return err
	}
	_, err = f.WriteAt(head, 0)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write redo: %w", err)
	}
	return a.t.stage.Rename(redoPart, treeDir+"/"+logName)
}

func (a *assembly) infoFiles(m *format.Manifest) error {
	for _, f := range infoFiles(m) {
		if err := a.t.stage.WriteFile(treeDir+"/"+f.name, []byte(f.text), 0o640); err != nil {
			return err
		}
	}
	return nil
}

// attributes reads the manifest again, once everything has its place, and gives
// directories their modes and, in an archive of ordinary files, all entries
// their times. A server's files keep the time of the restore: to those who look
// at a restored data directory it says more.
func (a *assembly) attributes(ctx context.Context, m *format.Manifest) error {
	_, err := a.t.readManifest(ctx, func(f *format.File) error {
		if !f.Arrived() || a.choice != nil && !a.choice.Keeps(f) {
			return nil
		}
		p := treeDir + "/" + f.Path
		if f.Kind == format.KindDir {
			// The owner can always work in it: the tree is not published yet.
			if err := a.t.stage.Chmod(p, fs.FileMode(f.Mode)&fs.ModePerm|0o700); err != nil {
				return err
			}
		}
		if m.Backup != nil || f.ModTime.IsZero() {
			return nil
		}
		return a.t.stage.Chtimes(p, f.ModTime, f.ModTime)
	})
	return err
}

// chmodAll opens the files extraction itself wrote to the group, as the
// server's files are.
func (t *target) chmodAll() error {
	for _, name := range append([]string{logName, format.ManifestName}, infoNames...) {
		if err := t.stage.Chmod(treeDir+"/"+name, 0o640); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
