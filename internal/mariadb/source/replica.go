package source

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/pause"
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

// sources asks for the sources of the server. A file position is noted a little
// after the GTID, so it is read until it stands still for a while, and then moved
// on to what was committed. Without the privilege to ask there are none.
func (b *backup) sources(ctx context.Context, table []map[string]string) (list []format.ReplicationSource, err error) {
	var rows []map[string]string
	for same, began := 0, time.Now(); ; {
		rows, err = b.Query(ctx, "ask for the replication status", statusQuery)
		if err != nil && !errors.Is(err, server.ErrPrivilege) {
			return nil, err
		}
		before := list
		if list, err = sources(rows); err != nil {
			return nil, err
		}
		byFile := slices.ContainsFunc(list, func(s format.ReplicationSource) bool { return !s.GTID })
		if same++; !slices.Equal(list, before) {
			same = 0
		}
		if !byFile || !b.exact {
			return list, nil
		}
		if same == stillReads || time.Since(began) > notedLimit {
			break
		}
		if err := pause.For(ctx, stillPause); err != nil {
			return nil, err
		}
	}
	committed, err := committedIn(table)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if s := &list[i]; !s.GTID {
			if err := b.executed(ctx, s, rows[i], committed); err != nil {
				return nil, err
			}
		}
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

// Limits of the waits, which are under the lock.
const (
	settleLimit = 200 * time.Millisecond
	notedLimit  = time.Second
	settlePause = 5 * time.Millisecond
	// A file position counts when so many reads in a row, so far apart, agree.
	stillReads = 4
	stillPause = 25 * time.Millisecond
)

// SettleReplication makes Position exact for a replica. It waits, for a moment
// only, until the replication threads are in states in which they have noted what
// they committed. States lag behind, and a thread in the middle of a transaction
// has none of them: Position settles the rest by the table and the relay log. A
// source that has no GTIDs of MariaDB's has only this.
func (b *backup) SettleReplication(ctx context.Context) error {
	const op = "ask for the replication threads"
	b.exact = true
	for began := time.Now(); time.Since(began) < settleLimit; {
		rows, err := b.Query(ctx, op,
			"SELECT ID, STATE FROM information_schema.PROCESSLIST WHERE COMMAND IN ('Slave_SQL', 'Slave_worker')")
		if err != nil || len(unsettled(rows)) == 0 {
			return err
		}
		if err := pause.For(ctx, settlePause); err != nil {
			return err
		}
	}
	return nil
}

// replicated returns the GTID position of the server as a replica, and the rows of
// the table that it is from. The variable follows only after the commit, when the
// applier holds no lock any more: on a loaded replica it was two transactions
// behind (10.11.19), and a copy that begins there stops with a duplicate key. The
// table is part of the transactions, so it says what the copy has. An account that
// may not read it gets the variable; Check asks for the privilege where it matters.
func (b *backup) replicated(ctx context.Context) (position string, table []map[string]string, err error) {
	const op = "ask for the GTID position"
	noted, err := b.Query(ctx, op, "SELECT @@GLOBAL.gtid_slave_pos p")
	if err != nil {
		return "", nil, err
	}
	table, err = b.Query(ctx, op, "SELECT domain_id, server_id, seq_no FROM "+positionTable+" ORDER BY sub_id")
	// A server that was only bootstrapped has no such table. If it is the lock that
	// is gone, the next question fails too.
	if errors.Is(err, server.ErrPrivilege) || err != nil && noted[0]["p"] == "" {
		return noted[0]["p"], nil, nil
	}
	return committedPosition(noted[0]["p"], table), table, err
}

// positionTable has a row for each of the last transactions of each domain that
// were replicated, also for connections that go by file and position.
const positionTable = "mysql.gtid_slave_pos"

// committedPosition is the position noted, moved on where the table, in the order
// of its commits, has a later transaction of a domain, or the first one.
func committedPosition(noted string, table []map[string]string) string {
	last := map[string]map[string]string{}
	for _, row := range table {
		last[row["domain_id"]] = row
	}
	var list []string
	if noted != "" {
		list = strings.Split(noted, ",")
	}
	for i, gtid := range list {
		part := strings.Split(gtid, "-")
		row := last[part[0]]
		delete(last, part[0])
		if len(part) != 3 || row == nil {
			continue
		}
		have, err1 := strconv.ParseUint(part[2], 10, 64)
		committed, err2 := strconv.ParseUint(row["seq_no"], 10, 64)
		if err1 == nil && err2 == nil && committed > have {
			list[i] = part[0] + "-" + row["server_id"] + "-" + row["seq_no"]
		}
	}
	for _, domain := range slices.Sorted(maps.Keys(last)) {
		list = append(list, domain+"-"+last[domain]["server_id"]+"-"+last[domain]["seq_no"])
	}
	return strings.Join(list, ",")
}

// unsettled returns the threads that are in none of the settled states.
func unsettled(threads []map[string]string) []map[string]string {
	return slices.DeleteFunc(threads, func(t map[string]string) bool {
		return slices.ContainsFunc(settled, func(s string) bool { return strings.HasPrefix(t["STATE"], s) })
	})
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
