package e2e

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

// atEvent makes xbsend stop at an event of its test seam; meanwhile something is
// done, and then it goes on.
func (tr trial) atEvent(t *testing.T, event string, do func(*attempt)) trial {
	t.Helper()
	reached, goOn := make(chan struct{}), make(chan struct{})
	hooked(t, "nothing", func(e, _ string) error {
		if e == event {
			close(reached)
			<-goOn
		}
		return nil
	})
	tr.fault = func(r *attempt) {
		defer close(goOn)
		select {
		case <-reached:
			do(r)
		case <-time.After(killWait):
			t.Errorf("xbsend did not come to %s", event) // try prints what it said
		}
	}
	return tr
}

// P6: a lock connection that is killed ends the backup in whatever stage.
func TestFaultLockConnectionKilled(t *testing.T) {
	src := newKillSource(t, killSeed(t))
	check(t, src.server.Exec(t.Context(), "INSTALL SONAME 'metadata_lock_info'"))
	lockConnectionKilled(t, src, []string{"stage-start", "stage-flush", "stage-block-ddl", "stage-block-commit", "end-lsn"}, lockEvents)
}

func lockConnectionKilled(t *testing.T, src *faultSource, events, all []string) {
	if longFaults() {
		events = all
	}
	for range times(1, 5) {
		for _, event := range events {
			t.Run(event, func(t *testing.T) {
				o := src.try(t, trial{kind: "KILL CONNECTION of the locks"}.atEvent(t, event, func(*attempt) { killLocks(t, src.server) }))
				o.mustFail(says("lock connection", exitServer), senderEnded)
			})
		}
	}
}

// killLocks kills the session that holds the locks of the backup.
func killLocks(t *testing.T, s *servertest.Server) {
	t.Helper()
	query := "SELECT DISTINCT m.THREAD_ID FROM information_schema.METADATA_LOCK_INFO m " +
		"JOIN information_schema.PROCESSLIST p ON p.ID = m.THREAD_ID WHERE m.LOCK_TYPE = 'Backup lock' AND p.USER = '" + backupUser + "'"
	if s.Release().MySQL() {
		query = "SELECT p.PROCESSLIST_ID FROM performance_schema.metadata_locks m JOIN performance_schema.threads p ON p.THREAD_ID = m.OWNER_THREAD_ID " +
			"WHERE m.OBJECT_TYPE = 'BACKUP LOCK' AND m.LOCK_TYPE = 'SHARED' AND p.PROCESSLIST_USER = '" + backupUser + "'"
	}
	id, err := s.String(t.Context(), query)
	check(t, err)
	check(t, s.Exec(t.Context(), "KILL CONNECTION "+id))
}

// A server that dies, or comes back as another process, holds no lock any more.
func TestFaultServerRestarted(t *testing.T) {
	serverRestarted(t, newKillSource(t, killSeed(t)), times(2, 20))
}

func serverRestarted(t *testing.T, src *faultSource, tries int) {
	for n := range tries {
		event := []string{"tablespaces-listed", "stage-block-ddl"}[n%2]
		cleanly := n%4 == 1 || n%4 == 2
		t.Run(fmt.Sprintf("%d at %s, cleanly %t", n, event, cleanly), func(t *testing.T) {
			o := src.try(t, trial{kind: "server restarted"}.atEvent(t, event, func(*attempt) {
				if !cleanly {
					src.server.Kill()
				}
				check(t, src.server.Restart(t.Context()))
			}))
			o.mustFail(says("lock", exitServer), senderEnded)
			src.renew()
		})
	}
}

// P5: a redo log that is not the server's any more ends the backup by name.
func TestFaultRedoLogReplaced(t *testing.T) {
	src := newKillSource(t, killSeed(t))
	cases := []struct {
		kind string
		do   func(t *testing.T, log string)
		want verdict
	}{
		{"redo log removed", func(t *testing.T, log string) { check(t, os.Remove(log)) }, says("ib_logfile0", exitIO)},
		{"redo log of zeros", func(t *testing.T, log string) { replace(t, log, make([]byte, 16<<20)) }, says("ib_logfile0", exitRedoLost)},
		{"redo log copied", func(t *testing.T, log string) {
			b, err := os.ReadFile(log)
			check(t, err)
			replace(t, log, b)
		}, says("not by the server", exitRedoLost)},
		{"redo log empty", func(t *testing.T, log string) { replace(t, log, nil) }, says("ib_logfile0", exitRedoLost)},
	}
	for _, c := range cases[:times(3, len(cases))] {
		for range times(1, 5) {
			t.Run(c.kind, func(t *testing.T) {
				o := src.try(t, trial{kind: c.kind}.atEvent(t, "tablespaces-listed", func(*attempt) {
					c.do(t, filepath.Join(src.server.Datadir(), "ib_logfile0"))
				}))
				o.mustFail(c.want, senderEnded)
				src.renew()
			})
		}
	}
}

// replace puts another file in the place of name, as rename does.
func replace(t *testing.T, name string, content []byte) {
	t.Helper()
	check(t, os.WriteFile(name+".new", content, 0o600))
	check(t, os.Rename(name+".new", name))
}

// P1: a redo log that is resized while it is read is followed.
func TestFaultRedoLogResized(t *testing.T) {
	for n := range times(1, 6) {
		event := []string{"redo-started", "stage-flush"}[n%2]
		t.Run(event, func(t *testing.T) {
			src := newSmallLogSource(t, 16<<20)
			o := src.try(t, trial{kind: "redo log resized"}.atEvent(t, event, func(*attempt) {
				for _, mib := range []int{24, 12} {
					resize(t, src, mib)
				}
			}))
			o.mustFollow()
		})
	}
}

