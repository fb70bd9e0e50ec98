package extract

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb/sparse"
)

// maxOpen bounds the descriptors of all writing workers together, P9, and so
// does the process's own limit.
const maxOpen = 128

// dispatch hands frames to workers. All frames of one file go to the same
// worker, so a file's frames are written in order and its close comes last;
// the file system would serialise writes to one file in any case.
type dispatch struct {
	got       arrival
	workers   []chan *format.Frame
	redo      chan *format.Frame
	manifest  *os.File
	target    *target
	estimated bool // the archive has said how much there will be
	opt       Options
}

func newDispatch(ctx context.Context, g *errgroup.Group, t *target, opt Options) *dispatch {
	d := &dispatch{opt: opt, redo: make(chan *format.Frame, 2)}
	for range opt.Parallel {
		c := make(chan *format.Frame, 2)
		d.workers = append(d.workers, c)
		w := &fileWriter{t: t, opt: opt, open: map[format.FileNo]*openFile{}, limit: max(1, min(maxOpen, openLimit()/2)/opt.Parallel)}
		g.Go(func() error { return drain(ctx, c, w) })
	}
	g.Go(func() error { return drain(ctx, d.redo, &redoWriter{t: t}) })
	d.workers = append(d.workers, d.redo)
	d.manifest, d.target = t.manifest, t
	return d
}

// finish tells the workers that no more frames come.
func (d *dispatch) finish() {
	for _, c := range d.workers {
		close(c)
	}
}

// frame passes one frame on; whoever writes it releases it.
func (d *dispatch) frame(ctx context.Context, f *format.Frame) error {
	d.got.Frame(f)
	switch f.Type {
	case format.FrameFile, format.FrameClose, format.FrameData, format.FrameHole:
		return d.send(ctx, d.worker(f.File), f)
	case format.FrameRedo:
		return d.send(ctx, d.redo, f)
	case format.FrameManifest:
		defer f.Release()
		_, err := d.manifest.Write(f.Bytes())
		return err
	case format.FrameEstimate:
		defer f.Release()
		e, ok := format.ParseEstimate(f.Bytes())
		if !ok || d.estimated {
			return nil
		}
		d.estimated = true
		return d.target.checkSpace(e)
	}
	f.Release() // the index is of use only in a file
	return nil
}

func (d *dispatch) worker(n format.FileNo) chan *format.Frame {
	return d.workers[int(n)%d.opt.Parallel]
}

func (d *dispatch) send(ctx context.Context, c chan<- *format.Frame, f *format.Frame) error {
	select {
	case c <- f:
		return nil
	case <-ctx.Done():
		f.Release()
		return context.Cause(ctx)
	}
}

// frameWriter is one worker's work.
type frameWriter interface {
	write(*format.Frame) error
	close() error
}

func drain(ctx context.Context, c <-chan *format.Frame, w frameWriter) error {
	for {
		select {
		case <-ctx.Done():
			w.close()
			return context.Cause(ctx)
		case f, ok := <-c:
			if !ok {
				return w.close()
			}
			err := w.write(f)
			f.Release()
			if err != nil {
				w.close()
				return err
			}
		}
	}
}

// fileWriter writes files under their numbers.
type fileWriter struct {
	t     *target
	opt   Options
	open  map[format.FileNo]*openFile
	limit int
}

type openFile struct {
	f    *os.File
	at   *target
	path string // provisional, for messages
	end  int64  // end of the last data written

	direct   bool  // writes go past the page cache now
	buffered bool  // and none may
	reserved int64 // end of the space that was reserved for them; 0 if none was
	loose    bool  // and no more is to be

	// shortest is the length from which zeros in data become holes, 0 if they
	// stay as they are.
	shortest int
}

// directMin is the size from which a write goes past the page cache. What is
// smaller is written sooner together with its neighbours.
const directMin = 256 << 10

// writeAt writes p, past the page cache where that can be: a restored copy would
// only drive out what others have there, and the sync at the end need not wait
// for it.
func (o *openFile) writeAt(p []byte, off int64) error {
	direct := len(p) >= directMin && len(p)%format.BufferAlign == 0 && off%format.BufferAlign == 0
	if direct != o.direct && !o.buffered {
		o.direct = setDirect(o.f, direct)
		o.buffered = direct && !o.direct
	}
	if o.direct {
		o.reserve(off, int64(len(p)))
	}
	_, err := o.f.WriteAt(p, off)
	if o.direct && errors.Is(err, syscall.EINVAL) { // the disk wants more than BufferAlign
		o.direct, o.buffered = setDirect(o.f, false), true
		_, err = o.f.WriteAt(p, off)
	}
	o.end = max(o.end, off+int64(len(p)))
	return err
}

// Of a file of reserveFrom bytes the next reserveAhead are reserved.
const (
	reserveFrom  = 8 << 20
	reserveAhead = 32 << 20
)

// reserve sees to it that a large file lies in one piece. What goes past the page
// cache gets its blocks at once, and of files written in turn each would have
// them in pieces of one write.
func (o *openFile) reserve(off, n int64) {
	if o.loose || off != o.end || off < reserveFrom || off+n <= o.reserved {
		return
	}
	if reserve(o.f, off, reserveAhead) {
		o.reserved = off + reserveAhead
	} else {
		o.loose = true
	}
}

