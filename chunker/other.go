package chunker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/format"
)

// CopyFiles copies files as they are, to their end. The results are in the
// order of files. The first error ends the copy and is returned.
func (c *Copier) CopyFiles(ctx context.Context, files []File) ([]Result, error) {
	results := make([]Result, len(files))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.workers())
	for i := range files {
		g.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			results[i], err = c.copyFile(ctx, files[i])
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return results, nil
}

func (c *Copier) copyFile(ctx context.Context, f File) (Result, error) {
	if err := c.before(f); err != nil {
		return Result{}, err
	}
	src, err := c.opener()(f)
	if isGone(err) {
		return Result{File: f, Gone: true}, nil
	}
	if err != nil {
		return Result{}, fmt.Errorf("open: %w", err)
	}
	res, err := c.copyOpen(ctx, f, src)
	if err := errors.Join(err, src.Close()); err != nil {
		return Result{}, fmt.Errorf("copy %s: %w", f.Abs, err)
	}
	return res, c.after(f)
}

func (c *Copier) copyOpen(ctx context.Context, f File, src opened) (Result, error) {
	began := time.Now()
	st, err := src.Stat()
	if err != nil {
		return Result{}, err
	}
	res := Result{File: f, Entry: entry(f, &st), Signature: signature(&st), Began: began}
	if res.Entry.No, err = c.Sink.BeginFile(res.Entry); err != nil {
		return Result{}, err
	}
	if res.Entry.Size, err = c.copyBytes(ctx, src, res.Entry.No, f.Amend); err != nil {
		return Result{}, err
	}
	if err := c.Sink.EndFile(res.Entry.No, res.Entry.Size); err != nil {
		return Result{}, err
	}
	if st, err = src.Stat(); err != nil {
		return Result{}, err
	}
	res.Changed = signature(&st) != res.Signature || res.Entry.Size != res.Signature.Size
	return res, nil
}

// copyBytes sends a file to its end and returns where that was.
func (c *Copier) copyBytes(ctx context.Context, src opened, no format.FileNo, amend func([]byte)) (int64, error) {
	out := runs{sink: c.Sink, no: no}
	var off int64
	for {
		b := format.GetBuffer()
		n, err := readAt(src, b.Space(), off)
		if err != nil || n == 0 {
			b.Release()
			return off, errors.Join(err, out.flush())
		}
		if off == 0 && amend != nil {
			amend(b.Space()[:n])
		}
		b.SetLen(n)
		if err := c.pace(ctx, int64(n)); err != nil {
			b.Release()
			return off, err
		}
		if err := out.write(off, b, smallestHole); err != nil {
			return off, err
		}
		off += int64(n)
		c.progress(int64(n))
	}
}
