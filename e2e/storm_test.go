package e2e

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/internal/servertest"
)

// A stormy is a storm of DDL with something that makes it worse.
type stormy struct {
	name string
	// release is the server's; the zero value is the usual one.
	release servertest.Release
	args    []string // of xbsend
	// logSize is the size of the redo log in MiB.
	logSize int64
	server  []string // further arguments of the server
	// slow lets the receiver take so many bytes a second.
	slow int
	// pause stops xbsend, and its tail with it, half of the time.
	pause bool
	// begin is called when all is running. What it returns is called when the
	// backup has ended.
	begin func(t *testing.T, source *servertest.Server) (end func())
	// long says that it runs in make storm only.
	long bool
	// hangs says that the server is known to hang by itself in such a storm.
	hangs bool
	// done is told, by kind, how many statements of the storm succeeded.
	done func(map[string]int)
}

var storms = []stormy{
	{name: "-j1", args: []string{"--rate=30M", "-j1"}, logSize: 24},
	{name: "-j4", args: []string{"--rate=30M", "-j4"}, logSize: 24, long: true},
	{name: "slow tail", args: []string{"-j4", "--rate=30M"}, logSize: 96, pause: true},
	{name: "slow receiver", args: []string{"-j2"}, logSize: 24, slow: 12 << 20, long: true},
	// 10.11.19 hung for ever while it truncated, twice on a busy machine: with the
	// doublewrite buffer in "Long wait for double-write buffer flush", and without.
	{name: "undo truncation", args: []string{"--rate=30M"}, logSize: 96, begin: undoTruncation, long: true, hangs: true,
		server: []string{"--innodb-undo-tablespaces=3", "--innodb-undo-log-truncate=ON", "--innodb-max-undo-log-size=10M",
			"--innodb-purge-rseg-truncate-frequency=1", "--skip-innodb-doublewrite"}},
	{name: "long ALTER", args: []string{"--rate=30M"}, logSize: 24, begin: longAlter},
	{name: "5000 tables", logSize: 96, begin: manyTables, long: true},
}

