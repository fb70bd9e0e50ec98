package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
)

// Report is what a verification found.
type Report struct {
	// Manifest is nil when it could not be read; it has no Files.
	Manifest *format.Manifest
	Files    int
	Bytes    int64 // of file content
	Pages    int64 // of tablespaces that were checked
	// Unchecked counts encrypted pages of MySQL: of these, only the page number and
	// the LSN can be checked without the key.
	Unchecked int64
	// Problems lists what is wrong, the first maxProblems; Count counts all.
	Problems []string
	Count    int
}

// maxProblems bounds the list: a reader of hostile input must not be made to
// remember everything.
const maxProblems = 1000

func (r *Report) problem(msg string, args ...any) {
	if r.Count++; len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, fmt.Sprintf(msg, args...))
	}
}

// ParseFlags reads the flags of a tablespace of a server of that family. A family
// that it does not know is format.ErrUnsupported.
type ParseFlags func(dialect string, flags uint32) (innodb.PageFormat, error)

// Archive verifies the archive that r holds. Errors are those of r, or say that
// r is no archive at all.
func Archive(ctx context.Context, r io.Reader, parse ParseFlags) (*Report, error) {
	v := &archive{parse: parse, files: map[format.FileNo]*file{}, seen: format.NewEntries(false)}
	s, err := format.NewScanner(r, func(p format.Problem) { v.problem("%v", p) })
	if err != nil {
		return nil, err
	}
	// The manifest is decoded while it arrives.
	pr, pw := io.Pipe()
	decoded := make(chan error, 1)
	go func() {
		err := v.manifest(pr)
		pr.CloseWithError(err)
		decoded <- err
	}()
	err = v.frames(ctx, s, pw)
	pw.Close()
	merr := <-decoded
	if err == nil && errors.Is(merr, format.ErrUnsupported) && !errors.Is(merr, format.ErrDamaged) {
		err = merr // of a newer version, and not damaged
	}
	if err != nil {
		return nil, err
	}
	v.conclude(s, merr)
	return &v.rep, nil
}

// archive is one verification.
type archive struct {
	parse ParseFlags
	files map[format.FileNo]*file // open

	// mu guards what the frames and the manifest, which is decoded in a
	// goroutine of its own, both touch.
	mu  sync.Mutex
	rep Report
	got format.Arrival
	// differ are entries that are not what arrived.
	differ Report

	seen *format.Entries
	// newest page of all
	newest     format.LSN
	newestFile string
}

func (v *archive) problem(msg string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.rep.problem(msg, args...)
}

func (v *archive) frames(ctx context.Context, s *format.Scanner, manifest io.Writer) error {
	for {
		f, err := s.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		v.frame(f, manifest)
		f.Release()
	}
}

func (v *archive) frame(f *format.Frame, manifest io.Writer) {
	v.mu.Lock()
	v.got.Frame(f)
	v.mu.Unlock()
	switch f.Type {
	case format.FrameFile:
		v.begin(f)
	case format.FrameData, format.FrameHole:
		if o := v.files[f.File]; o != nil {
			o.take(f, v.problem)
		}
		if f.Type == format.FrameData {
			v.rep.Bytes += f.Len
		}
	case format.FrameClose:
		v.close(f)
	case format.FrameManifest:
		// A decoder that gave up is told of in the end.
		_, _ = manifest.Write(f.Bytes())
	}
}

func (v *archive) begin(f *format.Frame) {
	v.rep.Files++
	o := &file{path: f.Path}
	if f.Space != nil && !f.Space.Rebuild {
		pages, err := v.parse(f.Dialect, f.Space.Flags)
		if err != nil {
			v.problem("file %q: %v", f.Path, err)
		} else {
			o.pages, o.first, o.parts = &pages, f.Space.FirstPage, map[int64]*part{}
		}
	}
	if len(v.files) < format.MaxOpenFiles {
		v.files[f.File] = o
	}
}

func (v *archive) close(f *format.Frame) {
	o := v.files[f.File]
	if o == nil {
		return
	}
	delete(v.files, f.File)
	v.rep.Pages += o.checked
	v.rep.Unchecked += o.unchecked
	if o.newest > v.newest {
		v.newest, v.newestFile = o.newest, o.path
	}
}

