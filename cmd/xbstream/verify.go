package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"github.com/xbstream/xbstream/classic"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/cli"
	"github.com/xbstream/xbstream/internal/families"
	"github.com/xbstream/xbstream/internal/quote"
	"github.com/xbstream/xbstream/verify"
)

const verifyHelp = `Usage: xbstream verify [flags] [ARCHIVE|DIR]

Checks every byte of an archive, or every page of a restored directory, and
lists everything that is wrong. The exit code is 3 if something is wrong.

Examples:

  Check a backup:
    xbstream verify monday.xb
  Check a backup in a bucket:
    aws s3 cp s3://backups/monday.xb - | xbstream verify
  Check a restored directory:
    xbstream verify restored
`

func (c *command) verify(ctx context.Context, args []string) error {
	parallel := 0
	f := pflag.NewFlagSet("verify", pflag.ContinueOnError)
	c.keys.register(f)
	c.registerIdle(f)
	f.VarP((*cli.Count)(&parallel), "parallel", "j", "number of workers for a directory (default: one per core)")
	if err := c.parse(f, verifyHelp, args); err != nil {
		return err
	}
	rep, err := c.runVerify(ctx, f.Args(), parallel)
	if err != nil {
		return err
	}
	for _, p := range rep.Problems {
		fmt.Fprintln(c.s.out, quote.Line(p))
	}
	switch {
	case rep.Count == 1:
		return fmt.Errorf("%w: 1 problem", format.ErrDamaged)
	case rep.Count > 1:
		return fmt.Errorf("%w: %d problems", format.ErrDamaged, rep.Count)
	}
	attrs := []any{"files", rep.Files, "data", cli.Bytes(rep.Bytes), "innodb_pages", rep.Pages}
	if rep.Unchecked > 0 {
		attrs = append(attrs, "encrypted_pages_not_checked", rep.Unchecked)
	}
	if b := rep.Manifest.Backup; b != nil {
		attrs = append(attrs, "end_lsn", b.Redo.EndLSN)
	}
	c.out.Logger("xbstream", c.s.err).Info("no problems found", attrs...)
	return nil
}

func (c *command) runVerify(ctx context.Context, args []string, parallel int) (*verify.Report, error) {
	if len(args) == 1 {
		if st, err := os.Stat(args[0]); err == nil && st.IsDir() {
			return verify.Dir(ctx, args[0], cli.Workers(parallel), families.ParseFlags)
		}
	}
	if len(args) > 1 {
		return nil, cli.Usagef("one archive or directory at a time: %q", args)
	}
	in, err := c.archive(ctx, args)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	br := bufio.NewReader(in)
	if isClassic(br) {
		return c.verifyClassic(ctx, br)
	}
	return verify.Archive(ctx, br, families.ParseFlags)
}

// verifyClassic checks what a classic stream lets one check: checksums, offsets
// and that it is complete. It ends at the first problem: nothing in such a
// stream says where the next chunk would begin.
func (c *command) verifyClassic(ctx context.Context, r io.Reader) (*verify.Report, error) {
	ar := classic.NewReader(r, classic.Options{})
	defer ar.Close()
	kept, arrived := new(spill), new(format.Arrival)
	defer kept.Close()
	if err := readThrough(ctx, ar, kept, arrived); err != nil {
		return nil, err
	}
	nothing := func(*format.File) error { return nil }
	if _, err := checked(ctx, kept.manifest, func(*format.Manifest) *format.Arrival { return arrived }, ar.ID(), nothing); err != nil {
		return nil, err
	}
	t := ar.Totals()
	rep := &verify.Report{Manifest: new(format.Manifest), Files: int(t.Files), Bytes: int64(t.DataBytes)}
	c.out.Logger("xbstream", c.s.err).Warn("this checks no pages of a stream of mariabackup or XtraBackup; to check them, run: xbstream -x --prepare --verify")
	return rep, nil
}
