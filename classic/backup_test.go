package classic_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/xbstream/xbstream/classic"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/servertest"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

// Real streams of mariabackup, taken while tables are written, made, renamed
// and dropped, come out as mbstream extracts them, byte for byte.
func TestBackupsUnderLoad(t *testing.T) {
	ctx := t.Context()
	s := servertest.New(t, servertest.Options{LogBin: true})
	options := servertest.LoadOptions{Writers: 2, Rate: 200}
	check(t, s.CreateSchema(ctx, options))
	load, err := s.StartLoad(ctx, options)
	check(t, err)
	stop := storm(t, s)
	seen, failed := map[byte]int{}, 0
	for _, args := range []string{"--parallel=1", "--parallel=4", "--slave-info"} {
		// mariabackup itself often fails when tables are dropped meanwhile.
		// With --compress it does not even mark what it sends again.
		out, err := backup(t, s, args)
		if err != nil {
			failed++
			refused(t, out)
			continue
		}
		for _, c := range chunks(t, out) {
			seen[c.typ]++
		}
		comparePeer(t, args, out)
	}
	stop()
	comparePeer(t, "compressed", good(t, s, "--compress"))
	last := good(t, s)
	comparePeer(t, "tables stand still", last)
	_, err = load.Stop()
	check(t, err)
	t.Logf("3 backups under DDL, %d failed; payloads %d, ends %d, seeks %d, renames %d, removes %d",
		failed, seen['P'], seen['E'], seen['S'], seen['R'], seen['D'])
	cutBackup(t, last)
	flipBackup(t, last)
}

func comparePeer(t *testing.T, what string, s []byte) {
	t.Helper()
	got, err := content(bytes.NewReader(s), classic.Options{})
	check(t, err)
	want := extracted(t, forPeer(t, s))
	delete(want, refresh)
	same(t, what, got, want)
	if len(got) < 200 {
		t.Errorf("%s: only %d files", what, len(got))
	}
}

// refresh is a file that is not in the backup.
const refresh = "refresh"

// forPeer spares mbstream 10.11.19 what it does not take from its own
// mariabackup. It reads the new name of a rename into the buffer of the payload
// before, whose checksum it compares again at the end of an empty file: log
// tables are often the next files, and empty, so a file with content is put
// behind the last rename. And an empty file that is sent again has no chunk
// that says so: it is left out.
func forPeer(t *testing.T, s []byte) (out []byte) {
	t.Helper()
	all := chunks(t, s)
	last := -1
	for i, c := range all {
		if c.typ == 'R' {
			last = i
		}
	}
	there, open := map[string]bool{}, map[string]bool{}
	for i, c := range all {
		switch c.typ {
		case 'R':
			if there[c.path] {
				delete(there, c.path)
				there[c.to] = true
			}
		case 'D':
			delete(there, c.path)
		case 'E':
			if !open[c.path] && there[c.path] {
				continue
			}
			delete(open, c.path)
			there[c.path] = true
		default:
			open[c.path] = true
		}
		out = append(out, s[c.at:c.end]...)
		if i == last {
			out = append(out, stream{}.file(refresh, "x")...)
		}
	}
	return out
}

// refused: mariabackup ends the stream of a backup that failed between two
// chunks, and mbstream is content.
func refused(t *testing.T, s []byte) {
	t.Helper()
	if _, err := content(bytes.NewReader(s), classic.Options{}); !errors.Is(err, classic.ErrIncomplete) {
		t.Errorf("stream of a failed backup, %d bytes: error is %v", len(s), err)
	}
}

// cutBackup cuts a real stream between all chunks, and within some.
func cutBackup(t *testing.T, s []byte) {
	rnd := rand.New(rand.NewPCG(3, 4))
	cuts := 0
	cut := func(n int) {
		cuts++
		err := readAll(s[:n])
		if !errors.Is(err, format.ErrDamaged) || !errors.Is(err, classic.ErrIncomplete) {
			t.Errorf("cut after %d of %d bytes: error is %v", n, len(s), err)
		}
	}
	for i, c := range chunks(t, s) {
		if i > 0 {
			cut(c.at)
		}
		if i%8 == 0 {
			cut(c.at + 1 + rnd.IntN(c.end-c.at-1))
		}
	}
	t.Logf("%d cuts", cuts)
}

// flipBackup flips bits of paths and payloads of files that hold something.
func flipBackup(t *testing.T, s []byte) {
	rnd := rand.New(rand.NewPCG(5, 6))
	n, flips := 0, 0
	for i, c := range chunks(t, s) {
		if c.typ != 'P' {
			continue
		}
		if n++; n%4 != 0 {
			continue
		}
		payload := c.at + 14 + len(c.path) + 20
		for _, at := range []int{c.at + 14 + rnd.IntN(len(c.path)), payload + rnd.IntN(c.end-payload)} {
			flips++
			bit := byte(1) << rnd.IntN(8)
			s[at] ^= bit
			if err := readAll(s); !errors.Is(err, format.ErrDamaged) {
				t.Errorf("chunk %d (%s): byte %d flipped: error is %v", i, c.path, at-c.at, err)
			}
			s[at] ^= bit
		}
	}
	t.Logf("%d flips", flips)
}

// good runs mariabackup until a backup does not fail.
func good(t *testing.T, s *servertest.Server, args ...string) []byte {
	t.Helper()
	for try := 1; ; try++ {
		out, err := backup(t, s, args...)
		if err == nil {
			return out
		}
		var exit *exec.ExitError
		errors.As(err, &exit)
		if try == 5 {
			t.Fatalf("mariabackup failed %d times: %v\n%s", try, err, exit.Stderr)
		}
		t.Logf("mariabackup failed, another backup is taken: %v\n%s", err, exit.Stderr)
	}
}

// backup runs mariabackup; the error is that of a backup that failed.
func backup(t *testing.T, s *servertest.Server, args ...string) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	args = append([]string{"--no-defaults", "--backup", "--stream=xbstream", "--user=root", "--socket=" + s.Socket(), "--target-dir=" + t.TempDir()}, args...)
	out, err := exec.CommandContext(ctx, "mariabackup", args...).Output()
	if exit := new(exec.ExitError); err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		t.Fatalf("mariabackup: %v", err)
	}
	return out, err
}

// storm makes, renames, swaps and drops tables of the engines whose files
// mariabackup has to rename and remove, until it is stopped. What is under way
// then is finished: the server would go on with a statement that is given up.
func storm(t *testing.T, s *servertest.Server) (stop func()) {
	t.Helper()
	check(t, s.Exec(t.Context(), "CREATE DATABASE storm"))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				err := s.Exec(context.WithoutCancel(ctx), "USE storm",
					fmt.Sprintf("CREATE TABLE a%d (a INT) ENGINE=Aria", w), fmt.Sprintf("INSERT INTO a%d VALUES (1)", w),
					fmt.Sprintf("CREATE TABLE b%d (a INT) ENGINE=MyISAM", w), fmt.Sprintf("RENAME TABLE a%d TO c%d, b%d TO a%d, c%d TO b%d", w, w, w, w, w, w),
					fmt.Sprintf("ALTER TABLE a%d ADD b INT", w), fmt.Sprintf("CREATE TABLE i%d (a INT PRIMARY KEY) ENGINE=InnoDB", w),
					fmt.Sprintf("TRUNCATE TABLE b%d", w),
					fmt.Sprintf("DROP TABLE a%d, b%d, i%d", w, w, w), "DO SLEEP(0.1)")
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}
