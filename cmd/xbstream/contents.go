package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"

	"github.com/xbstream/xbstream/extract"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
	"github.com/xbstream/xbstream/internal/quote"
)

const listHelp = `Usage: xbstream list [flags] [ARCHIVE]
       xbstream -t [flags] < ARCHIVE

Lists the files in an archive. From a file, it reads only the end; to check
every byte, use xbstream verify. It reads and checks a pipe completely.

Examples:

  List the names:
    xbstream -t monday.xb
  List modes, sizes, kinds and space ids too:
    xbstream -t -v monday.xb
`

func (c *command) list(ctx context.Context, args []string) error {
	asJSON := false
	f := pflag.NewFlagSet("list", pflag.ContinueOnError)
	f.BoolVar(&asJSON, "json", false, "print one JSON object per line")
	c.keys.register(f)
	c.registerIncomplete(f)
	c.registerIdle(f)
	if err := c.parse(f, listHelp, args); err != nil {
		return err
	}
	out := bufio.NewWriter(c.s.out)
	each := func(f *format.File) error { return listText(out, f, c.out.Verbose) }
	if asJSON {
		enc := json.NewEncoder(quote.JSON(out))
		each = func(f *format.File) error { return enc.Encode(f) }
	}
	arrived := func(f *format.File) error {
		if !f.Arrived() {
			return nil
		}
		return each(f)
	}
	if _, err := c.contents(ctx, f.Args(), arrived); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if c.endOnly {
		c.out.Logger("xbstream", c.s.err).Info("only the end of the file was read; to check every byte, run: xbstream verify")
	}
	return nil
}

// listText prints one entry. The columns are wide enough for most: an archive
// may hold more files than fit into memory, so nobody knows the widest.
func listText(w io.Writer, f *format.File, verbose bool) error {
	if !verbose {
		_, err := fmt.Fprintln(w, quote.Name(f.Path))
		return err
	}
	space := ""
	if f.Space != nil {
		space = f.Space.ID.String()
	}
	_, err := fmt.Fprintf(w, "%04o %14d %-10s %6s  %s\n", f.Mode, f.Size, f.Kind, space, quote.Name(f.Path))
	return err
}

const infoHelp = `Usage: xbstream info [flags] [ARCHIVE|DIR]

Shows where a backup comes from: server version, time, LSN, binary log position,
GTID, and how to attach a replica.

Examples:

  Show it for an archive:
    xbstream info monday.xb
  Get the GTID of a restored directory in a script:
    xbstream info --json /srv/copy | jq -r .backup.gtid
`

func (c *command) info(ctx context.Context, args []string) error {
	asJSON := false
	f := pflag.NewFlagSet("info", pflag.ContinueOnError)
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	c.keys.register(f)
	c.registerIdle(f)
	if err := c.parse(f, infoHelp, args); err != nil {
		return err
	}
	n := sums{names: c.out.Verbose}
	m, err := c.manifest(ctx, f.Args(), n.add)
	if err != nil {
		return err
	}
	r, err := c.restored(f.Args())
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(quote.JSON(c.s.out))
		enc.SetIndent("", "  ")
		return enc.Encode(struct {
			*format.Manifest
			restored
		}{m, r})
	}
	return infoText(c.s.out, m, n, r)
}

// restored is what info says of a restored directory beyond its manifest; it is
// empty for an archive.
type restored struct {
	Prepared *bool `json:"prepared,omitempty"`
	// RolledBack is backupdir.State.RolledBack.
	RolledBack int `json:"prepared_rolled_back,omitempty"`
}

func (c *command) restored(args []string) (r restored, err error) {
	if len(args) != 1 {
		return r, nil
	}
	if st, err := os.Stat(args[0]); err != nil || !st.IsDir() {
		return r, nil
	}
	yes, rolledBack, err := backupdir.Prepared(args[0])
	if err != nil {
		return r, err
	}
	return restored{Prepared: &yes, RolledBack: rolledBack}, nil
}

// sums counts the files of a manifest and their bytes.
type sums struct {
	files int
	bytes int64
	// missing counts the tablespaces that were left out; their names are kept
	// if asked for.
	missing int
	names   bool
	leftOut []string
}

func (n *sums) add(f *format.File) error {
	switch {
	case !f.Arrived():
		n.missing++
		if n.names {
			n.leftOut = append(n.leftOut, f.Path)
		}
	case f.Kind != format.KindDir:
		n.files++
		n.bytes += f.Size
	}
	return nil
}

