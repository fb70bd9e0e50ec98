package chunker

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
)

// Plan says how the copies made while tables came and went become the files
// that exist now.
type Plan struct {
	// Keep are the copies that stay, under the names the files have now.
	Keep []Result
	// Copy are the files to be copied now, while DDL is blocked.
	Copy []File
	// Discard are the numbers of copies that are not part of the backup.
	Discard []format.FileNo
}

// spaceFile identifies a file of a tablespace.
type spaceFile struct {
	id    format.SpaceID
	first format.PageNo
}

// Reconcile settles by space id, never by name, what of copied stands for the
// files that exist now, while DDL is blocked. now is from ReadSpaces. away holds
// the space ids of tables that may have been without tablespace at some time
// since the redo log of the copy began; loaded says of tablespaces when redo told
// that pages had been written without it.
//
// A file is copied again
//   - that was not copied, or not yet written when it was;
//   - that is another file than the one copied under its id;
//   - that may have been imported since it was copied: its id is in away, and it
//     was written since;
//   - whose copy was begun before redo told of pages without redo, if it was
//     written since: they are on disk before that;
//   - whose copy has pages with other ids, because it was made during an import,
//     if the file was written since.
//
// Other changes to a file do not count: the redo log has them. It has nothing of
// ALTER TABLE … IMPORT TABLESPACE, which rewrites the pages of a file in place
// and keeps the space id that the table had before.
func Reconcile(copied []Result, now []File, away map[format.SpaceID]bool, loaded map[format.SpaceID]time.Time) Plan {
	var p Plan
	candidates := make(map[spaceFile][]Result)
	for _, r := range copied {
		switch {
		case r.Gone:
		case r.Entry.Space.Rebuild:
			p.Discard = append(p.Discard, r.Entry.No)
		default:
			k := spaceFile{r.Entry.Space.ID, r.Entry.Space.FirstPage}
			candidates[k] = append(candidates[k], r)
		}
	}
	for _, f := range now {
		k := spaceFile{f.SpaceID, f.firstPage()}
		i := -1
		if !f.Unwritten {
			i = goodCopy(candidates[k], f, away[f.SpaceID] || f.Unlogged, loaded[f.SpaceID])
		}
		if i < 0 {
			p.Copy = append(p.Copy, f)
			continue
		}
		p.Keep = append(p.Keep, renamed(candidates[k][i], f))
		candidates[k] = append(candidates[k][:i:i], candidates[k][i+1:]...)
	}
	for _, left := range candidates {
		for _, r := range left {
			p.Discard = append(p.Discard, r.Entry.No)
		}
	}
	return p
}

// NotImportedSince reports whether page 0 proves that no import has written the
// file since the server was at LSN start. IMPORT TABLESPACE writes all pages with
// LSN 0 (seen on 10.11.19 and 11.8.9), and whatever changes page 0 afterwards gives
// it an LSN that is newer than start.
func (f File) NotImportedSince(start format.LSN) bool { return f.HeadLSN != 0 && f.HeadLSN < start }

// goodCopy returns the index of the latest copy that stands for f, or -1. A
// doubtful file may have been written without redo since it was copied, and any was
// before the time loaded.
func goodCopy(copies []Result, f File, doubtful bool, loaded time.Time) int {
	best := -1
	for i, r := range copies {
		if !r.Signature.SameFile(f.Signature) || (doubtful || r.Foreign || r.Began.Before(loaded)) && !r.Unchanged(f.Signature) {
			continue
		}
		if best < 0 || r.Entry.No > copies[best].Entry.No {
			best = i
		}
	}
	return best
}

func renamed(r Result, f File) Result {
	r.File = f
	r.Entry.Path, r.Entry.Source = f.Rel, f.Source
	return r
}

// ReadSpaces returns files with the space id of page 0 and the signature, in
// the same order, without those that are gone. It is fast enough for the locked
// phase: tens of thousands of files a second.
func ReadSpaces(ctx context.Context, files []File) ([]File, error) {
	return readAll(ctx, files, readSpace)
}

// ReadSpacesAgain is ReadSpaces for files of which there may be copies. One that is
// unchanged since it was copied is not opened: what its page 0 says is known.
func ReadSpacesAgain(ctx context.Context, files []File, copied []Result) ([]File, error) {
	known := make(map[string]Result, len(copied)) // the latest by name
	for _, r := range copied {
		if !r.Gone {
			known[r.File.Abs] = r
		}
	}
	return readAll(ctx, files, func(f *File) error {
		r, ok := known[f.Abs]
		if !ok || r.Entry.Space.Rebuild || f.firstPage() != r.Entry.Space.FirstPage {
			return readSpace(f)
		}
		if err := readSignature(f); err != nil {
			return err
		}
		if !r.Unchanged(f.Signature) {
			return readSpace(f)
		}
		f.SpaceID, f.HeadLSN = r.Entry.Space.ID, r.File.HeadLSN
		return nil
	})
}

// ReadSignatures returns files with their signature, in the same order, without
// those that are gone.
func ReadSignatures(ctx context.Context, files []File) ([]File, error) {
	return readAll(ctx, files, readSignature)
}

// readAll calls read for every file, on several goroutines.
func readAll(ctx context.Context, files []File, read func(*File) error) ([]File, error) {
	out := make([]File, len(files))
	gone := make([]bool, len(files))
	g, ctx := errgroup.WithContext(ctx)
	// More than the cores, since what takes time is waiting for the disk.
	workers := min(4*runtime.GOMAXPROCS(0), 32)
	for w := range workers {
		g.Go(func() error {
			for i := w; i < len(files) && ctx.Err() == nil; i += workers {
				out[i] = files[i]
				err := read(&out[i])
				if gone[i] = isGone(err); err != nil && !gone[i] {
					return err
				}
			}
			return context.Cause(ctx)
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	kept := out[:0]
	for i := range out {
		if !gone[i] {
			kept = append(kept, out[i])
		}
	}
	return kept, nil
}

func readSignature(f *File) error {
	var st unix.Stat_t
	if err := unix.Stat(f.Abs, &st); err != nil {
		return fmt.Errorf("stat %s: %w", f.Abs, err)
	}
	f.Signature = signature(&st)
	return nil
}

func readSpace(f *File) error {
	// The plain descriptor: the runtime's poller costs as much as the read.
	fd, st, err := f.open()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	f.Signature = signature(&st)
	if f.firstPage() != 0 {
		return nil // a later file of the system tablespace, space 0
	}
	var head [innodb.HeaderSize]byte
	n, err := unix.Pread(fd, head[:], 0)
	if err != nil {
		return fmt.Errorf("read %s: %w", f.Abs, err)
	}
	f.setSpace(head[:n])
	return nil
}

// setSpace reads the header of page 0. The id is there twice and never changes,
// so that the page's checksum is not needed to believe it. Of a file whose two
// differ the copy has to find out what it is.
func (f *File) setSpace(head []byte) {
	if len(head) < innodb.HeaderSize || innodb.IsZero(head) {
		f.Unwritten = true
		return
	}
	f.SpaceID, f.HeadLSN = innodb.FSPSpaceID(head), innodb.LSN(head)
	if innodb.SpaceID(head) != f.SpaceID && !f.LeftOut {
		f.SpaceID, f.HeadLSN, f.Unwritten = 0, 0, true
	}
}
