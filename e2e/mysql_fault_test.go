package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/internal/servertest"
)

// The faults of MySQL servers: those of the other files, where a server matters, and
// those that only MySQL has.

// onMySQL runs a test on every release.
func onMySQL(t *testing.T, run func(*testing.T, servertest.Release)) {
	for _, r := range servertest.MySQLReleases(t) {
		t.Run(r.String(), func(t *testing.T) { run(t, r) })
	}
}

// smallLog makes a server with the smallest log there is.
func smallLog(r servertest.Release) func(*testing.T, int64) *faultSource {
	return func(t *testing.T, bulk int64) *faultSource { return newSmallLogSourceOn(t, r, bulk) }
}

func TestKilledMySQLAtRandomMoments(t *testing.T) {
	if !longFaults() {
		t.Skip("runs in make faults")
	}
	onMySQL(t, func(t *testing.T, r servertest.Release) { killAtRandom(t, r, 100) })
}

func TestKilledMySQLUnderLocks(t *testing.T) {
	events := []string{"end-lsn"}
	if longFaults() {
		events = []string{"stage-start", "stage-flush", "stage-block-ddl", "reconcile", "stage-block-commit", "end-lsn"}
	}
	onMySQL(t, func(t *testing.T, r servertest.Release) { killUnderLocks(t, r, events) })
}

func TestFaultMySQLSlowPipe(t *testing.T) {
	if !longFaults() {
		t.Skip("runs in make faults")
	}
	onMySQL(t, func(t *testing.T, r servertest.Release) { slowPipe(t, smallLog(r)) })
}

func TestFaultMySQLStalledReader(t *testing.T) {
	if !longFaults() {
		t.Skip("runs in make faults")
	}
	onMySQL(t, func(t *testing.T, r servertest.Release) { stalledReader(t, smallLog(r)) })
}

// P2, P3, P5, P6 on one server with the smallest log: whatever ends the backup, no
// lock, no session and no hold on redo is left, and writes go on.
func TestFaultMySQL(t *testing.T) {
	onMySQL(t, func(t *testing.T, r servertest.Release) {
		src := smallLog(r)(t, 8<<20)
		check(t, src.server.Exec(t.Context(), "CREATE DATABASE blocker", "CREATE TABLE blocker.i (a INT) ENGINE=InnoDB",
			"CREATE TABLE blocker.m (a INT) ENGINE=MyISAM", "INSERT INTO blocker.i VALUES (1), (2)", "INSERT INTO blocker.m VALUES (1), (2)"))
		t.Run("redo without place", func(t *testing.T) { redoWithoutPlace(t, src) })
		t.Run("lock connection killed", func(t *testing.T) {
			events := []string{"stage-block-ddl", "reconcile", "stage-block-commit", "end-lsn"}
			lockConnectionKilled(t, src, []string{"stage-block-ddl", "end-lsn"}, events)
		})
		t.Run("hold on redo killed", func(t *testing.T) { holdKilled(t, src) })
		t.Run("stopped", func(t *testing.T) { stoppedMySQL(t, src) })
		for range times(1, 10) {
			t.Run("pipe closed", func(t *testing.T) {
				src.try(t, trial{kind: "pipe closed", between: closing(20 << 20)}).mustFail(receiverEnded, senderEnded)
			})
			for _, kib := range []int{20 << 10, 70 << 10}[:times(1, 2)] {
				t.Run(fmt.Sprintf("disk full/%d MiB", kib>>10), func(t *testing.T) { fullDisk(t, src, kib) })
			}
		}
		t.Run("blocked", func(t *testing.T) {
			blockedLocks(t, src, []blocking{
				{"ALTER behind a transaction", "BEGIN; SELECT * FROM blocker.i", "ALTER TABLE blocker.i ADD b INT, ALGORITHM=COPY, LOCK=SHARED", "(ALTER TABLE, "},
				{"open transaction", "BEGIN; UPDATE blocker.i SET a = a + 1", "", ""},
			}, "INSTANCE")
			blockedLocks(t, src, []blocking{
				{"LOCK TABLES … WRITE of MyISAM", "LOCK TABLES blocker.m WRITE", "", "not granted within"},
				{"UPDATE of MyISAM", "", "UPDATE blocker.m SET a = SLEEP(600)", "(UPDATE "},
			}[:times(1, 2)], "TABLES")
		})
		t.Run("waiting DDL", func(t *testing.T) { behindWaitingDDL(t, src) })
		t.Run("restarted", func(t *testing.T) { serverRestarted(t, src, times(1, 20)) })
	})
}

