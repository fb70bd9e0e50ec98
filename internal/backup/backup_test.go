package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/redotail"
	"github.com/xbstream/xbstream/server"
)

// P1: the order that makes the copy recoverable.
func TestOrder(t *testing.T) {
	f := newFake(t)
	f.change(100)
	s, err := f.run(func(o *Options) {
		f.at("end-lsn", func() { f.change(50) })(o) // is no part of it
		o.Pause, o.SlaveInfo = true, true
	})
	if err != nil {
		t.Fatal(err)
	}
	m := f.same()
	if want := format.LSN(startLSN + 100); m.Backup.Redo.EndLSN != want || s.RedoBytes != 100 || m.Backup.GTID != "0-1-5" {
		t.Errorf("end LSN %v, %d bytes of redo, GTID %q", m.Backup.Redo.EndLSN, s.RedoBytes, m.Backup.GTID)
	}
	want := []string{"Layout", "Check", "CheckDataDir", "Checkpoint", "OpenRedo", "Checkpoint", "Open", "Discarded", "Begin",
		"InnoDB", "Others", "PauseReplication", "Flush", "BlockDDL", "LSN", "InnoDB", "Dirs", "Others", "BlockCommit", "FlushLogs", "SettleReplication",
		"Position", "Others", "End", "ResumeReplication", "Complete"}
	rest := f.calls
	for _, step := range want {
		i := slices.Index(rest, step)
		if i < 0 {
			t.Fatalf("no %s where it should be, in %q", step, f.calls)
		}
		rest = rest[i+1:]
	}
}

// P4, P6: whatever fails, the backup fails with that error, the archive has no end,
// and nothing stays locked or open.
func TestEveryStepFails(t *testing.T) {
	steps := []string{"Layout", "Check", "CheckDataDir", "Checkpoint", "OpenRedo", "Open", "Write", "Discarded", "Begin", "InnoDB", "Others",
		"PauseReplication", "Flush", "BlockDDL", "LSN", "Dirs", "BlockCommit", "FlushLogs", "SettleReplication", "Position", "End", "ResumeReplication",
		"Read", "Complete"}
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			f := newFake(t)
			f.change(100)
			broken := errors.New(step + " is broken")
			f.fails[step] = broken
			_, err := f.run(func(o *Options) { o.Pause, o.SlaveInfo = true, true })
			if !errors.Is(err, broken) {
				t.Errorf("got %v", err)
			}
			if _, _, err := f.restored(); !errors.Is(err, format.ErrDamaged) && step != "Complete" && step != "ResumeReplication" {
				t.Errorf("what is left of the archive reads as %v", err)
			}
		})
	}
}

// events are the moments between two steps.
var events = []string{"redo-started", "stage-start", "tablespaces-listed", "before-copy", "after-copy", "stage-flush", "stage-block-ddl", "reconcile",
	"stage-block-commit", "end-lsn", "aria-logs-listed"}

// The same between two steps.
func TestFailsBetweenSteps(t *testing.T) {
	for _, event := range events {
		t.Run(event, func(t *testing.T) {
			f := newFake(t)
			broken := errors.New("broken")
			_, err := f.run(func(o *Options) {
				o.Event = func(_ context.Context, name, _ string) error {
					if name == event {
						return broken
					}
					return nil
				}
			})
			if !errors.Is(err, broken) {
				t.Errorf("got %v", err)
			}
			if _, _, err := f.restored(); !errors.Is(err, format.ErrDamaged) {
				t.Errorf("what is left of the archive reads as %v", err)
			}
		})
	}
}

// P4: locks that are lost end the backup, whenever that is.
func TestLocksAreLost(t *testing.T) {
	for _, event := range events[1:] { // with the first there are none yet
		t.Run(event, func(t *testing.T) {
			f := newFake(t)
			_, err := f.run(func(o *Options) {
				lose := f.at(event, func() { close(f.lost) })
				lose(o)
				tell := o.Event
				o.Event = func(ctx context.Context, name, table string) error {
					err := tell(ctx, name, table)
					if name == event {
						<-ctx.Done() // what is under way ends
						return context.Cause(ctx)
					}
					return err
				}
				if strings.HasSuffix(event, "-copy") { // of which the context is the backup's
					o.Event = tell
				}
			})
			if !errors.Is(err, errLost) {
				t.Errorf("got %v", err)
			}
			if _, _, err := f.restored(); !errors.Is(err, format.ErrDamaged) {
				t.Errorf("what is left of the archive reads as %v", err)
			}
		})
	}
}

