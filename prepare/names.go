package prepare

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
)

// settleManifest finds the tablespaces of a directory with a manifest. Files
// bear the names they had when the sender looked last; redo knows what happened
// to them from there to the backup's end.
func (tr *tree) settleManifest(m *format.Manifest, spaces map[format.SpaceID]*history, opt Options, rep *Report) error {
	var err error
	if m.Files, err = tr.followListed(m.Files, spaces, rep); err != nil {
		return err
	}
	byPath := make(map[string]*format.File)
	index := indexUnwritten(m.Files, spaces)
	var system []format.File
	var names []string
	for i, f := range m.Files {
		switch {
		case f.Kind == format.KindLeftOut:
			tr.leaveOut(&m.Files[i], index)
		case f.Kind == format.KindSystem:
			system = append(system, f)
		case f.Kind == format.KindTablespace || f.Kind == format.KindUndo:
			names = append(names, f.Path)
			byPath[f.Path] = &m.Files[i]
		}
	}
	if len(system) == 0 && m.Partial {
		return fmt.Errorf("%s: no InnoDB file was extracted, there is nothing to prepare", backupdir.ManifestName)
	}
	if len(system) == 0 {
		return fmt.Errorf("%s: no system tablespace: %w", backupdir.ManifestName, ErrIncomplete)
	}
	slices.SortFunc(system, func(a, b format.File) int { return cmp.Compare(firstPageOf(a), firstPageOf(b)) })
	tr.freshSystem = system[0].Space != nil && system[0].Space.Rebuild
	if err := tr.claimSystem(pathsOf(system)); err != nil {
		return err
	}
	for i, f := range tr.spaces[0].files {
		if err := tr.checkSize(&system[i], f.size, spaces[0]); err != nil {
			return err
		}
	}
	if err := tr.checkListed(system); err != nil {
		return err
	}
	var undo undoFiles
	err = tr.readFirstPages(opt.Parallel, names, func(rel string, p firstPage) error {
		if byPath[rel].Kind == format.KindUndo {
			undo.note(rel, p)
			if !p.written {
				return nil
			}
		}
		return tr.claimListed(byPath[rel], p, spaces, index)
	})
	if err != nil {
		return err
	}
	if err := errors.Join(undo.claimUnwritten(tr), tr.checkLeftOut()); err != nil {
		return err
	}
	return tr.followCreated(m, spaces)
}

// leaveOut takes note of a tablespace that is not there because nobody asked
// for it.
func (tr *tree) leaveOut(f *format.File, index nameIndex) {
	id := f.Space.ID
	if f.Space.Rebuild {
		id = index.find(f.Path)
	}
	if id != 0 {
		tr.leftOut[id] = f.Path
	}
}

func (tr *tree) checkLeftOut() error {
	for id, path := range tr.leftOut {
		if t := tr.spaces[id]; t != nil {
			return fmt.Errorf("%s: %s, and %s was left out: %w", backupdir.ManifestName, t, path, ErrDamaged)
		}
	}
	return nil
}

func (tr *tree) checkListed(system []format.File) error {
	for i := range system {
		if system[i].Space == nil || system[i].Space.ID != 0 {
			return fmt.Errorf("%s: %s is not of space 0: %w", backupdir.ManifestName, system[i].Path, ErrDamaged)
		}
		if system[i].Space.FirstPage != tr.spaces[0].files[i].first {
			return fmt.Errorf("%s: starts at page %v, the manifest says %v: %w", system[i].Path, tr.spaces[0].files[i].first, system[i].Space.FirstPage, ErrDamaged)
		}
		if system[i].Space.Encrypted {
			return fmt.Errorf("%s (space 0): %w", system[i].Path, ErrEncrypted)
		}
	}
	return nil
}

func firstPageOf(f format.File) format.PageNo {
	if f.Space == nil {
		return 0
	}
	return f.Space.FirstPage
}

func pathsOf(files []format.File) []string {
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.Path
	}
	return names
}

