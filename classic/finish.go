package classic

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/xbstream/xbstream/format"
)

// finish decides whether the stream may end here, and begins the manifest.
func (r *Reader) finish() error {
	if err := r.whole(); err != nil {
		err = fmt.Errorf("%w: %w", ErrIncomplete, err)
		if r.opt.Incomplete == nil {
			return r.damaged(fmt.Errorf("%w; --allow-incomplete accepts it", err))
		}
		r.opt.Incomplete(err)
		for _, path := range slices.Sorted(maps.Keys(r.open)) {
			r.close(path, r.open[path])
		}
	}
	if err := r.tree.check(); err != nil {
		return r.damaged(err)
	}
	r.text = manifestText(&r.tree)
	return nil
}

// fileMode is the mode of all files: a stream does not say, and mbstream uses
// this one.
const fileMode = 0o640

// whole says what is missing from a stream that ends here.
func (r *Reader) whole() error {
	if len(r.open) > 0 {
		first := slices.Min(slices.Collect(maps.Keys(r.open)))
		return fmt.Errorf("file %q was never closed", first)
	}
	return r.tree.complete()
}

// manifestText passes the manifest on as it is written.
func manifestText(t *tree) *io.PipeReader {
	pr, pw := io.Pipe()
	go func() {
		w := bufio.NewWriterSize(pw, 64<<10)
		err := encode(w, t)
		if err == nil {
			err = w.Flush()
		}
		pw.CloseWithError(err)
	}()
	return pr
}

func encode(w io.Writer, t *tree) error {
	m, err := format.NewManifestEncoder(w, &format.Manifest{Tool: "classic stream", Discarded: t.discarded()})
	if err != nil {
		return err
	}
	for no, e := range t.all() {
		if err := m.Add(&format.File{No: no, Path: e.path, Kind: format.KindFile, Size: e.size, Mode: fileMode}); err != nil {
			return err
		}
	}
	return m.Close()
}

// manifest hands out a piece of the manifest.
func (r *Reader) manifest() error {
	b := format.GetBuffer()
	n, err := io.ReadFull(r.text, b.Space())
	if n == 0 {
		b.Release()
		return err
	}
	b.SetLen(n)
	f := &format.Frame{Type: format.FrameManifest, Pos: r.pos}
	f.SetPayload(b)
	r.pos += uint64(n)
	r.emit(f)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return err
}
