package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/xbstream/xbstream/classic"
	"github.com/xbstream/xbstream/extract"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/cli"
	"github.com/xbstream/xbstream/internal/innodb/filename"
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
			c.out.Logger("xbstream", c.s.err).Warn("incomplete, accepted all the same: " + reason.Error())
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
// all of it, and calls each for every entry: not before all of it was read once
// and found good.
func (c *command) contents(ctx context.Context, args []string, each eachFile) (*format.Manifest, error) {
	read, closer, err := c.manifestReader(ctx, args)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	if _, err := read(func(*format.File) error { return context.Cause(ctx) }); err != nil {
		return nil, err
	}
	return read(each)
}

// manifestReader returns what reads the manifest, any number of times.
func (c *command) manifestReader(ctx context.Context, args []string) (func(eachFile) (*format.Manifest, error), io.Closer, error) {
	a, closer, err := c.file(ctx, args)
	if err != nil {
		return nil, nil, err
	}
	if a != nil {
		return a.Manifest, closer, nil
	}
	in, err := c.archive(ctx, args)
	if err != nil {
		return nil, nil, err
	}
	defer in.Close()
	ar, err := c.stream(in, 0)
	if err != nil {
		return nil, nil, err
	}
	defer ar.Close()
	kept := new(spill)
	if err := readThrough(ctx, ar, kept); err != nil {
		return nil, nil, errors.Join(err, kept.Close())
	}
	return kept.manifest, kept, nil
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
			return func() (extract.Frames, error) { return choose(a, x.opt.Only) }, closer, nil
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
func choose(a *format.Archive, only func(string) bool) (extract.Frames, error) {
	choice := extract.NewChoice(only)
	if _, err := a.Manifest(func(f *format.File) error { choice.Survey(f); return nil }); err != nil {
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

// matcher returns a function that says whether a path matches one of the
// patterns: shell patterns for the path, or for db.table, which stands for all
// files of the table. Names may be written as the server prints them, or in the
// letters of the file names.
func matcher(patterns []string) (func(string) bool, error) {
	if len(patterns) == 0 {
		return nil, nil
	}
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			return nil, cli.Usagef("--only %q: %w", p, err)
		}
	}
	return func(name string) bool {
		names := []string{name, filename.Decode(name)}
		if table := tableOf(name); table != "" {
			names = append(names, table, filename.Decode(table))
		}
		return slices.ContainsFunc(patterns, func(p string) bool {
			return slices.ContainsFunc(names, func(name string) bool {
				ok, _ := path.Match(p, name)
				return ok
			})
		})
	}, nil
}

// tableOf is the db.table a file belongs to, in the letters of its file name;
// partitions belong to their table.
func tableOf(name string) string {
	db, file, ok := strings.Cut(name, "/")
	if !ok {
		return ""
	}
	stem, _, _ := strings.Cut(file, ".")
	stem, _ = filename.CutPartition(stem)
	return db + "." + stem
}