// P1 under DDL: whatever the server was doing, the copy follows and is equal.
func TestCopyTakenInAStormOfDDL(t *testing.T) {
	if rounds, _ := strconv.Atoi(os.Getenv("XB_STORM_PEER")); rounds > 0 {
		stormsOfPeer(t, rounds)
		return
	}
	for n := range repeats(t) {
		for _, s := range storms {
			if s.long && os.Getenv("XB_REPEAT") == "" {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", s.name, n), func(t *testing.T) { s.run(t, uint64(n), s.backUp) })
		}
	}
	t.Logf("%d sources hung by themselves", hangs)
}

// stormsOfPeer lets mariabackup take the copies. It is expected to fail: this
// tells how often.
func stormsOfPeer(t *testing.T, rounds int) {
	broken := 0
	for n := range rounds {
		if !t.Run(strconv.Itoa(n), func(t *testing.T) { storms[0].run(t, uint64(n), mariabackup) }) {
			broken++
		}
	}
	t.Logf("%d of %d copies of mariabackup are broken", broken, rounds)
}

// backUpFunc takes a copy of source into dir, prepared.
type backUpFunc func(t *testing.T, source *servertest.Server, dir string) error

// hangs counts the sources that hung, of all rounds; more than mostHangs of them
// are a failure.
var hangs int

const mostHangs = 2

// run takes a copy with backUp in the middle of the storm and compares it. If the
// source hangs, it is tried again.
func (s stormy) run(t *testing.T, seed uint64, backUp backUpFunc) {
	for !s.round(t, seed, backUp) {
		if hangs++; hangs > mostHangs {
			t.Fatalf("the source hung %d times", hangs)
		}
	}
}

// round is one try of run; false says that the source hung by itself.
func (s stormy) round(t *testing.T, seed uint64, backUp backUpFunc) bool {
	ctx := t.Context()
	source := servertest.New(t, servertest.Options{Release: s.release, LogFileSize: s.logSize << 20, LogBin: true, TCP: true, Args: s.server})
	options := servertest.LoadOptions{Seed: seed, Rate: 200, BulkBytes: 30 << 20}
	check(t, source.CreateSchema(ctx, options))
	load, err := source.StartLoad(ctx, options)
	check(t, err)
	ddl, err := source.StartStorm(ctx, seed)
	check(t, err)
	check(t, ddl.Await(ctx, 200)) // so that the storm has left its traces before
	end := func() {}
	if s.begin != nil {
		end = s.begin(t, source)
	}
	dir := filepath.Join(t.TempDir(), "copy")
	if err := backUp(t, source, dir); err != nil {
		if !s.hangs || !waitedInVain.MatchString(err.Error()) || !stands(t, source) {
			t.Fatal(err)
		}
		t.Logf("the source HUNG by itself, and so the backup failed: %v", err)
		source.Kill()
		_ = ddl.Stop()
		_, _ = load.Stop()
		return false
	}
	end()
	check(t, ddl.Await(ctx, 100)) // for the copy to follow
	check(t, ddl.Stop())
	if s.done != nil {
		s.done(ddl.Done())
	}
	_, err = load.Stop()
	check(t, err)
	gtid, err := servertest.RecordedGTID(dir)
	check(t, err)
	copied := servertest.NewOn(t, dir, servertest.Options{Release: source.Release(), ServerID: 2, Args: noRepair(source.Release())})
	check(t, copied.DropTwins(ctx))
	noComplaints(t, copied)
	check(t, copied.AttachReplica(ctx, source, gtid))
	compareCopy(t, source, copied, "")
	sameNames(t, source.Datadir(), dir)
	return true
}

// waitedInVain is what a backup says of a source that hangs: which statements hold
// its lock up, or, in the words of the hook, that no undo tablespace is truncated.
var waitedInVain = regexp.MustCompile(`BACKUP STAGE BLOCK_DDL: .* may be held up by|no undo tablespace was truncated`)

// stands says whether a server that no backup runs on any more does not go on
// with statements that it was at already. None of them may wait for the lock of a
// backup: that would be ours.
func stands(t *testing.T, s *servertest.Server) bool {
	const long = `SELECT ID, QUERY_ID, CONCAT(TIME, ' s, ', STATE, ': ', LEFT(INFO, 80)) FROM information_schema.PROCESSLIST WHERE COMMAND = 'Query' AND TIME >= 30`
	type statement struct{ session, query int64 }
	statements := func() map[statement]string {
		rows, err := s.DB().QueryContext(t.Context(), long)
		check(t, err)
		defer rows.Close()
		all := map[statement]string{}
		for rows.Next() {
			var q statement
			var text string
			check(t, rows.Scan(&q.session, &q.query, &text))
			all[q] = text
		}
		check(t, rows.Err())
		return all
	}
	before := statements()
	time.Sleep(time.Minute)
	stand := false
	for q, text := range statements() {
		if _, ok := before[q]; ok {
			stand = true
			t.Logf("stands: %s", text)
		}
		if strings.Contains(text, "Waiting for backup lock") {
			t.Errorf("still waits for a lock of the backup that ended: %s", text)
		}
	}
	return stand
}

// backUp runs xbsend and xbstream, hampered as it is told.
func (s stormy) backUp(t *testing.T, source *servertest.Server, dir string) error {
	sender := append([]string{"xbsend", "--no-defaults", "--user=root", "--socket=" + source.Socket()}, s.args...)
	receiver := []string{"xbstream", "-x", "--prepare", "-C", dir}
	if s.slow == 0 && !s.pause {
		sent, received, err := tryPipeline(t, sender, receiver)
		if err == nil {
			t.Logf("%s%s", sent, received)
		}
		return err
	}
	xbsend, xbstream := binaries(t)
	ctx, cancel := context.WithTimeout(t.Context(), pipelineTimeout)
	defer cancel()
	var logs [2]strings.Builder
	send := exec.CommandContext(ctx, xbsend, sender[1:]...)
	receive := exec.CommandContext(ctx, xbstream, receiver[1:]...)
	send.Stderr, receive.Stderr = &logs[0], &logs[1]
	out, err := send.StdoutPipe()
	check(t, err)
	receive.Stdin = &slowReader{out, s.slow}
	check(t, send.Start())
	check(t, receive.Start())
	if s.pause {
		defer pausing(send.Process)()
	}
	// Its input is read to the end, so that the sender can end.
	err2 := receive.Wait()
	if err1 := send.Wait(); err1 != nil || err2 != nil {
		return fmt.Errorf("%v\n%s%v\n%s", err1, &logs[0], err2, &logs[1])
	}
	t.Logf("%s%s", &logs[0], &logs[1])
	return nil
}

// slowReader reads at most so many bytes a second; 0 means no limit.
type slowReader struct {
	io.Reader
	rate int
}

func (r *slowReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p[:min(len(p), 64<<10)])
	if r.rate > 0 {
		time.Sleep(time.Duration(n) * time.Second / time.Duration(r.rate))
	}
	return n, err
}