// holdKilled kills the session that keeps redo: the backup goes on without, and says
// so.
func holdKilled(t *testing.T, src *faultSource) {
	o := src.try(t, trial{kind: "KILL CONNECTION of the hold on redo"}.atEvent(t, "tablespaces-listed", func(*attempt) {
		id, err := src.server.String(t.Context(), "SELECT PROCESSLIST_ID FROM performance_schema.threads t JOIN performance_schema.events_statements_history s "+
			"USING (THREAD_ID) WHERE SQL_TEXT LIKE 'SELECT innodb_redo_log_consumer_%' AND PROCESSLIST_USER = '"+backupUser+"' LIMIT 1")
		check(t, err)
		check(t, src.server.Exec(t.Context(), "KILL CONNECTION "+id))
		check(t, src.writers.Await(t.Context(), 200))
	}))
	if !strings.Contains(o.logs[0].String(), "warning: the server no longer keeps redo") {
		t.Errorf("it does not say that it lost the hold: %s", &o.logs[0])
	}
	if o.sent.code == exitRedoLost { // as may be without
		o.mustFail(says("redo", exitRedoLost), senderEnded)
		return
	}
	o.mustSucceed()
}

// stoppedMySQL stops xbsend while the server keeps redo for it: the server lets go,
// because otherwise all writes would wait.
func stoppedMySQL(t *testing.T, src *faultSource) {
	for range times(1, 5) {
		now := filepath.Join(t.TempDir(), "now")
		hook := fmt.Sprintf(`[ "$1" != tablespaces-listed ] || { touch %s; sleep 1; }; :`, now)
		o := src.try(t, trial{kind: "SIGSTOP of xbsend", env: []string{"XB_TEST_HOOK=" + hook, "XB_TEST_HOOK_TABLES=none"}, fault: func(r *attempt) {
			await(t, "tablespaces-listed", func() bool {
				_, err := os.Stat(now)
				return err == nil
			})
			check(t, r.send.Process.Signal(syscall.SIGSTOP))
			// Around the log, more than once.
			for from := src.lsn(); src.lsn() < from+3*logSize && !t.Failed(); {
				src.flood()
			}
			check(t, src.writers.Await(t.Context(), 200))
			check(t, r.send.Process.Signal(syscall.SIGCONT))
		}})
		// Redo was overwritten meanwhile.
		o.mustFail(says("redo", exitRedoLost), senderEnded)
	}
}

// deadlock is what the server answers DDL on a table that is locked, when it holds
// that table while it waits for the instance lock: it lets the backup pass.
const deadlock = 1213

// behindWaitingDDL has statements wait for the instance lock, with transactions open,
// when tables are locked under it: a global read lock would never be granted there,
// and all writes would stop.
func behindWaitingDDL(t *testing.T, src *faultSource) {
	for range times(1, 10) {
		open := session(t, src.server)
		check(t, open.exec("BEGIN"))
		check(t, open.exec("UPDATE blocker.i SET a = a + 1"))
		var ddl errgroup.Group
		o := src.try(t, trial{kind: "DDL that waits for the instance lock", sender: []string{"--lock-timeout=60s"}}.atEvent(t, "stage-block-ddl", func(*attempt) {
			statements := []string{
				"ALTER TABLE blocker.i ADD COLUMN c INT, ALGORITHM=COPY", "ALTER TABLE blocker.m ADD COLUMN c INT", "OPTIMIZE TABLE `load`.dynamic",
				"CREATE TABLE blocker.n (a INT)", "RENAME TABLE blocker.m TO blocker.m2, blocker.m2 TO blocker.m",
			}
			for _, q := range statements {
				ddl.Go(func() error {
					err := src.server.Exec(context.WithoutCancel(t.Context()), q)
					if e, ok := errors.AsType[*mysql.MySQLError](err); ok && e.Number == deadlock && strings.Contains(q, "blocker.m") {
						t.Logf("%s: %v", q, err)
						return nil
					}
					return err
				})
			}
			await(t, "DDL that waits", func() bool {
				n, err := src.server.String(t.Context(), "SELECT COUNT(*) FROM performance_schema.metadata_locks WHERE OBJECT_TYPE = 'BACKUP LOCK' AND LOCK_STATUS = 'PENDING'")
				check(t, err)
				return n == fmt.Sprint(len(statements))
			})
			check(t, src.writers.Await(t.Context(), 200))
		}))
		check(t, open.exec("ROLLBACK"))
		open.kill()
		check(t, ddl.Wait())
		o.mustSucceed()
		check(t, src.server.Exec(t.Context(), "ALTER TABLE blocker.i DROP COLUMN c", "DROP TABLE blocker.m, blocker.n", "CREATE TABLE blocker.m (a INT) ENGINE=MyISAM"))
	}
}
