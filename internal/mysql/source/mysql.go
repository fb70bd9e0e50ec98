// Package source is the dialect of MySQL 8.0.30 and later: discovery by its
// variables and its dictionary, LOCK INSTANCE FOR BACKUP, position by one read of
// performance_schema.log_status.
//
// The facts are of MySQL 8.0.30 and 9.7.4.
package source

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/server"
)

// Dialect recognises MySQL.
type Dialect struct{}

// Name returns "mysql".
func (Dialect) Name() string { return "mysql" }

// others are servers that speak the protocol and give a version of MySQL's, and
// have other files.
var others = []string{"mariadb", "tidb", "oceanbase", "vitess", "singlestore", "memsql"}

var versionNumber = regexp.MustCompile(`^([0-9]+)\.([0-9]+)\.([0-9]+)`)

// Recognises takes a server whose version is three numbers, unless it says that it
// is another's. Builds of MySQL and of Percona Server do not have their name in the
// version, and Debian's not even in the comment.
func (Dialect) Recognises(id server.Identity) bool {
	said := strings.ToLower(id.Version + " " + id.Comment)
	for _, name := range others {
		if strings.Contains(said, name) {
			return false
		}
	}
	return versionNumber.MatchString(id.Version)
}

// Attach refuses servers before 8.0.30: their redo log has another format.
func (d Dialect) Attach(_ context.Context, s *server.Session) (server.Server, error) {
	v, err := parseVersion(s.Version)
	if err != nil {
		return nil, err
	}
	if v.before(oldest) {
		return nil, server.Unsupported("server %s: MySQL before %s is not supported", s.Version, oldest)
	}
	if tested.series().before(v.series()) && s.Log != nil {
		s.Log.Warn("the server is newer than any that this program was tested with", "server", s.Version, "tested_last", tested.String())
	}
	return &mysql{s: s}, nil
}

// oldest is the first version with this redo log, tested the last one that the
// tests ran against.
var (
	oldest = version{8, 0, 30}
	tested = version{9, 7, 4}
)

type version struct{ major, minor, patch int }

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.patch) }

func (v version) series() version { return version{v.major, v.minor, 0} }

func (v version) before(w version) bool {
	if v.series() == w.series() {
		return v.patch < w.patch
	}
	return v.major < w.major || v.major == w.major && v.minor < w.minor
}

func parseVersion(text string) (version, error) {
	m := versionNumber.FindStringSubmatch(text)
	if m == nil {
		return version{}, server.Unsupported("server version %q is not understood", text)
	}
	var v version
	for i, n := range []*int{&v.major, &v.minor, &v.patch} {
		var err error
		if *n, err = strconv.Atoi(m[i+1]); err != nil {
			return version{}, server.Unsupported("server version %q is not understood", text)
		}
	}
	return v, nil
}

type mysql struct {
	s *server.Session
	// reload says that the account may flush logs, seesAll that it sees all tables.
	// Check finds out.
	reload, seesAll bool
}

// Close closes the connections.
func (m *mysql) Close() error { return m.s.DB.Close() }

