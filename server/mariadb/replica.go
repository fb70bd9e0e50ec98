package mariadb

import (
	"context"
	"errors"
	"fmt"
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

// settled are the states of a replication thread that has nothing committed and
// not noted: it waits for work, or with its next commit for the backup.
var settled = []string{
	"Waiting for backup lock",
	"Waiting for prior transaction",
	"Waiting for work from SQL thread",
	"Waiting for room in worker thread event queue",
	"Slave has read all relay log",
	"Waiting for the next event in relay log",
}

// settleTries and settlePause bound the wait, which is under the lock. Threads
// in the middle of a long transaction never get into one of the states, and
// have nothing to note.
const (
	settleTries = 40
	settlePause = 5 * time.Millisecond
)

func (b *backup) SettleReplication(ctx context.Context) error {
	for range settleTries {
		rows, err := b.Query(ctx, "ask for the replication threads",
			"SELECT STATE FROM information_schema.PROCESSLIST WHERE COMMAND IN ('Slave_SQL', 'Slave_worker')")
		if err != nil || allSettled(rows) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(settlePause):
		}
	}
	return nil
}

func allSettled(rows []map[string]string) bool {
	for _, row := range rows {
		known := false
		for _, s := range settled {
			known = known || strings.HasPrefix(row["STATE"], s)
		}
		if !known {
			return false
		}
	}
	return true
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