// pausing stops and continues a process until the returned function is called.
func pausing(p *os.Process) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for signal := syscall.SIGSTOP; ; signal ^= syscall.SIGSTOP ^ syscall.SIGCONT {
			if p.Signal(signal) != nil {
				return // it has ended
			}
			select {
			case <-end:
				_ = p.Signal(syscall.SIGCONT)
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}

// mariabackup takes a copy and prepares it.
func mariabackup(t *testing.T, source *servertest.Server, dir string) error {
	for _, args := range [][]string{
		{"--no-defaults", "--backup", "--user=root", "--socket=" + source.Socket(), "--target-dir=" + dir},
		{"--no-defaults", "--prepare", "--target-dir=" + dir},
	} {
		out, err := exec.CommandContext(t.Context(), "mariabackup", args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("mariabackup %s: %w\n%s", args[1], err, out[max(0, len(out)-2000):])
		}
	}
	return nil
}

// undoTruncation lets the server truncate undo tablespaces again and again,
// before and after each is copied.
func undoTruncation(t *testing.T, source *servertest.Server) (end func()) {
	ctx, stop := context.WithCancel(t.Context())
	check(t, source.Exec(ctx, "CREATE DATABASE storm_undo",
		"CREATE TABLE storm_undo.t (id INT NOT NULL PRIMARY KEY, b VARCHAR(3000)) ENGINE=InnoDB",
		"INSERT INTO storm_undo.t SELECT seq, REPEAT(MD5(seq), 60) FROM mysql.seq_1_to_8000"))
	var busy errgroup.Group
	busy.Go(func() error {
		for ctx.Err() == nil {
			// What is rolled back needs undo, and the binary log hears nothing.
			err := source.Exec(context.WithoutCancel(ctx), "BEGIN", "UPDATE storm_undo.t SET b = REVERSE(b)", "ROLLBACK")
			if err != nil {
				return err
			}
		}
		return nil
	})
	hooked(t, "undo*", func(_, table string) error {
		if table == "" {
			return nil
		}
		return truncated(ctx, source)
	})
	return func() {
		stop()
		check(t, busy.Wait())
	}
}

// truncated waits until the server has truncated another undo tablespace.
func truncated(ctx context.Context, s *servertest.Server) error {
	const count = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'INNODB_UNDO_TRUNCATIONS'"
	before, err := s.String(ctx, count)
	for limit := time.Now().Add(patience); err == nil; time.Sleep(20 * time.Millisecond) {
		var now string
		if now, err = s.String(ctx, count); now != before {
			break
		}
		if time.Now().After(limit) {
			return fmt.Errorf("no undo tablespace was truncated in %v", patience)
		}
	}
	return err
}

// patience bounds waits for what a busy server does soon.
const patience = 3 * time.Minute

// longAlter has ALTER TABLE in the phase in which it copies rows, or builds an
// index, when DDL is blocked. Each row takes so long that none comes to an end.
func longAlter(t *testing.T, source *servertest.Server) (end func()) {
	const slow = "SHA2(REPEAT(b, 100000), 512)"
	alters := []string{
		"ALTER TABLE storm_alter.copied ADD CONSTRAINT c CHECK (" + slow + " <> ''), ALGORITHM=COPY",
		"ALTER TABLE storm_alter.aria ADD CONSTRAINT c CHECK (" + slow + " <> '')",
		"ALTER TABLE storm_alter.indexed ADD INDEX i (v), ALGORITHM=INPLACE",
	}
	ctx := t.Context()
	// Not through the binary log, which wants the slow column of each row.
	list := []string{"SET SESSION sql_log_bin = 0", "CREATE DATABASE storm_alter"}
	for table, options := range map[string]string{"copied": ", FULLTEXT KEY (b)) ENGINE=InnoDB", "aria": ") ENGINE=Aria TRANSACTIONAL=1", "indexed": ", v VARCHAR(128) AS (" + slow + ") VIRTUAL) ENGINE=InnoDB"} {
		list = append(list, "CREATE TABLE storm_alter."+table+" (id INT NOT NULL PRIMARY KEY, b VARCHAR(100)"+options,
			"INSERT INTO storm_alter."+table+" (id, b) SELECT seq, REPEAT('b', 100) FROM mysql.seq_1_to_20000")
	}
	check(t, source.Exec(ctx, list...))
	ctx, stop := context.WithCancel(ctx)
	var running errgroup.Group
	hooked(t, "-", func(event, _ string) error {
		if event != "stage-flush" {
			return nil
		}
		for _, q := range alters {
			running.Go(func() error {
				err := source.Exec(context.WithoutCancel(ctx), q)
				if ctx.Err() == nil {
					return fmt.Errorf("%s: ended too early: %v", q, err)
				}
				return nil
			})
		}
		var err error
		for limit := time.Now().Add(patience); err == nil; time.Sleep(10 * time.Millisecond) {
			var copying, building []string
			copying, err = altering(ctx, source, "copy to tmp table")
			if err == nil {
				building, err = altering(ctx, source, "altering table")
			}
			if len(copying)+len(building) == len(alters) {
				break
			}
			if time.Now().After(limit) {
				return fmt.Errorf("only %d of %d are copying after %v", len(copying)+len(building), len(alters), patience)
			}
		}
		return err
	})
	return func() {
		stop() // before anything ends
		sessions, err := altering(t.Context(), source, "%")
		check(t, err)
		for _, id := range sessions {
			check(t, source.Exec(t.Context(), "KILL QUERY "+id))
		}
		check(t, running.Wait())
		// Nobody wants to wait for it when tables are compared.
		check(t, source.Exec(t.Context(), "ALTER TABLE storm_alter.indexed DROP COLUMN v, ALGORITHM=INSTANT"))
	}
}

// altering lists the sessions that run longAlter's statements and are in a state
// like that.
func altering(ctx context.Context, s *servertest.Server, state string) (ids []string, err error) {
	list, err := s.String(ctx, "SELECT GROUP_CONCAT(ID) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'ALTER TABLE storm_alter.%' AND STATE LIKE ?", state)
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' }), err
}

// manyTables makes 5 000 tables.
func manyTables(t *testing.T, source *servertest.Server) (end func()) {
	check(t, source.Exec(t.Context(), "CREATE DATABASE storm_many"))
	var g errgroup.Group
	for n := range 5 {
		g.Go(func() error {
			list := []string{"USE storm_many"}
			for i := range 1000 {
				list = append(list, fmt.Sprintf("CREATE TABLE t%d_%d (id INT NOT NULL PRIMARY KEY) ENGINE=InnoDB", n, i))
			}
			return source.Exec(t.Context(), list...)
		})
	}
	check(t, g.Wait())
	return func() {}
}
