package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/agekeys"
	"github.com/xbstream/xbstream/internal/cli"
)

const createHelp = `Usage: xbstream create [flags] PATH... > ARCHIVE
       xbstream -c [flags] PATH... > ARCHIVE

Writes ordinary files and directories to an archive. It is an error if a file
changes, shrinks or disappears while it is read.

Examples:

  Archive two directories of /etc:
    xbstream -c -C /etc mysql ssl > etc.xb
  Compress, and encrypt to a public key:
    xbstream -c --compress -r age1... -C /srv uploads > uploads.xb
`

// creation is one run of create.
type creation struct {
	dir      string
	parallel int
	compress string
	keys     []string
	keyFiles []string

	show func(msg string) // of a key plugin
	root *os.Root
	out  *format.Writer
	bar  *cli.Progress
	m    format.Manifest
}

func (c *command) create(ctx context.Context, args []string) (err error) {
	var n creation
	f := pflag.NewFlagSet("create", pflag.ContinueOnError)
	f.StringVarP(&n.dir, "directory", "C", ".", "archive paths relative to `DIR`")
	f.VarP((*cli.Count)(&n.parallel), "parallel", "j", "number of workers (default: one per core)")
	f.StringVar(&n.compress, "compress", "", "compress with zstd; `LEVEL` is fast, default, better or best (fast if left out)")
	f.Lookup("compress").NoOptDefVal = string(format.Plain)
	f.StringArrayVarP(&n.keys, "recipient", "r", nil, "encrypt to this age or ssh public `KEY`; repeatable")
	f.StringArrayVarP(&n.keyFiles, "recipients-file", "R", nil, "encrypt to the public keys in `FILE`; repeatable")
	if err := c.parse(f, createHelp, args); err != nil {
		return err
	}
	if f.NArg() == 0 {
		return cli.Usagef("nothing to archive: no path given")
	}
	if isTerminal(c.s.out) {
		return cli.Usagef("the archive goes to standard output, which is a terminal: redirect it to a file or a pipe")
	}
	if n.compress != "" {
		if _, err := format.ParseLevel(n.compress); err != nil {
			return &cli.UsageError{Err: err}
		}
	}
	n.parallel = cli.Workers(n.parallel)
	n.m = format.Manifest{Tool: "xbstream " + version, Started: time.Now()}
	n.show = func(msg string) { c.out.Logger("xbstream", c.s.err).Warn(msg) }
	out, err := cli.OpenOutput(ctx, c.s.out, cli.PipeOptions{Log: c.out.Logger("xbstream", c.s.err)})
	if err != nil {
		return err
	}
	defer out.Close()
	n.bar = c.out.StartProgress(c.s.err)
	defer func() { n.bar.Stop(ctx, err) }()
	n.bar.Watch(out)
	gather := cli.NewGather(out)
	defer gather.Close()
	t, err := n.run(ctx, gather, f.Args())
	if err == nil {
		err = gather.Flush()
	}
	if err != nil {
		return err
	}
	c.out.Logger("xbstream", c.s.err).Info("archive complete", "files", t.Files, "data", cli.Bytes(t.DataBytes))
	return nil
}

func (n *creation) run(ctx context.Context, out io.Writer, paths []string) (format.Totals, error) {
	recipients, err := agekeys.Recipients(n.keys, n.keyFiles, n.show)
	if err != nil {
		return format.Totals{}, &cli.UsageError{Err: err}
	}
	if n.root, err = os.OpenRoot(n.dir); err != nil {
		return format.Totals{}, err
	}
	defer n.root.Close()
	files, err := n.list(paths)
	if err != nil {
		return format.Totals{}, err
	}
	var sealed io.WriteCloser
	if len(recipients) > 0 {
		if sealed, err = format.Encrypt(out, recipients...); err != nil {
			return format.Totals{}, err
		}
		out = sealed
	}
	t, err := n.write(ctx, out, files)
	if err == nil && sealed != nil {
		err = sealed.Close()
	}
	return t, err
}

