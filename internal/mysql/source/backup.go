package source

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/server"
)

// The names of the locks in the manifest.
const (
	lockInstance = "INSTANCE"
	lockTables   = "TABLES"
)

// backup holds LOCK INSTANCE FOR BACKUP and, under it, the tables that are not
// InnoDB's.
//
// There is no FLUSH TABLES WITH READ LOCK: statements that wait for the instance
// lock hold a lock on their own against it, so that it would never be granted, and
// all writes would wait behind it (seen on 9.7.4). FLUSH TABLES with the names of
// the tables is granted in the session that has the instance lock, and only there.
type backup struct {
	*server.Lock
	m *mysql
	// tables says that tables are locked, exact that a position that is not exact is
	// refused.
	tables, exact bool
}

// Begin opens the connection. It takes no lock: the copy begins without.
func (m *mysql) Begin(ctx context.Context) (server.Backup, error) {
	l, err := m.s.NewLock(ctx, server.LockOptions{
		Setup:    []string{"SET SESSION max_execution_time=0"},
		Blocked:  lockInstance,
		Sessions: sessions,
		Blockers: blockers,
	})
	if err != nil {
		return nil, err
	}
	return &backup{Lock: l, m: m}, nil
}

// Flush does nothing: writes to other tables go on until these are locked.
func (b *backup) Flush(context.Context) error { return b.gone() }

// gone is why the locks are gone, for steps without a statement.
func (b *backup) gone() error {
	select {
	case <-b.Lost():
		return b.Err()
	default:
		return nil
	}
}

// BlockDDL waits for DDL that is running. It also keeps undo tablespaces from being
// truncated.
//
// ALTER INSTANCE DISABLE INNODB REDO_LOG waits for the lock, too, so that one look
// shows whether it came before. The tail looks now and then, and may have been late.
func (b *backup) BlockDDL(ctx context.Context) error {
	if err := b.Stage(ctx, lockInstance, "LOCK INSTANCE FOR BACKUP"); err != nil {
		return err
	}
	return b.m.checkRedoEnabled(ctx)
}

// BlockCommit locks the tables against writes, and writes what the engines have of
// them in memory. Commits to InnoDB go on: log_status holds them for the moment
// that Position reads.
func (b *backup) BlockCommit(ctx context.Context, tables []server.TableName) error {
	if len(tables) == 0 {
		return b.gone()
	}
	known, err := b.known(ctx, tables)
	if err != nil || len(known) == 0 {
		return err
	}
	names := make([]string, len(known))
	for i, t := range known {
		names[i] = quote(t.Database) + "." + quote(t.Table)
	}
	b.tables = true
	return b.Stage(ctx, lockTables, "FLUSH TABLES "+strings.Join(names, ", ")+" WITH READ LOCK")
}

// known leaves out files of tables that the server does not have: to name one would
// fail. DDL is blocked, so that what is there stays. An account that may not see all
// tables cannot tell.
func (b *backup) known(ctx context.Context, tables []server.TableName) ([]server.TableName, error) {
	rows, err := b.Query(ctx, "ask for tables that are not InnoDB's",
		"SELECT TABLE_SCHEMA d, TABLE_NAME t FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' AND ENGINE <> 'InnoDB'")
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	fold := func(s string) string { return s }
	if l, err := b.m.Layout(ctx); err == nil && l.LowerCaseTableNames != 0 {
		fold = strings.ToLower
	}
	for _, r := range rows {
		have[fold(r["d"])+"."+fold(r["t"])] = true
	}
	var known []server.TableName
	for _, t := range tables {
		switch {
		case have[fold(t.Database)+"."+fold(t.Table)]:
			known = append(known, t)
		case !b.m.seesAll:
			return nil, &server.Error{Kind: server.ErrPrivilege, Op: "lock tables that are not InnoDB's",
				Err: fmt.Errorf("the account cannot see %s.%s; it needs SELECT, LOCK TABLES and RELOAD on *.*", quote(t.Database), quote(t.Table))}
		}
	}
	return known, nil
}

// FlushLogs makes the server write its redo now, if the account may ask for it. The
// server does so every second anyway, and keeps no commit for longer unless
// innodb_flush_log_at_trx_commit is 0.
func (b *backup) FlushLogs(ctx context.Context) error {
	if !b.m.reload {
		return b.gone()
	}
	return b.Exec(ctx, "flush the engines' logs", "FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS")
}

// End releases tables and instance together: that is what UNLOCK TABLES does after
// FLUSH TABLES … WITH READ LOCK (seen on 9.7.4). The connection is closed then.
func (b *backup) End(ctx context.Context) error {
	if b.tables {
		return b.Lock.End(ctx, "UNLOCK TABLES")
	}
	return b.Lock.End(ctx, "UNLOCK INSTANCE")
}

// Galera returns nil: such nodes are not of this family.
func (b *backup) Galera(context.Context) (*format.GaleraPosition, error) { return nil, nil }

// statusQuery locks channels, binary log, GTIDs and engines for a moment and returns
// what belongs together.
const statusQuery = "SELECT LOCAL, STORAGE_ENGINES FROM performance_schema.log_status"