// Discarded asks the dictionary, which knows the tablespaces of all tables, whether
// they were used since the server started or not; it needs PROCESS.
func (m *mysql) Discarded(ctx context.Context) (map[format.SpaceID]bool, error) {
	rows, err := server.Rows(ctx, m.s.DB, "SELECT SPACE FROM information_schema.INNODB_TABLESPACES WHERE STATE = 'discarded'")
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

// A tablespace is what InnoDB knows of one. The files of most are in another table.
type tablespace struct {
	name      string
	discarded bool
	encrypted bool
}

// dictionarySpace is that of mysql.ibd, which INNODB_DATAFILES lacks.
const dictionarySpace = "4294967294"

// spaces asks InnoDB for its tablespaces; it needs PROCESS. The system tablespace is
// not among them.
//
// The view FILES has all in one place, but it waits for every ALTER TABLE that copies
// rows, or that waits itself (seen on 9.7.4, as with INNODB_TABLES).
func (m *mysql) spaces(ctx context.Context) (map[string]tablespace, error) {
	rows, err := server.Rows(ctx, m.s.DB, "SELECT SPACE, NAME, STATE, ENCRYPTION FROM information_schema.INNODB_TABLESPACES")
	if err != nil {
		return nil, m.s.Fail("ask for the tablespaces", err)
	}
	spaces := make(map[string]tablespace, len(rows))
	for _, row := range rows {
		spaces[row["SPACE"]] = tablespace{row["NAME"], row["STATE"] == "discarded", row["ENCRYPTION"] == "Y"}
	}
	return spaces, nil
}

// files returns the paths of all data files, with the spaces that they belong to. Those
// of a statement that runs are not committed to the dictionary yet, but have the name
// of their tablespace.
func (m *mysql) files(ctx context.Context) (files map[string]string, spaces map[string]tablespace, err error) {
	if spaces, err = m.spaces(ctx); err != nil {
		return nil, nil, err
	}
	rows, err := server.Rows(ctx, m.s.DB, "SELECT SPACE, PATH FROM information_schema.INNODB_DATAFILES")
	if err != nil {
		return nil, nil, m.s.Fail("ask for the files of the tablespaces", err)
	}
	files = make(map[string]string, len(rows)+1)
	found := make(map[string]bool, len(rows))
	for _, row := range rows {
		id := row["SPACE"]
		found[id] = true
		if !spaces[id].discarded {
			files[path.Clean(row["PATH"])] = id
		}
	}
	for id, s := range spaces {
		if !found[id] && (id == dictionarySpace || strings.Contains(s.name, "/")) {
			files[s.name+".ibd"] = id
		}
	}
	return files, spaces, nil
}

// SpaceFile returns the file that InnoDB has for a tablespace; it needs PROCESS.
func (m *mysql) SpaceFile(ctx context.Context, id format.SpaceID) (string, error) {
	files, _, err := m.files(ctx)
	if err != nil {
		return "", err
	}
	var found []string
	for file, of := range files {
		if of == id.String() {
			found = append(found, file)
		}
	}
	if len(found) != 1 { // the system tablespace may have several
		return "", nil
	}
	return found[0], nil
}

// TableNames reads InnoDB's dictionary; it needs PROCESS.
func (m *mysql) TableNames(ctx context.Context, ids []uint64) (map[uint64]string, error) {
	rows, err := server.Rows(ctx, m.s.DB, "SELECT TABLE_ID, NAME FROM information_schema.INNODB_TABLES")
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

// KnowsTable looks for a tablespace whose file has that name: a table's, a
// partition's, or a general one. It needs no privilege.
func (m *mysql) KnowsTable(ctx context.Context, name string) (bool, error) {
	rows, err := server.Rows(ctx, m.s.DB, fmt.Sprintf(
		"SELECT 1 FROM information_schema.INNODB_DATAFILES WHERE PATH IN (%s, %s) LIMIT 1", text("./"+name+".ibd"), text(name+".ibd")))
	if err != nil {
		return false, m.s.Fail("ask for the name of a table", err)
	}
	return len(rows) > 0, nil
}

// OpenFiles asks InnoDB for its files; it needs PROCESS.
func (m *mysql) OpenFiles(ctx context.Context) (map[string]bool, error) {
	return m.filesOf(ctx, func(tablespace) bool { return true })
}

// EncryptedFiles asks InnoDB; it needs PROCESS.
func (m *mysql) EncryptedFiles(ctx context.Context) (map[string]bool, error) {
	return m.filesOf(ctx, func(s tablespace) bool { return s.encrypted })
}

func (m *mysql) filesOf(ctx context.Context, wanted func(tablespace) bool) (map[string]bool, error) {
	files, spaces, err := m.files(ctx)
	if err != nil {
		return nil, err
	}
	list := make(map[string]bool, len(files))
	for file, id := range files {
		if wanted(spaces[id]) {
			list[file] = true
		}
	}
	return list, nil
}

// The LSNs among the status variables, which need no privilege. Unlike log_status
// they answer also when the log is full.
const (
	currentLSN    = "Innodb_redo_log_current_lsn"
	flushedLSN    = "Innodb_redo_log_flushed_to_disk_lsn"
	checkpointLSN = "Innodb_redo_log_checkpoint_lsn"
)

// LSN returns how far the redo is, in memory or on disk.
func (m *mysql) LSN(ctx context.Context) (format.LSN, error) { return m.askLSN(ctx, currentLSN) }

// Written returns how far the redo is surely in the log file. The server writes it
// much sooner than it says so here: a reader need not wait, because a block has a
// checksum.
func (m *mysql) Written(ctx context.Context) (format.LSN, error) { return m.askLSN(ctx, flushedLSN) }

// Checkpoint returns the one that the server has written last.
func (m *mysql) Checkpoint(ctx context.Context) (format.LSN, error) {
	return m.askLSN(ctx, checkpointLSN)
}

func (m *mysql) askLSN(ctx context.Context, name string) (format.LSN, error) {
	status, err := m.status(ctx, name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(status[name], 10, 64)
	if err != nil {
		return 0, server.Unsupported("ask for %s: %q is not a number", name, status[name])
	}
	return format.LSN(n), nil
}

// status returns global status variables by name.
func (m *mysql) status(ctx context.Context, names ...string) (map[string]string, error) {
	list := make([]string, len(names))
	for i, n := range names {
		list[i] = text(n)
	}
	rows, err := server.Rows(ctx, m.s.DB, "SHOW GLOBAL STATUS WHERE Variable_name IN ("+strings.Join(list, ", ")+")")
	if err != nil {
		return nil, m.s.Fail("ask for the server's status", err)
	}
	status := make(map[string]string, len(rows))
	for _, r := range rows {
		status[r["Variable_name"]] = r["Value"]
	}
	return status, nil
}

// variables asks for all global variables at once.
func (m *mysql) variables(ctx context.Context) (map[string]string, error) {
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

// text quotes a string for a statement.
func text(s string) string { return "'" + strings.NewReplacer("'", "''", `\`, `\\`).Replace(s) + "'" }

func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }
