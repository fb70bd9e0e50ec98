// Package familytest is the suite of what a family of servers owes. Every family
// runs it against its live servers.
package familytest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/extract"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/family"
	"github.com/xbstream/xbstream/redotail"
	"github.com/xbstream/xbstream/server"
)

// Live is a running server of the family, with the binary log on.
type Live interface {
	Datadir() string
	Socket() string
	Exec(ctx context.Context, statements ...string) error
	// IDs returns the numbers that a query gives.
	IDs(ctx context.Context, query string) ([]int64, error)
}

// Suite says what to test, and against what.
type Suite struct {
	Family family.Family
	// Start starts a server that the test ends.
	Start func(t *testing.T) Live
	// User has all privileges over the socket, without a password.
	User string
	// Kill is the statement that ends the session with the id %d, Sessions the one
	// that lists the ids of all sessions but its own.
	Kill, Sessions string
	// Recognised and Others are servers of the family and of others.
	Recognised, Others []server.Identity
	// TooOld are servers of the family that are refused by name.
	TooOld []server.Identity
}

// Run runs the suite.
func (s Suite) Run(t *testing.T) {
	t.Run("recognises its servers", s.recognises)
	live := s.Start(t)
	check(t, live.Exec(t.Context(), "CREATE DATABASE contract", "USE contract", "CREATE TABLE inno (a INT PRIMARY KEY, b INT) ENGINE=InnoDB",
		"CREATE TABLE my (a INT) ENGINE=MyISAM", "INSERT INTO inno VALUES (1, 1)", "INSERT INTO my VALUES (1)"))
	for _, part := range []struct {
		name string
		run  func(*testing.T, Live)
	}{
		{"layout", s.layout},
		{"the directory is the server's", s.directory},
		{"files", s.files},
		{"redo from the checkpoint to the position", s.redo},
		{"locks", s.locks},
		{"locks that are given up", s.givenUp},
		{"locks that are lost", s.lost},
		{"files stand still", s.standStill},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, live) })
	}
	t.Run("head of the redo log", s.redoHead)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s Suite) config(live Live) server.Config {
	return server.Config{Socket: live.Socket(), User: s.User, LockTimeout: 20 * time.Second}
}

func (s Suite) open(t *testing.T, live Live) family.Source {
	t.Helper()
	src, err := family.Open(t.Context(), s.config(live), nil, []family.Family{s.Family})
	check(t, err)
	t.Cleanup(func() { src.Close() })
	return src
}

func (s Suite) recognises(t *testing.T) {
	for _, i := range slices.Concat(s.Recognised, s.TooOld) {
		if !s.Family.Recognises(i) {
			t.Errorf("%v is one of its servers", i)
		}
	}
	for _, i := range s.Others {
		if s.Family.Recognises(i) {
			t.Errorf("%v is none of its servers", i)
		}
	}
	for _, i := range s.TooOld {
		_, err := s.Family.Attach(t.Context(), &server.Session{Identity: i})
		if !errors.Is(err, server.ErrUnsupported) || !strings.Contains(err.Error(), i.Version) {
			t.Errorf("%v: %v does not refuse it by name", i, err)
		}
	}
}

func (s Suite) layout(t *testing.T, live Live) {
	src := s.open(t, live)
	l, err := src.Layout(t.Context())
	check(t, err)
	if l.Dialect != s.Family.Name() || l.DataDir != filepath.Clean(live.Datadir()) || l.Version == "" || l.InnoDB.PageSize == 0 || len(l.InnoDB.DataFiles) == 0 {
		t.Errorf("%+v", l)
	}
	for _, dir := range []string{l.DataDir, l.InnoDB.DataHome, l.InnoDB.LogDir, l.InnoDB.UndoDir} {
		if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir {
			t.Errorf("%q is no clean absolute path", dir)
		}
	}
	check(t, src.Check(t.Context(), server.Wanted{Replication: true, Pause: true}))
}

