package source

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/xbstream/xbstream/server"
)

// maxFlushTimeout is how long redo may stay in the server's memory. With
// innodb_flush_log_at_trx_commit=0 no statement brings it to disk sooner, so the
// end of the backup would wait that long under the lock.
const maxFlushTimeout = time.Minute

// strangers are engines with files of their own making that this program does
// not know how to copy while they are written.
var strangers = []string{"ROCKSDB", "TokuDB", "Mroonga", "Columnstore"}

// Check asks for privileges first: what follows may need them.
func (m *mariadb) Check(ctx context.Context, w server.Wanted) error {
	l, err := m.Layout(ctx)
	if err != nil {
		return err
	}
	if err := m.checkPrivileges(ctx, needed(l.BinlogOn, w), w.Replication); err != nil {
		return err
	}
	if err := checkLog(l.InnoDB); err != nil {
		return err
	}
	if l.BinlogOn && l.BinlogEngine != "" {
		// Its files are not copied, and only with them would the server that
		// starts on the copy know which prepared transactions to commit.
		return server.Unsupported("the binary log is kept with binlog_storage_engine=%s, which is not supported", l.BinlogEngine)
	}
	return m.checkEngines(ctx, w)
}

func checkLog(i server.InnoDB) error {
	if i.ReadOnly {
		// Nothing can change, so its files can simply be copied; and asking
		// it for its tablespaces ends the server (10.11.19, signal 11 while
		// it fills INNODB_SYS_TABLESPACES).
		return server.Unsupported("innodb_read_only=ON is not supported: stop the server and copy its files, nothing changes them")
	}
	if i.LogArchive {
		return server.Unsupported("the redo log is kept with innodb_log_archive=ON, which is not supported")
	}
	if i.FlushLogAtTrxCommit == 0 && i.FlushLogTimeout > maxFlushTimeout {
		return server.Unsupported("innodb_flush_log_at_trx_commit=0 with innodb_flush_log_at_timeout=%d is not supported: "+
			"the last changes may not reach the disk for that long; set the timeout to %d or less, or the other to 1 or 2",
			int(i.FlushLogTimeout.Seconds()), int(maxFlushTimeout.Seconds()))
	}
	return nil
}

// privilege is one that a backup needs, with those that include it.
type privilege struct {
	name string
	or   []string
}

// needed lists the privileges in the order in which GRANT is usually written.
// SUPER includes BINLOG MONITOR for SHOW MASTER STATUS, and what replication needs
// (verified on 10.11).
func needed(binlog bool, w server.Wanted) []privilege {
	list := []privilege{{name: "RELOAD"}, {name: "PROCESS"}}
	if binlog {
		list = append(list, privilege{"BINLOG MONITOR", []string{"SUPER"}})
	}
	if w.Replication || w.Pause {
		list = append(list, privilege{"SLAVE MONITOR", []string{"SUPER"}})
	}
	if w.Pause {
		list = append(list, privilege{"REPLICATION SLAVE ADMIN", []string{"SUPER"}})
	}
	return list
}

// checkPrivileges asks for privileges on everything, and if position is set for the
// one to read positionTable.
func (m *mariadb) checkPrivileges(ctx context.Context, want []privilege, position bool) error {
	const op = "check privileges"
	grants, err := server.Rows(ctx, m.s.DB, "SHOW GRANTS")
	if err != nil {
		return m.s.Fail(op, err)
	}
	missing := missingFrom(want, globalPrivileges(grants))
	if position {
		_, err := server.Rows(ctx, m.s.DB, "SELECT 1 FROM "+positionTable+" LIMIT 1")
		if position = err != nil; position {
			if err := m.s.Fail(op, err); !errors.Is(err, server.ErrPrivilege) {
				return err
			}
		}
	}
	if len(missing) == 0 && !position {
		return nil
	}
	var account, login string
	if err := m.s.DB.QueryRowContext(ctx, "SELECT CURRENT_USER(), USER()").Scan(&account, &login); err != nil {
		return m.s.Fail(op, err)
	}
	if strings.HasPrefix(account, "@") {
		return &server.Error{Kind: server.ErrPrivilege, Err: fmt.Errorf(
			"the server has no account for %s and took the login for the anonymous account %s; check --user, or create the account", quoteAccount(login), quoteAccount(account))}
	}
	var statements []string
	if len(missing) > 0 {
		statements = append(statements, fmt.Sprintf("GRANT %s ON *.* TO %s", strings.Join(missing, ", "), quoteAccount(account)))
	}
	if position {
		statements = append(statements, fmt.Sprintf("GRANT SELECT ON %s TO %s", positionTable, quoteAccount(account)))
	}
	return &server.Error{Kind: server.ErrPrivilege, Err: fmt.Errorf("the account lacks privileges; run: %s", strings.Join(statements, "; "))}
}

