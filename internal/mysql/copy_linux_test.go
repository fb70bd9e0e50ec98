package mysql_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb/filename"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
	"github.com/xbstream/xbstream/internal/mysql"
	"github.com/xbstream/xbstream/internal/mysql/redo"
	"github.com/xbstream/xbstream/internal/servertest"
	"github.com/xbstream/xbstream/redotail"
	"github.com/xbstream/xbstream/server"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// directory is a chunker.Sink that writes files as they will be restored.
type directory struct {
	dir string

	mu    sync.Mutex
	files []*os.File
}

func (d *directory) BeginFile(f format.File) (format.FileNo, error) {
	name := filepath.Join(d.dir, f.Path)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return 0, err
	}
	file, err := os.Create(name)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files = append(d.files, file)
	return format.FileNo(len(d.files)), err
}

func (d *directory) file(no format.FileNo) *os.File {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.files[no-1]
}

func (d *directory) WriteData(no format.FileNo, off int64, b *format.Buffer) error {
	defer b.Release()
	_, err := d.file(no).WriteAt(b.Bytes(), off)
	return err
}

func (d *directory) WriteHole(format.FileNo, int64, int64) error { return nil }

func (d *directory) EndFile(no format.FileNo, size int64) error {
	f := d.file(no)
	return errors.Join(f.Truncate(size), f.Close())
}

// P1: what discovery, tail, locks and position give is a copy that a server starts
// on: with all rows of the transactions that the position says it has, and no
// others. The server recovers it itself here.
func TestServerStartsOnTheCopy(t *testing.T) {
	for _, r := range servertest.MySQLReleases(t) {
		t.Run(r.String(), func(t *testing.T) { serverStartsOnTheCopy(t, r) })
	}
}