func (s Suite) directory(t *testing.T, live Live) {
	src := s.open(t, live)
	check(t, src.CheckDataDir(t.Context(), live.Datadir()))
	for name, dir := range map[string]string{"an empty one": t.TempDir(), "of another server": s.Start(t).Datadir()} {
		if err := src.CheckDataDir(t.Context(), dir); !errors.Is(err, server.ErrForeignDir) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func (s Suite) discoverer(t *testing.T, src family.Source) chunker.Discoverer {
	t.Helper()
	l, err := src.Layout(t.Context())
	check(t, err)
	c := chunker.Layout{DataDir: l.DataDir, DataHome: l.InnoDB.DataHome, UndoDir: l.InnoDB.UndoDir, LogDir: l.InnoDB.LogDir, AriaLogDir: l.AriaLogDir, PageSize: l.InnoDB.PageSize}
	for _, f := range l.InnoDB.DataFiles {
		c.DataFiles = append(c.DataFiles, chunker.DataFile{Name: f.Path, Size: f.Size, Autoextend: f.Autoextend})
	}
	return src.Files(c)
}

func (s Suite) files(t *testing.T, live Live) {
	d := s.discoverer(t, s.open(t, live))
	inno, err := d.InnoDB(t.Context())
	check(t, err)
	others, err := d.Others(t.Context())
	check(t, err)
	dirs, err := d.Dirs(t.Context())
	check(t, err)
	is := func(rel string) func(chunker.File) bool {
		return func(f chunker.File) bool { return f.Rel == rel }
	}
	if !slices.ContainsFunc(inno, is("contract/inno.ibd")) || !slices.ContainsFunc(inno, func(f chunker.File) bool { return f.Kind == format.KindSystem }) {
		t.Errorf("tablespaces: %v", inno)
	}
	if !slices.ContainsFunc(others, is("contract/my.MYD")) || slices.ContainsFunc(others, is("contract/inno.ibd")) {
		t.Errorf("other files: %v", others)
	}
	if !slices.ContainsFunc(dirs, func(f format.File) bool { return f.Path == "contract" }) {
		t.Errorf("directories: %v", dirs)
	}
	for _, f := range slices.Concat(inno, others) {
		if err := format.CheckName(f.Rel, false); err != nil || !filepath.IsAbs(f.Abs) {
			t.Errorf("%+v: %v", f, err)
		}
	}
}

// all raises all locks.
func all(t *testing.T, src family.Source) server.Backup {
	t.Helper()
	b, err := src.Begin(t.Context())
	check(t, err)
	t.Cleanup(func() { b.Close() })
	for _, raise := range []func(context.Context) error{b.Flush, b.BlockDDL, b.BlockCommit, b.FlushLogs} {
		check(t, raise(t.Context()))
	}
	return b
}

func (s Suite) redo(t *testing.T, live Live) {
	src := s.open(t, live)
	l, err := src.Layout(t.Context())
	check(t, err)
	log, err := src.OpenRedo(t.Context(), l.InnoDB.LogDir)
	check(t, err)
	defer log.Close()
	start := log.Start()
	if at, err := src.Checkpoint(t.Context()); err != nil || at < start.CheckpointLSN || start.CheckpointLSN == 0 || start.Format == "" {
		t.Errorf("redo starts at %+v, the server's checkpoint is at %v (%v)", start, at, err)
	}
	tail := redotail.New(log, redotail.Options{SpoolDir: t.TempDir()})
	defer tail.Close()
	ran := make(chan error, 1)
	go func() { ran <- tail.Run(t.Context()) }()
	before, err := src.LSN(t.Context())
	check(t, err)
	check(t, live.Exec(t.Context(), "USE contract", "UPDATE inno SET b = b + 1", "CREATE TABLE more (a INT) ENGINE=InnoDB", "DROP TABLE more"))
	b := all(t, src)
	p, err := b.Position(t.Context())
	check(t, err)
	if p.LSN <= before || p.Binlog == nil {
		t.Errorf("position %+v, LSN before the last statements %v", p, before)
	}
	tail.StopAt(p.LSN)
	check(t, b.FlushLogs(t.Context())) // nothing is committed any more that would write the rest
	check(t, b.End(t.Context()))
	// The server may sync it only a while later, as it does for the backup.
	ctx, told := context.WithCancel(t.Context())
	var telling sync.WaitGroup
	telling.Go(func() {
		for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
			if at, err := src.Written(ctx); err == nil {
				tail.Written(at)
			}
		}
	})
	defer telling.Wait()
	defer told()
	next := start.CheckpointLSN
	for {
		piece, err := tail.Next(t.Context())
		if err == io.EOF {
			break
		}
		check(t, err)
		if piece.LSN != next {
			t.Fatalf("a piece begins at %v, the last ended at %v", piece.LSN, next)
		}
		next = piece.End()
	}
	check(t, <-ran)
	if end, ok := tail.EndLSN(); !ok || end < p.LSN || end != next {
		t.Errorf("redo ends at %v (%v), and %v was wanted; pieces end at %v", end, ok, p.LSN, next)
	}
	dropped := slices.ContainsFunc(tail.Files(), func(r redotail.FileChange) bool { return r.Op == redotail.FileDeleted })
	if start.Encryption == "" && !dropped {
		t.Error("the log does not tell that a tablespace was deleted")
	}
}

// waits starts a statement and says whether it ends while nothing is released.
func waits(t *testing.T, live Live, statement string) (ended <-chan error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- live.Exec(context.WithoutCancel(t.Context()), "USE contract", statement) }()
	select {
	case err := <-done:
		t.Errorf("%s ended under the lock: %v", statement, err)
		done <- err
	case <-time.After(300 * time.Millisecond):
	}
	return done
}

