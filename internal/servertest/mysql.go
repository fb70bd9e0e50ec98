package servertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// This file is what differs in how a server of MySQL is made and started.

// installMySQL makes a data directory, with a root account without a password.
func installMySQL(ctx context.Context, r Release, dir string, more []string) error {
	if err := r.check(); err != nil {
		return err
	}
	args := []string{
		"--no-defaults", "--initialize-insecure", "--datadir=" + dir, "--tmpdir=" + filepath.Dir(dir),
		"--innodb-redo-log-capacity=8M", "--skip-log-bin",
	}
	cmd := exec.CommandContext(ctx, r.Command(r.program()), slices.Concat(args, asUser(), more)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("install data directory %s: %w\n%s", dir, err, out)
	}
	return nil
}

// WithKeys returns the same release with a keyring, which makes its programs others:
// the server looks for the list of what it loads first of all beside its program. All
// that is new is in dir, the keys too. Servers need PluginDir in their arguments.
func (r Release) WithKeys(dir string) (Release, error) {
	plugins, err := filepath.Glob(filepath.Join(r.root(), "usr/lib/mysql/plugin/*.so"))
	if err != nil {
		return Release{}, err
	}
	links := map[string]string{"usr": filepath.Join(r.root(), "usr"), "commands/mysqld": r.Command("mysqld")}
	for _, p := range plugins {
		links["plugin/"+filepath.Base(p)] = p
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "commands"), 0o700), os.Mkdir(filepath.Join(dir, "plugin"), 0o700)); err != nil {
		return Release{}, fmt.Errorf("server with keys: %w", err)
	}
	for name, to := range links {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			return Release{}, fmt.Errorf("server with keys: %w", err)
		}
	}
	for name, content := range map[string]string{
		"commands/mysqld.my":                `{"components": "file://component_keyring_file"}`,
		"plugin/component_keyring_file.cnf": fmt.Sprintf(`{"path": %q, "read_only": false}`, Release{dir: dir}.KeyFile()),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return Release{}, fmt.Errorf("server with keys: %w", err)
		}
	}
	return Release{name: r.name, dir: dir}, nil
}

// KeyFile is where the keyring of a release WithKeys keeps its keys.
func (r Release) KeyFile() string { return filepath.Join(r.dir, "keys") }

// PluginDir is the argument that a server WithKeys needs, and its Install as well.
func (r Release) PluginDir() string { return "--plugin-dir=" + filepath.Join(r.dir, "plugin") }

// forgetIdentity makes the server take a new server_uuid, which all copies of a
// template would share.
func forgetIdentity(dir string) error {
	if err := os.Remove(filepath.Join(dir, "auto.cnf")); err != nil {
		return fmt.Errorf("new data directory: %w", err)
	}
	return nil
}

// createMySQLAccounts creates the account of replicas, as createAccounts does.
func (s *Server) createMySQLAccounts(ctx context.Context) error {
	return s.Exec(ctx,
		"SET SESSION sql_log_bin = 0",
		"CREATE USER "+replUser+"@'127.0.0.1' IDENTIFIED BY '"+replPassword+"'",
		"GRANT REPLICATION SLAVE ON *.* TO "+replUser+"@'127.0.0.1'",
	)
}

// mysqlArgs is args for MySQL.
func (s *Server) mysqlArgs() []string {
	a := []string{
		"--no-defaults",
		"--datadir=" + s.datadirArg(),
		"--socket=" + s.Socket(),
		"--pid-file=" + filepath.Join(s.dir, "pid"),
		"--tmpdir=" + s.dir,
		"--log-error=" + s.errorLogPath(),
		"--mysqlx=OFF",
		"--skip-name-resolve",
		"--innodb-page-size=" + strconv.Itoa(s.opts.PageSize),
		"--innodb-buffer-pool-size=128M",
		"--innodb-redo-log-capacity=" + strconv.FormatInt(s.opts.LogFileSize, 10),
		"--innodb-log-buffer-size=2M",
		"--key-buffer-size=8M",
		"--table-open-cache=500",
		// As for MariaDB: no commit waits for a disk.
		"--innodb-flush-log-at-trx-commit=2",
		"--sync-binlog=0",
		"--server-id=" + strconv.FormatUint(uint64(s.opts.ServerID), 10),
		"--event-scheduler=OFF", // as MariaDB's is by default
		"--gtid-mode=ON",
		"--enforce-gtid-consistency=ON",
	}
	a = append(a, asUser()...)
	if s.opts.LogBin {
		a = append(a, "--log-bin=binlog", "--log-bin-trust-function-creators=1")
	} else {
		a = append(a, "--skip-log-bin")
	}
	if s.opts.TCP {
		return append(a, "--bind-address=127.0.0.1", "--port="+strconv.Itoa(s.port))
	}
	return append(a, "--skip-networking")
}