var globalGrant = regexp.MustCompile(`^GRANT (.+?) ON \*\.\* TO `)

// globalPrivileges collects what is granted on *.*: to the account, to its
// active role and to PUBLIC, all of which SHOW GRANTS lists.
func globalPrivileges(grants []map[string]string) []string {
	var list []string
	for _, row := range grants {
		for _, line := range row {
			if g := globalGrant.FindStringSubmatch(line); g != nil {
				list = append(list, strings.Split(g[1], ", ")...)
			}
		}
	}
	return list
}

func missingFrom(want []privilege, have []string) []string {
	if slices.Contains(have, "ALL PRIVILEGES") {
		return nil
	}
	var missing []string
	for _, p := range want {
		if !slices.ContainsFunc(append(p.or, p.name), func(n string) bool { return slices.Contains(have, n) }) {
			missing = append(missing, p.name)
		}
	}
	return missing
}

// quoteAccount turns user@host into `user`@`host`. A host has no @ in it.
func quoteAccount(account string) string {
	at := strings.LastIndexByte(account, '@')
	if at < 0 {
		return quote(account)
	}
	return quote(account[:at]) + "@" + quote(account[at+1:])
}

func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// checkEngines looks for tables only where a strange engine is loaded: on other
// servers it costs nothing.
func (m *mariadb) checkEngines(ctx context.Context, w server.Wanted) error {
	const op = "check storage engines"
	engines, err := server.Rows(ctx, m.s.DB, "SELECT ENGINE FROM information_schema.ENGINES WHERE SUPPORT IN ('YES','DEFAULT')")
	if err != nil {
		return m.s.Fail(op, err)
	}
	for _, e := range engines {
		if !slices.ContainsFunc(strangers, func(s string) bool { return strings.EqualFold(s, e["ENGINE"]) }) {
			continue
		}
		// Without it, information_schema shows no tables at all, which is not
		// to be taken for there being none.
		if err := m.checkPrivileges(ctx, []privilege{{name: "SELECT"}}, false); err != nil {
			return err
		}
		if err := m.refuseTables(ctx, e["ENGINE"], w); err != nil {
			return err
		}
	}
	return nil
}

// refuseTables refuses tables of an engine, and names the first.
func (m *mariadb) refuseTables(ctx context.Context, engine string, w server.Wanted) error {
	const name = "CONVERT(CONVERT(%s USING filename) USING binary)"
	tables, err := server.Rows(ctx, m.s.DB, fmt.Sprintf(
		"SELECT TABLE_SCHEMA d, TABLE_NAME t, "+name+" fd, "+name+" ft FROM information_schema.TABLES WHERE ENGINE='%s' ORDER BY 1, 2",
		"TABLE_SCHEMA", "TABLE_NAME", engine))
	if err != nil {
		return m.s.Fail("check storage engines", err)
	}
	if w.Table != nil {
		tables = slices.DeleteFunc(tables, func(row map[string]string) bool {
			return !w.Table(server.TableName{Database: row["d"], Table: row["t"], FileDatabase: row["fd"], FileTable: row["ft"]})
		})
	}
	if len(tables) == 0 {
		return nil
	}
	others := ""
	if n := len(tables) - 1; n > 0 {
		others = fmt.Sprintf(" and %d more", n)
	}
	return server.Unsupported("engine %s is not supported, table %s.%s%s uses it: leave such tables out with --tables-exclude or --databases-exclude",
		engine, quote(tables[0]["d"]), quote(tables[0]["t"]), others)
}
