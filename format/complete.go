package format

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"path"
	"slices"
	"strings"
)

// This file holds what SPEC.md §5.2 to §5.4 demand across the entries of a
// manifest. Everyone who reads one goes through it: to extract, to list, to
// verify, or for what it says of the backup.

// Entries takes the entries of one manifest, and finds what cannot be right: by
// itself, or beside another one. It keeps sixteen bytes for each, and eight for
// each directory.
type Entries struct {
	foreign bool
	seed    maphash.Seed
	paths   []uint64 // hashes; the lowest bit is set in that of a directory
	dirs    []uint64 // hashes of the directories that other paths lie in
	sorted  int      // of dirs, without doubles
	last    string   // directory of the path before
	spaces  []uint64 // space id and first page
	system  []systemFile
	systems int
	link    string // the first link file
	own     string // the first file that only a MySQL server makes
}

type systemFile struct {
	path  string
	first PageNo
}

// maxDirs bounds the directories that paths lie in.
const maxDirs = 1 << 22

// NewEntries returns an empty Entries. An archive of another format, foreign, may
// have files of the names that a reader would give to its own.
func NewEntries(foreign bool) *Entries {
	return &Entries{foreign: foreign, seed: maphash.MakeSeed()}
}

// Add takes an entry, and refuses one that no manifest may have. A file that had
// no page 0 yet says nothing of its tablespace.
func (e *Entries) Add(f *File) error {
	if err := CheckName(f.Path, e.foreign); err != nil {
		return err
	}
	h := maphash.String(e.seed, f.Path) &^ 1
	if f.Kind == KindDir {
		h |= 1
	}
	e.paths = append(e.paths, h)
	if err := e.addDirs(path.Dir(f.Path)); err != nil {
		return err
	}
	if f.Space != nil && f.Kind != KindFile && !f.Space.Rebuild {
		e.spaces = append(e.spaces, uint64(f.Space.ID)<<32|uint64(f.Space.FirstPage))
	}
	if e.link == "" && f.Arrived() && path.Ext(f.Path) == ".isl" {
		e.link = f.Path
	}
	if e.own == "" && f.Arrived() && ofMySQLServer(f.Path) {
		e.own = f.Path
	}
	if f.Kind == KindSystem {
		if e.systems++; e.systems <= maxDataFiles {
			e.system = append(e.system, systemFile{f.Path, f.Space.FirstPage})
		}
	}
	return nil
}

// addDirs takes note of a directory and all above it, but for those it has in
// common with the path before.
func (e *Entries) addDirs(dir string) error {
	if dir == e.last || dir == "." {
		return nil
	}
	common := 0
	for common < min(len(dir), len(e.last)) && dir[common] == e.last[common] {
		common++
	}
	e.last = dir
	var h maphash.Hash
	h.SetSeed(e.seed)
	for i := 0; i <= len(dir); i++ {
		if (i == len(dir) || dir[i] == '/') && i >= common {
			e.dirs = append(e.dirs, h.Sum64()&^1)
		}
		if i < len(dir) {
			h.WriteByte(dir[i])
		}
	}
	if len(e.dirs) > 2*e.sorted+1<<16 {
		slices.Sort(e.dirs)
		e.dirs = slices.Compact(e.dirs)
		if e.sorted = len(e.dirs); e.sorted > maxDirs {
			return fmt.Errorf("more than %d directories", maxDirs)
		}
	}
	return nil
}

// Check returns an error when two entries exclude each other, or do not fit what
// m says. That two paths have the same hash by chance is as likely as damage that
// no checksum finds. partial says that files of the archive were left out.
func (e *Entries) Check(m *Manifest, partial bool) error {
	slices.Sort(e.paths)
	for i := 1; i < len(e.paths); i++ {
		if e.paths[i]>>1 == e.paths[i-1]>>1 {
			return errors.New("two entries have the same path")
		}
	}
	if e.below() {
		return errors.New("a path lies below a file")
	}
	if k, twice := double(e.spaces); twice {
		return fmt.Errorf("two files of tablespace %v begin with page %v", SpaceID(k>>32), PageNo(uint32(k)))
	}
	if m.Backup == nil {
		return nil
	}
	if e.link != "" {
		return fmt.Errorf("%q: %w", e.link, errLink)
	}
	if e.own != "" && m.Backup.Server.Dialect == DialectMySQL {
		return fmt.Errorf("%q must not be in a backup: MySQL makes one for each data directory", e.own)
	}
	return e.checkSystem(&m.Backup.Server, partial)
}

