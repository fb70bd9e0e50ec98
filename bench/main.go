// Command bench compares xbsend and xbstream with mariabackup and mbstream, and
// with what a MySQL server does by itself, on this machine: the same data, the same cache, in turn, in one run. It prints
// Markdown. Nothing is asserted: a test that is timed fails on a busy machine;
// a ratio of medians of interleaved runs tells the truth.
//
//	go run ./bench -bin bin -mb 1024 -redo 400 -runs 5
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/dustin/go-humanize"

	"github.com/xbstream/xbstream/internal/servertest"
)

type config struct {
	bin    string // directory of our binaries
	dataMB int64  // size of the data set
	redoMB int64  // redo in the directory that is prepared
	runs   int    // counted runs, after one warm-up
	tables int    // small tables
	only   string // name of the only part to run
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == bareArg {
		if err := bareLoop(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	var c config
	flag.StringVar(&c.bin, "bin", "bin", "directory of xbsend and xbstream")
	flag.Int64Var(&c.dataMB, "mb", 1024, "size of the data set in MiB")
	flag.Int64Var(&c.redoMB, "redo", 400, "redo of the directory to prepare, in MiB")
	flag.IntVar(&c.runs, "runs", 5, "counted runs of each command")
	flag.IntVar(&c.tables, "tables", 20000, "number of small tables")
	flag.StringVar(&c.only, "only", "", "run this part only: backup, cached, cold, prepare, tables, locks or mysql")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, c)
	stop()
	if err2 := servertest.Cleanup(); err == nil {
		err = err2
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, c config) error {
	bin, err := filepath.Abs(c.bin)
	if err != nil {
		return err
	}
	c.bin = bin
	fmt.Println(header)
	for _, l := range []struct {
		name string
		run  func(context.Context, config) error
	}{{"backup", benchBackup}, {"cached", benchCached}, {"cold", benchCold}, {"prepare", benchPrepare}, {"tables", benchTables}, {"locks", benchLocks}, {"mysql", benchMySQL}} {
		if c.only != "" && c.only != l.name {
			continue
		}
		if err := l.run(ctx, c); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	return nil
}

// benchBackup measures the backup of an idle server with the defaults, where the
// peer reads past the page cache: into a pipe that is thrown away, and the whole
// way to a directory that starts.
func benchBackup(ctx context.Context, c config) error {
	s, err := startBulk(ctx, c)
	if err != nil {
		return err
	}
	defer s.Close()
	b := backupOf(c, s)
	if err := b.compareAway(ctx, c, ""); err != nil {
		return err
	}
	if err := compare(ctx, c, "encrypted (peer: age)", b.fresh,
		pipeline{b.peer, {"age", "-r", benchKey}, away}, pipeline{append(slices.Clone(b.ours), "-r", benchKey), away}); err != nil {
		return err
	}
	return b.compareWhole(ctx, c, "")
}

// benchCached measures the same where both sides read from the page cache.
func benchCached(ctx context.Context, c config) error {
	s, err := startBulk(ctx, c, "--innodb-flush-method=fsync")
	if err != nil {
		return err
	}
	defer s.Close()
	b := backupOf(c, s)
	b.peer = append(b.peer, "--innodb-flush-method=fsync")
	if err := b.compareAway(ctx, c, ", flush method fsync"); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// Of the same files: those of the databases and the system tablespace, not redo.
	bare := pipeline{{self, bareArg, filepath.Join(s.Datadir(), "load")}, away}
	if err := compare(ctx, c, "backup (peer: a bare loop that reads, sums and writes)", b.fresh, bare, pipeline{b.ours, away}); err != nil {
		return err
	}
	return b.compareWhole(ctx, c, ", flush method fsync")
}

// benchCold measures the backup of a server that has just been started, before
// each run, and so has none of the tables open.
func benchCold(ctx context.Context, c config) error {
	s, err := startBulk(ctx, c, "--innodb-buffer-pool-load-at-startup=OFF")
	if err != nil {
		return err
	}
	defer s.Close()
	b := backupOf(c, s)
	b.fresh = func() error {
		// With nothing left to purge, which would open tables.
		if err := s.Exec(ctx, "SET GLOBAL innodb_fast_shutdown=0"); err != nil {
			return err
		}
		if err := s.Restart(ctx); err != nil {
			return err
		}
		return readAll(s.Datadir())
	}
	if err := b.fresh(); err != nil {
		return err
	}
	size, err := dataSize(s.Datadir())
	if err != nil {
		return err
	}
	return b.compareAway(ctx, c, fmt.Sprintf(", server just started, %s of data", humanize.IBytes(uint64(size))))
}

// startBulk starts a server with the data set.
func startBulk(ctx context.Context, c config, args ...string) (*servertest.Server, error) {
	s, err := servertest.Start(ctx, servertest.Options{LogFileSize: 96 << 20, LogBin: true,
		Args: append([]string{"--innodb-buffer-pool-size=1G"}, args...)})
	if err != nil {
		return nil, err
	}
	if err := s.CreateSchema(ctx, servertest.LoadOptions{BulkBytes: c.dataMB << 20}); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := settle(ctx, s); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// sides are the commands that back up one server.
type sides struct {
	peer, ours []string
	// fresh is called before each run: the peer drops what it has read from the
	// page cache, so that whoever comes after it would pay for the disk.
	fresh func() error
}

var away = []string{"wc", "-c"}

func backupOf(c config, s *servertest.Server) sides {
	return sides{
		// It keeps a descriptor for each table.
		peer: []string{"sh", "-c", `ulimit -n $(ulimit -Hn); exec "$@"`, "sh", "mariabackup", "--no-defaults", "--backup", "--stream=xbstream",
			"--user=root", "--socket=" + s.Socket(), "--target-dir=/tmp"},
		ours:  []string{filepath.Join(c.bin, "xbsend"), "--no-defaults", "--user=root", "--socket=" + s.Socket()},
		fresh: func() error { return readAll(s.Datadir()) },
	}
}

// compareAway compares backups into a pipe that is thrown away, plain and
// compressed. Both are called as a user calls them.
func (b sides) compareAway(ctx context.Context, c config, where string) error {
	if err := compare(ctx, c, "backup, thrown away"+where, b.fresh, pipeline{b.peer, away}, pipeline{b.ours, away}); err != nil {
		return err
	}
	return compare(ctx, c, "--compress (peer: zstd -T0 -1)"+where, b.fresh,
		pipeline{b.peer, {"zstd", "-q", "-T0", "-1"}, away}, pipeline{append(slices.Clone(b.ours), "--compress"), away})
}

// compareWhole compares the whole way. Ours syncs what it restores, so the peer's
// line ends in sync.
func (b sides) compareWhole(ctx context.Context, c config, where string) error {
	dir, err := servertest.TempDir("bench-whole")
	if err != nil {
		return err
	}
	target := filepath.Join(dir, "target")
	fresh := func() error {
		if err := os.RemoveAll(target); err != nil {
			return err
		}
		if err := os.Mkdir(target, 0o700); err != nil {
			return err
		}
		return b.fresh()
	}
	return compare(ctx, c, "backup, extract, prepare, synced"+where, fresh,
		pipeline{b.peer, {"mbstream", "-x", "-C", target}}.then(
			pipeline{{"mariabackup", "--no-defaults", "--prepare", "--target-dir=" + target}}, pipeline{{"sync", "-f", target}}),
		pipeline{b.ours, {filepath.Join(c.bin, "xbstream"), "-x", "--prepare", "-C", target}})
}

// benchKey is a public key; nobody has its secret.
const benchKey = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"

// dataSize is the size of the files below dir but for redo and temporary ones.
func dataSize(dir string) (size int64, err error) {
	return size, eachFile(dir, func(path string, e fs.DirEntry) error {
		if strings.HasPrefix(e.Name(), "ib_logfile") || e.Name() == "ibtmp1" {
			return nil
		}
		st, err := e.Info()
		if err == nil {
			size += st.Size()
		}
		return err
	})
}

// readAll reads every file below dir, which puts it into the page cache.
func readAll(dir string) error {
	return eachFile(dir, func(path string, _ fs.DirEntry) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(io.Discard, f)
		return err
	})
}

// eachFile calls do for every regular file below dir. One that is gone is a
// temporary file of the server.
func eachFile(dir string, do func(path string, e fs.DirEntry) error) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			err = do(path, e)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

// benchTables measures a backup of very many small tables: as many as the peer,
// which keeps a descriptor for each, can open here.
func benchTables(ctx context.Context, c config) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	c.tables = min(c.tables, int(limit.Max)-1000)
	s, err := servertest.Start(ctx, servertest.Options{LogFileSize: 512 << 20,
		Args: []string{"--innodb-buffer-pool-size=1G", "--innodb-flush-log-at-trx-commit=0", "--open-files-limit=65000", "--table-open-cache=30000"}})
	if err != nil {
		return err
	}
	defer s.Close()
	statements := []string{"CREATE DATABASE many", "USE many"}
	for i := range c.tables {
		statements = append(statements, fmt.Sprintf("CREATE TABLE t%d (id INT PRIMARY KEY, a INT) ENGINE=InnoDB", i))
	}
	if err := s.Exec(ctx, statements...); err != nil {
		return err
	}
	if err := settle(ctx, s); err != nil {
		return err
	}
	b := backupOf(c, s)
	b.ours = append([]string{"prlimit", "--nofile=256"}, b.ours...)
	name := fmt.Sprintf(", %d small tables (ours: 256 open files)", c.tables)
	if err := compare(ctx, c, "backup, thrown away"+name, b.fresh, pipeline{b.peer, away}, pipeline{b.ours, away}); err != nil {
		return err
	}
	return b.compareWhole(ctx, c, name)
}

// settle waits until the server has written what it has to write, so that no
// run pays for it.
func settle(ctx context.Context, s *servertest.Server) error {
	return s.Exec(ctx, "SET GLOBAL innodb_max_dirty_pages_pct_lwm=0", "SET GLOBAL innodb_max_dirty_pages_pct=0",
		"DO SLEEP(5)", "FLUSH TABLES")
}

// benchPrepare measures the recovery of a directory that mariabackup made, with
// much redo: the server keeps its pages dirty, so its checkpoint stays behind.
func benchPrepare(ctx context.Context, c config) error {
	dir, err := makeBackup(ctx, c)
	if err != nil {
		return err
	}
	work := filepath.Join(filepath.Dir(dir), "work")
	fresh := func() error {
		if err := os.RemoveAll(work); err != nil {
			return err
		}
		if err := plain(ctx, "cp", "-a", dir, work); err != nil {
			return err
		}
		// What the copy left to be written is neither side's work.
		return plain(ctx, "sync", "-f", work)
	}
	peer := []string{"mariabackup", "--no-defaults", "--prepare", "--target-dir=" + work}
	ours := pipeline{{filepath.Join(c.bin, "xbstream"), "prepare", work}}
	name := fmt.Sprintf("prepare, %s of redo", sizeOf(filepath.Join(dir, "ib_logfile0")))
	if err := compare(ctx, c, name+", peer's default memory", fresh, pipeline{peer}.then(pipeline{{"sync", "-f", work}}), ours); err != nil {
		return err
	}
	big := append(slices.Clone(peer), "--use-memory=1G")
	if err := compare(ctx, c, name+", peer with 1G", fresh, pipeline{big}.then(pipeline{{"sync", "-f", work}}), ours); err != nil {
		return err
	}
	small := pipeline{append(slices.Clone(ours[0]), "--memory=64M")}
	return compare(ctx, c, name+", ours with 64M", fresh, pipeline{peer}.then(pipeline{{"sync", "-f", work}}), small)
}

func makeBackup(ctx context.Context, c config) (string, error) {
	s, err := servertest.Start(ctx, servertest.Options{LogFileSize: (3*c.redoMB + 64) << 20, Args: []string{
		"--innodb-buffer-pool-size=2G", "--innodb-flush-log-at-trx-commit=0",
		"--innodb-max-dirty-pages-pct=99", "--innodb-max-dirty-pages-pct-lwm=0"}})
	if err != nil {
		return "", err
	}
	defer s.Close()
	if err := s.CreateSchema(ctx, servertest.LoadOptions{BulkBytes: 64 << 20, MaxRowsPerTable: 2000}); err != nil {
		return "", err
	}
	if err := fillRedo(ctx, s, c.redoMB<<20); err != nil {
		return "", err
	}
	dir, err := servertest.TempDir("bench-prepare")
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "backup")
	return dir, plain(ctx, "mariabackup", "--no-defaults", "--backup", "--user=root", "--socket="+s.Socket(), "--target-dir="+dir)
}
