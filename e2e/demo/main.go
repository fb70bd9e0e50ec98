// Command demo shows the main job on this machine: a throw-away server under a
// write load, xbsend | xbstream -x --prepare, the copy started and attached as a
// replica, everything compared. It prints a short table and leaves nothing
// behind, also when it is interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/servertest"
)

func main() {
	bin := flag.String("bin", "bin", "directory of xbsend and xbstream")
	mb := flag.Int64("mb", 150, "size of the large tables in MiB")
	server := flag.String("server", "mariadb", "family of the server: mariadb or mysql")
	flag.Parse()
	release, ok := releases[*server]
	if !ok {
		fmt.Fprintf(os.Stderr, "demo: no server of the family %q: mariadb or mysql\n", *server)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, release, *bin, *mb<<20)
	stop()
	err = errors.Join(err, servertest.Cleanup())
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// releases are the servers that there are demonstrations of.
var releases = map[string]servertest.Release{"mariadb": servertest.Usual(), "mysql": servertest.MySQL97}

// step says what is being done.
func step(what string, args ...any) { fmt.Printf("· "+what+"\n", args...) }

func run(ctx context.Context, release servertest.Release, bin string, bytes int64) error {
	step("start a server (%s) and fill tables of every kind", release)
	source, err := servertest.Start(ctx, servertest.Options{Release: release, LogFileSize: 32 << 20, LogBin: true, TCP: true})
	if err != nil {
		return err
	}
	defer source.Close()
	options := servertest.LoadOptions{Seed: uint64(time.Now().UnixNano()), BulkBytes: bytes}
	if err := source.CreateSchema(ctx, options); err != nil {
		return err
	}
	step("four writers begin, and will not stop")
	load, err := source.StartLoad(ctx, options)
	if err != nil {
		return err
	}
	defer load.Stop()
	if err := load.Await(ctx, 2000); err != nil {
		return err
	}

	dir, err := servertest.TempDir("copy")
	if err != nil {
		return err
	}
	dir = filepath.Join(dir, "data")
	step("xbsend | xbstream -x --prepare")
	began := time.Now()
	if err := backup(ctx, bin, source.Socket(), dir); err != nil {
		return err
	}
	took := time.Since(began)
	return follow(ctx, source, load, dir, took)
}

// backup runs the pipeline.
func backup(ctx context.Context, bin, socket, dir string) error {
	send := exec.CommandContext(ctx, filepath.Join(bin, "xbsend"), "--no-defaults", "--user=root", "--socket="+socket)
	receive := exec.CommandContext(ctx, filepath.Join(bin, "xbstream"), "-x", "--prepare", "-C", dir)
	for _, c := range []*exec.Cmd{send, receive} {
		c.Stderr = os.Stdout
		c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
		c.WaitDelay = 10 * time.Second
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	send.Stdout, receive.Stdin = w, r
	err1, err2 := send.Start(), receive.Start()
	w.Close()
	r.Close()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	return errors.Join(send.Wait(), receive.Wait())
}

// follow starts the copy, lets it follow the source, and compares.
func follow(ctx context.Context, source *servertest.Server, load *servertest.Load, dir string, took time.Duration) error {
	m, err := manifest(dir)
	if err != nil {
		return err
	}
	step("start the copy and attach it as a replica at GTID %s", m.Backup.GTID)
	copied, err := servertest.StartOn(ctx, dir, servertest.Options{Release: source.Release(), ServerID: 2})
	if err != nil {
		return err
	}
	defer copied.Close()
	if err := copied.AttachReplica(ctx, source, m.Backup.GTID); err != nil {
		return err
	}
	if err := load.Await(ctx, 2000); err != nil {
		return err
	}
	counts, err := load.Stop()
	if err != nil {
		return err
	}
	step("the writers stop; the copy catches up")
	if err := source.StopEvents(ctx); err != nil {
		return err
	}
	if err := copied.WaitCaughtUp(ctx, source); err != nil {
		return err
	}
	step("compare every row of every table, and check every table")
	c, err := servertest.Compare(ctx, source, copied)
	if err != nil {
		return err
	}
	tables, complaints, err := copied.CheckTables(ctx)
	if err != nil {
		return err
	}
	report(m, took, counts, c, tables, complaints)
	if n := len(c.Differences) + len(complaints); n > 0 {
		return fmt.Errorf("%d differences", n)
	}
	return nil
}

func manifest(dir string) (*format.Manifest, error) {
	f, err := os.Open(filepath.Join(dir, format.ManifestName))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return format.ReadManifest(f)
}

func report(m *format.Manifest, took time.Duration, counts servertest.LoadCounts, c servertest.Comparison, tables int, complaints []string) {
	size := int64(0)
	for _, f := range m.Files {
		size += f.Size
	}
	redo := m.Backup.Redo
	t := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	line := func(key string, value any) { fmt.Fprintf(t, "  %s\t%v\n", key, value) }
	fmt.Fprintln(t)
	line("data", humanize.IBytes(uint64(size)))
	line("redo applied", humanize.IBytes(uint64(redo.EndLSN-redo.CheckpointLSN)))
	line("backup, restore, prepare", took.Round(10*time.Millisecond))
	line("DDL blocked", fmt.Sprintf("%.2fs", m.Backup.LockSeconds))
	line("writes meanwhile", counts.Total())
	line("tables and rows compared", fmt.Sprintf("%d, %d", c.Tables, c.Rows))
	line("CHECK TABLE EXTENDED", fmt.Sprintf("%d tables, %d complaints", tables, len(complaints)))
	line("differences", len(c.Differences))
	t.Flush()
	for _, d := range append(c.Differences, complaints...) {
		fmt.Println("  ", d)
	}
}
