// Package server asks a live database server what a backup must know and takes
// the locks a backup needs.
//
// It promises:
//   - Locks are short and have a budget (Config.LockTimeout). One that is not
//     granted in time is given up, and everything taken before with it.
//   - Locks are never lost in silence. The connection that holds them is watched
//     from a second one; once it is gone, Backup.Lost tells and every later step
//     fails.
//   - Locks never outlive the backup: End, Close, the end of the context given
//     to Begin and the death of the process all release them.
//   - A password is in no error, no log line and no printed Config.
//   - What a backup could not restore is refused by name before it begins.
//
// What differs between the families of servers is behind Dialect, with one
// folder each; this package knows none of them.
package server

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"time"

	"github.com/xbstream/xbstream/format"
)

// Server is one live server. Its methods may be called from several goroutines;
// their errors are *Error, or wrap the context's error.
type Server interface {
	// Layout asks where everything is.
	Layout(ctx context.Context) (Layout, error)
	// Check says what would keep a backup from succeeding or from being
	// restored: ErrPrivilege with the missing GRANT, or ErrUnsupported.
	Check(ctx context.Context, w Wanted) error
	// CheckDataDir proves that dir, as this process sees it, is the server's
	// data directory and not that of another server with the same path or in
	// its place: by something that the server changes there on demand, which
	// no copy of the directory and no other server has. It may take the first
	// lock for it, and releases it. Any other directory is ErrForeignDir.
	CheckDataDir(ctx context.Context, dir string) error
	// Begin takes the first, weakest lock. The context governs the backup's
	// life: when it is done, the locks are released.
	Begin(ctx context.Context) (Backup, error)
	// PauseReplication stops the SQL threads of a replica at a moment when
	// they have no temporary table open, which no backup could hold. resume
	// starts those again that were stopped; it is nil if none was.
	PauseReplication(ctx context.Context, limit time.Duration) (resume func(context.Context) error, err error)
	// Discarded returns the space ids of all tables that have no tablespace
	// now. An import gives such a table its tablespace back under the same id,
	// and the redo log has nothing of it. Tables that the server has not used
	// since it started may be in the answer too.
	Discarded(ctx context.Context) (map[format.SpaceID]bool, error)
	// SpaceFile returns the path of the file the server uses for a tablespace,
	// as the server has it: absolute, or relative to the data directory. It
	// is empty for one that the server does not know.
	SpaceFile(ctx context.Context, id format.SpaceID) (string, error)
	// TableNames returns the names that InnoDB has for tables with these ids,
	// as db/table in the letters of file names, without those that are gone.
	TableNames(ctx context.Context, ids []uint64) (map[uint64]string, error)
	// KnowsTable says whether InnoDB's dictionary has a table, or a partition, of
	// this name: db/table in the letters of file names.
	KnowsTable(ctx context.Context, name string) (bool, error)
	// OpenFiles returns the paths of all files the server has open as
	// tablespaces, relative to the data directory where they are below it.
	OpenFiles(ctx context.Context) (map[string]bool, error)
	// EncryptedFiles returns those of them whose pages the server may encrypt.
	EncryptedFiles(ctx context.Context) (map[string]bool, error)
	// LSN returns the end of the redo written so far, in the server's memory
	// or on disk.
	LSN(ctx context.Context) (format.LSN, error)
	// Written returns the LSN up to which the redo is in the log file.
	Written(ctx context.Context) (format.LSN, error)
	// Checkpoint returns the LSN of the last checkpoint that the server has
	// finished. The one in its redo log is never older.
	Checkpoint(ctx context.Context) (format.LSN, error)
	// HoldRedo asks the server to keep redo until Advance says that it was read.
	// It is called before the redo log is opened. The hold is nil where the server
	// has no such thing or cannot give it now, which it says in the log.
	HoldRedo(ctx context.Context) (RedoHold, error)
	// Close closes the connections. It does not end a backup.
	Close() error
}

// RedoHold keeps a server from overwriting redo. A server whose log is full of
// what is held stops all writes: Advance must be called as the redo is read, and
// not by who waits for the server. Its end, by Close, the end of the context given
// to HoldRedo, or the death of the process, lets the redo go.
type RedoHold interface {
	// Advance says that redo before lsn was read. An error ends the hold, not the
	// backup.
	Advance(ctx context.Context, lsn format.LSN) error
	// Close may be called again.
	Close() error
}

