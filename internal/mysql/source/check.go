package source

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/xbstream/xbstream/server"
)

// strangers are engines with files of their own making that this program does
// not know how to copy while they are written.
var strangers = []string{"ROCKSDB", "TokuDB", "ndbcluster", "SECONDARY_ENGINE"}

// Check asks for privileges first: what follows may need them.
func (m *mysql) Check(ctx context.Context, w server.Wanted) error {
	l, err := m.Layout(ctx)
	if err != nil {
		return err
	}
	if err := m.checkPrivileges(ctx, w); err != nil {
		return err
	}
	if err := m.checkReplica(ctx, w); err != nil {
		return err
	}
	if err := m.checkLog(ctx, l); err != nil {
		return err
	}
	return m.checkEngines(ctx)
}

func (m *mysql) checkLog(ctx context.Context, l server.Layout) error {
	switch {
	case l.InnoDB.ReadOnly:
		return server.Unsupported("innodb_read_only=ON is not supported: stop the server and copy its files, nothing changes them")
	case l.Variables["performance_schema"] == "OFF":
		// The lock is watched there.
		return server.Unsupported("performance_schema=OFF is not supported: start the server with performance_schema=ON")
	case l.InnoDB.EncryptLog:
		return server.Unsupported("innodb_redo_log_encrypt=ON is not supported")
	case l.Variables["innodb_log_checksums"] == "OFF":
		// The end of the log could not be told from a block that is half written.
		return server.Unsupported("innodb_log_checksums=OFF is not supported")
	}
	return m.checkRedoEnabled(ctx)
}

func (m *mysql) checkRedoEnabled(ctx context.Context) error {
	const enabled = "Innodb_redo_log_enabled"
	status, err := m.status(ctx, enabled)
	if err == nil && status[enabled] == "OFF" {
		return server.Unsupported("the redo log is disabled: pages change without a trace; run ALTER INSTANCE ENABLE INNODB REDO_LOG first")
	}
	return err
}

// Privileges that are needed only at times.
const (
	selectLogStatus = "SELECT ON performance_schema.log_status"
	reload          = "RELOAD"
)

// needed lists the global privileges in the order in which GRANT is usually
// written: the instance lock, log_status and the hold on redo need BACKUP_ADMIN,
// the dictionary needs PROCESS. Locking tables takes
// three privileges: RELOAD, LOCK TABLES and SELECT (seen on 8.0.30).
func needed(w server.Wanted) []string {
	list := []string{"PROCESS", "BACKUP_ADMIN"}
	if w.Replication || w.Pause {
		list = append(list, "REPLICATION CLIENT")
	}
	if w.Pause {
		list = append(list, "REPLICATION_SLAVE_ADMIN")
	}
	if len(w.NonTransactional) > 0 {
		list = append(list, reload, "LOCK TABLES", "SELECT")
	}
	return list
}

func (m *mysql) checkPrivileges(ctx context.Context, w server.Wanted) error {
	const op = "check privileges"
	// It lists what active roles grant, too.
	rows, err := server.Rows(ctx, m.s.DB, "SHOW GRANTS")
	if err != nil {
		return m.s.Fail(op, err)
	}
	have := privilegesOf(rows)
	m.reload, m.seesAll = have.global[reload], have.global["SELECT"] && !have.revoked
	var global, objects []string
	for _, p := range needed(w) {
		switch {
		case have.global[p] || p == reload && have.global["FLUSH_TABLES"]:
		case (p == "LOCK TABLES" || p == "SELECT") && have.onAll(p, w.NonTransactional):
		default:
			global = append(global, p)
		}
	}
	if !have.on("SELECT", "performance_schema", "log_status") {
		objects = append(objects, selectLogStatus)
	}
	if len(global)+len(objects) == 0 {
		return nil
	}
	return m.lacks(ctx, global, objects, w.NonTransactional)
}