// list finds the files, and puts the directories into the manifest.
func (n *creation) list(paths []string) (files []format.File, err error) {
	for _, p := range paths {
		p = path.Clean(filepath.ToSlash(p))
		err := fs.WalkDir(n.root.FS(), p, func(p string, e fs.DirEntry, err error) error {
			if err != nil || p == "." {
				return err
			}
			st, err := e.Info()
			if err != nil {
				return err
			}
			f := format.File{Path: p, Kind: format.KindFile, Mode: uint32(st.Mode().Perm()), ModTime: st.ModTime().UTC()}
			switch {
			case st.IsDir():
				f.Kind = format.KindDir
				n.m.Files = append(n.m.Files, f)
			case st.Mode().IsRegular():
				f.Size = st.Size()
				files = append(files, f)
			default:
				return fmt.Errorf("%s: neither a file nor a directory", p)
			}
			return format.CheckPath(p)
		})
		if err != nil {
			return nil, err
		}
	}
	// Paths may be given twice, or one inside the other.
	byPath := func(a, b format.File) int { return strings.Compare(a.Path, b.Path) }
	same := func(a, b format.File) bool { return a.Path == b.Path }
	slices.SortFunc(files, byPath)
	slices.SortFunc(n.m.Files, byPath)
	n.m.Files = slices.CompactFunc(n.m.Files, same)
	return slices.CompactFunc(files, same), nil
}

func (n *creation) write(ctx context.Context, out io.Writer, files []format.File) (t format.Totals, err error) {
	n.out, err = format.NewWriter(out, format.WriterOptions{Compress: format.Level(n.compress), Parallel: n.parallel})
	if err != nil {
		return t, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(n.parallel)
	for i := range files {
		g.Go(func() error {
			if err := n.file(ctx, &files[i]); err != nil {
				return fmt.Errorf("%s: %w", files[i].Path, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		n.out.Abort(err)
		return t, err
	}
	n.m.Files = append(n.m.Files, files...)
	n.m.Finished = time.Now()
	return n.out.Close(&n.m)
}

// errChanged says that a file is not what it was when it was found.
var errChanged = errors.New("changed while it was read")

func (n *creation) file(ctx context.Context, f *format.File) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	h, err := n.root.Open(f.Path)
	if err != nil {
		return err
	}
	defer h.Close()
	if f.No, err = n.out.BeginFile(*f); err != nil {
		return err
	}
	if err := n.content(ctx, h, f); err != nil {
		return err
	}
	st, err := h.Stat()
	if err != nil {
		return err
	}
	if st.Size() != f.Size || !st.ModTime().Equal(f.ModTime) {
		return errChanged
	}
	return n.out.EndFile(f.No, f.Size)
}

// content sends the bytes; a chunk of zeros becomes a hole.
func (n *creation) content(ctx context.Context, h io.Reader, f *format.File) error {
	for off := int64(0); off < f.Size; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b := format.GetBuffer()
		p := b.Space()[:min(f.Size-off, format.ChunkSize)]
		if _, err := io.ReadFull(h, p); err != nil {
			b.Release()
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				return errChanged
			}
			return err
		}
		if err := n.piece(f.No, off, b, len(p)); err != nil {
			return err
		}
		off += int64(len(p))
		n.bar.Add(int64(len(p)))
	}
	return nil
}

func (n *creation) piece(no format.FileNo, off int64, b *format.Buffer, size int) error {
	b.SetLen(size)
	if isZero(b.Bytes()) {
		b.Release()
		return n.out.WriteHole(no, off, int64(size))
	}
	return n.out.WriteData(no, off, b)
}

func isZero(p []byte) bool {
	for len(p) > 0 && p[0] == 0 {
		p = p[1:]
	}
	return len(p) == 0
}