// ofMySQLServer says whether a path is that of a file, or a directory, that a MySQL
// server makes for itself: its identity, its redo log, pages that it wrote twice,
// temporary tables. What a backup brought of them would harm the copy.
func ofMySQLServer(p string) bool {
	top, _, below := strings.Cut(p, "/")
	switch top {
	case "#innodb_redo", "#innodb_temp":
		return true
	case "auto.cnf", "ibtmp1":
		return !below
	}
	return !below && strings.HasPrefix(top, "#ib_") && strings.HasSuffix(top, "dblwr")
}

// below says whether one of the directories is a file. The paths are sorted.
func (e *Entries) below() bool {
	for _, d := range e.dirs {
		if _, found := slices.BinarySearch(e.paths, d); found {
			return true
		}
	}
	return false
}

// checkSystem compares the files of the system tablespace with what the server is
// told of them: it would make a file where one is missing.
func (e *Entries) checkSystem(s *Server, partial bool) error {
	if e.systems == 0 && partial {
		return nil
	}
	slices.SortFunc(e.system, func(a, b systemFile) int { return int(int64(a.first) - int64(b.first)) })
	if e.systems == 0 || e.system[0].first != 0 {
		return errors.New("no system tablespace")
	}
	files, err := s.SystemFiles()
	if err != nil {
		return err
	}
	same := len(files) == e.systems
	for i := 0; same && i < len(files); i++ {
		same = files[i].Path == e.system[i].path
	}
	if !same {
		return fmt.Errorf("innodb_data_file_path %q does not name the files of the system tablespace: %s", clip(FormatDataFiles(files)), e.systemNames())
	}
	return nil
}

func (e *Entries) systemNames() string {
	var names []string
	for _, f := range e.system[:min(len(e.system), 5)] {
		names = append(names, fmt.Sprintf("%q", clip(f.path)))
	}
	return strings.Join(names, ", ")
}

// DecodeRestored is DecodeManifest for the manifest of a restored directory, and
// checks what its entries say together.
func DecodeRestored(r io.Reader, each func(*File) error) (*Manifest, error) {
	entries := NewEntries(false)
	m, err := DecodeManifest(r, func(f *File) error {
		if err := entries.Add(f); err != nil {
			return fmt.Errorf("%w: manifest: %w", ErrDamaged, err)
		}
		return each(f)
	})
	if err != nil {
		return nil, err
	}
	if err := entries.Check(m, m.Partial); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrDamaged, err)
	}
	return m, nil
}

// double sorts s and returns an element that is in it twice.
func double(s []uint64) (k uint64, twice bool) {
	slices.Sort(s)
	for i := 1; i < len(s); i++ {
		if s[i] == s[i-1] {
			return s[i], true
		}
	}
	return 0, false
}

// CheckRedo compares the redo that arrived, from and to, both 0 when there was
// none, with what the manifest says of it.
func (m *Manifest) CheckRedo(from, to RedoPosition) error {
	if m.Backup == nil {
		if to != 0 {
			return errors.New("redo arrived, but it describes no backup")
		}
		return nil
	}
	redo := &m.Backup.Redo
	wantFrom, ok1 := redo.Position(redo.CheckpointLSN)
	wantTo, ok2 := redo.Position(redo.EndLSN)
	switch {
	case !ok1 || !ok2:
		return fmt.Errorf("no redo of the format %s can be from LSN %d to %d", redo.Format, redo.CheckpointLSN, redo.EndLSN)
	case to == 0 && redo.empty():
	case to == 0:
		return fmt.Errorf("redo from LSN %d to %d announced, none arrived", redo.CheckpointLSN, redo.EndLSN)
	case from != wantFrom || to != wantTo:
		return fmt.Errorf("redo from LSN %d to %d announced (positions %d to %d), positions %d to %d arrived", redo.CheckpointLSN, redo.EndLSN, wantFrom, wantTo, from, to)
	}
	if redo.Format == RedoMySQL {
		if redo.CheckpointEndLSN != redo.CheckpointLSN {
			return fmt.Errorf("checkpoint_end_lsn %d is not the checkpoint LSN %d", redo.CheckpointEndLSN, redo.CheckpointLSN)
		}
		return nil
	}
	if redo.CheckpointEndLSN < redo.CheckpointLSN || redo.CheckpointEndLSN >= redo.EndLSN {
		return fmt.Errorf("FILE_CHECKPOINT at LSN %d is outside the redo from %d to %d", redo.CheckpointEndLSN, redo.CheckpointLSN, redo.EndLSN)
	}
	return nil
}
