package spaces

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/xbstream/xbstream/internal/backupdir"
)

// Endings of names that tables pass through while they are renamed: for a
// marker, and for what redo says. They differ because the first are finished
// when no marker is left, the second only when every table that redo renames
// was found: before, a name may still be another's.
const (
	endMarked = ".xbstream-marked"
	endMoved  = ".xbstream-moved"
)

func (tr *Tree) moveAside(from, to, end string) error {
	if err := os.MkdirAll(filepath.Dir(tr.Path(to)), 0o700); err != nil {
		return err
	}
	tr.Changes.Renamed = append(tr.Changes.Renamed, from+" -> "+to)
	return tr.rename(from, to+end)
}

// finishMoves gives the tables that were moved aside their names.
func (tr *Tree) finishMoves(end string) error {
	return tr.Each("*.ibd"+end, func(rel string) error { return tr.rename(rel, strings.TrimSuffix(rel, end)) })
}

func (tr *Tree) rename(from, to string) error {
	if err := tr.changing(from, to); err != nil {
		return err
	}
	return os.Rename(tr.Path(from), tr.Path(to))
}

func (tr *Tree) remove(rel string) error {
	if err := tr.changing(rel); err != nil {
		return err
	}
	if err := os.Remove(tr.Path(rel)); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// changing remembers the directories in which names change: they are to be synced.
func (tr *Tree) changing(rels ...string) error {
	for _, rel := range rels {
		tr.changed[path.Dir(rel)] = true
	}
	if tr.BeforeChange != nil {
		return tr.BeforeChange()
	}
	return nil
}

// SyncNames makes the names durable that came and went.
func (tr *Tree) SyncNames() error {
	for rel := range tr.changed {
		if err := backupdir.SyncDir(tr.Path(rel)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (tr *Tree) exists(rel string) bool {
	_, err := os.Lstat(tr.Path(rel))
	return err == nil
}

// Glob returns the regular files in the directories of databases whose names match
// a pattern of path.Match: db/name, in order.
func (tr *Tree) Glob(pattern string) ([]string, error) {
	entries, err := os.ReadDir(tr.dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, db := range entries {
		if !db.IsDir() {
			continue
		}
		files, err := os.ReadDir(filepath.Join(tr.dir, db.Name()))
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			ok, err := path.Match(pattern, f.Name())
			if err != nil {
				return nil, err
			}
			if ok && f.Type().IsRegular() {
				out = append(out, db.Name()+"/"+f.Name())
			}
		}
	}
	return out, nil
}

// Each calls do for every file that Glob returns, up to its first error.
func (tr *Tree) Each(pattern string, do func(rel string) error) error {
	names, err := tr.Glob(pattern)
	if err != nil {
		return err
	}
	for _, rel := range names {
		if err := do(rel); err != nil {
			return err
		}
	}
	return nil
}
