package extract

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/format"
)

// RedoStart is the offset in the log of a restored backup of the first byte of its
// redo. In front of it is a head that the family of the server knows.
const RedoStart = 0x3000

// Options of Extract. Only Dir is required, and RedoHead for backups.
type Options struct {
	// Dir is the target. It is made if it does not exist.
	Dir string
	// Parallel is the number of writing workers; 0 means one a core.
	Parallel int
	// IntoNonEmpty accepts a target that holds other files, as long as no
	// name collides.
	IntoNonEmpty bool
	// RemovePartial removes staging directories that earlier, killed
	// extractions left in the target. Without it they are a reason to refuse.
	RemovePartial bool
	// Owner, if set, owns all that is restored.
	Owner *Owner
	// Prepare, if set, is called with the path of the complete tree in the
	// staging directory before anything is published.
	Prepare func(ctx context.Context, dir string) error
	// Redo, if set, is called when the first redo of a backup arrives, with the
	// position of its first byte and a handle of its own on the log in the making,
	// which it closes: redo starts at offset RedoStart, what is in
	// front of it is not there yet. The function it returns is called whenever
	// more was written, with the position after it; it should not wait. All calls
	// come one after the other, and before that of Prepare.
	Redo func(log *os.File, first format.RedoPosition) (arrived func(end format.RedoPosition))
	// RedoHead makes what stands in front of the redo of a backup, at most
	// RedoStart bytes. Its error is format.ErrUnsupported, or
	// says that the manifest is damaged.
	RedoHead func(b *format.Backup) ([]byte, error)
	// Only, if set, says which files are restored, by final path, with what
	// they need: see Choice. The others are left out, and the manifest in the
	// target says so. Directories are made for the files only.
	Only func(path string) bool
	// Chosen, if set together with Only, is called once when Only has seen every
	// path of the archive, before anything is published. Its error ends the
	// extraction.
	Chosen func() error
	// Mappings say where tables with a DATA DIRECTORY go; those of which none
	// says it are restored inside of Dir. The server's link files are made for
	// them. No two have the same Old.
	Mappings []Mapping
	// Progress, if set, is called with the number of file bytes written since
	// the last call, from several goroutines.
	Progress func(n int64)
	// Log receives warnings; nil is silent.
	Log *slog.Logger
}

// Owner is a numeric user and group.
type Owner struct{ UID, GID int }

func (o Options) withDefaults() Options {
	if o.Parallel <= 0 {
		o.Parallel = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = func(int64) {}
	}
	if o.Chosen == nil {
		o.Chosen = func() error { return nil }
	}
	if o.Redo == nil {
		o.Redo = func(log *os.File, _ format.RedoPosition) func(format.RedoPosition) {
			log.Close()
			return func(format.RedoPosition) {}
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Report says what was restored.
type Report struct {
	Manifest *format.Manifest // without Files
	Totals   format.Totals
	Files    int // files published, directories not counted
	// Owner owns all that was restored; nil is whoever runs the process.
	Owner *Owner
	// Moved counts those of them that lay outside of the data directory at
	// the source and are inside of the target now.
	Moved int
	// Mapped says of each mapping how many files went there.
	Mapped []Mapped
}

// Frames is a verified sequence of frames that ends with io.EOF, from a
// *format.Reader or a *format.Selection.
//
// An empty ID says that the frames were made from an archive of another format,
// of which the manifest says no more than names and sizes. It is compared like
// any other, but not kept, and the files come as they are, redo log and
// information for scripts among them.
type Frames interface {
	Next() (*format.Frame, error)
	ID() string
	Totals() format.Totals
	Close()
}

// Extract reads one archive and publishes it in opt.Dir. open is called once
// the target was found good. Errors wrap ErrTarget, ErrPrepare,
// format.ErrDamaged, or are those of open and of the file system.
func Extract(ctx context.Context, open func() (Frames, error), opt Options) (*Report, error) {
	opt = opt.withDefaults()
	t, err := openTarget(opt)
	if err != nil {
		return nil, err
	}
	defer t.discard()

	got, err := receive(ctx, open, t, opt)
	if err != nil {
		return nil, t.located(err)
	}
	rep, err := t.assemble(ctx, got)
	if err != nil {
		return nil, t.located(err)
	}
	if opt.Prepare != nil {
		if err := opt.Prepare(ctx, t.treePath()); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrPrepare, err)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if err := t.publish(); err != nil {
		return nil, t.located(err)
	}
	rep.Owner = t.owner
	return rep, nil
}

// Stream returns what Extract opens for an archive that is read from r, once,
// from front to end.
func Stream(r io.Reader, parallel int) func() (Frames, error) {
	return func() (Frames, error) {
		return format.NewReader(r, format.ReaderOptions{Parallel: parallel})
	}
}

// arrival is what arrived, as far as the manifest is compared with it.
type arrival struct {
	format.Arrival
	totals format.Totals
	id     string
}

// foreign says that the archive is of another format, see Frames.
func (a *arrival) foreign() bool { return a.id == "" }

// receive writes the frames of the whole archive into the staging directory.
func receive(ctx context.Context, open func() (Frames, error), t *target, opt Options) (*arrival, error) {
	g, ctx := errgroup.WithContext(ctx)
	d := newDispatch(ctx, g, t, opt)
	// The reader may sit in a read that nothing can interrupt; it must not
	// keep a cancelled extraction from cleaning up, so it is not in the group.
	frames := make(chan result, 2)
	go read(ctx, open, frames)

	g.Go(func() error {
		defer d.finish()
		for {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case res := <-frames:
				if res.end != nil {
					d.got.totals, d.got.id = res.end.Totals(), res.end.ID()
					return nil
				}
				if res.err != nil {
					return res.err
				}
				if err := d.frame(ctx, res.frame); err != nil {
					return err
				}
			}
		}
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return &d.got, nil
}

// result is one step of the reader: a frame, an error, or the verified end.
type result struct {
	frame *format.Frame
	err   error
	end   Frames
}

func read(ctx context.Context, open func() (Frames, error), out chan<- result) {
	send := func(res result) bool {
		select {
		case out <- res:
			return true
		case <-ctx.Done():
			if res.frame != nil {
				res.frame.Release()
			}
			return false
		}
	}
	ar, err := open()
	if err != nil {
		send(result{err: err})
		return
	}
	defer ar.Close()
	for {
		f, err := ar.Next()
		if err == io.EOF {
			send(result{end: ar})
			return
		}
		if err != nil {
			send(result{err: err})
			return
		}
		if !send(result{frame: f}) {
			return
		}
	}
}