// manifest reads the manifest of an archive or of a restored directory.
func (c *command) manifest(ctx context.Context, args []string, each eachFile) (*format.Manifest, error) {
	if len(args) == 1 {
		if st, err := os.Stat(args[0]); err == nil && st.IsDir() {
			f, err := os.Open(filepath.Join(args[0], format.ManifestName))
			if errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("not a restored directory; name an archive, or a directory that xbstream -x has filled: %w", err)
			}
			if err != nil {
				return nil, err
			}
			defer f.Close()
			return format.DecodeRestored(f, each)
		}
	}
	return c.contents(ctx, args, each)
}

// readThrough reads a whole archive, checking everything, writes the text of its
// manifest to w, and takes note of what arrives.
func readThrough(ctx context.Context, ar extract.Frames, w io.Writer, arrived *format.Arrival) error {
	for {
		f, err := ar.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		arrived.Frame(f)
		if f.Type == format.FrameManifest {
			_, err = w.Write(f.Bytes())
		}
		f.Release()
		if err = errors.Join(err, context.Cause(ctx)); err != nil {
			return err
		}
	}
}

func infoText(w io.Writer, m *format.Manifest, n sums, r restored) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(key string, value any) {
		fmt.Fprintf(t, "%s\t%s\n", quote.Line(key), quote.Line(fmt.Sprint(value)))
	}
	if m.ArchiveID != "" {
		line("archive", m.ArchiveID)
	}
	line("written by", m.Tool)
	if !m.Started.IsZero() {
		line("started", m.Started.Local().Format(time.DateTime))
		line("took", m.Finished.Sub(m.Started).Round(100*time.Millisecond))
	}
	line("files", fmt.Sprintf("%d, %s", n.files, humanize.IBytes(uint64(n.bytes))))
	if b := m.Backup; b != nil {
		switch {
		case r.Prepared == nil:
		case *r.Prepared:
			line("state", "prepared: a server can start from it")
		default:
			line("state", "not prepared: run xbstream prepare before you start a server")
		}
		infoBackup(line, b)
		infoPartial(line, m, n)
	}
	if r.RolledBack > 0 {
		line("rolled back", fmt.Sprintf("%d transactions that the server had prepared itself and not committed", r.RolledBack))
	}
	return t.Flush()
}

// infoPartial says what a backup lacks, and because of which flags.
func infoPartial(line func(string, any), m *format.Manifest, n sums) {
	if f := m.Backup.Filter; f != nil {
		for _, flag := range []struct{ name, value string }{
			{"databases", f.Databases}, {"databases-exclude", f.DatabasesExclude}, {"databases-file", f.DatabasesFile},
			{"tables", f.Tables}, {"tables-exclude", f.TablesExclude}, {"tables-file", f.TablesFile},
		} {
			if flag.value != "" {
				line("--"+flag.name, flag.value)
			}
		}
	}
	if m.Partial {
		line("partial", "not all of the archive was extracted")
	}
	if n.missing > 0 {
		line("left out", fmt.Sprintf("%d tablespaces", n.missing))
	}
	for _, path := range n.leftOut {
		line("", quote.Name(path))
	}
}

func infoBackup(line func(string, any), b *format.Backup) {
	line("server", b.Server.Version)
	line("type", b.Type)
	line("checkpoint LSN", b.Redo.CheckpointLSN)
	line("end LSN", b.Redo.EndLSN)
	line("locked", fmt.Sprintf("%.2f s", b.LockSeconds))
	for _, s := range b.Stages {
		text := fmt.Sprintf("waited %.2f s, held %.2f s", s.Waited, s.Held)
		if s.GaveUp {
			text = fmt.Sprintf("waited %.2f s, not granted; all locks were released", s.Waited)
		}
		line("  "+s.Name, text)
	}
	if b.Binlog != nil {
		line("binary log", fmt.Sprintf("%s, position %d", b.Binlog.File, b.Binlog.Position))
	}
	for _, s := range b.Replication {
		where := fmt.Sprintf("%s:%d, %s, position %d", s.Host, s.Port, s.File, s.Position)
		if s.GTID {
			where = fmt.Sprintf("%s:%d, GTID %s", s.Host, s.Port, cmp.Or(b.GTIDReplicated, "as the copy has it in gtid_executed"))
		}
		if s.Connection != "" {
			where = s.Connection + ": " + where
		}
		line("replicates from", where)
	}
	if s := extract.SlaveStatements(b); len(s) > 0 {
		line("same source", strings.Join(s, " "))
	}
	if g := b.Galera; g != nil {
		line("Galera", fmt.Sprintf("%s:%d, GTID domain %d", g.StateUUID, g.SeqNo, g.DomainID))
	}
	if b.GTID != "" {
		line("GTID", b.GTID)
		line("as a replica", extract.ReplicaStatements(b))
	}
}
