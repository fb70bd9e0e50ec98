// Package source is the dialect of MariaDB 10.8 and later: discovery by its
// variables, locks by BACKUP STAGE, position by binary log and GTID.
package source

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/server"
)

// Dialect recognises MariaDB.
type Dialect struct{}

// Name returns "mariadb".
func (Dialect) Name() string { return "mariadb" }

// Recognises looks for the family's name, which every MariaDB carries in its
// version and no other server does.
func (Dialect) Recognises(id server.Identity) bool {
	return strings.Contains(strings.ToLower(id.Version+" "+id.Comment), "mariadb")
}

// Attach refuses servers before 10.8: their redo log has another format.
func (d Dialect) Attach(_ context.Context, s *server.Session) (server.Server, error) {
	v, err := parseVersion(s.Version)
	if err != nil {
		return nil, err
	}
	if v.before(version{10, 8}) {
		return nil, server.Unsupported("server %s: MariaDB before 10.8 is not supported", s.Version)
	}
	if tested.before(v) && s.Log != nil {
		s.Log.Warn("the server is newer than any that this program was tested with", "server", s.Version, "tested_last", testedLast)
	}
	return &mariadb{s: s}, nil
}

// tested is the newest series that the tests run against, and testedLast its
// last version.
var tested = version{11, 8}

const testedLast = "11.8.9"

// version is major and minor, which decide what a server can do.
type version struct{ major, minor int }

func (v version) before(w version) bool {
	return v.major < w.major || v.major == w.major && v.minor < w.minor
}

// parseVersion reads the first two numbers of @@version. Servers of the 10 line
// may put 5.5.5- in front, for replicas that would refuse two digits.
func parseVersion(text string) (version, error) {
	var v version
	if _, err := fmt.Sscanf(strings.TrimPrefix(text, "5.5.5-"), "%d.%d.", &v.major, &v.minor); err != nil {
		return v, server.Unsupported("server version %q is not understood", text)
	}
	return v, nil
}

type mariadb struct{ s *server.Session }

// HoldRedo returns nil: MariaDB keeps no redo for others.
func (m *mariadb) HoldRedo(context.Context) (server.RedoHold, error) { return nil, nil }

// Close closes the connections.
func (m *mariadb) Close() error { return m.s.DB.Close() }

// discardedQuery finds tables that InnoDB's dictionary knows and whose tablespace
// is not open. A tablespace is opened when its table is first used, so after a
// start of the server these are nearly all tables; those that are discarded or
// missing cannot be told from them.
const discardedQuery = `SELECT SPACE FROM information_schema.INNODB_SYS_TABLES WHERE SPACE <> 0
	AND SPACE NOT IN (SELECT SPACE FROM information_schema.INNODB_SYS_TABLESPACES)`

// Discarded reads InnoDB's view of its own dictionary; it needs PROCESS.
func (m *mariadb) Discarded(ctx context.Context) (map[format.SpaceID]bool, error) {
	rows, err := server.Rows(ctx, m.s.DB, discardedQuery)
	if err != nil {
		return nil, m.s.Fail("ask for discarded tablespaces", err)
	}
	ids := map[format.SpaceID]bool{}
	for _, row := range rows {
		n, err := strconv.ParseUint(row["SPACE"], 10, 32)
		if err != nil {
			return nil, server.Unsupported("ask for discarded tablespaces: %q is no space id", row["SPACE"])
		}
		ids[format.SpaceID(n)] = true
	}
	return ids, nil
}

// SpaceFile asks InnoDB for the file that it has open, and where it has none, for
// the name of the table, whose file is called after it; it needs PROCESS.
func (m *mariadb) SpaceFile(ctx context.Context, id format.SpaceID) (string, error) {
	for _, query := range []string{
		"SELECT FILENAME FROM information_schema.INNODB_SYS_TABLESPACES WHERE SPACE = ",
		"SELECT CONCAT(NAME, '.ibd') FILENAME FROM information_schema.INNODB_SYS_TABLES WHERE SPACE = ",
	} {
		rows, err := server.Rows(ctx, m.s.DB, query+id.String())
		if err != nil {
			return "", m.s.Fail("ask for the file of a tablespace", err)
		}
		if len(rows) == 1 {
			return rows[0]["FILENAME"], nil
		}
	}
	return "", nil
}

