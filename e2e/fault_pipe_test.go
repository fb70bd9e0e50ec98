package e2e

import (
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

// slowly carries rate bytes a second.
func slowly(rate int64) pipe {
	return func(_ <-chan struct{}, to io.Writer, from io.Reader) error {
		const tick = 20 * time.Millisecond
		began, carried := time.Now(), int64(0)
		for {
			n, err := io.CopyN(to, from, rate*int64(tick)/int64(time.Second))
			carried += n
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			time.Sleep(time.Until(began.Add(time.Duration(carried) * time.Second / time.Duration(rate))))
		}
	}
}

// stalling carries the first bytes, then nothing until wait returns, then the
// rest.
func stalling(after int64, wait func(sent <-chan struct{})) pipe {
	return func(sent <-chan struct{}, to io.Writer, from io.Reader) error {
		if _, err := io.CopyN(to, from, after); err != nil {
			return err
		}
		wait(sent)
		_, err := io.Copy(to, from)
		return err
	}
}

// closing carries the first bytes and ends.
func closing(after int64) pipe {
	return func(_ <-chan struct{}, to io.Writer, from io.Reader) error {
		_, err := io.CopyN(to, from, after)
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
}

// logSize is a redo log that four writers go around in seconds.
const logSize = 8 << 20

// newSmallLogSource is a server whose writers write as fast as they can.
func newSmallLogSource(t *testing.T, bulk int64) *faultSource {
	t.Helper()
	// A log may not be smaller than its buffer, also when it is resized.
	return newSmallLogSourceOn(t, servertest.Usual(), bulk, "--innodb-log-buffer-size=4M")
}

func newSmallLogSourceOn(t *testing.T, r servertest.Release, bulk int64, args ...string) *faultSource {
	t.Helper()
	src := newFaultSource(t, servertest.Options{Release: r, LogFileSize: logSize, LogBin: true, TCP: true, Args: args},
		servertest.LoadOptions{BulkBytes: bulk})
	src.makeFlood()
	return src
}

// makeFlood makes the table of flood.
func (s *faultSource) makeFlood() {
	numbers := "SELECT seq, '' FROM seq_1_to_1500"
	if s.server.Release().MySQL() {
		numbers = "SELECT ROW_NUMBER() OVER (), '' FROM help_relation LIMIT 1500"
	}
	check(s.t, s.server.Exec(s.t.Context(), "SET sql_log_bin = 0", "USE mysql",
		"CREATE TABLE flood (a INT PRIMARY KEY, b VARCHAR(5000)) ENGINE=InnoDB", "INSERT INTO flood "+numbers))
}

// P1, P5: the redo log is overwritten again and again while the archive waits
// for a slow pipe, and the copy still follows and is equal.
func TestFaultSlowPipe(t *testing.T) { slowPipe(t, newSmallLogSource) }

func slowPipe(t *testing.T, newSource func(t *testing.T, bulk int64) *faultSource) {
	bulk, rate := int64(24<<20), int64(16<<20)
	if longFaults() {
		bulk, rate = 120<<20, 4<<20
	}
	for range times(1, 10) {
		t.Run("", func(t *testing.T) {
			src := newSource(t, bulk)
			before := src.lsn()
			o := src.try(t, trial{kind: "slow pipe, 8 MiB log", between: slowly(rate), longer: 10 * time.Minute})
			t.Logf("%d MiB of redo were written meanwhile, in %v", (src.lsn()-before)>>20, o.received.after)
			o.mustFollow()
		})
	}
}

// The same while the reader stands still, for as long as the server needs to
// overwrite its log several times; in the long form for a minute at least.
func TestFaultStalledReader(t *testing.T) { stalledReader(t, newSmallLogSource) }

func stalledReader(t *testing.T, newSource func(t *testing.T, bulk int64) *faultSource) {
	bulk, stall := int64(16<<20), time.Duration(0)
	if longFaults() {
		bulk, stall = 120<<20, time.Minute
	}
	for range times(1, 10) {
		t.Run("", func(t *testing.T) {
			src := newSource(t, bulk)
			o := src.try(t, trial{kind: "stalled reader, 8 MiB log", longer: 10 * time.Minute,
				between: stalling(bulk/2, func(<-chan struct{}) {
					time.Sleep(stall)
					for from := src.lsn(); src.lsn() < from+3*logSize && !t.Failed(); {
						src.flood()
					}
				})})
			o.mustFollow()
		})
	}
}

// lsn is where the server's redo ends.
func (s *faultSource) lsn() (n int64) {
	var name string
	status := "Innodb_lsn_current"
	if s.server.Release().MySQL() {
		status = "Innodb_redo_log_current_lsn"
	}
	err := s.server.DB().QueryRow("SHOW GLOBAL STATUS LIKE '"+status+"'").Scan(&name, &n)
	if err != nil {
		s.t.Error(err)
		return math.MaxInt64
	}
	return n
}

// flood makes about ten MiB of redo, quicker than the writers do. No lock of an
// idle backup holds it up.
func (s *faultSource) flood() {
	err := s.server.Exec(s.t.Context(), "SET sql_log_bin = 0", "UPDATE mysql.flood SET b = REPEAT(LEFT(UUID(), 8), 500)")
	if err != nil {
		s.t.Error(err)
	}
}

// mustFollow attaches the copy as a replica and compares it in the end.
func (o *outcome) mustFollow() {
	o.t.Helper()
	defer o.count()
	if o.sent.code != exitDone || o.received.code != exitDone {
		o.t.Fatalf("exit codes %d and %d", o.sent.code, o.received.code)
	}
	o.mustBeFree()
	gtid, err := servertest.RecordedGTID(o.dir)
	check(o.t, err)
	copied := startCopyOn(o.t, o.src.server.Release(), o.dir)
	check(o.t, copied.AttachReplica(o.t.Context(), o.src.server, gtid))
	_, err = o.src.writers.Stop()
	check(o.t, err)
	compareCopy(o.t, o.src.server, copied, "")
}

// P5: redo that finds no place ends the backup while the reader still stands.
func TestFaultRedoWithoutPlace(t *testing.T) {
	redoWithoutPlace(t, newSmallLogSource(t, 8<<20))
}

func redoWithoutPlace(t *testing.T, src *faultSource) {
	for _, c := range []struct {
		kind string
		args func(*testing.T) []string
		code int
		why  string
	}{
		{"--spool-limit too small", func(*testing.T) []string { return []string{"--spool-limit=1M"} }, exitRedoLost, "redo spool is full"},
		{"--spool-dir full", func(t *testing.T) []string { return []string{"--spool-dir=" + tmpfs(t, "size=1m")} }, exitIO, "no space left on device"},
	} {
		for range times(1, 5) {
			t.Run(c.kind, func(t *testing.T) {
				o := src.try(t, trial{kind: c.kind, sender: c.args(t), between: stalling(1<<20, func(sent <-chan struct{}) {
					for !closed(sent) && !t.Failed() {
						src.flood()
					}
				})})
				o.mustFail(says(c.why, c.code), senderEnded)
				if last := lastLine(o.logs[0].String()); !strings.Contains(last, "LSN") {
					t.Errorf("it does not say which redo: %s", last)
				}
			})
		}
	}
}

// P5: a tail that falls behind says so before redo is lost. One that keeps up
// says nothing, even when it begins most of a log back.
func TestFaultRedoReadTooSlowly(t *testing.T) {
	src := newSmallLogSource(t, 0)
	_, err := src.writers.Stop()
	check(t, err)
	const warning = "xbsend: warning: the redo log is read too slowly: "
	// Nothing moves in a copy of the log: no disk is slower than that. It must
	// have the server's last checkpoint, or xbsend takes it for another log.
	check(t, src.server.Exec(t.Context(), "SET GLOBAL event_scheduler=OFF",
		"SET GLOBAL innodb_max_dirty_pages_pct_lwm=0", "SET GLOBAL innodb_max_dirty_pages_pct=0"))
	await(t, "a checkpoint of an idle server", func() bool {
		age, err := src.server.String(t.Context(), "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME='Innodb_checkpoint_age'")
		check(t, err)
		n, err := strconv.Atoi(age)
		check(t, err)
		return n < 100
	})
	still := t.TempDir()
	b, err := os.ReadFile(filepath.Join(src.server.Datadir(), "ib_logfile0"))
	check(t, err)
	check(t, os.WriteFile(filepath.Join(still, "ib_logfile0"), b, 0o600))

	log := filepath.Join(t.TempDir(), "log")
	said := func() string {
		b, err := os.ReadFile(log)
		check(t, err)
		return string(b)
	}
	tr := trial{kind: "redo log read too slowly", sender: []string{"--innodb-log-group-home-dir=" + still}}
	tr.wrap[0] = "exec 2>" + log
	o := src.try(t, tr.atEvent(t, "redo-started", func(r *attempt) {
		await(t, "the warning", func() bool {
			src.flood()
			return strings.Contains(said(), warning)
		})
		check(t, r.send.Process.Signal(syscall.SIGTERM))
	}))
	o.logs[0].WriteString(said())
	o.mustFail(says("ended by signal", exitTerminated), senderEnded)
	if strings.Count(said(), warning) != 1 || !strings.Contains(said(), ", log bytes 8376320, lsn ") {
		t.Error(said())
	}

	t.Setenv("XB_TEST_HOOK", "")
	o = src.try(t, trial{kind: "none"})
	if o.mustSucceed(); strings.Contains(o.logs[0].String(), warning) {
		t.Error("a tail that keeps up is said to be slow")
	}
}

// A directory that redo could not wait in is found before anything is copied,
// not when the receiver becomes slow.
func TestFaultSpoolDirectory(t *testing.T) {
	src := newSmallLogSource(t, 0)
	for _, c := range []struct {
		kind string
		dir  func(*testing.T) string
		why  string
	}{
		{"--spool-dir missing", func(t *testing.T) string { return filepath.Join(t.TempDir(), "none") }, "no such file or directory"},
		{"--spool-dir read-only", func(t *testing.T) string { return tmpfs(t, "size=1m,ro") }, "read-only file system"},
	} {
		t.Run(c.kind, func(t *testing.T) {
			o := src.try(t, trial{kind: c.kind, sender: []string{"--spool-dir=" + c.dir(t)}})
			o.mustFail(says(c.why, exitIO), senderEnded)
			if strings.Contains(o.logs[0].String(), "backing up") {
				t.Error("the backup began")
			}
		})
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// tmpfs returns a directory that is a file system of its own, with those options
// of mount.
func tmpfs(t *testing.T, options string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", options, "none", dir).CombinedOutput(); err != nil {
		t.Skipf("mounting a file system takes root, outside of a container: %v: %s", err, out)
	}
	t.Cleanup(func() { check(t, exec.Command("umount", "--lazy", dir).Run()) })
	return dir
}