// manifest decodes the manifest and compares it with the files, all of which
// have come before it.
func (v *archive) manifest(r io.Reader) error {
	m, err := format.DecodeManifest(r, func(f *format.File) error {
		if err := v.seen.Add(f); err != nil {
			v.problem("manifest: %v", err)
		}
		if f.Kind != format.KindDir && f.Arrived() {
			v.entry(f)
		}
		return nil
	})
	v.rep.Manifest = m
	return err
}

func (v *archive) entry(f *format.File) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.got.Take(f); err != nil {
		v.differ.problem("%v", err)
	}
}

// conclude compares the manifest with what arrived.
func (v *archive) conclude(s *format.Scanner, merr error) {
	if s.Damaged() {
		// What went missing then is no problem of its own.
		if v.rep.Manifest != nil {
			v.concludeBackup(v.rep.Manifest.Backup)
		}
		return
	}
	if merr != nil {
		v.rep.problem("%v", merr)
		return
	}
	m := v.rep.Manifest
	v.rep.Problems = append(v.rep.Problems, v.differ.Problems...)
	v.rep.Count += v.differ.Count
	for _, err := range []error{v.seen.Check(m, false), v.got.Check(m, s.ID())} {
		if err != nil {
			v.rep.problem("manifest: %v", err)
		}
	}
	v.concludeBackup(m.Backup)
}

func (v *archive) concludeBackup(b *format.Backup) {
	if b == nil {
		return
	}
	if v.newest > b.Redo.EndLSN {
		v.rep.problem("file %q: a page has LSN %d, newer than the backup's end %d", v.newestFile, v.newest, b.Redo.EndLSN)
	}
}

// problemFunc takes a problem in the words of fmt.Sprintf.
type problemFunc func(msg string, args ...any)

// file is an open file whose pages are checked as they come.
type file struct {
	path      string
	pages     *innodb.PageFormat // nil: not a tablespace
	first     format.PageNo
	parts     map[int64]*part // pages of which only a part has come, by index
	checked   int64
	unchecked int64
	newest    format.LSN
	bad       int
}

// part is a page that comes in several frames, with holes in it.
type part struct {
	page []byte
	have int
}

// maxBad is how many bad pages of one file are listed.
const maxBad = 10

// take checks the pages that the frame completes. Frames of one file may come
// in any order, but each byte comes once.
func (f *file) take(fr *format.Frame, problem problemFunc) {
	if f.pages == nil {
		return
	}
	size := int64(f.pages.Physical)
	off, data, left := int64(fr.Pos), fr.Bytes(), fr.Len
	for left > 0 {
		at := off % size
		n := min(size-at, left)
		switch {
		case n == size && fr.Type == format.FrameHole:
			// Whole pages of zeros are sound; a hole may hold millions.
			n = left - left%size
			f.checked += n / size
		case n == size:
			f.check(data[:n], off/size, problem)
		default:
			f.gather(off/size, at, data[:min(n, int64(len(data)))], n, problem)
		}
		data = data[min(n, int64(len(data))):]
		off, left = off+n, left-n
	}
}

// gather adds n bytes at at to a page that comes in parts; a hole has no data.
func (f *file) gather(index, at int64, data []byte, n int64, problem problemFunc) {
	p := f.parts[index]
	if p == nil {
		if len(f.parts) >= format.MaxExtents {
			return // the rules across frames complain of such a file
		}
		p = &part{page: make([]byte, f.pages.Physical)}
		f.parts[index] = p
	}
	copy(p.page[at:], data)
	if p.have += int(n); p.have >= f.pages.Physical {
		delete(f.parts, index)
		f.check(p.page, index, problem)
	}
}

func (f *file) check(page []byte, index int64, problem problemFunc) {
	if f.pages.Unchecked(page) {
		f.unchecked++
	} else {
		f.checked++
	}
	no := f.first + format.PageNo(index)
	if err := f.pages.Verify(page, no); err != nil {
		if f.bad++; f.bad <= maxBad {
			problem("file %q: %v", f.path, err)
		}
		return
	}
	f.newest = max(f.newest, innodb.LSN(page))
}

var errNotDir = errors.New("not a restored directory")
