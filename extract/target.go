package extract

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// partialPrefix begins the name of a staging directory. A target that holds
// one is not a finished restore.
const partialPrefix = ".xbstream-partial-"

// The entries of a staging directory.
const (
	partsDir     = "parts"    // files under their numbers
	treeDir      = "tree"     // the tree under its final names
	redoPart     = "redo"     // the joined redo log
	manifestPart = "manifest" // the manifest as it came
	publishPart  = "publish"  // names that are about to be moved into the target
	targetPart   = "target"   // beside the target: path of the target's staging directory
)

// target is the directory that is to hold the result, and its staging directory.
type target struct {
	opt      Options
	made     bool     // the directory itself is ours
	root     *os.Root // the target
	lock     *os.File // the target, held against other extractions into it
	stage    *os.Root // the staging directory
	name     string   // of the staging directory
	manifest *os.File
	owner    *Owner   // of all that is restored; nil keeps what it is
	last     []string // top-level entries that are published last, in order
	names    []string // top-level entries, in the order in which they are published
	complete bool     // everything was published

	// places are where tables with a DATA DIRECTORY go, and others the
	// directories of these; main is the target they are beside.
	places []*place
	others []*target
	main   *target
}

// openTarget refuses what cannot be a target and makes the staging directory.
func openTarget(opt Options) (*target, error) {
	if opt.Dir == "" {
		return nil, fmt.Errorf("%w: no directory given", ErrTarget)
	}
	t := &target{opt: opt}
	if err := t.open(); err != nil {
		t.discard()
		return nil, err
	}
	return t, nil
}

func (t *target) open() error {
	if err := t.openDir(); err != nil {
		return err
	}
	left, err := inspect(t.root.FS(), t.opt)
	if err != nil {
		return err
	}
	if err := t.openPlaces(); err != nil {
		return err
	}
	if err := t.clear(left); err != nil {
		return err
	}
	if err := t.makeStage(); err != nil {
		return err
	}
	for _, b := range t.others {
		b.opt.Owner = t.owner
		if err := b.makeStage(); err != nil {
			return err
		}
		if err := b.nameTarget(); err != nil {
			return err
		}
	}
	return nil
}

func (t *target) openDir() error {
	switch err := os.Mkdir(t.opt.Dir, 0o700); {
	case err == nil:
		t.made = true
	case !errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w: %w", ErrTarget, err)
	}
	root, err := os.OpenRoot(t.opt.Dir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTarget, err)
	}
	t.root = root
	if t.lock, err = root.Open("."); err != nil {
		return fmt.Errorf("%w: %w", ErrTarget, t.located(err))
	}
	return busy(lockDir(t.lock), t.opt.Dir)
}

// errBusy says that another extraction is at work in a directory. Without the
// lock each of two could take the other's staging directory for a leftover, or
// publish in the place of the other's files.
var errBusy = errors.New("another extraction into it is running")

func busy(err error, dir string) error {
	if err != nil {
		return fmt.Errorf("%w: directory %q: %w", ErrTarget, dir, err)
	}
	return nil
}

// clear removes what a killed extraction left.
func (t *target) clear(left []string) error {
	for _, name := range left {
		t.opt.Log.Info("removing an unfinished extraction", "path", filepath.Join(t.opt.Dir, name))
		if err := t.root.RemoveAll(name); err != nil {
			return fmt.Errorf("%w: remove %q: %w", ErrTarget, filepath.Join(t.opt.Dir, name), err)
		}
	}
	return nil
}

// inspect refuses a target for what it holds. It returns what killed extractions
// left there, staging directories last: they say what is left over.
func inspect(dir fs.FS, opt Options) (left []string, err error) {
	entries, err := fs.ReadDir(dir, ".")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTarget, err)
	}
	var stages []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), partialPrefix) {
			stages = append(stages, e.Name())
			left = append(left, published(dir, e.Name())...)
		}
	}
	if len(stages) > 0 && !opt.RemovePartial {
		return nil, fmt.Errorf("%w: directory %q holds %q, left by an extraction that did not finish; --remove-partial removes it", ErrTarget, opt.Dir, stages[0])
	}
	for _, e := range entries {
		if !opt.IntoNonEmpty && !slices.Contains(stages, e.Name()) && !slices.Contains(left, e.Name()) && !emptyLostFound(dir, e) {
			return nil, fmt.Errorf("%w: directory %q is not empty: it holds %q; --into-non-empty accepts other files if the backup needs none of their names", ErrTarget, opt.Dir, e.Name())
		}
	}
	return append(left, stages...), nil
}