// ask asks while the locks are held, for as long as a lock may take. It does so in
// another connection: a server that does not answer, as when the disk of its binary
// log is full, is not moved by KILL, and would keep the locks of one that waits.
func (b *backup) ask(ctx context.Context, op, query string) ([]map[string]string, error) {
	if err := b.gone(); err != nil {
		return nil, err
	}
	limited, cancel := b.m.s.WithinLockTimeout(ctx)
	defer cancel()
	rows, err := server.Rows(limited, b.m.s.DB, query)
	switch {
	case err == nil:
		return rows, b.gone()
	case limited.Err() != nil && ctx.Err() == nil:
		return nil, &server.Error{Kind: server.ErrLockTimeout, Op: op, Err: fmt.Errorf("the server does not answer; is the disk of its binary or relay log full? (%w)", err)}
	}
	return nil, b.m.s.Fail(op, err)
}

// Position asks for all that belongs together at once.
func (b *backup) Position(ctx context.Context) (server.Position, error) {
	const op = "ask for the position"
	var p server.Position
	var err error
	var applying bool
	if p.Replication, applying, err = b.sources(ctx); err != nil {
		return p, err
	}
	exact, err := b.knowsGTIDs(ctx, applying)
	if err != nil {
		return p, err
	}
	rows, err := b.ask(ctx, op, statusQuery)
	if err != nil {
		return p, err
	}
	if len(rows) != 1 {
		return p, &server.Error{Op: op, Err: fmt.Errorf("%d rows instead of one", len(rows))}
	}
	if err := parseStatus(&p, rows[0]); err != nil {
		return p, err
	}
	if !exact {
		p.GTID = ""
	}
	if len(p.Replication) > 0 {
		p.GTIDReplicated = p.GTID // what a replica has executed is in its own set
	}
	return p, nil
}

// parseStatus reads a row of log_status into a position.
func parseStatus(p *server.Position, row map[string]string) error {
	var local struct {
		GTID     string  `json:"gtid_executed"`
		File     string  `json:"binary_log_file"`
		Position *uint64 `json:"binary_log_position"`
	}
	var engines struct {
		InnoDB *struct {
			LSN uint64 `json:"LSN"`
		} `json:"InnoDB"`
	}
	for column, to := range map[string]any{"LOCAL": &local, "STORAGE_ENGINES": &engines} {
		if err := json.Unmarshal([]byte(row[column]), to); err != nil {
			return server.Unsupported("log_status: %s is not understood: %w", column, err)
		}
	}
	if engines.InnoDB == nil || engines.InnoDB.LSN == 0 {
		return server.Unsupported("log_status does not tell the LSN of InnoDB")
	}
	p.LSN = format.LSN(engines.InnoDB.LSN)
	// The set is printed with a line for each server.
	p.GTID = strings.Join(strings.Fields(local.GTID), "")
	if local.File != "" && local.Position != nil {
		p.Binlog = &format.BinlogPosition{File: local.File, Position: *local.Position}
	}
	return nil
}

// maxBlockers bounds a message.
const maxBlockers = 3

// sessions lists the server's connections. The table of that name in
// information_schema cannot be read while a statement with binary data runs, as it
// converts all statements to its own character set (error 3854, seen on 9.7.4).
const sessions = "performance_schema.processlist"

// blockers names the sessions in the way by their running statements, those left out
// that only look for the lock or wait for it too. It is best effort: an error is no
// answer.
func blockers(ctx context.Context, db *sql.DB, id uint64) string {
	rows, err := server.Rows(ctx, db, fmt.Sprintf(`
		SELECT ID, USER, DB, COMMAND, TIME, INFO FROM performance_schema.processlist
		WHERE ID NOT IN (%d, CONNECTION_ID()) AND COMMAND IN ('Query', 'Execute') AND STATE NOT LIKE 'Waiting for backup lock%%'
		AND INFO <> %s AND INFO NOT LIKE 'SHOW GLOBAL STATUS WHERE Variable_name IN (''Innodb%%'
		ORDER BY TIME DESC LIMIT %d`, id, text(server.WatchQuery(sessions, id)), maxBlockers))
	if err != nil {
		return ""
	}
	if len(rows) == 0 {
		return "no statement is running, so an idle session holds it up, as after LOCK TABLES or in another backup"
	}
	var list []string
	for _, r := range rows {
		who := fmt.Sprintf("connection %s of %s", r["ID"], r["USER"])
		if r["DB"] != "" {
			who += " in " + r["DB"]
		}
		list = append(list, fmt.Sprintf("%s (%s, %s s)", who, doing(r), r["TIME"]))
	}
	return "may be held up by " + strings.Join(list, ", ")
}

// doing is the first two words of the statement, as far as they are words: enough
// to know it, too little to hold data or a password.
func doing(row map[string]string) string {
	if verb := statementVerb.FindString(row["INFO"]); verb != "" {
		return verb
	}
	return strings.ToLower(row["COMMAND"])
}

var statementVerb = regexp.MustCompile(`^[A-Za-z]+( [A-Za-z]+\b)?`)