// lacks is the error with the statements that would mend it.
func (m *mysql) lacks(ctx context.Context, global, objects []string, locked []server.TableName) error {
	var account, login string
	if err := m.s.DB.QueryRowContext(ctx, "SELECT CURRENT_USER(), USER()").Scan(&account, &login); err != nil {
		return m.s.Fail("check privileges", err)
	}
	if strings.HasPrefix(account, "@") {
		return &server.Error{Kind: server.ErrPrivilege, Err: fmt.Errorf(
			"the server has no account for %s and took the login for the anonymous account %s; check --user, or create the account", quoteAccount(login), quoteAccount(account))}
	}
	var statements []string
	if len(global) > 0 {
		statements = append(statements, fmt.Sprintf("GRANT %s ON *.* TO %s", strings.Join(global, ", "), quoteAccount(account)))
	}
	for _, o := range objects {
		statements = append(statements, fmt.Sprintf("GRANT %s TO %s", o, quoteAccount(account)))
	}
	why := ""
	if slices.Contains(global, "LOCK TABLES") || slices.Contains(global, "SELECT") {
		why = fmt.Sprintf(" (%s.%s and other tables that are not InnoDB's must be locked for a moment)", quote(locked[0].Database), quote(locked[0].Table))
		if len(locked) == 1 {
			why = fmt.Sprintf(" (%s.%s, which is not InnoDB's, must be locked for a moment)", quote(locked[0].Database), quote(locked[0].Table))
		}
	}
	return &server.Error{Kind: server.ErrPrivilege, Err: fmt.Errorf("the account lacks privileges; run: %s%s", strings.Join(statements, "; "), why)}
}

// privileges are those of an account: global ones, and those on databases and
// tables, which are called "db.*" and "db.table".
type privileges struct {
	global map[string]bool
	object map[string]map[string]bool
	// revoked says that global ones do not hold for some databases
	// (partial_revokes).
	revoked bool
}

var grantLine = regexp.MustCompile("^GRANT (.+?) ON (?:\\*\\.\\*|(" + quotedName + ")\\.(\\*|" + quotedName + ")) TO ")

const quotedName = "(?:`(?:[^`]|``)+`|\"(?:[^\"]|\"\")+\")"

// privilegesOf reads the answers of SHOW GRANTS. Dynamic privileges are joined
// without a blank. With sql_mode=ANSI_QUOTES, names are in double quotes.
func privilegesOf(rows []map[string]string) privileges {
	p := privileges{global: map[string]bool{}, object: map[string]map[string]bool{}}
	for _, row := range rows {
		for _, line := range row {
			p.revoked = p.revoked || strings.HasPrefix(line, "REVOKE ")
			g := grantLine.FindStringSubmatch(line)
			if g == nil {
				continue
			}
			into := p.global
			if g[2] != "" {
				name := unquote(g[2]) + "." + unquote(g[3])
				if p.object[name] == nil {
					p.object[name] = map[string]bool{}
				}
				into = p.object[name]
			}
			for name := range strings.SplitSeq(g[1], ",") {
				into[strings.TrimSpace(name)] = true
			}
		}
	}
	return p
}

func unquote(name string) string {
	if len(name) < 2 || name[0] != '`' && name[0] != '"' {
		return name
	}
	mark := name[:1]
	return strings.ReplaceAll(name[1:len(name)-1], mark+mark, mark)
}

// on says whether a privilege holds for a table. Wildcards in the names of
// databases are not looked at.
func (p privileges) on(name, db, table string) bool {
	for _, set := range []map[string]bool{p.global, p.object[db+".*"], p.object[db+"."+table]} {
		if set[name] || set["ALL PRIVILEGES"] {
			return true
		}
	}
	return false
}

func (p privileges) onAll(name string, tables []server.TableName) bool {
	return !slices.ContainsFunc(tables, func(t server.TableName) bool { return !p.on(name, t.Database, t.Table) })
}

// quoteAccount turns user@host into `user`@`host`. A host has no @ in it.
func quoteAccount(account string) string {
	at := strings.LastIndexByte(account, '@')
	if at < 0 {
		return quote(account)
	}
	return quote(account[:at]) + "@" + quote(account[at+1:])
}

// checkEngines refuses a server in which an engine is loaded whose files are not
// known. Whether it has tables is not asked: an account of few privileges sees no
// tables at all.
func (m *mysql) checkEngines(ctx context.Context) error {
	engines, err := server.Rows(ctx, m.s.DB, "SELECT ENGINE FROM information_schema.ENGINES WHERE SUPPORT IN ('YES','DEFAULT')")
	if err != nil {
		return m.s.Fail("check storage engines", err)
	}
	for _, e := range engines {
		if slices.ContainsFunc(strangers, func(s string) bool { return strings.EqualFold(s, e["ENGINE"]) }) {
			return server.Unsupported("the server runs with the engine %s, which is not supported", e["ENGINE"])
		}
	}
	return nil
}
