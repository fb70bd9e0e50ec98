package format

import "fmt"

// Arrival is what arrived of an archive: the files with their sizes, and the
// redo. Its manifest is compared with it. The zero value is that of an archive of
// which no frame was read yet.
type Arrival struct {
	sizes []int64 // of file n at n-1, or one of the negative values below
	// count is how many files there are when only the END frame says so.
	count    FileNo
	redoFrom RedoPosition
	redoTo   RedoPosition // 0 when there was no redo
	taken    int          // numbers that entries have named
}

// Sizes that are none.
const (
	unfinished = -1 - iota // announced, not closed
	absent                 // not among the frames at all
	taken                  // compared with its entry in the manifest
)

// Announced is the Arrival of an archive of which only the end was read: it knows
// how many files and how much redo there are.
func Announced(t Totals, m *Manifest) *Arrival {
	a := &Arrival{count: FileNo(min(t.Files, MaxFiles))}
	if t.RedoBytes > 0 && m.Backup != nil {
		a.redoFrom, _ = m.Backup.Redo.Position(m.Backup.Redo.CheckpointLSN)
		a.redoTo = a.redoFrom + RedoPosition(t.RedoBytes)
	} else if t.RedoBytes > 0 {
		a.redoTo = RedoPosition(t.RedoBytes)
	}
	return a
}

// Frame takes note of a frame.
func (a *Arrival) Frame(f *Frame) {
	switch f.Type {
	case FrameFile:
		a.grow(f.File, absent)
		a.sizes[f.File-1] = unfinished
	case FrameClose:
		a.grow(f.File, absent)
		a.sizes[f.File-1] = int64(f.Pos)
	case FrameRedo:
		if a.redoTo == 0 {
			a.redoFrom = RedoPosition(f.Pos)
		}
		a.redoTo = RedoPosition(f.Pos) + RedoPosition(f.Len)
	}
}

// grow makes room for number n.
func (a *Arrival) grow(n FileNo, with int64) {
	for len(a.sizes) < int(n) {
		a.sizes = append(a.sizes, with)
	}
}

// Has says whether a frame of file n arrived.
func (a *Arrival) Has(n FileNo) bool {
	return n <= a.count || int(n) <= len(a.sizes) && a.sizes[n-1] != absent
}

// Take compares the entry of a file with what arrived under its number, which is
// used up by it.
func (a *Arrival) Take(f *File) error {
	if !a.Has(f.No) {
		return fmt.Errorf("file %q: number %d never arrived", f.Path, f.No)
	}
	if a.count > 0 {
		a.grow(f.No, f.Size) // nobody looked
	}
	switch size := a.sizes[f.No-1]; {
	case size == taken:
		return fmt.Errorf("file %q: number %d is used twice", f.Path, f.No)
	case size < 0:
		return fmt.Errorf("file %q: number %d never arrived", f.Path, f.No)
	case size != f.Size && a.count == 0:
		return fmt.Errorf("file %q: %d bytes arrived, %d announced", f.Path, size, f.Size)
	}
	a.sizes[f.No-1] = taken
	a.taken++
	return nil
}

// Check compares the manifest with all that arrived, when every entry was taken.
func (a *Arrival) Check(m *Manifest, id string) error {
	files := max(len(a.sizes), int(a.count))
	if left := files - a.taken; left != m.Discarded {
		return fmt.Errorf("%d files arrived that it does not name, %d announced", left, m.Discarded)
	}
	return a.CheckPart(m, id)
}

// CheckPart is Check when only a part of the files was asked for.
func (a *Arrival) CheckPart(m *Manifest, id string) error {
	if m.ArchiveID != id {
		return fmt.Errorf("it belongs to archive %s, this is %s", clip(m.ArchiveID), id)
	}
	return m.CheckRedo(a.redoFrom, a.redoTo)
}

// CheckContents reads a manifest, twice, and compares it with what arrived. All
// that can be wrong with it is an error that wraps ErrDamaged or ErrUnsupported.
func CheckContents(read func(each func(*File) error) (*Manifest, error), arrived func(*Manifest) *Arrival, id string) error {
	m, err := read(func(*File) error { return nil })
	if err != nil {
		return err
	}
	a, entries := arrived(m), NewEntries(id == "")
	wrong := func(err error) error { return fmt.Errorf("%w: manifest: %w", ErrDamaged, err) }
	_, err = read(func(f *File) error {
		err := entries.Add(f)
		if err == nil && f.Arrived() && f.Kind != KindDir {
			err = a.Take(f)
		}
		if err != nil {
			return wrong(err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := entries.Check(m, false); err != nil {
		return wrong(err)
	}
	if err := a.Check(m, id); err != nil {
		return wrong(err)
	}
	return nil
}
