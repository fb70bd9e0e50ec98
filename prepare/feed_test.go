package prepare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/mariadb/redo"
)

// arriving is a log that is written piece by piece, its head last.
type arriving struct {
	path    string
	file    *os.File
	content []byte
	first   format.RedoPosition
}

// arrive makes a copy of a backup whose log has yet to come.
func arrive(t *testing.T, backup string) (dir string, a *arriving) {
	t.Helper()
	dir = copySpaces(t, backup)
	l, err := openRedo(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a = &arriving{path: filepath.Join(dir, redoName), first: l.start()}
	if a.content, err = os.ReadFile(a.path); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(a.path); err != nil {
		t.Fatal(err)
	}
	if a.file, err = os.Create(a.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.file.Close() })
	return dir, a
}

// open returns a handle for a Feed.
func (a *arriving) open(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open(a.path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// write writes the redo from one part of it to another, of 100, in pieces of up to
// max bytes.
func (a *arriving) write(t *testing.T, from, to, max int, arrived func(format.RedoPosition)) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, uint64(max)))
	payload := len(a.content) - redo.StartOffset
	for at, end := payload*from/100, payload*to/100; at < end; {
		n := min(1+r.IntN(max), end-at)
		if _, err := a.file.WriteAt(a.content[redo.StartOffset+at:redo.StartOffset+at+n], int64(redo.StartOffset+at)); err != nil {
			t.Fatal(err)
		}
		at += n
		arrived(a.first + format.RedoPosition(at))
	}
}

func (a *arriving) head(t *testing.T) {
	t.Helper()
	if _, err := a.file.WriteAt(a.content[:redo.StartOffset], 0); err != nil {
		t.Fatal(err)
	}
}

const gatheredEarly = "redo was gathered while it arrived"

// logged returns options that log everything, and what was logged.
func logged(opt Options) (Options, *bytes.Buffer) {
	out := &bytes.Buffer{}
	opt.Log = slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return opt, out
}

func TestFeed(t *testing.T) {
	backup := takeBackup(t, peerCase{
		tables: tablesPlain, ddl: true, rows: 2000,
		args: []string{"--innodb-log-file-size=512M"}, during: writeMuchRedo, usable: hasRedo(muchRedo / 2),
	})
	want := copySpaces(t, backup)
	plain, err := Run(t.Context(), want, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if plain.Batches != 1 || plain.RedoBytes < muchRedo/3 {
		t.Fatalf("%d bytes of redo in %d batches: not the case it should be", plain.RedoBytes, plain.Batches)
	}

	for _, c := range []struct {
		name    string
		opt     Options
		piece   int
		batches int // at least
	}{
		{"one batch", Options{}, 1 << 20, 1},
		{"one worker", Options{Parallel: 1}, 5 << 20, 1},
		{"small pieces", Options{Parallel: 2}, 3000, 1},
		{"many batches by many workers", Options{Memory: minMemory, Parallel: 8, Verify: true}, 200_000, 3},
		{"staged", Options{Memory: minMemory, Staged: true}, 1 << 20, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, a := arrive(t, backup)
			opt, log := logged(c.opt)
			opt.Feed = NewFeed(t.Context(), opt)
			defer opt.Feed.Close()
			a.write(t, 0, 100, c.piece, opt.Feed.Follow(a.open(t), a.first))
			a.head(t)
			rep, err := Run(t.Context(), dir, opt)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(log.String(), gatheredEarly) {
				t.Errorf("the feed was not used: %s", log)
			}
			if rep.Batches < c.batches || rep.RedoBytes != plain.RedoBytes || rep.Records != plain.Records || rep.EndLSN != plain.EndLSN {
				t.Errorf("report %+v, without a feed %+v", rep, plain)
			}
			sameTree(t, dir, want)
		})
	}
	t.Run("not used", func(t *testing.T) { testUnusedFeed(t, backup, want) })
	t.Run("damage", func(t *testing.T) { testFeedOfDamage(t, backup) })
}

// muchRedo is more than fits into two batches of the smallest size.
const muchRedo = 40 << 20

// writeMuchRedo writes until the checkpoint is that far behind.
func writeMuchRedo(s *server) error {
	for range 200 {
		var name string
		var age int64
		if err := s.db.QueryRow("SHOW GLOBAL STATUS LIKE 'Innodb_checkpoint_age'").Scan(&name, &age); err != nil {
			return err
		}
		if age >= muchRedo {
			return nil
		}
		if err := s.try("CREATE OR REPLACE TABLE d.much (id INT PRIMARY KEY, a VARCHAR(200), KEY(a)) ENGINE=InnoDB",
			"INSERT INTO d.much SELECT seq, MD5(seq) FROM seq_1_to_20000"); err != nil {
			return err
		}
	}
	return errors.New("the server does not write enough redo")
}

// hasRedo finds backups whose checkpoint came too near before they began.
func hasRedo(least int64) func(*testing.T, string) error {
	return func(_ *testing.T, backup string) error {
		st, err := os.Stat(filepath.Join(backup, redoName))
		if err == nil && st.Size() < least {
			err = fmt.Errorf("%d bytes of redo, %d are wanted", st.Size(), least)
		}
		return err
	}
}