func (s Suite) locks(t *testing.T, live Live) {
	src := s.open(t, live)
	b, err := src.Begin(t.Context())
	check(t, err)
	defer b.Close()
	check(t, live.Exec(t.Context(), "USE contract", "INSERT INTO my VALUES (2)", "UPDATE inno SET b = b + 1", "CREATE TABLE early (a INT) ENGINE=InnoDB"))
	check(t, b.Flush(t.Context()))
	check(t, live.Exec(t.Context(), "USE contract", "UPDATE inno SET b = b + 1"))
	check(t, b.BlockDDL(t.Context()))
	check(t, live.Exec(t.Context(), "USE contract", "UPDATE inno SET b = b + 1"))
	ddl := waits(t, live, "CREATE TABLE late (a INT) ENGINE=InnoDB")
	write := waits(t, live, "INSERT INTO my VALUES (3)")
	check(t, b.BlockCommit(t.Context()))
	commit := waits(t, live, "UPDATE inno SET b = b + 1")
	one, err := b.Position(t.Context())
	check(t, err)
	two, err := b.Position(t.Context())
	check(t, err)
	if *one.Binlog != *two.Binlog || one.GTID != two.GTID {
		t.Errorf("the position moves under the lock: %+v, then %+v", one, two)
	}
	check(t, b.End(t.Context()))
	for _, done := range []<-chan error{ddl, write, commit} {
		check(t, ends(done))
	}
	if b.LockSeconds() <= 0 || len(b.Stages()) == 0 || b.Err() != nil {
		t.Errorf("%v s, stages %+v, %v", b.LockSeconds(), b.Stages(), b.Err())
	}
}

func ends(done <-chan error) error {
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		return errors.New("the statement still waits, and no lock is held")
	}
}

func (s Suite) givenUp(t *testing.T, live Live) {
	b := all(t, s.open(t, live))
	ddl := waits(t, live, "CREATE TABLE given_up (a INT) ENGINE=InnoDB")
	check(t, b.Close())
	check(t, ends(ddl))
	if err := b.End(t.Context()); err == nil {
		t.Error("the locks were given up, and End is content")
	}
}