func serverStartsOnTheCopy(t *testing.T, r servertest.Release) {
	s := servertest.New(t, servertest.Options{Release: r, LogBin: true, LogFileSize: 8 << 20})
	check(t, s.Exec(t.Context(), "CREATE DATABASE `d-1`", "USE `d-1`",
		"CREATE TABLE plain (a INT PRIMARY KEY AUTO_INCREMENT, b LONGTEXT, KEY (b(100)))",
		"CREATE TABLE zip (a INT PRIMARY KEY AUTO_INCREMENT, b LONGTEXT, KEY (b(100))) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8",
		"CREATE TABLESPACE ts ADD DATAFILE 'ts.ibd'", "CREATE TABLE general (a INT PRIMARY KEY AUTO_INCREMENT, b LONGTEXT) TABLESPACE ts",
		"SET sql_log_bin = 0", // a copy without binary logs does not know of such transactions
		"CREATE TABLE my (a INT PRIMARY KEY AUTO_INCREMENT, b TEXT) ENGINE=MyISAM"))
	before := transactions(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	stop := sync.OnceFunc(func() { cancel(); load.Wait() })
	defer stop()
	for _, table := range []string{"plain", "plain", "zip", "general", "my"} {
		load.Go(func() {
			conn, err := s.DB().Conn(ctx)
			if err != nil {
				return
			}
			defer conn.Close()
			if table == "my" {
				_, _ = conn.ExecContext(ctx, "SET sql_log_bin = 0")
			}
			for n := 0; ctx.Err() == nil; n++ {
				_, _ = conn.ExecContext(ctx, fmt.Sprintf("INSERT INTO `d-1`.%s (b) VALUES (REPEAT('%d ', %d))", table, n, n%9*400))
			}
		})
	}
	time.Sleep(time.Second)
	p, dir := copyServer(t, s)
	stop()

	restored := servertest.NewOn(t, dir, servertest.Options{Release: r, ServerID: 2, LogFileSize: 64 << 20})
	for _, table := range []string{"plain", "zip", "general", "my"} {
		if said := checkTable(t, restored, table); said != "OK" {
			t.Errorf("%s: %s", table, said)
		}
	}
	gtid, err := restored.String(t.Context(), "SELECT @@GLOBAL.gtid_executed")
	check(t, err)
	if gtid = strings.Join(strings.Fields(gtid), ""); gtid != p.GTID {
		t.Errorf("the copy has %s, the position says %s", gtid, p.GTID)
	}
	rows, err := restored.String(t.Context(), "SELECT (SELECT COUNT(*) FROM `d-1`.plain) + (SELECT COUNT(*) FROM `d-1`.zip) + (SELECT COUNT(*) FROM `d-1`.general)")
	check(t, err)
	if want := transactions(t, restored) - before; rows != fmt.Sprint(want) || want < 20 {
		t.Errorf("%s rows, and %d transactions", rows, want)
	}
	t.Logf("%s rows", rows)
}

func checkTable(t *testing.T, s *servertest.Server, table string) string {
	t.Helper()
	var name, op, kind, said string
	check(t, s.DB().QueryRowContext(t.Context(), "CHECK TABLE `d-1`."+table).Scan(&name, &op, &kind, &said))
	return said
}

// transactions is the number of those that a server has executed, all of one server.
func transactions(t *testing.T, s *servertest.Server) (n int) {
	t.Helper()
	set, err := s.String(t.Context(), "SELECT @@GLOBAL.gtid_executed")
	check(t, err)
	_, to, _ := strings.Cut(set, ":1-")
	if _, err := fmt.Sscan(to, &n); err != nil {
		t.Fatalf("%q: %v", set, err)
	}
	return n
}

// copyServer takes a backup in the order of the contract, without an archive.
func copyServer(t *testing.T, s *servertest.Server) (p server.Position, dir string) {
	ctx := t.Context()
	src, err := server.Open(ctx, server.Config{Socket: s.Socket(), User: "root", LockTimeout: time.Minute}, nil, mysql.Family{})
	check(t, err)
	defer src.Close()
	l, err := src.Layout(ctx)
	check(t, err)
	layout := chunker.Layout{DataDir: l.DataDir, UndoDir: l.InnoDB.UndoDir, PageSize: l.InnoDB.PageSize, OpenFiles: src.OpenFiles}
	for _, f := range l.InnoDB.DataFiles {
		layout.DataFiles = append(layout.DataFiles, chunker.DataFile{Name: f.Path})
	}
	found := mysql.Family{}.Files(layout)
	others, err := found.Others(ctx)
	check(t, err)
	var locked []server.TableName
	for _, f := range others {
		if db, table := filepath.Split(f.Rel); f.Class == chunker.ClassLockedTable && filepath.Ext(table) == ".MYD" {
			locked = append(locked, server.TableName{Database: filename.Decode(filepath.Clean(db)), Table: strings.TrimSuffix(table, ".MYD")})
		}
	}
	check(t, src.Check(ctx, server.Wanted{NonTransactional: locked}))
	check(t, src.CheckDataDir(ctx, l.DataDir))

	hold, err := src.HoldRedo(ctx)
	check(t, err)
	defer hold.Close()
	log, err := mysql.Family{}.OpenRedo(ctx, l.InnoDB.LogDir)
	check(t, err)
	defer log.Close()
	tail := redotail.New(log, redotail.Options{SpoolDir: t.TempDir()})
	defer tail.Close()
	ran := make(chan error, 1)
	go func() { ran <- tail.Run(ctx) }()
	advancing, done := context.WithCancel(ctx)
	defer done()
	go func() {
		for advancing.Err() == nil {
			_ = hold.Advance(advancing, tail.Position())
			time.Sleep(100 * time.Millisecond)
		}
	}()

	dir = filepath.Join(t.TempDir(), "copy")
	copier := &chunker.Copier{Sink: &directory{dir: dir}, PageSize: l.InnoDB.PageSize, ParseFlags: mysql.Family{}.ParseFlags}
	spaces, err := found.InnoDB(ctx)
	check(t, err)
	results, err := copier.CopyInnoDB(ctx, spaces)
	check(t, err)
	for _, r := range results {
		if r.Gone {
			t.Errorf("%s is gone", r.File.Rel)
		}
	}
	b, err := src.Begin(ctx)
	check(t, err)
	defer b.Close()
	check(t, b.Flush(ctx))
	check(t, b.BlockDDL(ctx))
	check(t, b.BlockCommit(ctx, locked))
	resume := tail.Pause()
	p, err = b.Position(ctx)
	tail.StopAt(p.LSN)
	resume()
	check(t, err)
	_, err = copier.CopyFiles(ctx, others)
	check(t, err)
	check(t, b.FlushLogs(ctx))
	check(t, b.End(ctx))
	t.Logf("locks: %+v", b.Stages())

	// The redo as a log of several files, which the server recovers from.
	check(t, os.Mkdir(filepath.Join(dir, redo.Directory), 0o700))
	var files []*os.File
	out, err := mysql.ServerLog(func(name string) (io.Writer, error) {
		f, err := os.Create(filepath.Join(dir, name))
		files = append(files, f)
		return f, err
	}, redolog.Head{FirstLSN: log.Start().CheckpointLSN, Checkpoint: log.Start().CheckpointLSN, Creator: log.Start().Creator}, p.LSN, 512<<10)
	check(t, err)
	for {
		piece, err := tail.Next(ctx)
		if err == io.EOF {
			break
		}
		check(t, err)
		for rest := piece.Data; len(rest) > 0; {
			m, err := redo.ScanMTR(rest)
			check(t, err)
			check(t, out.Add(rest[:m.Size]))
			rest = rest[m.Size:]
		}
	}
	check(t, <-ran)
	check(t, out.Close())
	for _, f := range files {
		check(t, f.Close())
	}
	if len(files) < 2 {
		t.Errorf("all redo is in %d file", len(files))
	}
	t.Logf("redo in %d files", len(files))
	return p, dir
}
