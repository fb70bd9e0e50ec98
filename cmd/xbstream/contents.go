package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"

	"github.com/xbstream/xbstream/extract"
	"github.com/xbstream/xbstream/format"
)

const listHelp = `Usage: xbstream list [flags] [ARCHIVE]
       xbstream -t [flags] < ARCHIVE

Prints what an archive holds. Of a file only the end is read, of a pipe all of
it, and checked.
`

func (c *command) list(ctx context.Context, args []string) error {
	asJSON := false
	f := pflag.NewFlagSet("list", pflag.ContinueOnError)
	f.BoolVar(&asJSON, "json", false, "one JSON object a line")
	c.keys.register(f)
	c.registerIncomplete(f)
	if err := c.parse(f, listHelp, args); err != nil {
		return err
	}
	m, err := c.contents(ctx, f.Args())
	if err != nil {
		return err
	}
	if asJSON {
		return listJSON(c.s.out, m)
	}
	return listText(c.s.out, m, c.out.Verbose)
}

func listJSON(w io.Writer, m *format.Manifest) error {
	enc := json.NewEncoder(w)
	for i := range m.Files {
		if err := enc.Encode(&m.Files[i]); err != nil {
			return err
		}
	}
	return nil
}

func listText(w io.Writer, m *format.Manifest, verbose bool) error {
	if !verbose {
		for _, f := range m.Files {
			if _, err := fmt.Fprintf(w, "%s\n", shown(f.Path)); err != nil {
				return err
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 8, 1, ' ', tabwriter.AlignRight)
	for _, f := range m.Files {
		space := ""
		if f.Space != nil {
			space = f.Space.ID.String()
		}
		fmt.Fprintf(t, "%04o\t%d\t%s\t%s\t %s\n", f.Mode, f.Size, f.Kind, space, shown(f.Path))
	}
	return t.Flush()
}

// shown keeps a name from an archive from driving the terminal.
func shown(path string) string {
	for _, r := range path {
		if r < ' ' || r == 0x7F {
			return fmt.Sprintf("%q", path)
		}
	}
	return path
}

const infoHelp = `Usage: xbstream info [flags] [ARCHIVE|DIR]

Prints what a backup says of itself: from an archive or a restored directory.
`

func (c *command) info(ctx context.Context, args []string) error {
	asJSON := false
	f := pflag.NewFlagSet("info", pflag.ContinueOnError)
	f.BoolVar(&asJSON, "json", false, "as one JSON object")
	c.keys.register(f)
	if err := c.parse(f, infoHelp, args); err != nil {
		return err
	}
	m, err := c.manifest(ctx, f.Args())
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(c.s.out)
		enc.SetIndent("", "  ")
		return enc.Encode(m)
	}
	return infoText(c.s.out, m)
}

// manifest reads the manifest of an archive or of a restored directory.
func (c *command) manifest(ctx context.Context, args []string) (*format.Manifest, error) {
	if len(args) == 1 {
		if st, err := os.Stat(args[0]); err == nil && st.IsDir() {
			f, err := os.Open(filepath.Join(args[0], extract.ManifestName))
			if err != nil {
				return nil, err
			}
			defer f.Close()
			return format.ReadManifest(f)
		}
	}
	return c.contents(ctx, args)
}

// readThrough reads a whole archive, checking everything, and returns its
// manifest.
func readThrough(ctx context.Context, ar extract.Frames) (*format.Manifest, error) {
	// The manifest passes through a pipe instead of being kept as text.
	pr, pw := io.Pipe()
	frames := make(chan error, 1)
	go func() {
		err := passManifest(ctx, ar, pw)
		pw.CloseWithError(err)
		frames <- err
	}()
	m, err := format.ReadManifest(pr)
	pr.CloseWithError(err)
	if ferr := <-frames; ferr != nil {
		return nil, ferr
	}
	return m, err
}

func passManifest(ctx context.Context, ar extract.Frames, w io.Writer) error {
	for {
		f, err := ar.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil && f.Type == format.FrameManifest {
			_, err = w.Write(f.Bytes())
		}
		if err == nil {
			f.Release()
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
}

func infoText(w io.Writer, m *format.Manifest) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(key string, value any) { fmt.Fprintf(t, "%s\t%v\n", key, value) }
	if m.ArchiveID != "" {
		line("archive", m.ArchiveID)
	}
	line("written by", m.Tool)
	if !m.Started.IsZero() {
		line("started", m.Started.Local().Format(time.DateTime))
		line("took", m.Finished.Sub(m.Started).Round(100*time.Millisecond))
	}
	size, files := int64(0), 0
	for _, f := range m.Files {
		size += f.Size
		if f.Kind != format.KindDir {
			files++
		}
	}
	line("files", fmt.Sprintf("%d, %s", files, humanize.IBytes(uint64(size))))
	if b := m.Backup; b != nil {
		infoBackup(line, b)
	}
	return t.Flush()
}

func infoBackup(line func(string, any), b *format.Backup) {
	line("server", b.Server.Version)
	line("type", b.Type)
	line("checkpoint LSN", b.Redo.CheckpointLSN)
	line("end LSN", b.Redo.EndLSN)
	line("locked", fmt.Sprintf("%.2f s", b.LockSeconds))
	for _, s := range b.Stages {
		line("  "+s.Name, fmt.Sprintf("waited %.2f s, held %.2f s", s.Waited, s.Held))
	}
	if b.Binlog != nil {
		line("binary log", fmt.Sprintf("%s, position %d", b.Binlog.File, b.Binlog.Position))
	}
	if b.GTID != "" {
		line("GTID", b.GTID)
		line("as a replica", fmt.Sprintf("SET GLOBAL gtid_slave_pos='%s'; CHANGE MASTER TO MASTER_HOST='…', MASTER_USER='…', MASTER_USE_GTID=slave_pos; START SLAVE;", b.GTID))
	}
}