func (s Suite) lost(t *testing.T, live Live) {
	src := s.open(t, live)
	old := s.sessions(t, live)
	b := all(t, src)
	for id := range s.sessions(t, live) {
		if !old[id] {
			_ = live.Exec(t.Context(), fmt.Sprintf(s.Kill, id)) // one of them may be gone
		}
	}
	select {
	case <-b.Lost():
	case <-time.After(30 * time.Second):
		t.Fatal("nobody says that the locks are lost")
	}
	if b.Err() == nil {
		t.Error("no reason is given")
	}
	if err := b.End(t.Context()); err == nil {
		t.Error("the locks were lost, and End is content")
	}
	check(t, live.Exec(t.Context(), "USE contract", "CREATE TABLE after_loss (a INT) ENGINE=InnoDB"))
}

// sessions are the ids of those there are.
func (s Suite) sessions(t *testing.T, live Live) map[int64]bool {
	t.Helper()
	ids, err := live.IDs(t.Context(), s.Sessions)
	check(t, err)
	list := map[int64]bool{}
	for _, id := range ids {
		list[id] = true
	}
	return list
}

// standStill: at its level no file changes, while statements go on that the locks
// allow or hold up.
func (s Suite) standStill(t *testing.T, live Live) {
	src := s.open(t, live)
	d := s.discoverer(t, src)
	ctx, cancel := context.WithCancel(t.Context())
	written := make(chan struct{})
	go func() {
		defer close(written)
		for n := 0; ctx.Err() == nil; n++ {
			_ = live.Exec(ctx, "USE contract", "INSERT INTO my VALUES (4)", "UPDATE inno SET b = b + 1",
				fmt.Sprintf("CREATE TABLE s%d (a INT) ENGINE=MyISAM", n), fmt.Sprintf("DROP TABLE s%d", n))
		}
	}()
	defer func() {
		cancel()
		<-written
	}()
	b, err := src.Begin(t.Context())
	check(t, err)
	defer b.Close()
	check(t, b.Flush(t.Context()))
	check(t, b.BlockDDL(t.Context()))
	s.same(t, d, func(f chunker.File) bool {
		return f.Class.Stage() == chunker.StageBlockDDL && f.Class != chunker.ClassUnknown
	})
	check(t, b.BlockCommit(t.Context()))
	check(t, b.FlushLogs(t.Context()))
	s.same(t, d, func(f chunker.File) bool {
		return f.Class != chunker.ClassUnknown && f.Class != chunker.ClassServerTable
	})
	check(t, b.End(t.Context()))
}

func (s Suite) same(t *testing.T, d chunker.Discoverer, wanted func(chunker.File) bool) {
	t.Helper()
	look := func() map[string]chunker.Signature {
		found, err := d.Others(t.Context())
		check(t, err)
		found, err = chunker.ReadSignatures(t.Context(), found)
		check(t, err)
		list := map[string]chunker.Signature{}
		for _, f := range found {
			if wanted(f) {
				list[f.Rel] = f.Signature
			}
		}
		return list
	}
	first := look()
	time.Sleep(300 * time.Millisecond)
	second := look()
	if len(first) == 0 || !maps.Equal(first, second) {
		for name := range first {
			if first[name] != second[name] {
				t.Errorf("%s changed under the lock: %+v, then %+v", name, first[name], second[name])
			}
		}
		t.Errorf("%d files, then %d", len(first), len(second))
	}
}

func (s Suite) redoHead(t *testing.T) {
	b := &format.Backup{Server: format.Server{Dialect: s.Family.Name(), Version: s.Recognised[0].Version}, Redo: format.Redo{CheckpointLSN: 50_000, CheckpointEndLSN: 50_000, EndLSN: 50_100}}
	if n := s.Family.Redo().HeadSize(); n != extract.RedoStart {
		t.Errorf("recovery reads redo from offset %d, extraction writes it at %d", n, extract.RedoStart)
	}
	head, err := s.Family.RedoHead(b)
	if err != nil || len(head) == 0 || len(head) > extract.RedoStart {
		t.Errorf("%d bytes, %v", len(head), err)
	}
}