// claimListed checks one file against its entry in the manifest.
func (tr *tree) claimListed(f *format.File, p firstPage, spaces map[format.SpaceID]*history, index nameIndex) error {
	if f.Space == nil {
		return fmt.Errorf("%s: %s has no tablespace of %s: %w", backupdir.ManifestName, f.Kind, f.Path, ErrDamaged)
	}
	if f.Space.Encrypted {
		return fmt.Errorf("%s (space %v): %w", f.Path, f.Space.ID, ErrEncrypted)
	}
	if !p.written {
		id := f.Space.ID
		if id == 0 {
			id = index.find(f.Path)
		}
		if h := spaces[id]; h == nil || !h.created {
			return fmt.Errorf("%s (space %v): page 0 was never written and redo does not create it: %w", f.Path, id, ErrIncomplete)
		}
		_, err := tr.fresh(id, f.Path)
		return err
	}
	if p.id != f.Space.ID && !(f.Space.Rebuild && f.Space.ID == 0) {
		return fmt.Errorf("%s: space %v, the manifest says %v: %w", f.Path, p.id, f.Space.ID, ErrDamaged)
	}
	if err := tr.checkSize(f, p.size, spaces[p.id]); err != nil {
		return err
	}
	if other := tr.claim(f.Path, p); other != nil {
		return fmt.Errorf("space %v in two files, %s and %s: %w", p.id, other.files[0].path, f.Path, ErrDamaged)
	}
	return nil
}

// checkSize compares a file with its entry. It may be longer: an interrupted
// run has let it grow. It may be shorter where redo shrinks it, or has, and where
// an interrupted run had begun to make all of it from redo.
func (tr *tree) checkSize(f *format.File, size int64, h *history) error {
	if size >= f.Size || tr.recovered || f.Space.Rebuild || h != nil && len(h.trims) > 0 {
		return nil
	}
	return fmt.Errorf("%s: %d bytes, the manifest says %d: %w", f.Path, size, f.Size, ErrIncomplete)
}

// Endings of the files in which mariabackup says what DDL did to tables it had
// already copied, or not yet.
const (
	endNew = ".new" // complete copy of a table made or renamed meanwhile
	endDel = ".del" // the table was dropped
	endRen = ".ren" // holds the table's new name
)

// Endings of names that tables pass through while they are renamed: for a
// marker, and for what redo says. They differ because the first are finished
// when no marker is left, the second only when every table that redo renames
// was found: before, a name may still be another's.
const (
	endMarked = ".xbstream-marked"
	endMoved  = ".xbstream-moved"
)

// settleMarkers does what mariabackup's marker files say: drops first, then
// renames, then new tables, so that every name is free when it is taken. Each
// marker goes last, and renames pass through names of their own, so that it
// can be interrupted anywhere.
func (tr *tree) settleMarkers(rep *Report) error {
	err := tr.each("*"+endDel, func(rel string) error {
		table := strings.TrimSuffix(rel, endDel) + ".ibd"
		if err := tr.remove(table); err != nil {
			return err
		}
		rep.Deleted = append(rep.Deleted, table)
		return tr.remove(rel)
	})
	if err != nil {
		return err
	}
	if err := tr.each("*"+endRen, func(rel string) error { return tr.moveAsideAs(rel, rep) }); err != nil {
		return err
	}
	if err := tr.finishMoves(endMarked); err != nil {
		return err
	}
	return tr.each("*"+endNew, func(rel string) error {
		return tr.rename(rel, strings.TrimSuffix(rel, endNew)+".ibd")
	})
}

// moveAsideAs takes the table of a .ren marker out of the way, under the name
// it will have.
func (tr *tree) moveAsideAs(marker string, rep *Report) error {
	text, err := os.ReadFile(tr.path(marker))
	if err != nil {
		return err
	}
	to := strings.TrimSpace(string(text))
	if !strings.HasSuffix(to, ".ibd") {
		to += ".ibd"
	}
	local, ok := localName(to)
	if !ok {
		return fmt.Errorf("%s: new name %q: %w", marker, to, ErrDamaged)
	}
	from := strings.TrimSuffix(marker, endRen) + ".ibd"
	if tr.exists(from) {
		if err := tr.moveAside(from, local, endMarked, rep); err != nil {
			return err
		}
	}
	return tr.remove(marker)
}

func (tr *tree) moveAside(from, to, end string, rep *Report) error {
	if err := os.MkdirAll(filepath.Dir(tr.path(to)), 0o700); err != nil {
		return err
	}
	rep.Renamed = append(rep.Renamed, from+" -> "+to)
	return tr.rename(from, to+end)
}

