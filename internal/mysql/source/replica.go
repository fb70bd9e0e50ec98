package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/pause"
	"github.com/xbstream/xbstream/server"
)

// replicaQuery asks a replica for all its channels; it needs REPLICATION CLIENT.
const replicaQuery = "SHOW REPLICA STATUS"

// sources asks for the channels of the server, and whether the applier of one runs.
// Without the privilege to ask there are none.
//
// A channel that goes by GTID has its position in the set that belongs to the moment
// of the backup. That of one that goes by file is read a moment earlier, and parallel
// appliers note theirs late: see checkFilePositions.
func (b *backup) sources(ctx context.Context) (list []format.ReplicationSource, running bool, err error) {
	rows, err := b.ask(ctx, "ask for the replication status", replicaQuery)
	if errors.Is(err, server.ErrPrivilege) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	if list, err = sourcesOf(rows); err != nil {
		return nil, false, err
	}
	if b.exact {
		if err := checkFilePositions(rows, func(query string) ([]map[string]string, error) {
			return b.ask(ctx, "ask for the replication settings", query)
		}); err != nil {
			return nil, false, err
		}
	}
	return list, slices.ContainsFunc(rows, applies), nil
}

// applies says whether a channel's transactions are applied now.
func applies(channel map[string]string) bool { return channel["Replica_SQL_Running"] == "Yes" }

// settingsQuery asks for what decides which positions are exact.
const settingsQuery = "SELECT @@GLOBAL.gtid_mode gtid_mode, @@GLOBAL.log_bin AND @@GLOBAL.log_replica_updates logged"

// assignQuery needs SELECT on the table.
const assignQuery = "SELECT CHANNEL_NAME FROM " + applierTable + " WHERE ASSIGN_GTIDS_TO_ANONYMOUS_TRANSACTIONS_TYPE <> 'OFF'"

const applierTable = "performance_schema.replication_applier_configuration"

// checkFilePositions refuses a position in a file that the copy cannot start from.
// While the applier runs, the copy has transactions behind the position. Those with
// GTIDs are skipped. Others would be applied twice, and a table without a primary key
// may not report that.
func checkFilePositions(channels []map[string]string, query func(string) ([]map[string]string, error)) error {
	const how = "add --safe-slave-backup, which stops the SQL threads during the locks"
	for _, c := range channels {
		if !hasSource(c) || !applies(c) || c["Auto_Position"] == "1" {
			continue
		}
		settings, err := query(settingsQuery)
		if err != nil {
			return err
		}
		if len(settings) != 1 || settings[0]["gtid_mode"] != "ON" {
			return server.Unsupported("--slave-info: channel %q replicates by file and position, without gtid_mode=ON: while its SQL thread runs, no position is exact; %s", c["Channel_Name"], how)
		}
		assigned, err := query(assignQuery)
		if errors.Is(err, server.ErrPrivilege) {
			return fmt.Errorf("--slave-info for channel %q, which replicates by file and position: the account needs SELECT ON %s; or %s: %w", c["Channel_Name"], applierTable, how, err)
		}
		if err != nil {
			return err
		}
		if slices.ContainsFunc(assigned, func(row map[string]string) bool { return row["CHANNEL_NAME"] == c["Channel_Name"] }) {
			return server.Unsupported("--slave-info: channel %q gives transactions GTIDs itself (ASSIGN_GTIDS_TO_ANONYMOUS_TRANSACTIONS): while its SQL thread runs, no position is exact; %s", c["Channel_Name"], how)
		}
	}
	return nil
}

// checkReplica finds out before the copy what would be refused at its end.
func (m *mysql) checkReplica(ctx context.Context, w server.Wanted) error {
	if !w.Replication || w.Pause {
		return nil
	}
	query := func(q string) ([]map[string]string, error) {
		rows, err := server.Rows(ctx, m.s.DB, q)
		if err != nil {
			return nil, m.s.Fail("ask for the replication settings", err)
		}
		return rows, nil
	}
	channels, err := query(replicaQuery)
	if err != nil {
		return err
	}
	return checkFilePositions(channels, query)
}

// knowsGTIDs says whether the set of log_status is exact. What an applier commits
// without the binary log is in the set only a moment later: of four copies of a replica
// that synced its redo, three had transactions that the set lacked (9.7.4). The copy
// itself has the right set, in mysql.gtid_executed: that is part of the transactions.
func (b *backup) knowsGTIDs(ctx context.Context, applying bool) (bool, error) {
	if !applying {
		return true, nil
	}
	rows, err := b.ask(ctx, "ask for the replication settings", settingsQuery)
	return len(rows) == 1 && rows[0]["logged"] == "1", err
}

func sourcesOf(rows []map[string]string) (list []format.ReplicationSource, err error) {
	for _, row := range rows {
		if !hasSource(row) {
			continue
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

// hasSource says whether a channel has a server that it replicates from. Those that
// belong to Group Replication have none.
func hasSource(channel map[string]string) bool {
	return channel["Source_Host"] != "" && channel["Source_Host"] != "<NULL>"
}

// SettleReplication makes Position refuse what is not exact. There is nothing to wait
// for.
func (b *backup) SettleReplication(context.Context) error {
	b.exact = true
	return b.gone()
}

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
		// Nobody may stop the appliers of Group Replication (error 3139).
		if applies(row) && !strings.HasPrefix(row["Channel_Name"], "group_replication_") {
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

// eachChannel goes on after an error: a channel that does not start must not keep the
// others from it.
func (m *mysql) eachChannel(ctx context.Context, verb string, channels []string) (err error) {
	for _, name := range channels {
		if _, failed := m.s.DB.ExecContext(ctx, verb+" REPLICA SQL_THREAD FOR CHANNEL "+text(name)); failed != nil {
			err = errors.Join(err, fmt.Errorf("channel %q: %w", name, failed))
		}
	}
	return err
}
