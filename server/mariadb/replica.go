package mariadb

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/server"
)

// statusQuery asks a replica for all its connections; it needs SLAVE MONITOR.
const statusQuery = "SHOW ALL SLAVES STATUS"

// sources reads the rows of statusQuery.
func sources(rows []map[string]string) (list []format.ReplicationSource, err error) {
	for _, row := range rows {
		s := format.ReplicationSource{
			Connection: row["Connection_name"], Host: row["Master_Host"], File: row["Relay_Master_Log_File"],
			// Without a GTID position yet, it goes by file and position.
			GTID: row["Using_Gtid"] != "No" && row["Gtid_Slave_Pos"] != "",
		}
		if s.Port, err = strconv.Atoi(row["Master_Port"]); err != nil {
			return nil, server.Unsupported("replication status: %q is not a port", row["Master_Port"])
		}
		if s.Position, err = strconv.ParseUint(row["Exec_Master_Log_Pos"], 10, 64); err != nil {
			return nil, server.Unsupported("replication status: %q is not a position", row["Exec_Master_Log_Pos"])
		}
		list = append(list, s)
	}
	return list, nil
}

// settled are how the states begin of a replication thread that has nothing
// committed and not noted: it waits for work, or before its next commit.
var settled = []string{
	"Waiting for backup lock",
	"Waiting for prior transaction",
	"Waiting for work from SQL thread",
	"Waiting for room in worker thread event queue",
	"Waiting for other master connection to process the same GTID",
	"Waiting until MASTER_DELAY seconds",
	"Slave has read all relay log",
	"Waiting for the next event in relay log",
}

// Limits of the wait, which is under the lock. Most threads are settled within
// quietWait. One that is not by then may be in the middle of a transaction, for
// as long as that takes; only the rest is waited for up to settleLimit.
const (
	quietWait   = 200 * time.Millisecond
	settleLimit = 15 * time.Second
	settlePause = 5 * time.Millisecond
)

// SettleReplication waits until every replication thread has noted what it has
// committed: the server does so after the commit, when it holds no lock any more.
// A position that is read before that lacks a transaction that the copy has, and
// the copy would stop when it gets that one again (seen with 10.11.19 on a busy
// machine: error 1032). Threads that stay in between are ErrLockTimeout.
func (b *backup) SettleReplication(ctx context.Context) error {
	const op = "wait for the replication threads to note what they committed"
	for began := time.Now(); ; {
		rows, err := b.Query(ctx, op,
			"SELECT ID, STATE FROM information_schema.PROCESSLIST WHERE COMMAND IN ('Slave_SQL', 'Slave_worker')")
		if err != nil {
			return err
		}
		busy := unsettled(rows)
		if len(busy) > 0 && time.Since(began) > quietWait {
			if busy, err = b.betweenTransactions(ctx, busy); err != nil {
				return err
			}
		}
		switch {
		case len(busy) == 0:
			return nil
		case time.Since(began) > settleLimit:
			return &server.Error{Kind: server.ErrLockTimeout, Op: op, Err: fmt.Errorf(
				"connection %s is in state %q for %s; --safe-slave-backup stops the SQL threads first", busy[0]["ID"], busy[0]["STATE"], settleLimit)}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(settlePause):
		}
	}
}

// unsettled returns the threads that are in none of the settled states.
func unsettled(threads []map[string]string) []map[string]string {
	return slices.DeleteFunc(threads, func(t map[string]string) bool {
		return slices.ContainsFunc(settled, func(s string) bool { return strings.HasPrefix(t["STATE"], s) })
	})
}

// betweenTransactions returns those of threads that have no InnoDB transaction
// open. One that has cannot commit it while the backup has its lock, and so has
// nothing to note. The status is asked for and not INNODB_TRX, whose answer may be
// from before the lock (trx0i_s.cc, CACHE_MIN_IDLE_TIME_NS).
func (b *backup) betweenTransactions(ctx context.Context, threads []map[string]string) ([]map[string]string, error) {
	rows, err := b.Query(ctx, "ask for the open transactions", "SHOW ENGINE INNODB STATUS")
	if err != nil {
		return nil, err
	}
	if len(rows) != 1 {
		return threads, nil
	}
	open := openTransactions(rows[0]["Status"])
	return slices.DeleteFunc(threads, func(t map[string]string) bool { return open[t["ID"]] }), nil
}

// threadID is how InnoDB's status names the connection of a transaction.
var threadID = regexp.MustCompile(`(?:MariaDB|MySQL) thread id (\d+),`)

// openTransactions finds in InnoDB's status the connections that have a
// transaction open (lock0lock.cc, lock_trx_print_wait_and_mvcc_state).
func openTransactions(status string) map[string]bool {
	open := map[string]bool{}
	for _, t := range strings.Split(status, "---TRANSACTION ")[1:] {
		if _, state, _ := strings.Cut(t, ", "); !strings.HasPrefix(state, "ACTIVE") {
			continue
		}
		if m := threadID.FindStringSubmatch(t); m != nil {
			open[m[1]] = true
		}
	}
	return open
}

// replicatedXA says whether the server has run XA statements since it started. It
// notes the position of those of a replica in a transaction of their own.
func (b *backup) replicatedXA(ctx context.Context) (bool, error) {
	rows, err := b.Query(ctx, "ask for XA statements", "SHOW GLOBAL STATUS WHERE Variable_name IN ('Com_xa_start', 'Com_xa_commit', 'Com_xa_rollback')")
	return slices.ContainsFunc(rows, func(row map[string]string) bool { return row["Value"] != "0" }), err
}

// pauseStep is how long replication goes on between two attempts to stop it at
// a moment without temporary tables.
const pauseStep = time.Second

// resumeLimit bounds the start of replication, also when the backup was broken
// off.
const resumeLimit = time.Minute

// PauseReplication stops the SQL threads that run, and lets them go on for a
// while as long as they have temporary tables open.
func (m *mariadb) PauseReplication(ctx context.Context, limit time.Duration) (resume func(context.Context) error, err error) {
	const op = "pause replication"
	rows, err := server.Rows(ctx, m.s.DB, statusQuery)
	if err != nil {
		return nil, m.s.Fail(op, err)
	}
	var running []string
	for _, row := range rows {
		if row["Slave_SQL_Running"] == "Yes" {
			running = append(running, row["Connection_name"])
		}
	}
	if len(running) == 0 {
		return nil, nil
	}
	resume = func(ctx context.Context) error { return m.resume(ctx, running) }
	end := time.Now().Add(limit)
	for {
		if err := m.eachThread(ctx, "STOP", running); err != nil {
			return nil, errors.Join(m.s.Fail(op, err), resume(ctx))
		}
		open, err := server.Rows(ctx, m.s.DB, "SHOW GLOBAL STATUS LIKE 'Slave_open_temp_tables'")
		switch {
		case err != nil:
			return nil, errors.Join(m.s.Fail(op, err), resume(ctx))
		case len(open) == 1 && open[0]["Value"] == "0":
			return resume, nil
		case !time.Now().Before(end):
			return nil, errors.Join(&server.Error{Op: op, Err: fmt.Errorf("it has had temporary tables open for %s", limit)}, resume(ctx))
		}
		if err := resume(ctx); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pauseStep):
		}
	}
}

// resume starts the SQL threads, also after ctx has ended.
func (m *mariadb) resume(ctx context.Context, connections []string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resumeLimit)
	defer cancel()
	if err := m.eachThread(ctx, "START", connections); err != nil {
		return m.s.Fail("resume replication", err)
	}
	return nil
}

func (m *mariadb) eachThread(ctx context.Context, verb string, connections []string) error {
	for _, name := range connections {
		if _, err := m.s.DB.ExecContext(ctx, verb+" SLAVE "+text(name)+" SQL_THREAD"); err != nil {
			return err
		}
	}
	return nil
}

// text quotes a string for a statement.
func text(s string) string { return "'" + strings.NewReplacer("'", "''", `\`, `\\`).Replace(s) + "'" }

// Galera reads the status of the provider; a server that is no node has none.
func (b *backup) Galera(ctx context.Context) (*format.GaleraPosition, error) {
	const op = "ask for the position in the cluster"
	rows, err := b.Query(ctx, op, "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_local_state_uuid', 'wsrep_last_committed')")
	if err != nil {
		return nil, err
	}
	status := map[string]string{}
	for _, row := range rows {
		status[row["Variable_name"]] = row["Value"]
	}
	g := &format.GaleraPosition{StateUUID: status["wsrep_local_state_uuid"]}
	if strings.Trim(g.StateUUID, "0-") == "" {
		return nil, nil
	}
	if g.SeqNo, err = strconv.ParseInt(status["wsrep_last_committed"], 10, 64); err != nil {
		return nil, server.Unsupported("%s: %q is no sequence number", op, status["wsrep_last_committed"])
	}
	domain, err := b.Query(ctx, op, "SELECT @@GLOBAL.wsrep_gtid_domain_id v")
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(domain[0]["v"], 10, 32)
	if err != nil {
		return nil, server.Unsupported("%s: %q is no domain id", op, domain[0]["v"])
	}
	g.DomainID = uint32(n)
	return g, nil
}