// A lock that is not granted is asked for again, from the first on, and what was
// copied stays.
func TestLockIsAskedForAgain(t *testing.T) {
	for _, lock := range []string{"Begin", "Flush", "BlockDDL", "BlockCommit"} {
		for retries, want := range map[int64]bool{1: false, 2: true} {
			t.Run(fmt.Sprintf("%s, %d retries", lock, retries), func(t *testing.T) {
				f := newFake(t)
				f.timeouts[lock] = 2
				f.change(10)
				attempts := 0
				_, err := f.run(func(o *Options) {
					o.LockRetries = retries
					o.Event = func(_ context.Context, name, _ string) error {
						switch {
						case name == "stage-start":
							attempts++
						case name == "stage-block-ddl": // the last statement before it was granted
							f.space(fmt.Sprintf("d/late%d.ibd", attempts), format.SpaceID(30+attempts), startLSN+1)
						case name == "stage-flush" && attempts == 3:
							f.remove("d/m.MYD")
						}
						return nil
					}
				})
				if !want {
					if e, ok := errors.AsType[*server.Error](err); !ok || e.Kind != server.ErrLockTimeout {
						t.Errorf("got %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				m := f.same()
				gaveUp := 0
				for _, s := range m.Backup.Stages {
					if s.GaveUp {
						gaveUp++
					}
				}
				if gaveUp != 2 {
					t.Errorf("the manifest has %d locks that were given up, want 2: %+v", gaveUp, m.Backup.Stages)
				}
				// Tablespaces are copied once: redo has what happened to them.
				for _, name := range []string{"ibdata1", "d/a.ibd", "d/b.ibd"} {
					if n := f.announced[name]; n != 1 {
						t.Errorf("%s was copied %d times", name, n)
					}
				}
			})
		}
	}
}

// Tables that only a lock of their own keeps still are locked by the names the
// server gives them, each once.
func TestLocksTablesByName(t *testing.T) {
	f := newFake(t)
	for _, name := range []string{"d/z.ARZ", "d/my@002dtable#P#p0.ARZ", "d/my@002dtable#P#p1.ARZ"} {
		f.write(name, "rows")
	}
	f.change(10)
	if _, err := f.run(nil); err != nil {
		t.Fatal(err)
	}
	f.same()
	want := []server.TableName{
		{Database: "d", Table: "my-table", FileDatabase: "d", FileTable: "my@002dtable"},
		{Database: "d", Table: "z", FileDatabase: "d", FileTable: "z"},
	}
	if !slices.Equal(f.locked, want) {
		t.Errorf("locked %v, want %v", f.locked, want)
	}
}

// Where commits go on under all locks, redo ends at the position all the same.
func TestRedoEndsAtThePosition(t *testing.T) {
	f := newFake(t)
	f.change(10)
	var at format.LSN
	f.committed = func() {
		at = f.end()
		f.change(100)
		time.Sleep(50 * time.Millisecond) // the tail would have read it by then
	}
	summary, err := f.run(nil)
	if err != nil {
		t.Fatal(err)
	}
	if end := summary.Manifest.Backup.Redo.EndLSN; end != at {
		t.Errorf("redo ends at %v, the position is at %v", end, at)
	}
}

// A server that keeps redo for the backup hears how far it was read, and that the
// backup has ended, however it ends.
func TestHoldOnRedo(t *testing.T) {
	for _, fails := range []string{"", "OpenRedo", "BlockDDL", "Read"} {
		f := newFake(t)
		f.change(10)
		if fails != "" {
			f.fails = map[string]error{fails: errors.New("as the test wants")}
		}
		_, err := f.run(nil)
		if (err != nil) != (fails != "") {
			t.Errorf("%s fails: %v", fails, err)
		}
		if f.holds != 0 {
			t.Errorf("%s fails: the server still keeps redo", fails)
		}
		if fails == "" && f.advanced < startLSN {
			t.Errorf("the server was told that redo was read up to %v", f.advanced)
		}
	}
}

// P2, P5: what happens to files while they are copied. In the end the archive has
// the files that the server has, whatever was copied before.
func TestFilesComeAndGo(t *testing.T) {
	created := func(id format.SpaceID, name string) redotail.FileRecord {
		return redotail.FileRecord{Op: redotail.FileCreated, Space: id, Name: name}
	}
	deleted := func(id format.SpaceID, name string) redotail.FileRecord {
		return redotail.FileRecord{Op: redotail.FileDeleted, Space: id, Name: name}
	}
	for _, c := range []struct {
		name string
		do   func(f *fake)
		late bool // also when DDL is blocked
	}{
		{"nothing", func(f *fake) {}, true},
		{"a table is made", func(f *fake) {
			f.space("d/c.ibd", 9, startLSN+5)
			f.write("d/c.frm", "c")
			f.change(20, created(9, "d/c.ibd"))
		}, false},
		{"a table is dropped", func(f *fake) {
			f.remove("d/b.ibd")
			f.change(20, deleted(8, "d/b.ibd"))
		}, false},
		{"a table is renamed", func(f *fake) {
			f.rename("d/b.ibd", "d/z.ibd")
			f.change(20, redotail.FileRecord{Op: redotail.FileRenamed, Space: 8, Name: "d/z.ibd", OldName: "d/b.ibd"})
		}, false},
		{"two tables change names", func(f *fake) {
			f.rename("d/a.ibd", "d/x.ibd")
			f.rename("d/b.ibd", "d/a.ibd")
			f.rename("d/x.ibd", "d/b.ibd")
		}, false},
		{"a table is rebuilt", func(f *fake) {
			f.space("d/a.ibd", 17, startLSN+5)
			f.change(20, created(17, "d/a.ibd"), deleted(7, "d/a.ibd"))
		}, false},
		{"dropped, and another one has its name", func(f *fake) {
			f.remove("d/a.ibd")
			f.rename("d/b.ibd", "d/a.ibd")
			f.change(20, deleted(7, "d/a.ibd"))
		}, false},
		{"imported: away and back under its id, with nothing in the redo", func(f *fake) {
			f.space("d/b.ibd", 8, 1234)
			f.change(20, deleted(8, "d/b.ibd"))
		}, false},
		{"an index is built, and its pages are not in the redo", func(f *fake) {
			f.overwrite("d/b.ibd", func(tmp string) { f.space(tmp, 8, startLSN+3) })
			f.change(20, redotail.FileRecord{Op: redotail.FileLoaded, Space: 8})
		}, false},
		{"imported into the same file", func(f *fake) {
			f.overwrite("d/b.ibd", func(tmp string) { f.space(tmp, 8, 1234) })
			f.change(20, deleted(8, "d/b.ibd"))
		}, false},
		{"a definition changes", func(f *fake) { f.write("d/a.frm", "another definition") }, false},
		{"a table of another engine changes", func(f *fake) { f.write("d/m.MYD", "more rows") }, false},
		{"a table of another engine goes", func(f *fake) { f.remove("d/m.MYD") }, false},
		{"a log table is written", func(f *fake) { f.write("d/log.CSV", "line") }, true},
	} {
		for _, event := range events[:9] {
			if !c.late && slices.Index(events, event) >= slices.Index(events, "stage-block-ddl") {
				continue
			}
			t.Run(c.name+"/"+event, func(t *testing.T) {
				f := newFake(t)
				if _, err := f.run(f.at(event, func() { c.do(f) })); err != nil {
					t.Fatalf("%v\n%s", err, &f.log)
				}
				f.same()
			})
		}
	}
}

// A1: a table that was discarded before the backup and is imported meanwhile is
// copied again, though the redo has nothing of it.
func TestImportOfWhatWasDiscarded(t *testing.T) {
	f := newFake(t)
	f.discarded[8] = true
	_, err := f.run(f.at("stage-flush", func() { f.space("d/b.ibd", 8, 1234) }))
	if err != nil {
		t.Fatal(err)
	}
	f.same()
}

// P2: a file beside a table that bears its id is kept as an ordinary file.
func TestStray(t *testing.T) {
	f := newFake(t)
	f.use[8] = "d/b.ibd"
	f.space("d/copy.ibd", 8, 1000)
	if _, err := f.run(nil); err != nil {
		t.Fatal(err)
	}
	kept := f.same()
	for _, e := range kept.Files {
		if e.Path == "d/copy.ibd" && (e.Kind != format.KindFile || e.Space != nil) {
			t.Errorf("it is %+v", e)
		}
	}
	// A server that would not start beside it does not get it.
	f = newFake(t)
	f.use[8], f.oneEach = "d/b.ibd", true
	f.space("d/copy.ibd", 8, 1000)
	if _, err := f.run(nil); err != nil {
		t.Fatal(err)
	}
	got, m, err := f.restored()
	if _, there := got["d/copy.ibd"]; err != nil || there || got["d/b.ibd"] == "" || m.Discarded != kept.Discarded+1 {
		t.Errorf("%v; copy %v, %d files discarded", err, there, m.Discarded)
	}
	f = newFake(t)
	f.space("d/copy.ibd", 8, 1000) // and the server says nothing of either
	if _, err := f.run(nil); err == nil || !strings.Contains(err.Error(), "both bear it") {
		t.Errorf("got %v", err)
	}
}

// A file that is not a tablespace is left out if no table uses it. It is damage if the
// dictionary has a table of its name, or the server has it open: a general tablespace
// has another name than its tables.
func TestFileThatIsNoTablespace(t *testing.T) {
	for _, row := range []struct {
		name        string
		known, open bool
	}{
		{"unused", false, false}, {"of a table", true, false}, {"open", false, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.write("d/x.ibd", strings.Repeat("no page ", 4096))
			f.unknown = map[string]bool{"d/x": !row.known}
			f.open["d/x.ibd"] = row.open
			_, err := f.run(nil)
			if row.known || row.open {
				if !errors.Is(err, chunker.ErrDamagedPage) || !strings.Contains(err.Error(), "x.ibd") {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := f.restored()
			if _, there := got["d/x.ibd"]; err != nil || there || !strings.Contains(f.log.String(), "it is not a tablespace") {
				t.Errorf("%v; restored %v; %s", err, there, &f.log)
			}
		})
	}
}

// A file that the lock must keep and that goes all the same is no file to be left out.
func TestFileGoesUnderTheLock(t *testing.T) {
	f := newFake(t)
	_, err := f.run(func(o *Options) {
		gone := false
		o.Event = func(_ context.Context, name, table string) error {
			switch {
			case name == "stage-block-ddl":
				f.space("d/new.ibd", 30, startLSN+1)
			case name == "before-copy" && table == "d/new" && !gone:
				gone = true
				f.remove("d/new.ibd")
			}
			return nil
		}
	})
	if err == nil || !strings.Contains(err.Error(), "disappeared while DDL was blocked") {
		t.Errorf("got %v", err)
	}
}

// D1: names of a partial backup that match nothing.
func TestNamesThatMatchNothing(t *testing.T) {
	with := func(names ...string) func(*Options) {
		return func(o *Options) {
			o.Filter, o.Asked = new(chunker.Filter), &format.Filter{Databases: strings.Join(names, " ")}
			for _, n := range names {
				if _, err := o.Filter.Include.Add(n); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	f := newFake(t)
	_, err := f.run(with("d.a", "d.nothing"))
	if _, ok := errors.AsType[*NamesError](err); !ok || !strings.Contains(err.Error(), "d.nothing") || slices.Contains(f.calls, "Open") {
		t.Errorf("got %v after %q", err, f.calls)
	}

	f = newFake(t) // dropped meanwhile
	_, err = f.run(func(o *Options) {
		f.at("tablespaces-listed", func() { f.remove("d/b.ibd") })(o)
		with("d.a", "d.b")(o)
	})
	if _, ok := errors.AsType[*NamesError](err); !ok || !strings.Contains(err.Error(), "d.b") {
		t.Errorf("got %v", err)
	}

	f = newFake(t)
	_, err = f.run(func(o *Options) {
		with("d.a", "d.nothing")(o)
		o.AllowMissing = true
	})
	if err != nil || !strings.Contains(f.log.String(), "d.nothing") {
		t.Errorf("got %v, and %s", err, &f.log)
	}
	files, m, err := f.restored()
	if err != nil || files["d/a.ibd"] == "" || files["d/b.ibd"] != "" {
		t.Errorf("%d files, %v", len(files), err)
	}
	if !slices.ContainsFunc(m.Files, func(e format.File) bool {
		return e.Path == "d/b.ibd" && e.Kind == format.KindLeftOut && e.Space.ID == 8
	}) {
		t.Error("the manifest does not say which tablespace is left out")
	}
}

// G3: redo that reaches further than the server has come is another server's.
func TestRedoOfAnotherServer(t *testing.T) {
	f := newFake(t)
	f.change(500)
	_, err := f.run(f.at("stage-block-commit", func() {
		f.mu.Lock()
		f.redo = f.redo[:100] // what the server says of itself; the tail has read more
		f.read = 100
		f.mu.Unlock()
	}))
	if e, ok := errors.AsType[*server.Error](err); !ok || e.Kind != server.ErrForeignDir {
		t.Errorf("got %v", err)
	}
}

// Look copies nothing and takes no lock.
func TestLook(t *testing.T) {
	f := newFake(t)
	p, err := Look(t.Context(), f, Options{Open: f.outlet, SpoolDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if p.InnoDB.Files != 3 || p.Others.Files != 2 || p.Redo.CheckpointLSN != startLSN {
		t.Errorf("%+v", p)
	}
	if slices.Contains(f.calls, "Begin") || slices.Contains(f.calls, "Open") || f.opened != 0 {
		t.Errorf("%q, %d open", f.calls, f.opened)
	}
}