// changing remembers the directories in which names change: they are to be synced.
func (tr *tree) changing(rels ...string) error {
	for _, rel := range rels {
		tr.changed[path.Dir(rel)] = true
	}
	if tr.interrupt != nil {
		return tr.interrupt()
	}
	return nil
}

func (tr *tree) rename(from, to string) error {
	if err := tr.changing(from, to); err != nil {
		return err
	}
	return os.Rename(tr.path(from), tr.path(to))
}

// syncChanged makes the names durable that came and went.
func (tr *tree) syncChanged() error {
	for rel := range tr.changed {
		if err := backupdir.SyncDir(tr.path(rel)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// finishMoves gives the tables that were moved aside their names.
func (tr *tree) finishMoves(end string) error {
	return tr.each("*.ibd"+end, func(rel string) error { return tr.rename(rel, strings.TrimSuffix(rel, end)) })
}

// glob returns the files of that name in the directories of databases, in order.
func (tr *tree) glob(pattern string) ([]string, error) {
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

// each calls do for every file that glob returns.
func (tr *tree) each(pattern string, do func(rel string) error) error {
	names, err := tr.glob(pattern)
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

func (tr *tree) exists(rel string) bool {
	_, err := os.Lstat(tr.path(rel))
	return err == nil
}

func (tr *tree) remove(rel string) error {
	if err := tr.changing(rel); err != nil {
		return err
	}
	if err := os.Remove(tr.path(rel)); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// settleFound finds the tablespaces of a directory without a manifest, as
// mariabackup leaves it, and gives them the names redo says they end with.
func (tr *tree) settleFound(dataFilePath string, spaces map[format.SpaceID]*history, opt Options, rep *Report) error {
	if tr.spaces[0] == nil {
		if err := tr.claimSystem(systemFiles(dataFilePath)); err != nil {
			return err
		}
	}
	if err := tr.claimUndo(); err != nil {
		return err
	}
	names, err := tr.glob("*.ibd")
	if err != nil {
		return err
	}
	moved, err := tr.glob("*.ibd" + endMoved)
	if err != nil {
		return err
	}
	names = append(names, moved...)
	var twins []twin
	err = tr.readFirstPages(opt.Parallel, names, func(rel string, p firstPage) error {
		if other := tr.claim(rel, p); other != nil {
			twins = append(twins, twin{other, rel, p})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, w := range twins {
		if err := tr.settleTwin(w, spaces[w.space.id]); err != nil {
			return err
		}
	}
	if err := tr.settleDeleted(spaces, rep); err != nil {
		return err
	}
	if err := tr.settleUnclaimed(spaces, rep); err != nil {
		return err
	}
	if err := tr.settleRenamed(spaces, rep); err != nil {
		return err
	}
	return tr.settleCreated(spaces)
}

// twin is a second file with the id of a tablespace: a table that was renamed
// while it was copied.
type twin struct {
	space *tablespace
	rel   string
	p     firstPage
}

// settleTwin keeps the file with the final name. Either will do: redo makes
// them equal.
func (tr *tree) settleTwin(w twin, h *history) error {
	drop := w.rel
	if final, ok := finalName(h); ok && final == w.rel {
		drop = w.space.files[0].path
		w.space.files[0] = dataFile{path: w.rel, size: w.p.size}
	}
	return tr.remove(drop)
}

// finalName is the name redo says a tablespace ends with.
func finalName(h *history) (string, bool) {
	if h == nil || !h.renamed {
		return "", false
	}
	return localName(h.name)
}

// settleDeleted removes the files of dropped tables. A table whose .frm exists
// was imported under the id it had (DISCARD logs FILE_DELETE, IMPORT nothing),
// unless another tablespace has the name now.
func (tr *tree) settleDeleted(spaces map[format.SpaceID]*history, rep *Report) error {
	taken := map[string]bool{}
	for _, h := range spaces {
		if name, ok := finalName(h); ok && h.alive {
			taken[name] = true
		}
	}
	for id, h := range spaces {
		t := tr.spaces[id]
		if t == nil || !h.gone() {
			continue
		}
		if name, ok := localName(h.name); ok && !taken[name] && tr.hasDefinition(name) {
			continue
		}
		if err := tr.remove(t.files[0].path); err != nil {
			return err
		}
		rep.Deleted = append(rep.Deleted, t.files[0].path)
		delete(tr.spaces, id)
	}
	return nil
}

// settleUnclaimed removes files without a page 0 whose tablespace was dropped.
func (tr *tree) settleUnclaimed(spaces map[format.SpaceID]*history, rep *Report) error {
	index := newNameIndex(spaces, func(id format.SpaceID) bool { return tr.spaces[id] != nil })
	for _, rel := range slices.Sorted(maps.Keys(tr.unclaimed)) {
		if !spaces[index.find(rel)].gone() {
			continue
		}
		if err := tr.remove(rel); err != nil {
			return err
		}
		delete(tr.unclaimed, rel)
		rep.Deleted = append(rep.Deleted, rel)
	}
	return nil
}

// hasDefinition says whether a table's .frm exists; those of partitions belong
// to the table before the #P#.
func (tr *tree) hasDefinition(rel string) bool {
	base := strings.TrimSuffix(strings.TrimSuffix(rel, endMoved), ".ibd")
	table := tableOf(base)
	return !strings.Contains(table, "/#sql") && tr.exists(table+".frm")
}

func (tr *tree) settleRenamed(spaces map[format.SpaceID]*history, rep *Report) error {
	for id, h := range spaces {
		t := tr.spaces[id]
		final, ok := finalName(h)
		if t == nil || !ok || t.files[0].path == final {
			continue
		}
		if strings.HasSuffix(t.files[0].path, endMoved) {
			continue // an interrupted run got so far
		}
		if err := tr.moveAside(t.files[0].path, final, endMoved, rep); err != nil {
			return err
		}
		t.files[0].path = final
	}
	for _, t := range tr.spaces {
		t.files[0].path = strings.TrimSuffix(t.files[0].path, endMoved)
	}
	return tr.finishMoves(endMoved)
}

// settleCreated makes room for tablespaces that only redo knows. One that has
// only a mention is missing; applying tells whether that matters.
func (tr *tree) settleCreated(spaces map[format.SpaceID]*history) error {
	for id, h := range spaces {
		if tr.spaces[id] != nil || !h.created || h.gone() {
			continue
		}
		name, ok := localName(h.name)
		if !ok {
			return fmt.Errorf("space %v: name %q in redo: %w", id, h.name, ErrDamaged)
		}
		if _, err := tr.fresh(id, name); err != nil {
			return err
		}
	}
	return nil
}

var undoName = regexp.MustCompile(`^(?:.*/)?undo(\d{3})$`)

// undoFiles are the undo tablespaces while they are being found. Page 0 of one
// that was being made anew says nothing; ids follow the numbers in the names.
type undoFiles struct {
	offset    int // id minus number, as in those that have a page 0
	unwritten map[string]int
}

func (u *undoFiles) note(rel string, p firstPage) {
	match := undoName.FindStringSubmatch(rel)
	if match == nil {
		return
	}
	n, err := strconv.Atoi(match[1])
	switch {
	case err != nil:
	case p.written:
		u.offset = int(p.id) - n
	case u.unwritten == nil:
		u.unwritten = map[string]int{rel: n}
	default:
		u.unwritten[rel] = n
	}
}

func (u *undoFiles) claimUnwritten(tr *tree) error {
	for rel, n := range u.unwritten {
		t, err := tr.fresh(format.SpaceID(n+u.offset), rel)
		if err != nil {
			return err
		}
		t.pages, t.known = tr.spaces[0].pages, tr.spaces[0].known // always alike
	}
	return nil
}

// claimUndo finds the undo tablespaces.
func (tr *tree) claimUndo() error {
	entries, err := os.ReadDir(tr.dir)
	if err != nil {
		return err
	}
	var undo undoFiles
	for _, e := range entries {
		if !undoName.MatchString(e.Name()) {
			continue
		}
		p, err := tr.readFirstPage(e.Name())
		if err != nil {
			return err
		}
		undo.note(e.Name(), p)
		if !p.written {
			continue
		}
		if other := tr.claim(e.Name(), p); other != nil {
			return fmt.Errorf("space %v in two files, %s and %s: %w", p.id, other.files[0].path, e.Name(), ErrDamaged)
		}
	}
	return undo.claimUnwritten(tr)
}
