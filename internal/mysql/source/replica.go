package source

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/pause"
	"github.com/xbstream/xbstream/server"
)

// replicaQuery asks a replica for all its channels; it needs REPLICATION CLIENT.
const replicaQuery = "SHOW REPLICA STATUS"

// sources asks for the channels of the server. A channel that goes by GTID has its
// position in the set that belongs to the moment of the backup. That of one that
// goes by file is read a moment earlier; the copy itself has the exact one in
// mysql.slave_relay_log_info, which every transaction of it updates. Without the
// privilege to ask there are none.
func (b *backup) sources(ctx context.Context) ([]format.ReplicationSource, error) {
	rows, err := b.Query(ctx, "ask for the replication status", replicaQuery)
	if err != nil && !errors.Is(err, server.ErrPrivilege) {
		return nil, err
	}
	return sourcesOf(rows)
}

func sourcesOf(rows []map[string]string) (list []format.ReplicationSource, err error) {
	for _, row := range rows {
		if row["Source_Host"] == "" {
			continue // Group Replication's own channels have none
		}
		s := format.ReplicationSource{
			Connection: row["Channel_Name"], Host: row["Source_Host"], File: row["Relay_Source_Log_File"], GTID: row["Auto_Position"] == "1",
		}
		if s.Port, err = strconv.Atoi(row["Source_Port"]); err != nil {
			return nil, server.Unsupported("replication status: %q is not a port", row["Source_Port"])
		}
		if s.Position, err = strconv.ParseUint(row["Exec_Source_Log_Pos"], 10, 64); err != nil {
			return nil, server.Unsupported("replication status: %q is not a position", row["Exec_Source_Log_Pos"])
		}
		list = append(list, s)
	}
	return list, nil
}

// SettleReplication does nothing: log_status is of one moment, and what a replica
// notes of its position is part of its transactions.
func (b *backup) SettleReplication(context.Context) error { return b.gone() }

const (
	// pauseStep is how long replication goes on between two attempts to stop it at
	// a moment without temporary tables.
	pauseStep = time.Second
	// resumeLimit bounds the start of replication, also when the backup was broken
	// off.
	resumeLimit = time.Minute
	openTables  = "Replica_open_temp_tables"
)

// PauseReplication stops the SQL threads that run, and lets them go on for a
// while as long as they have temporary tables open.
func (m *mysql) PauseReplication(ctx context.Context, limit time.Duration) (resume func(context.Context) error, err error) {
	const op = "pause replication"
	rows, err := server.Rows(ctx, m.s.DB, replicaQuery)
	if err != nil {
		return nil, m.s.Fail(op, err)
	}
	var running []string
	for _, row := range rows {
		if row["Replica_SQL_Running"] == "Yes" {
			running = append(running, row["Channel_Name"])
		}
	}
	if len(running) == 0 {
		return nil, nil
	}
	resume = func(ctx context.Context) error { return m.resume(ctx, running) }
	for end := time.Now().Add(limit); ; {
		if err := m.eachChannel(ctx, "STOP", running); err != nil {
			return nil, errors.Join(m.s.Fail(op, err), resume(ctx))
		}
		open, err := m.status(ctx, openTables)
		switch {
		case err != nil:
			return nil, errors.Join(err, resume(ctx))
		case open[openTables] == "0":
			return resume, nil
		case !time.Now().Before(end):
			return nil, errors.Join(&server.Error{Op: op, Err: fmt.Errorf("it has had temporary tables open for %s", limit)}, resume(ctx))
		}
		if err := resume(ctx); err != nil {
			return nil, err
		}
		if err := pause.For(ctx, pauseStep); err != nil {
			return nil, err
		}
	}
}

// resume starts the SQL threads, also after ctx has ended.
func (m *mysql) resume(ctx context.Context, channels []string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resumeLimit)
	defer cancel()
	if err := m.eachChannel(ctx, "START", channels); err != nil {
		return m.s.Fail("resume replication", err)
	}
	return nil
}

func (m *mysql) eachChannel(ctx context.Context, verb string, channels []string) error {
	for _, name := range channels {
		if _, err := m.s.DB.ExecContext(ctx, verb+" REPLICA SQL_THREAD FOR CHANNEL "+text(name)); err != nil {
			return err
		}
	}
	return nil
}
