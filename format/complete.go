package format

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
)

// This file holds what SPEC.md §5.2 and §5.4 demand across the entries of a
// manifest, for all who compare it with what arrived.

// Entries remembers the entries of a manifest, sixteen bytes each, to find two
// that cannot both be right: with the same path, or for the same pages of a
// tablespace, where redo would be applied to one of them only.
type Entries struct {
	seed   maphash.Seed
	paths  []uint64 // hashes
	spaces []uint64 // space id and first page
}

// NewEntries returns an empty Entries.
func NewEntries() *Entries { return &Entries{seed: maphash.MakeSeed()} }

// Add takes note of an entry. A file that had no page 0 yet says nothing of its
// tablespace.
func (e *Entries) Add(f *File) {
	e.paths = append(e.paths, maphash.String(e.seed, f.Path))
	if f.Space != nil && f.Kind != KindFile && !f.Space.Rebuild {
		e.spaces = append(e.spaces, uint64(f.Space.ID)<<32|uint64(f.Space.FirstPage))
	}
}

// Check returns an error when two entries exclude each other. That two paths
// have the same hash by chance is as likely as damage that no checksum finds.
func (e *Entries) Check() error {
	if _, twice := double(e.paths); twice {
		return errors.New("two entries have the same path")
	}
	if k, twice := double(e.spaces); twice {
		return fmt.Errorf("two files of tablespace %v begin with page %v", SpaceID(k>>32), PageNo(uint32(k)))
	}
	return nil
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
func (m *Manifest) CheckRedo(from, to LSN) error {
	if m.Backup == nil {
		if to != 0 {
			return errors.New("redo arrived, but it describes no backup")
		}
		return nil
	}
	redo := m.Backup.Redo
	if to == 0 || from != redo.CheckpointLSN || to != redo.EndLSN {
		return fmt.Errorf("redo from LSN %d to %d announced, %d to %d arrived", redo.CheckpointLSN, redo.EndLSN, from, to)
	}
	if redo.CheckpointEndLSN < redo.CheckpointLSN || redo.CheckpointEndLSN >= redo.EndLSN {
		return fmt.Errorf("FILE_CHECKPOINT at LSN %d is outside the redo from %d to %d", redo.CheckpointEndLSN, redo.CheckpointLSN, redo.EndLSN)
	}
	return nil
}