// Backup holds the locks of one backup. Its steps are called in the order they
// have here. After a step failed all locks are released, and every later step
// returns the same error. A step whose context ends fails and releases too.
type Backup interface {
	// Flush waits for running writes to tables without transactions and
	// blocks new ones where the server can.
	Flush(ctx context.Context) error
	// BlockDDL makes the set of files stand still.
	BlockDDL(ctx context.Context) error
	// BlockCommit makes all that is not InnoDB's stand still until End, and what
	// Position returns stand for that moment. A family whose locks do not keep
	// all writes out locks the given tables, which are not of InnoDB and not of
	// the server's own; it may read Position of a moment while commits go on.
	BlockCommit(ctx context.Context, tables []TableName) error
	// FlushLogs asks the engines to write their logs. It does not promise
	// redo on disk: wait until the log was read up to Position's LSN.
	FlushLogs(ctx context.Context) error
	// SettleReplication waits, for a moment only, until the threads of a replica
	// have noted how far they have come: a server does that after the commit.
	SettleReplication(ctx context.Context) error
	// Galera returns the position of a cluster's node, nil for a server that
	// is none.
	Galera(ctx context.Context) (*format.GaleraPosition, error)
	// Position returns the moment the backup stands for, and the LSN up to
	// which redo must be copied.
	Position(ctx context.Context) (Position, error)
	// End releases the locks and proves that they had been held all the time.
	End(ctx context.Context) error
	// Close gives the backup up and releases what is held. After End it does
	// nothing. It waits, bounded, until the server has let go.
	Close() error
	// Lost is closed when the locks are gone before End; Err says why.
	Lost() <-chan struct{}
	Err() error
	// Stages lists the locks so far, in order.
	Stages() []format.Stage
	// LockSeconds is the time DDL was blocked: from BlockDDL granted to End,
	// or to now.
	LockSeconds() float64
}

// Position is the moment a backup stands for.
type Position struct {
	// Binlog is nil when the binary log is off.
	Binlog *format.BinlogPosition
	// GTID is the position a replica of this server continues from: that of
	// the binary log, or without one that of the last change replicated.
	GTID string
	// GTIDReplicated is the position this server reached as a replica.
	GTIDReplicated string
	// LSN was read after the binary-log position.
	LSN format.LSN
	// Replication has the sources this server replicates from. It is empty
	// where the privilege to ask is missing.
	Replication []format.ReplicationSource
	// ReplicatedXA says that a replica may have been in the middle of an XA
	// statement, of which the position tells nothing.
	ReplicatedXA bool
}

// Wanted says what a backup is to do beyond the usual: it takes more privileges.
type Wanted struct {
	// Replication: record how far the server came as a replica.
	Replication bool
	// Pause: stop and start its SQL threads.
	Pause bool
	// NonTransactional are tables that BlockCommit will be asked to lock.
	NonTransactional []TableName
	// Table says whether a table is to be backed up; nil means all are. Only
	// those are judged.
	Table func(TableName) bool
}

// TableName is the name of a table: as the server prints it, and in the letters
// of file names.
type TableName struct{ Database, Table, FileDatabase, FileTable string }

// Dialect is a family of servers.
type Dialect interface {
	// Name is the manifest's word for it.
	Name() string
	// Recognises says whether a server is of this family.
	Recognises(Identity) bool
	// Attach returns the server, or ErrUnsupported for a version that cannot
	// be backed up.
	Attach(ctx context.Context, s *Session) (Server, error)
}

// Identity is what a server says it is.
type Identity struct {
	Version string // @@version
	Comment string // @@version_comment
}

// String names the server as its banner does.
func (i Identity) String() string { return fmt.Sprintf("%s (%s)", i.Version, i.Comment) }

// Session is an open connection to a server, for a dialect to work with.
type Session struct {
	Identity
	// DB connects when it must; its connections hold nothing.
	DB     *sql.DB
	Log    *slog.Logger // nil in tests that need none
	config Config
	target target
}

// Open connects, finds the dialect that recognises the server and attaches it.
// A nil log discards. Errors are ErrConnect, and ErrUnsupported for a server
// that no dialect recognises.
func Open(ctx context.Context, c Config, log *slog.Logger, dialects ...Dialect) (Server, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s, err := connect(ctx, c, log)
	if err != nil {
		return nil, err
	}
	srv, err := s.attach(ctx, dialects)
	if err != nil {
		s.DB.Close()
		return nil, err
	}
	return srv, nil
}

func (s *Session) attach(ctx context.Context, dialects []Dialect) (Server, error) {
	err := answered(ctx, s.patience(), func(ctx context.Context) error {
		return s.DB.QueryRowContext(ctx, "SELECT @@version, @@version_comment").Scan(&s.Version, &s.Comment)
	})
	if err != nil {
		return nil, s.Fail("ask for the server's version", err)
	}
	s.Log.Debug("connected", "server", s.target.String(), "version", s.Version, "comment", s.Comment)
	for _, d := range dialects {
		if d.Recognises(s.Identity) {
			return d.Attach(ctx, s)
		}
	}
	return nil, Unsupported("server %s at %s is of no family this program can back up", s.Identity, s.target)
}
