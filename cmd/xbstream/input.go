package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"

	"github.com/spf13/pflag"

	"github.com/xbstream/xbstream/classic"
	"github.com/xbstream/xbstream/extract"
	"github.com/xbstream/xbstream/format"
)

// file opens the archive of a command for jumping, and decrypts it if need be.
// It returns nil for what can only be read from front to end.
func (c *command) file(ctx context.Context, args []string) (*format.Archive, io.Closer, error) {
	f, in, err := c.source(args)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, in.Close())
	}
	if pos, err := f.Seek(0, io.SeekCurrent); !st.Mode().IsRegular() || err != nil || pos != 0 {
		return nil, nil, in.Close()
	}
	a, err := c.jump(ctx, f, st.Size())
	if errors.Is(err, format.ErrUnsupported) || err == errClassic { // also armor, which has no places to jump to
		return nil, nil, in.Close()
	}
	if err != nil {
		return nil, nil, errors.Join(err, in.Close())
	}
	return a, in, nil
}

func (c *command) jump(ctx context.Context, f *os.File, size int64) (*format.Archive, error) {
	ids, err := c.identities(ctx)
	if err != nil {
		return nil, err
	}
	ra, size, err := format.OpenAt(f, size, ids)
	if err != nil {
		return nil, err
	}
	if isClassic(bufio.NewReader(io.NewSectionReader(ra, 0, size))) {
		return nil, errClassic
	}
	return format.OpenArchive(ra, size)
}

// errClassic says that a file holds a classic stream, which has no index.
var errClassic = errors.New("a classic stream")

// isClassic looks at the first bytes without taking them.
func isClassic(r *bufio.Reader) bool {
	p, _ := r.Peek(len(classic.Magic)) // an error comes again when it is read
	return string(p) == classic.Magic
}

// stream opens an archive that is read from front to end, one of ours or a
// classic one.
func (c *command) stream(r io.Reader, parallel int) (extract.Frames, error) {
	br := bufio.NewReader(r)
	if isClassic(br) {
		return classic.NewReader(br, c.classic()), nil
	}
	return format.NewReader(br, format.ReaderOptions{Parallel: parallel})
}

func (c *command) classic() (opt classic.Options) {
	if c.incomplete {
		opt.Incomplete = func(reason error) {
			c.out.Logger("xbstream", c.s.err).Warn("accepted although incomplete (--allow-incomplete): " + reason.Error())
		}
	}
	return opt
}

// registerIncomplete adds the flag of commands that may accept less than all.
func (c *command) registerIncomplete(f *pflag.FlagSet) {
	f.BoolVar(&c.incomplete, "allow-incomplete", false, "accept a stream of mariabackup or XtraBackup that ends too early")
}

// eachFile takes the entries of a manifest, in order.
type eachFile = func(*format.File) error

// contents reads the manifest of an archive, of a file only its end, of a pipe
// all of it, and calls each for every entry: not before all of it was read once,
// compared with what arrived, and found good.
func (c *command) contents(ctx context.Context, args []string, each eachFile) (*format.Manifest, error) {
	a, closer, err := c.file(ctx, args)
	if err != nil {
		return nil, err
	}
	if a != nil {
		c.endOnly = true
		defer closer.Close()
		arrived := func(m *format.Manifest) *format.Arrival { return format.Announced(a.Totals(), m) }
		return checked(ctx, a.Manifest, arrived, a.ID(), each)
	}
	in, err := c.archive(ctx, args)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	ar, err := c.stream(in, 0)
	if err != nil {
		return nil, err
	}
	defer ar.Close()
	kept := new(spill)
	defer kept.Close()
	arrived := new(format.Arrival)
	if err := readThrough(ctx, ar, kept, arrived); err != nil {
		return nil, err
	}
	return checked(ctx, kept.manifest, func(*format.Manifest) *format.Arrival { return arrived }, ar.ID(), each)
}

// checked reads a manifest that read reads any number of times.
func checked(ctx context.Context, read func(eachFile) (*format.Manifest, error), arrived func(*format.Manifest) *format.Arrival, id string, each eachFile) (*format.Manifest, error) {
	interrupted := func(each eachFile) (*format.Manifest, error) {
		return read(func(f *format.File) error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return each(f)
		})
	}
	if err := format.CheckContents(interrupted, arrived, id); err != nil {
		return nil, err
	}
	return interrupted(each)
}

// frames returns what extraction opens: the whole archive or, of a file, only
// what is asked for.
func (c *command) frames(ctx context.Context, args []string, x *extractFlags) (func() (extract.Frames, error), io.Closer, error) {
	if x.opt.Only != nil {
		a, closer, err := c.file(ctx, args)
		if err != nil {
			return nil, nil, err
		}
		if a != nil && a.Indexed() {
			return func() (extract.Frames, error) { return choose(a, x.opt) }, closer, nil
		}
		if a != nil {
			closer.Close()
		}
	}
	in, err := c.archive(ctx, args)
	if err != nil {
		return nil, nil, err
	}
	return func() (extract.Frames, error) { return c.stream(in, x.opt.Parallel) }, in, nil
}

// choose selects the frames of the files that are kept, and the redo that
// belongs to them.
func choose(a *format.Archive, x extract.Options) (extract.Frames, error) {
	choice := extract.NewChoice(x.Only)
	if _, err := a.Manifest(func(f *format.File) error { choice.Survey(f); return nil }); err != nil {
		return nil, err
	}
	if err := x.Chosen(); err != nil {
		return nil, err
	}
	wanted := map[format.FileNo]bool{0: true}
	_, err := a.Manifest(func(f *format.File) error {
		if choice.Keeps(f) {
			wanted[f.No] = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.Select(func(n format.FileNo) bool { return wanted[n] })
}
