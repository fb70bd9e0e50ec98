package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/internal/servertest"
)

// P1, G1: a copy of a replica whose parallel appliers wait for an earlier
// transaction, with theirs prepared. One session on the replica locks the row that
// the first transaction changes, so that it is certain that the others wait. The
// copy starts, holds no prepared transaction but that of XA PREPARE, follows the
// source and is equal.
func TestAppliersWaitWithPreparedTransactions(t *testing.T) {
	for _, logBin := range []bool{true, false} { // on the copy
		for _, prepare := range [][]string{nil, {"--with-server"}} {
			t.Run(fmt.Sprintf("log-bin %v %s", logBin, prepare), func(t *testing.T) { appliersWait(t, logBin, prepare) })
		}
	}
}

const waiting = 3 // appliers behind the first one

func appliersWait(t *testing.T, logBin bool, prepare []string) {
	ctx := t.Context()
	source := servertest.New(t, servertest.Options{LogBin: true, TCP: true})
	check(t, source.Exec(ctx, "CREATE DATABASE d", "CREATE TABLE d.t (a INT PRIMARY KEY, b INT) ENGINE=InnoDB", "INSERT INTO d.t VALUES (1, 0)"))
	replica := servertest.New(t, servertest.Options{ServerID: 5, LogBin: true, Args: []string{"--log-slave-updates", "--event-scheduler=OFF",
		"--slave-parallel-threads=4", "--slave-parallel-mode=optimistic", "--innodb-lock-wait-timeout=3600"}})
	check(t, replica.Exec(ctx, "SET SESSION sql_log_bin=0", "DROP USER repl@127.0.0.1")) // it comes from the source
	check(t, replica.Exec(ctx, servertest.ChangeMaster("", source, "MASTER_USE_GTID=slave_pos"), "START SLAVE"))
	check(t, replica.WaitCaughtUp(ctx, source))
	leavePrepared(t, replica)

	lock, err := replica.DB().BeginTx(ctx, nil)
	check(t, err)
	defer lock.Rollback()
	_, err = lock.ExecContext(ctx, "UPDATE d.t SET b=b WHERE a=1")
	check(t, err)
	var one sql.NullInt64
	check(t, lock.QueryRowContext(ctx, "SELECT a FROM d.t WHERE a=1 FOR UPDATE").Scan(&one))
	check(t, source.Exec(ctx, "UPDATE d.t SET b=1 WHERE a=1"))
	for n := range waiting {
		check(t, source.Exec(ctx, fmt.Sprintf("INSERT INTO d.t VALUES (%d, 1)", 10+n)))
	}
	await(t, "appliers that wait", func() bool {
		n, err := replica.String(ctx, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE LIKE 'Waiting for prior transaction to commit%'")
		check(t, err)
		return n == fmt.Sprint(waiting)
	})

	dir := filepath.Join(t.TempDir(), "copy")
	_, received := pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + replica.Socket(), "--slave-info"},
		append([]string{"xbstream", "-x", "--prepare", "-C", dir}, prepare...))
	check(t, lock.Rollback())
	if want := fmt.Sprintf("prepared rolled back %d", waiting); !strings.Contains(received, want) {
		t.Errorf("%q is not in the summary %q", want, received)
	}
	checkInfo(t, dir)

	copied := servertest.NewOn(t, dir, servertest.Options{ServerID: 9, LogBin: logBin})
	if n, err := copied.String(ctx, "SELECT COUNT(*) FROM d.t WHERE a >= 10 OR b = 1"); err != nil || n != "0" {
		t.Errorf("%s changes of transactions that were not committed, %v", n, err)
	}
	check(t, copied.Exec(ctx, "XA COMMIT 'kept'"))
	if n, err := copied.String(ctx, "SELECT COUNT(*) FROM local.x"); err != nil || n != "1" {
		t.Errorf("%s rows of the XA transaction, %v", n, err)
	}
	prepared, err := copied.DB().QueryContext(ctx, "XA RECOVER")
	check(t, err)
	if prepared.Next() {
		t.Error("a transaction is prepared beside that of XA PREPARE")
	}
	check(t, prepared.Close())
	noComplaints(t, copied) // not before: CHECK TABLE waits for purge, which a prepared transaction holds up

	recorded, err := os.ReadFile(filepath.Join(dir, "xtrabackup_slave_info"))
	check(t, err)
	check(t, copied.Exec(ctx, servertest.ChangeMaster("", source, "MASTER_USE_GTID=no")))
	for _, statement := range strings.Split(strings.TrimSpace(string(recorded)), ";\n") {
		check(t, copied.Exec(ctx, strings.TrimSuffix(statement, ";")))
	}
	check(t, copied.Exec(ctx, "START SLAVE"))
	check(t, source.Exec(ctx, "INSERT INTO d.t VALUES (100, 100)"))
	check(t, replica.WaitCaughtUp(ctx, source))
	check(t, copied.WaitCaughtUp(ctx, source))
	check(t, replica.Exec(ctx, "XA COMMIT 'kept'"))
	c, err := servertest.Compare(ctx, replica, copied)
	check(t, err)
	for _, d := range c.Differences {
		t.Error(d)
	}
	if n, err := copied.String(ctx, "SELECT COUNT(*) FROM d.t"); err != nil || n != fmt.Sprint(waiting+2) {
		t.Errorf("%s rows, %v; want %d", n, err, waiting+2)
	}
}

// leavePrepared prepares a transaction by XA PREPARE, and closes the connection.
func leavePrepared(t *testing.T, s *servertest.Server) {
	t.Helper()
	check(t, s.Exec(t.Context(), "SET SESSION sql_log_bin=0", "CREATE DATABASE local", "CREATE TABLE local.x (a INT) ENGINE=InnoDB",
		"XA START 'kept'", "INSERT INTO local.x VALUES (1)", "XA END 'kept'", "XA PREPARE 'kept'"))
}

// checkInfo checks that info of the directory says how many were rolled back.
func checkInfo(t *testing.T, dir string) {
	t.Helper()
	_, xbstream := binaries(t)
	for want, args := range map[string][]string{
		fmt.Sprintf("%d transactions that the server had prepared itself", waiting): {"info", dir},
		fmt.Sprintf(`"prepared_rolled_back": %d`, waiting):                          {"info", "--json", dir},
	} {
		out, err := exec.CommandContext(context.Background(), xbstream, args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%q says %.2000q, %v; want %q", args, out, err, want)
		}
	}
}