// testUnusedFeed has feeds that must not be used, and makes no difference.
func testUnusedFeed(t *testing.T, backup, want string) {
	for _, c := range []struct {
		name string
		feed func(t *testing.T, f *Feed, a *arriving)
	}{
		{"nothing followed", func(t *testing.T, f *Feed, a *arriving) {
			a.write(t, 0, 100, 1<<20, func(format.RedoPosition) {})
		}},
		{"nothing arrived", func(t *testing.T, f *Feed, a *arriving) {
			f.Follow(a.open(t), a.first)
			a.write(t, 0, 100, 1<<20, func(format.RedoPosition) {})
		}},
		{"a part arrived", func(t *testing.T, f *Feed, a *arriving) {
			a.write(t, 0, 50, 1<<20, f.Follow(a.open(t), a.first))
			a.write(t, 50, 100, 1<<20, func(format.RedoPosition) {})
		}},
		{"cancelled halfway", func(t *testing.T, f *Feed, a *arriving) {
			arrived := f.Follow(a.open(t), a.first)
			a.write(t, 0, 50, 1<<20, arrived)
			f.stop()
			a.write(t, 50, 100, 1<<20, arrived)
		}},
		{"closed", func(t *testing.T, f *Feed, a *arriving) {
			a.write(t, 0, 100, 1<<20, f.Follow(a.open(t), a.first))
			f.Close()
		}},
		{"a copy of the log", func(t *testing.T, f *Feed, a *arriving) {
			path := filepath.Join(t.TempDir(), "other")
			if err := os.WriteFile(path, a.content, 0o600); err != nil {
				t.Fatal(err)
			}
			other, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			a.write(t, 0, 100, 1<<20, f.Follow(other, a.first))
		}},
		{"from another LSN", func(t *testing.T, f *Feed, a *arriving) {
			arrived := f.Follow(a.open(t), a.first+1)
			a.write(t, 0, 100, 1<<20, func(end format.RedoPosition) { arrived(end + 1) })
		}},
		{"what arrived was damaged", func(t *testing.T, f *Feed, a *arriving) {
			// Its own bytes follow when the feed has read the wrong ones.
			good := a.content
			a.content = bytes.Clone(good)
			a.content[len(good)/2] ^= 1
			a.write(t, 0, 100, 1<<20, f.Follow(a.open(t), a.first))
			f.log.growing.complete()
			<-f.done
			a.content = good
			a.write(t, 0, 100, 1<<20, func(format.RedoPosition) {})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, a := arrive(t, backup)
			opt, log := logged(Options{Memory: minMemory})
			opt.Feed = NewFeed(t.Context(), opt)
			defer opt.Feed.Close()
			c.feed(t, opt.Feed, a)
			a.head(t)
			if _, err := Run(t.Context(), dir, opt); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(log.String(), gatheredEarly) {
				t.Error("the feed was used")
			}
			sameTree(t, dir, want)
		})
	}
}

// testFeedOfDamage compares the error with a feed to the one without.
func testFeedOfDamage(t *testing.T, backup string) {
	for _, c := range []struct {
		name  string
		spoil func(dir string, size int64) error
	}{
		{"no redo", func(dir string, _ int64) error { return os.Truncate(filepath.Join(dir, redoName), redo.StartOffset) }},
		{"last byte missing", func(dir string, size int64) error { return os.Truncate(filepath.Join(dir, redoName), size-1) }},
		{"byte flipped", func(dir string, size int64) error { return flipByte(filepath.Join(dir, redoName), size/2) }},
		{"last byte flipped", func(dir string, size int64) error { return flipByte(filepath.Join(dir, redoName), size-1) }},
		{"cut at a mini-transaction", func(dir string, _ int64) error { cutRedo(t, dir); return nil }},
		{"encrypted", func(dir string, _ int64) error { return encryptHeader(dir) }},
		{"FILE_CHECKPOINT not where it is due", func(dir string, _ int64) error { return moveCheckpointEnd(dir) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			spoilt := copyTree(t, backup)
			st, err := os.Stat(filepath.Join(spoilt, redoName))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.spoil(spoilt, st.Size()); err != nil {
				t.Fatal(err)
			}
			_, want := Run(t.Context(), copyTree(t, spoilt), Options{})
			if want == nil {
				t.Fatal("no error without a feed")
			}
			dir, a := arrive(t, spoilt)
			feed := NewFeed(t.Context(), Options{})
			defer feed.Close()
			a.write(t, 0, 100, 1<<20, feed.Follow(a.open(t), a.first))
			a.head(t)
			_, got := Run(t.Context(), dir, Options{Feed: feed})
			if got == nil || pathless(got) != pathless(want) {
				t.Errorf("got %v\nwithout a feed %v", got, want)
			}
		})
	}
}

// pathless is an error's text after the directory.
func pathless(err error) string {
	_, text, _ := strings.Cut(err.Error(), ": ")
	return text
}

// moveCheckpointEnd lets the checkpoint say that its FILE_CHECKPOINT comes only
// with the last byte.
func moveCheckpointEnd(dir string) error {
	l, err := openRedo(dir)
	if err != nil {
		return err
	}
	defer l.Close()
	head := redo.LinearHead(l.head.Creator, redo.Encryption{}, redo.Checkpoint{LSN: l.head.Checkpoint, EndLSN: l.lsn(l.end()) - 1})
	f, err := os.OpenFile(filepath.Join(dir, redoName), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(head, 0)
	return err
}

// TestFeedThatIsNotWanted closes feeds at all stages: it must not hang, and a
// cancelled Run must not either.
func TestFeedThatIsNotWanted(t *testing.T) {
	open := func() *os.File {
		f, err := os.Create(filepath.Join(t.TempDir(), "log"))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	NewFeed(t.Context(), Options{}).Close()

	f := NewFeed(t.Context(), Options{})
	f.Follow(open(), 1000)
	f.Close()
	f.Close()

	ctx, cancel := context.WithCancel(t.Context())
	f = NewFeed(ctx, Options{})
	f.Follow(open(), 1000)(1 << 20)
	cancel()
	<-f.done
	if f.err == nil || f.redo != nil {
		t.Errorf("%v, %v after cancelling", f.err, f.redo)
	}
	f.Close()
}