// emptyLostFound says whether e is what mke2fs makes in every new file system, and
// fsck has put nothing there. Only root can look into it.
func emptyLostFound(dir fs.FS, e fs.DirEntry) bool {
	if e.Name() != "lost+found" || !e.IsDir() {
		return false
	}
	in, err := fs.ReadDir(dir, e.Name())
	return len(in) == 0 && (err == nil || errors.Is(err, fs.ErrPermission))
}

// published returns what the extraction with that staging directory had moved
// into the target, or into a directory beside it, when it was killed. If it had
// moved everything, the target is complete and may be in use: then nothing of it
// is a leftover. So it is if nobody can tell, because the target is gone.
func published(dir fs.FS, stage string) (names []string) {
	all := announced(dir, stage)
	if all == nil || finished(dir, stage, all) {
		return nil
	}
	for _, name := range all {
		if fs.ValidPath(name) && !strings.Contains(name, "/") && exists(dir, name) {
			names = append(names, name)
		}
	}
	return names
}

// announced returns what was written down by announce; nil if it had not come to
// that.
func announced(dir fs.FS, stage string) []string {
	list, err := fs.ReadFile(dir, stage+"/"+publishPart)
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(list), "\n"), "\n")
}

func finished(dir fs.FS, stage string, all []string) bool {
	main, err := fs.ReadFile(dir, stage+"/"+targetPart)
	if err != nil { // this is the target
		return exists(dir, all[len(all)-1])
	}
	target, stage := filepath.Split(string(main))
	dir = os.DirFS(target)
	if !strings.HasPrefix(stage, partialPrefix) || !exists(dir, stage) {
		return true
	}
	all = announced(dir, stage)
	return all != nil && exists(dir, all[len(all)-1])
}

func exists(dir fs.FS, name string) bool {
	_, err := fs.Lstat(dir, name)
	return err == nil
}

func (t *target) makeStage() error {
	name := partialPrefix + strings.ToLower(rand.Text()[:10])
	if err := t.root.Mkdir(name, 0o700); err != nil {
		return fmt.Errorf("%w: %w", ErrTarget, t.located(err))
	}
	t.name = name
	stage, err := t.root.OpenRoot(t.name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTarget, t.located(err))
	}
	t.stage = stage
	for _, d := range []string{partsDir, treeDir} {
		if err := stage.Mkdir(d, 0o700); err != nil {
			return fmt.Errorf("%w: %w", ErrTarget, t.located(err))
		}
	}
	if t.manifest, err = stage.OpenFile(manifestPart, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); err != nil {
		return t.located(err)
	}
	return t.chooseOwner()
}

// nameTarget writes down, beside the target, which it is.
func (t *target) nameTarget() error {
	main, err := filepath.Abs(filepath.Join(t.main.opt.Dir, t.main.name))
	if err != nil {
		return err
	}
	f, err := t.stage.OpenFile(targetPart, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return t.within(err)
	}
	_, err = f.WriteString(main)
	return t.within(errors.Join(err, f.Sync(), f.Close()))
}

// located names the target in errors of an os.Root, which have only the path below
// it. Those of its files have the path of the target already.
func (t *target) located(err error) error {
	if _, ok := errors.AsType[*elsewhereError](err); ok {
		return err
	}
	var path string
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		path = e.Path
	} else if e, ok := errors.AsType[*os.LinkError](err); ok {
		path = e.Old
	}
	target := filepath.Clean(t.opt.Dir)
	path = filepath.Clean(path) // "." for none, which is the target's own
	if path == "." || filepath.IsAbs(path) || path == target || strings.HasPrefix(path, target+string(filepath.Separator)) {
		return err
	}
	return fmt.Errorf("in %s: %w", t.opt.Dir, err)
}

// treePath is the tree's path for those who cannot work through an os.Root.
func (t *target) treePath() string { return filepath.Join(t.opt.Dir, t.name, treeDir) }

