package source

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/server"
)

// The names of the stages, as the server's statement and the manifest have them.
const (
	stageStart       = "START"
	stageFlush       = "FLUSH"
	stageBlockDDL    = "BLOCK_DDL"
	stageBlockCommit = "BLOCK_COMMIT"
)

// backup is the sequence of BACKUP STAGE in one connection.
type backup struct {
	*server.Lock
	// exact says that the position of a replica is wanted.
	exact bool
}

// Begin takes BACKUP STAGE START: no second backup, and the server begins to
// record DDL in ddl.log. It waits for DDL that is running.
func (m *mariadb) Begin(ctx context.Context) (server.Backup, error) {
	l, err := m.s.NewLock(ctx, server.LockOptions{
		// Copying takes longer than any limit set for the application's
		// statements.
		Setup: []string{"SET SESSION max_statement_time=0"},
		// Only a server built with Galera has it: do not wait for the
		// cluster, whose writes the lock may be holding up.
		Optional: []string{"SET SESSION wsrep_sync_wait=0"},
		Blocked:  stageBlockDDL,
		Blockers: blockers,
	})
	if err != nil {
		return nil, err
	}
	b := &backup{Lock: l}
	if err := b.stage(ctx, stageStart); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func (b *backup) stage(ctx context.Context, name string) error {
	return b.Stage(ctx, name, "BACKUP STAGE "+name)
}

func (b *backup) Flush(ctx context.Context) error    { return b.stage(ctx, stageFlush) }
func (b *backup) BlockDDL(ctx context.Context) error { return b.stage(ctx, stageBlockDDL) }

// BlockCommit keeps all writes out, whatever they are to.
func (b *backup) BlockCommit(ctx context.Context, _ []server.TableName) error {
	return b.stage(ctx, stageBlockCommit)
}

// End fails if the server knows of no backup in this connection: then the locks
// were not held.
func (b *backup) End(ctx context.Context) error { return b.Lock.End(ctx, stageEnd) }

// FlushLogs writes InnoDB's redo unless innodb_flush_log_at_trx_commit is 0, and
// Aria's log.
func (b *backup) FlushLogs(ctx context.Context) error {
	return b.Exec(ctx, "flush the engines' logs", "FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS")
}

// Position asks in the lock connection, so that no answer can come from a time
// without lock. The LSN comes last: what the binary log holds, redo must reach.
func (b *backup) Position(ctx context.Context) (server.Position, error) {
	var p server.Position
	var err error
	if p.Binlog, err = b.binlog(ctx); err != nil {
		return p, err
	}
	gtid, err := b.Query(ctx, "ask for the GTID position", "SELECT @@GLOBAL.gtid_binlog_pos own")
	if err != nil {
		return p, err
	}
	p.GTID = gtid[0]["own"]
	var table []map[string]string
	if p.GTIDReplicated, table, err = b.replicated(ctx); err != nil {
		return p, err
	}
	if p.Binlog == nil {
		p.GTID = p.GTIDReplicated
	}
	if p.Replication, err = b.sources(ctx, table); err != nil {
		return p, err
	}
	if len(p.Replication) > 0 {
		if p.ReplicatedXA, err = b.replicatedXA(ctx); err != nil {
			return p, err
		}
	}
	lsn, err := b.Query(ctx, "ask for the LSN", lsnQuery)
	if err != nil {
		return p, err
	}
	p.LSN, err = lsnOf(lsn)
	return p, err
}

// binlog returns nil where the binary log is off: then there is no row.
func (b *backup) binlog(ctx context.Context) (*format.BinlogPosition, error) {
	const op = "ask for the binary-log position"
	on, err := b.Query(ctx, op, "SELECT @@GLOBAL.log_bin v")
	if err != nil {
		return nil, err
	}
	if on[0]["v"] != "1" {
		return nil, nil
	}
	rows, err := b.Query(ctx, op, "SHOW MASTER STATUS")
	if err != nil {
		return nil, err
	}
	if len(rows) != 1 {
		return nil, &server.Error{Op: op, Err: fmt.Errorf("%d rows instead of one", len(rows))}
	}
	n, err := strconv.ParseUint(rows[0]["Position"], 10, 64)
	if err != nil {
		return nil, &server.Error{Op: op, Err: fmt.Errorf("%q is not a position", rows[0]["Position"])}
	}
	return &format.BinlogPosition{File: rows[0]["File"], Position: n}, nil
}

// maxBlockers bounds a message.
const maxBlockers = 3

// blockers names the sessions in the way: exactly where the plugin
// metadata_lock_info is loaded, else by their running statements, those left out
// that only look for the lock or wait for it too. It is best effort: an error is
// no answer.
func blockers(ctx context.Context, db *sql.DB, id uint64) string {
	rows, err := server.Rows(ctx, db, fmt.Sprintf(`
		SELECT DISTINCT p.ID, p.USER, p.DB, p.COMMAND, p.TIME, p.INFO
		FROM information_schema.METADATA_LOCK_INFO m JOIN information_schema.PROCESSLIST p ON p.ID = m.THREAD_ID
		WHERE m.LOCK_TYPE = 'Backup lock' AND p.ID <> %d ORDER BY p.TIME DESC LIMIT %d`, id, maxBlockers))
	if err == nil {
		return sessions("held up by", rows)
	}
	rows, err = server.Rows(ctx, db, fmt.Sprintf(`
		SELECT ID, USER, DB, COMMAND, TIME, INFO FROM information_schema.PROCESSLIST
		WHERE ID NOT IN (%d, CONNECTION_ID()) AND COMMAND = 'Query' AND STATE <> 'Waiting for backup lock'
		AND INFO NOT IN ('%s', '%s') ORDER BY TIME DESC LIMIT %d`,
		id, server.WatchQuery("", id), strings.ReplaceAll(writtenQuery, "'", "''"), maxBlockers))
	if err != nil {
		return ""
	}
	if len(rows) == 0 {
		return "no statement is running, so an idle session holds it up, as after LOCK TABLES or in another backup"
	}
	return sessions("may be held up by", rows)
}

func sessions(intro string, rows []map[string]string) string {
	var list []string
	for _, r := range rows {
		who := fmt.Sprintf("connection %s of %s", r["ID"], r["USER"])
		if r["DB"] != "" {
			who += " in " + r["DB"]
		}
		list = append(list, fmt.Sprintf("%s (%s, %s s)", who, doing(r), r["TIME"]))
	}
	if len(list) == 0 {
		return ""
	}
	return intro + " " + strings.Join(list, ", ")
}

// doing is the first two words of the statement, as far as they are words:
// enough to know it, too little to hold data or a password.
func doing(row map[string]string) string {
	if verb := statementVerb.FindString(row["INFO"]); verb != "" {
		return verb
	}
	return strings.ToLower(row["COMMAND"])
}

var statementVerb = regexp.MustCompile(`^[A-Za-z]+( [A-Za-z]+\b)?`)