func (o *openFile) failed(err error) error {
	return o.at.within(fmt.Errorf("write %q: %w", o.path, err))
}

// partName is where file n waits for its name: at most a thousand to a
// directory.
func partName(n format.FileNo) string {
	return partDir(n) + "/" + n.String()
}

func partDir(n format.FileNo) string {
	return partsDir + "/" + strconv.Itoa(int(n)/1000)
}

func (w *fileWriter) write(f *format.Frame) error {
	switch f.Type {
	case format.FrameFile:
		return w.create(f)
	case format.FrameData:
		return w.data(f)
	case format.FrameHole:
		return w.hole(f)
	case format.FrameClose:
		return w.finish(f)
	}
	return nil
}

func (w *fileWriter) create(f *format.Frame) error {
	if err := w.t.mayMap(f.Dialect); err != nil {
		return err
	}
	at := w.t.stageOf(f.Kind, f.Source)
	if err := at.stage.Mkdir(partDir(f.File), 0o700); err != nil && !os.IsExist(err) {
		return at.within(err)
	}
	h, err := at.stage.OpenFile(partName(f.File), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return at.within(err)
	}
	w.open[f.File] = &openFile{path: f.Path, at: at, shortest: shortestHole(f.Kind)}
	return w.admit(f.File, h)
}

// admit makes room for one more descriptor.
func (w *fileWriter) admit(n format.FileNo, h *os.File) error {
	have := 0
	for _, o := range w.open {
		if o.f != nil {
			have++
		}
	}
	for _, o := range w.open {
		if have < w.limit {
			break
		}
		if o.f != nil {
			if err := o.f.Close(); err != nil {
				h.Close()
				return o.failed(err)
			}
			o.f = nil
			have--
		}
	}
	o := w.open[n]
	o.f, o.direct = h, false
	return nil
}

// handle returns the file, opened again if it had to make room.
func (w *fileWriter) handle(n format.FileNo) (*openFile, error) {
	o := w.open[n]
	if o.f != nil {
		return o, nil
	}
	h, err := o.at.stage.OpenFile(partName(n), os.O_WRONLY, 0)
	if err != nil {
		return nil, o.at.within(err)
	}
	return o, w.admit(n, h)
}

func (w *fileWriter) data(f *format.Frame) error {
	o, err := w.handle(f.File)
	if err != nil {
		return err
	}
	if err := o.writeData(f.Bytes(), int64(f.Pos)); err != nil {
		return o.failed(err)
	}
	w.opt.Progress(f.Len)
	return nil
}

// hole leaves out what nobody writes, and gives back what was reserved of it.
func (w *fileWriter) hole(f *format.Frame) error {
	o := w.open[f.File]
	if int64(f.Pos) > o.end {
		o.loose = true // later data may come in front of it
	}
	if int64(f.Pos) >= o.reserved {
		return nil
	}
	o, err := w.handle(f.File)
	if err != nil {
		return err
	}
	if err := o.free(int64(f.Pos), f.Len); err != nil {
		return o.failed(err)
	}
	return nil
}

// free makes a hole of what was written or reserved.
func (o *openFile) free(off, n int64) error {
	if off < o.end {
		return sparse.Punch(o.f, off, n)
	}
	o.reserved = 0
	return o.f.Truncate(o.end)
}

// finish gives the file its size, which a hole at its end may not have done yet,
// and what was reserved after it may have to go; and closes it.
func (w *fileWriter) finish(f *format.Frame) error {
	o, err := w.handle(f.File)
	if err != nil {
		return err
	}
	delete(w.open, f.File)
	if o.end < int64(f.Pos) || o.reserved > int64(f.Pos) {
		if err := o.f.Truncate(int64(f.Pos)); err != nil {
			o.f.Close()
			return o.failed(err)
		}
	}
	startWriteback(o.f)
	if err := o.f.Close(); err != nil {
		return o.failed(err)
	}
	return nil
}

func (w *fileWriter) close() error {
	for _, o := range w.open {
		if o.f != nil {
			o.f.Close()
		}
	}
	return nil
}

// redoWriter joins the redo into a linear log file; the part in front of it is
// written when the manifest is known.
type redoWriter struct {
	t       *target
	f       *os.File
	first   uint64
	arrived func(end format.RedoPosition) // from Options.Redo
}

func (w *redoWriter) write(f *format.Frame) error {
	if w.f == nil {
		if err := w.begin(f.Pos); err != nil {
			return err
		}
	}
	if _, err := w.f.WriteAt(f.Bytes(), RedoStart+int64(f.Pos-w.first)); err != nil {
		return fmt.Errorf("write redo: %w", err)
	}
	w.arrived(format.RedoPosition(f.Pos) + format.RedoPosition(f.Len))
	return nil
}

// begin makes the log and hands it to Options.Redo.
func (w *redoWriter) begin(first uint64) (err error) {
	if w.f, err = w.t.stage.OpenFile(redoPart, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	log, err := w.t.stage.Open(redoPart)
	if err != nil {
		return err
	}
	w.first, w.arrived = first, w.t.opt.Redo(log, format.RedoPosition(first))
	return nil
}

func (w *redoWriter) close() error {
	if w.f == nil {
		return nil
	}
	return w.f.Close()
}