// discard removes the staging directory, if it is still there, and the target
// too if it was made here and holds nothing. It is the end of every extraction,
// good or bad; after a good one there is nothing left for it to remove.
func (t *target) discard() {
	for _, b := range t.others {
		b.discard()
	}
	if t.manifest != nil {
		t.manifest.Close()
	}
	if t.stage != nil {
		t.stage.Close()
	}
	if t.root != nil {
		if t.name != "" {
			if err := t.root.RemoveAll(t.name); err != nil {
				t.opt.Log.Warn("staging directory could not be removed", "dir", filepath.Join(t.opt.Dir, t.name), "error", err)
			}
		}
		if t.complete {
			// A crash must not bring the staging directory back to
			// a finished target.
			if err := syncDir(t.opt.Dir); err != nil {
				t.opt.Log.Warn("target could not be synced", "dir", t.opt.Dir, "error", err)
			}
		}
		t.root.Close()
	}
	if t.lock != nil {
		t.lock.Close()
	}
	if t.made {
		os.Remove(t.opt.Dir) // fails, as it should, when something is in it
	}
}

// publish syncs the tree and moves its entries into the target, the system
// tablespace last: a server finds a log without a system tablespace in a target
// that was published halfway, and refuses it. What goes beside the target goes
// first.
func (t *target) publish() error {
	if err := t.linkFiles(); err != nil {
		return err
	}
	all := append(slices.Clone(t.others), t)
	for _, d := range all {
		if err := d.ready(); err != nil {
			return d.within(err)
		}
	}
	for i, d := range all {
		if err := d.moveAll(); err != nil {
			for _, d := range slices.Backward(all[:i]) {
				d.takeBack(d.names)
			}
			return d.within(err)
		}
	}
	for _, d := range all {
		d.made, d.complete = d.made && len(d.names) == 0, true
	}
	return syncDir(t.opt.Dir)
}

// ready makes sure that all can be published, and writes down what is about to
// be.
func (t *target) ready() error {
	if err := t.own(); err != nil {
		return err
	}
	if err := syncTree(t.treePath()); err != nil {
		return fmt.Errorf("sync %q: %w", t.treePath(), err)
	}
	entries, err := fs.ReadDir(t.stage.FS(), treeDir)
	if err != nil {
		return err
	}
	slices.SortStableFunc(entries, func(a, b fs.DirEntry) int {
		return cmp.Compare(slices.Index(t.last, a.Name()), slices.Index(t.last, b.Name()))
	})
	// All collisions are found before the first entry moves.
	for _, e := range entries {
		if _, err := t.root.Lstat(e.Name()); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %q exists in %q", ErrTarget, e.Name(), t.opt.Dir)
		}
		t.names = append(t.names, e.Name())
	}
	if err := t.announce(t.names); err != nil {
		return err
	}
	if t.made {
		return syncDir(filepath.Dir(t.opt.Dir))
	}
	return nil
}

// moveAll publishes the entries.
func (t *target) moveAll() error {
	for i, name := range t.names {
		if err := t.move(name, t.main == nil && i == len(t.names)-1); err != nil {
			t.takeBack(t.names[:i])
			return fmt.Errorf("publish %q: %w", name, err)
		}
	}
	if t.main == nil {
		return nil // the caller syncs
	}
	return syncDir(t.opt.Dir)
}

// move publishes one entry. The last one says that the target is complete: the
// others must be durable before it is there.
func (t *target) move(name string, last bool) error {
	if last {
		if err := syncDir(t.opt.Dir); err != nil {
			return err
		}
	}
	return t.root.Rename(t.name+"/"+treeDir+"/"+name, name)
}

// announce writes down, durably, what is about to be moved, for whoever finds the
// staging directory if the process or the machine stops before everything was. Names are one to a
// line: no path of an archive has a line end in it that got this far.
func (t *target) announce(names []string) error {
	for _, name := range names {
		if strings.Contains(name, "\n") {
			return fmt.Errorf("publish %q: line end in a name", name)
		}
	}
	f, err := t.stage.OpenFile(publishPart, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strings.Join(names, "\n") + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return syncDir(filepath.Join(t.opt.Dir, t.name))
}

// takeBack undoes what was published, so that an error leaves nothing.
func (t *target) takeBack(names []string) {
	for _, name := range slices.Backward(names) {
		if err := t.root.Rename(name, t.name+"/"+treeDir+"/"+name); err != nil {
			t.opt.Log.Warn("could not be taken back", "path", filepath.Join(t.opt.Dir, name), "error", err)
		}
	}
}