// TableNames reads InnoDB's dictionary; it needs PROCESS.
func (m *mariadb) TableNames(ctx context.Context, ids []uint64) (map[uint64]string, error) {
	rows, err := server.Rows(ctx, m.s.DB, "SELECT TABLE_ID, NAME FROM information_schema.INNODB_SYS_TABLES")
	if err != nil {
		return nil, m.s.Fail("ask for the names of tables", err)
	}
	asked, names := map[uint64]bool{}, map[uint64]string{}
	for _, id := range ids {
		asked[id] = true
	}
	for _, row := range rows {
		id, err := strconv.ParseUint(row["TABLE_ID"], 10, 64)
		if err != nil {
			return nil, server.Unsupported("ask for the names of tables: %q is no table id", row["TABLE_ID"])
		}
		if asked[id] {
			names[id] = row["NAME"]
		}
	}
	return names, nil
}

// KnowsTable reads InnoDB's dictionary; it needs PROCESS.
func (m *mariadb) KnowsTable(ctx context.Context, name string) (bool, error) {
	rows, err := server.Rows(ctx, m.s.DB, "SELECT 1 FROM information_schema.INNODB_SYS_TABLES WHERE NAME = "+text(name)+" LIMIT 1")
	if err != nil {
		return false, m.s.Fail("ask for the name of a table", err)
	}
	return len(rows) > 0, nil
}

// OpenFiles asks for what InnoDB has open; it needs PROCESS.
func (m *mariadb) OpenFiles(ctx context.Context) (map[string]bool, error) {
	return m.filesOf(ctx, "SELECT FILENAME FROM information_schema.INNODB_SYS_TABLESPACES")
}

// encryptedQuery finds the tablespaces that have what page 0 says of encryption,
// or will once it is written.
const encryptedQuery = `SELECT FILENAME FROM information_schema.INNODB_SYS_TABLESPACES WHERE SPACE IN
	(SELECT SPACE FROM information_schema.INNODB_TABLESPACES_ENCRYPTION WHERE ENCRYPTION_SCHEME <> 0)`

// EncryptedFiles asks for what InnoDB has open; it needs PROCESS.
func (m *mariadb) EncryptedFiles(ctx context.Context) (map[string]bool, error) {
	return m.filesOf(ctx, encryptedQuery)
}

func (m *mariadb) filesOf(ctx context.Context, query string) (map[string]bool, error) {
	rows, err := server.Rows(ctx, m.s.DB, query)
	if err != nil {
		return nil, m.s.Fail("ask for the files of the tablespaces", err)
	}
	files := make(map[string]bool, len(rows))
	for _, row := range rows {
		files[path.Clean(row["FILENAME"])] = true
	}
	return files, nil
}

// writtenQuery is sent all the time a backup goes on.
const writtenQuery = "SHOW GLOBAL STATUS LIKE 'Innodb_lsn_flushed'"

// Written reads Innodb_lsn_flushed.
func (m *mariadb) Written(ctx context.Context) (format.LSN, error) {
	return m.askLSN(ctx, "ask for the LSN flushed", writtenQuery)
}

// Checkpoint reads Innodb_lsn_last_checkpoint, which the server sets when the
// checkpoint is in the log file (log0log.h, write_checkpoint).
func (m *mariadb) Checkpoint(ctx context.Context) (format.LSN, error) {
	return m.askLSN(ctx, "ask for the LSN of the checkpoint", "SHOW GLOBAL STATUS LIKE 'Innodb_lsn_last_checkpoint'")
}

// LSN reads Innodb_lsn_current, which needs no privilege and, unlike SHOW
// ENGINE INNODB STATUS, no scan of all transactions.
func (m *mariadb) LSN(ctx context.Context) (format.LSN, error) {
	return m.askLSN(ctx, "ask for the LSN", lsnQuery)
}

func (m *mariadb) askLSN(ctx context.Context, op, query string) (format.LSN, error) {
	rows, err := server.Rows(ctx, m.s.DB, query)
	if err != nil {
		return 0, m.s.Fail(op, err)
	}
	return lsnOf(rows)
}

const lsnQuery = "SHOW GLOBAL STATUS LIKE 'Innodb_lsn_current'"

func lsnOf(rows []map[string]string) (format.LSN, error) {
	if len(rows) != 1 {
		return 0, server.Unsupported("the server does not tell its LSN; is InnoDB off?")
	}
	n, err := strconv.ParseUint(rows[0]["Value"], 10, 64)
	if err != nil {
		return 0, server.Unsupported("ask for the LSN: %q is not a number", rows[0]["Value"])
	}
	return format.LSN(n), nil
}

// variables asks for all global variables at once; the ones that also exist in
// the session are shown as global.
func (m *mariadb) variables(ctx context.Context) (map[string]string, error) {
	rows, err := server.Rows(ctx, m.s.DB, "SHOW GLOBAL VARIABLES")
	if err != nil {
		return nil, m.s.Fail("ask for the server's variables", err)
	}
	vars := make(map[string]string, len(rows))
	for _, r := range rows {
		vars[strings.ToLower(r["Variable_name"])] = r["Value"]
	}
	return vars, nil
}