func resize(t *testing.T, src *faultSource, mib int) {
	t.Helper()
	check(t, src.server.Exec(t.Context(), fmt.Sprintf("SET GLOBAL innodb_log_file_size = %d", mib<<20)))
	await(t, "the resize", func() bool {
		st, err := os.Stat(filepath.Join(src.server.Datadir(), "ib_logfile0"))
		check(t, err)
		return st.Size() == int64(mib)<<20
	})
}

// P6: a lock that is not granted within its budget is given up, with all that
// was held, and the message says who is in the way.
func TestFaultBlockedLocks(t *testing.T) {
	src := newKillSource(t, killSeed(t))
	check(t, src.server.Exec(t.Context(), "CREATE DATABASE blocker", "CREATE TABLE blocker.i (a INT) ENGINE=InnoDB",
		"CREATE TABLE blocker.m (a INT) ENGINE=MyISAM", "INSERT INTO blocker.i VALUES (1), (2)", "INSERT INTO blocker.m VALUES (1), (2)"))
	cases := []blocking{
		{"LOCK TABLES … WRITE", "LOCK TABLES blocker.i WRITE", "", "not granted within"},
		{"ALTER behind a transaction", "BEGIN; SELECT * FROM blocker.i", "ALTER TABLE blocker.i ADD b INT, ALGORITHM=COPY, LOCK=SHARED", "(ALTER TABLE, "},
		{"UPDATE of MyISAM", "", "UPDATE blocker.m SET a = SLEEP(600)", "(UPDATE "},
		{"SELECT from MyISAM", "", "SELECT SLEEP(600) FROM blocker.m", ""},
		{"open transaction", "BEGIN; UPDATE blocker.i SET a = a + 1", "", ""},
		{"CREATE … SELECT", "", "CREATE TABLE blocker.x AS SELECT SLEEP(600)", "(CREATE TABLE, "},
	}
	blockedLocks(t, src, cases[:times(5, len(cases))], "BACKUP STAGE BLOCK_DDL")
}

// blocking is what is in the way of locks.
type blocking struct {
	kind   string
	idle   string // statements of a session that then does nothing
	busy   string // statement of another that does not end by itself
	blames string // empty: it is in nobody's way
}

func blockedLocks(t *testing.T, src *faultSource, cases []blocking, lock string) {
	for _, c := range cases {
		for range times(1, 5) {
			t.Run(c.kind, func(t *testing.T) {
				budget := "--lock-timeout=3s"
				if c.blames == "" {
					budget = "--lock-timeout=60s"
				}
				release := func() {}
				o := src.try(t, trial{kind: "blocked by " + c.kind, sender: []string{budget}}.
					atEvent(t, "tablespaces-listed", func(*attempt) { release = block(t, src.server, c.idle, c.busy) }))
				release() // or unlocked would wait for it
				if c.blames == "" {
					o.mustSucceed()
					return
				}
				o.mustFail(says(c.blames, exitServer), senderEnded)
				if last := lastLine(o.logs[0].String()); !strings.Contains(last, lock) || !strings.Contains(last, ": not granted within 3s; ") {
					t.Errorf("it does not say for what it waited, and how long: %s", last)
				}
			})
		}
	}
}

// block leaves sessions in the way of others until release is called.
func block(t *testing.T, s *servertest.Server, idle, busy string) (release func()) {
	t.Helper()
	first, second := session(t, s), session(t, s)
	for _, q := range strings.Split(idle, "; ") {
		if q != "" {
			check(t, first.exec(q))
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if busy != "" {
			_ = second.exec(busy) // it is killed
		}
	}()
	// Only from here on is it in the way; a statement that has merely begun could
	// still be overtaken by the backup.
	await(t, busy, func() bool {
		n, err := s.String(t.Context(), "SELECT COUNT(*) FROM "+sessionsOf(s)+" "+
			"WHERE INFO = ? AND STATE IN ('Waiting for table metadata lock', 'User sleep')", busy)
		check(t, err)
		return busy == "" || n == "1"
	})
	return func() {
		second.kill()
		<-done
		first.kill()
	}
}

// blocker is one session that is in the way.
type blocker struct {
	t      *testing.T
	server *servertest.Server
	conn   *sql.Conn
	id     string
}

func session(t *testing.T, s *servertest.Server) *blocker {
	t.Helper()
	conn, err := s.DB().Conn(t.Context())
	check(t, err)
	b := &blocker{t: t, server: s, conn: conn}
	check(t, conn.QueryRowContext(t.Context(), "SELECT CONNECTION_ID()").Scan(&b.id))
	return b
}

func (b *blocker) exec(q string) error {
	_, err := b.conn.ExecContext(b.t.Context(), q)
	return err
}

func (b *blocker) kill() {
	b.t.Helper()
	check(b.t, b.server.Exec(b.t.Context(), "KILL CONNECTION "+b.id))
	// The pool must not give it to the next session: the server may close it
	// only then, and with it what that session holds.
	_ = b.conn.Raw(func(any) error { return driver.ErrBadConn })
	b.conn.Close()
}

// await waits for what must come.
func await(t *testing.T, what string, come func() bool) {
	t.Helper()
	for limit := time.Now().Add(killWait); !come(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("waited too long for: %s", what)
		}
	}
}