// tablesOfMySQL makes the tables of MariaDB those that MySQL can have.
func tablesOfMySQL(all []table, pageSize int) []table {
	compression := func(algorithm string) string {
		// It leaves blocks of the file system unwritten, usually of 4 KiB: a page
		// must have more than one.
		if pageSize <= 4<<10 {
			return ""
		}
		return "COMPRESSION='" + algorithm + "'"
	}
	var out []table
	for _, t := range all {
		switch {
		case strings.Contains(t.tail, "ENGINE=Aria"), strings.Contains(t.tail, "SYSTEM VERSIONING"):
			continue
		case strings.Contains(t.tail, "PAGE_COMPRESSED"):
			t.tail = "ENGINE=InnoDB " + compression("zlib")
		}
		out = append(out, t)
	}
	innodb := func(name, extra, tail, set string) table {
		return table{db: dbPlain, name: name, extra: extra, tail: "ENGINE=InnoDB " + tail, set: set}
	}
	return append(out,
		innodb("lz4", ", KEY a (a)", compression("lz4"), ""),
		innodb("multi_valued", ", j JSON, KEY m ((CAST(j->'$.list' AS UNSIGNED ARRAY)))", "", ", j = JSON_OBJECT('list', JSON_ARRAY(id, a, a + 1), 'text', b)"),
		innodb("functional", ", KEY f ((a % 100)), KEY d (b(150) DESC)", "", ""),
		innodb("auto", ", n INT NOT NULL AUTO_INCREMENT, KEY n (n)", "", ""),
	)
}

// attachMySQLReplica is AttachReplica.
func (s *Server) attachMySQLReplica(ctx context.Context, source *Server, gtid string) error {
	return s.Exec(ctx,
		"RESET BINARY LOGS AND GTIDS",
		"SET GLOBAL gtid_purged = '"+gtid+"'",
		fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%d, SOURCE_USER='%s', SOURCE_PASSWORD='%s', SOURCE_CONNECT_RETRY=1, SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1",
			source.Port(), replUser, replPassword),
		"START REPLICA",
	)
}

// definitionsOfMySQL are definitions where MySQL has others.
var definitionsOfMySQL = map[string]string{
	"routines":          "SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_TYPE, ROUTINE_DEFINITION, DEFINER, SQL_MODE, DTD_IDENTIFIER FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA <> 'sys'",
	"events":            "SELECT EVENT_SCHEMA, EVENT_NAME, EVENT_DEFINITION, DEFINER, INTERVAL_VALUE, INTERVAL_FIELD, SQL_MODE FROM information_schema.EVENTS",
	"accounts":          "SELECT Host, User, authentication_string FROM mysql.user WHERE User <> '" + replUser + "'",
	"roles":             "SELECT * FROM mysql.role_edges",
	"columns of grants": "SELECT Host, Db, User, Table_name, Column_name, Column_priv FROM mysql.columns_priv",
	"views":             "SELECT TABLE_SCHEMA, TABLE_NAME, VIEW_DEFINITION, DEFINER, SECURITY_TYPE FROM information_schema.VIEWS WHERE TABLE_SCHEMA <> 'sys'",
	"tablespaces":       "SELECT NAME, SPACE_TYPE, ROW_FORMAT FROM information_schema.INNODB_TABLESPACES WHERE SPACE_TYPE IN ('General', 'Undo')",
}

// awaitMySQLPurge waits until hardly any history is left, for a while: the server
// keeps some when nothing happens.
func (s *Server) awaitMySQLPurge(ctx context.Context) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		n, err := s.String(ctx, "SELECT COUNT FROM information_schema.INNODB_METRICS WHERE NAME = 'trx_rseg_history_len'")
		if err != nil {
			return fmt.Errorf("wait for purge: %w\n%s", err, s.ErrorLog())
		}
		if length, err := strconv.Atoi(n); err != nil || length < 10 || time.Now().After(deadline) {
			return err
		}
	}
}

// instant adds or drops a column without a rebuild.
func (w *stormWorker) instant(ctx context.Context) error {
	what := "ADD COLUMN y%d INT DEFAULT 3 FIRST"
	if w.rand.IntN(2) == 0 {
		what = "DROP COLUMN y%d"
	}
	return w.do(ctx, "ALTER TABLE "+w.name()+" "+fmt.Sprintf(what, w.rand.IntN(3))+", ALGORITHM=INSTANT")
}

// undoer is the worker that has undo tablespaces truncated.
const undoer = "undo"

// undoSpaces are the undo tablespaces that it has. Two more stay in use: the server
// needs them.
var undoSpaces = []string{"storm_undo_a", "storm_undo_b"}

func (w *stormWorker) createUndo(ctx context.Context) error {
	for _, u := range undoSpaces {
		// An error says that it is there.
		if err := w.do(ctx, "CREATE UNDO TABLESPACE "+u+" ADD DATAFILE '"+u+".ibu'"); err != nil {
			return err
		}
	}
	return nil
}

// truncateUndo has the server empty an undo tablespace, which gets another space id,
// and uses it again. It waits for that no longer than a backup may hold it up.
func (w *stormWorker) truncateUndo(ctx context.Context) error {
	u := undoSpaces[w.rand.IntN(len(undoSpaces))]
	if err := w.do(ctx, "ALTER UNDO TABLESPACE "+u+" SET INACTIVE"); err != nil {
		return err
	}
	for limit := time.Now().Add(standTimeout); ; time.Sleep(20 * time.Millisecond) {
		state, err := w.server.String(ctx, "SELECT STATE FROM information_schema.INNODB_TABLESPACES WHERE NAME = ?", u)
		if err != nil {
			return err
		}
		if state == "empty" {
			return w.do(ctx, "ALTER UNDO TABLESPACE "+u+" SET ACTIVE")
		}
		if time.Now().After(limit) {
			return fmt.Errorf("undo tablespace %s is %q after %v", u, state, standTimeout)
		}
	}
}
