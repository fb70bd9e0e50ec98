package servertest

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// AttachReplica makes s a replica of source that continues at the GTID
// position gtid. The source must listen on TCP and have a binary log.
func (s *Server) AttachReplica(ctx context.Context, source *Server, gtid string) error {
	if s.opts.Release.MySQL() {
		return s.attachMySQLReplica(ctx, source, gtid)
	}
	return s.Exec(ctx,
		"SET GLOBAL gtid_slave_pos = '"+gtid+"'",
		ChangeMaster("", source, "MASTER_USE_GTID=slave_pos"),
		"START SLAVE",
	)
}

// ChangeMaster is the statement that makes a server a replica of source under
// the name of a connection, with further options of it.
func ChangeMaster(connection string, source *Server, options string) string {
	return fmt.Sprintf("CHANGE MASTER '%s' TO MASTER_HOST='127.0.0.1', MASTER_PORT=%d, MASTER_USER='%s', MASTER_PASSWORD='%s', MASTER_CONNECT_RETRY=1, %s",
		connection, source.Port(), replUser, replPassword, options)
}

// standTimeout bounds the time in which a replica applies nothing at all. It is
// far above what is usual; how far a replica is behind does not matter.
const standTimeout = 3 * time.Minute

// WaitCaughtUp waits until s has applied all that source wrote until now. A
// replica that stopped is an error that carries its last error.
func (s *Server) WaitCaughtUp(ctx context.Context, source *Server) error {
	executed, wait, applied := "SELECT @@gtid_binlog_pos", "SELECT MASTER_GTID_WAIT(?, 1)", "SELECT @@gtid_slave_pos"
	if s.opts.Release.MySQL() {
		executed, wait, applied = "SELECT @@GLOBAL.gtid_executed", "SELECT WAIT_FOR_EXECUTED_GTID_SET(?, 1)", "SELECT @@GLOBAL.gtid_executed"
	}
	want, err := source.String(ctx, executed)
	if err != nil {
		return fmt.Errorf("wait for replica: %w", err)
	}
	at, moved := "", time.Now()
	for {
		done, err := s.String(ctx, wait, want)
		if err != nil {
			return fmt.Errorf("wait for replica: %w", err)
		}
		if done == "0" {
			return nil
		}
		why, stopped, err := s.replicaErrors(ctx)
		if err != nil {
			return err
		}
		if stopped && why != "" {
			return fmt.Errorf("replica stopped: %s", why)
		}
		now, err := s.String(ctx, applied)
		if err != nil {
			return fmt.Errorf("wait for replica: %w", err)
		}
		if now != at {
			at, moved = now, time.Now()
		}
		if time.Since(moved) > standTimeout {
			return fmt.Errorf("wait for replica: it stands at %s for %v, the source is at %s. %s", at, standTimeout, want, why)
		}
	}
}

// replicaErrors are the last errors of replication, and whether a thread of it has
// stopped. One that could not connect tries again.
func (s *Server) replicaErrors(ctx context.Context) (why string, stopped bool, err error) {
	query, prefix := "SHOW ALL SLAVES STATUS", "Slave"
	if s.opts.Release.MySQL() {
		query, prefix = "SHOW REPLICA STATUS", "Replica"
	}
	rows, err := s.db.QueryContext(ctx, query)
	if err != nil {
		return "", false, fmt.Errorf("replica: %w", err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return "", false, fmt.Errorf("replica: %w", err)
	}
	values := make([]*string, len(columns))
	dest := make([]any, len(columns))
	for i := range values {
		dest[i] = &values[i]
	}
	for rows.Next() {
		status := map[string]string{}
		if err := rows.Scan(dest...); err != nil {
			return "", false, fmt.Errorf("replica: %w", err)
		}
		for i, c := range columns {
			if values[i] != nil {
				status[c] = *values[i]
			}
		}
		why = strings.TrimSpace(why + " " + status["Last_SQL_Error"] + " " + status["Last_IO_Error"])
		stopped = stopped || status[prefix+"_SQL_Running"] == "No" || status[prefix+"_IO_Running"] == "No"
	}
	return why, stopped, rows.Err()
}
