package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"

	"github.com/xbstream/xbstream/extract"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/prepare"
)

const listHelp = `Usage: xbstream list [flags] [ARCHIVE]
       xbstream -t [flags] < ARCHIVE

Lists the files in an archive. Of a file, only the end is read. A pipe is read
and checked completely.

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
		enc := json.NewEncoder(out)
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
	return out.Flush()
}

// listText prints one entry. The columns are wide enough for most: an archive
// may hold more files than fit into memory, so nobody knows the widest.
func listText(w io.Writer, f *format.File, verbose bool) error {
	if !verbose {
		_, err := fmt.Fprintln(w, shown(f.Path))
		return err
	}
	space := ""
	if f.Space != nil {
		space = f.Space.ID.String()
	}
	_, err := fmt.Fprintf(w, "%04o %14d %-10s %6s  %s\n", f.Mode, f.Size, f.Kind, space, shown(f.Path))
	return err
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
	rolledBack, err := preparedRolledBack(f.Args())
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(c.s.out)
		enc.SetIndent("", "  ")
		return enc.Encode(infoJSON{m, rolledBack})
	}
	return infoText(c.s.out, m, n, rolledBack)
}

// infoJSON is the manifest and what preparing a directory added to it.
type infoJSON struct {
	*format.Manifest
	PreparedRolledBack int `json:"prepared_rolled_back,omitempty"`
}

// preparedRolledBack returns what preparing a directory found; of an archive
// nobody knows yet.
func preparedRolledBack(args []string) (int, error) {
	if len(args) != 1 {
		return 0, nil
	}
	if st, err := os.Stat(args[0]); err != nil || !st.IsDir() {
		return 0, nil
	}
	return prepare.PreparedRolledBack(args[0])
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
			f, err := os.Open(filepath.Join(args[0], extract.ManifestName))
			if err != nil {
				return nil, err
			}
			defer f.Close()
			return format.DecodeManifest(f, each)
		}
	}
	return c.contents(ctx, args, each)
}

// readThrough reads a whole archive, checking everything, and writes the text
// of its manifest to w.
func readThrough(ctx context.Context, ar extract.Frames, w io.Writer) error {
	for {
		f, err := ar.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if f.Type == format.FrameManifest {
			_, err = w.Write(f.Bytes())
		}
		f.Release()
		if err = errors.Join(err, context.Cause(ctx)); err != nil {
			return err
		}
	}
}

func infoText(w io.Writer, m *format.Manifest, n sums, rolledBack int) error {
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
	line("files", fmt.Sprintf("%d, %s", n.files, humanize.IBytes(uint64(n.bytes))))
	if b := m.Backup; b != nil {
		infoBackup(line, b)
		infoPartial(line, m, n)
	}
	if rolledBack > 0 {
		line("rolled back", fmt.Sprintf("%d transactions that the server had prepared itself and not committed", rolledBack))
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
				line("--"+flag.name, shown(flag.value))
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
		line("", shown(path))
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
			where = fmt.Sprintf("%s:%d, GTID %s", s.Host, s.Port, b.GTIDReplicated)
		}
		if s.Connection != "" {
			where = s.Connection + ": " + where
		}
		line("replicates from", where)
	}
	if s := extract.SlaveStatements(b); len(s) > 0 {
		line("in its place", strings.Join(s, " "))
	}
	if g := b.Galera; g != nil {
		line("Galera", fmt.Sprintf("%s:%d, GTID domain %d", g.StateUUID, g.SeqNo, g.DomainID))
	}
	if b.GTID != "" {
		line("GTID", b.GTID)
		line("as a replica", fmt.Sprintf("SET GLOBAL gtid_slave_pos='%s'; CHANGE MASTER TO MASTER_HOST='…', MASTER_USER='…', MASTER_USE_GTID=slave_pos; START SLAVE;", b.GTID))
	}
}
