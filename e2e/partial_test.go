package e2e

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/internal/servertest"
)

// underLoad starts a server with all kinds of tables and writers that never
// stop, which the test ends.
func underLoad(t *testing.T) *servertest.Server {
	t.Helper()
	ctx := t.Context()
	source := servertest.New(t, servertest.Options{LogFileSize: 64 << 20})
	options := servertest.LoadOptions{BulkBytes: 8 << 20}
	check(t, source.CreateSchema(ctx, options))
	load, err := source.StartLoad(ctx, options)
	check(t, err)
	t.Cleanup(func() {
		if _, err := load.Stop(); err != nil {
			t.Error(err)
		}
	})
	check(t, load.Await(ctx, 1000)) // so that the backup meets dirty pages and open transactions
	return source
}

// watched makes xbsend run statements at events, and write down at the moment
// the backup stands for what the tables of a database hold. It returns the name
// of the file that gets the checksums.
func watched(t *testing.T, source *servertest.Server, database string, statements map[string]string) (checksums string) {
	t.Helper()
	dir := t.TempDir()
	checksums = filepath.Join(dir, "checksums")
	client := "mariadb --no-defaults --default-character-set=utf8mb4 -uroot -N -S " + source.Socket()
	script := "case $1 in\n"
	for event, text := range statements {
		script += fmt.Sprintf("%s) %s <<'END'\n%s\nEND\n;;\n", event, client, text)
	}
	script += fmt.Sprintf("end-lsn) set -e; %s > '%s.sql' <<'END'\n%s\nEND\n%s < '%s.sql' > '%s' ;;\nesac\n",
		client, checksums, checksumStatements(database), client, checksums, checksums)
	name := filepath.Join(dir, "hook")
	check(t, os.WriteFile(name, []byte(script), 0o700))
	t.Setenv("XB_TEST_HOOK", "sh -e "+name)
	return checksums
}

// checksumStatements is a query for one CHECKSUM TABLE for each table of a
// database. Sequences are not among them: they move on without a commit.
func checksumStatements(database string) string {
	return "SELECT CONCAT('CHECKSUM TABLE `', TABLE_SCHEMA, '`.`', TABLE_NAME, '` EXTENDED;') FROM information_schema.TABLES " +
		"WHERE TABLE_SCHEMA = '" + database + "' AND TABLE_TYPE NOT IN ('VIEW', 'SEQUENCE');"
}

// readChecksums reads what watched wrote: checksums by table.
func readChecksums(t *testing.T, name string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(name)
	check(t, err)
	sums := map[string]string{}
	for line := range strings.Lines(string(text)) {
		table, sum, _ := strings.Cut(strings.TrimSpace(line), "\t")
		sums[table] = sum
	}
	return sums
}

// checksum is that of a table of a server.
func checksum(t *testing.T, s *servertest.Server, table string) string {
	t.Helper()
	db, name, _ := strings.Cut(table, ".")
	var sum sql.NullString
	if err := s.DB().QueryRowContext(t.Context(), "CHECKSUM TABLE `"+db+"`.`"+name+"` EXTENDED").Scan(&name, &sum); err != nil {
		t.Errorf("%s: %v", table, err)
	}
	return sum.String
}

// P1, P4 for some of the tables: they are what they were at the backup's moment,
// whatever was renamed into the selection, out of it, made and dropped outside of
// it meanwhile. What is left out is left out by name, and nothing else is.
func TestPartialBackup(t *testing.T) {
	ctx := t.Context()
	source := underLoad(t)
	check(t, source.Exec(ctx, "CREATE DATABASE apart"))
	for _, table := range []string{"load.goes", "apart.comes", "apart.dropped", "apart.truncated", "apart.rebuilt", "apart.stays"} {
		check(t, source.Exec(ctx, "CREATE TABLE "+table+" (id INT PRIMARY KEY, b VARCHAR(100), FULLTEXT (b)) ENGINE=InnoDB",
			"INSERT INTO "+table+" SELECT seq, CONCAT('row ', seq) FROM load.seq_1_to_2000"))
	}
	sums := watched(t, source, "load", map[string]string{
		"tablespaces-listed": `RENAME TABLE load.goes TO apart.gone, apart.comes TO load.come;
			CREATE TABLE apart.fresh (id INT PRIMARY KEY) ENGINE=InnoDB;
			INSERT INTO apart.fresh SELECT seq FROM load.seq_1_to_2000;
			CREATE TABLE load.fresh LIKE apart.fresh;
			INSERT INTO load.fresh SELECT * FROM apart.fresh;
			DROP TABLE apart.dropped; TRUNCATE TABLE apart.truncated; ALTER TABLE apart.rebuilt FORCE;
			UPDATE apart.stays SET b = 'changed';`,
		"stage-flush": "UPDATE apart.stays SET b = 'again'; RENAME TABLE apart.gone TO apart.gone2;",
	})
	archive := filepath.Join(t.TempDir(), "load.xb")
	sendTo(t, archive, source, "--databases=load")
	listed := receive(t, "list", archive)
	for _, line := range regexp.MustCompile(`(?m)^.*/.*$`).FindAllString(listed, -1) {
		if !strings.HasPrefix(line, "load/") {
			t.Errorf("the archive holds %s", line)
		}
	}
	withTable(t, source)
	dir := filepath.Join(t.TempDir(), "copy")
	receive(t, "-x", "--prepare", "--verify", "-C", dir, archive)
	info := receive(t, "info", "-v", dir)
	for _, name := range []string{"apart/gone2.ibd", "apart/fresh.ibd", "apart/stays.ibd", "mysql/innodb_table_stats.ibd", "odd@002dn"} {
		if !strings.Contains(info, name) {
			t.Errorf("info does not say that %s was left out:\n%s", name, info)
		}
	}
	byServer(t, archive)
	copied := servertest.NewOn(t, dir, servertest.Options{Args: []string{"--skip-grant-tables", "--aria-recover-options=OFF", "--myisam-recover-options=OFF"}})
	noComplaints(t, copied)
	want := readChecksums(t, sums)
	for table, sum := range want {
		if got := checksum(t, copied, table); got != sum {
			t.Errorf("%s: checksum %s, at the backup's moment %s", table, got, sum)
		}
	}
	if len(want) < 30 || want["load.come"] == "" || want["load.fresh"] == "" || want["load.goes"] != "" {
		t.Errorf("checksums of %d tables: %v", len(want), want)
	}
	// The copy is a server as any other, whatever it lacks.
	check(t, copied.Exec(ctx, "CREATE DATABASE apart", "CREATE TABLE apart.new (id INT PRIMARY KEY) ENGINE=InnoDB",
		"INSERT INTO load.come VALUES (3000, 'after')"))
	if n, err := copied.String(ctx, "SELECT COUNT(*) FROM load.come WHERE MATCH (b) AGAINST ('after')"); err != nil || n != "1" {
		t.Errorf("full-text search finds %s rows: %v", n, err)
	}
}

// withTable backs up tables by name: what belongs to them comes along.
func withTable(t *testing.T, source *servertest.Server) {
	t.Helper()
	t.Setenv("XB_TEST_HOOK", "")
	archive := filepath.Join(t.TempDir(), "tables.xb")
	sendTo(t, archive, source, "--tables=^load[.](watched|full_text)$,^odd-näme[$][.]t. ble/%$", "--tables-exclude=by")
	var got []string
	for name := range strings.FieldsSeq(receive(t, "list", archive)) {
		if strings.Contains(name, "/") {
			got = append(got, fullTextID.ReplaceAllString(name, "FTS_x_"))
		}
	}
	const odd = "odd@002dn@0kme@0024/"
	want := []string{
		"load/FTS_x_BEING_DELETED.ibd", "load/FTS_x_BEING_DELETED_CACHE.ibd", "load/FTS_x_CONFIG.ibd", "load/FTS_x_DELETED.ibd", "load/FTS_x_DELETED_CACHE.ibd",
		"load/FTS_x_INDEX_1.ibd", "load/FTS_x_INDEX_2.ibd", "load/FTS_x_INDEX_3.ibd", "load/FTS_x_INDEX_4.ibd", "load/FTS_x_INDEX_5.ibd", "load/FTS_x_INDEX_6.ibd",
		"load/db.opt", "load/full_text.frm", "load/full_text.ibd", "load/watched.TRG", "load/watched.frm", "load/watched.ibd",
		"load/watched_delete.TRN", "load/watched_insert.TRN", "load/watched_update.TRN",
		odd + "db.opt", odd + "t@0k@0020ble@002f@0025.MYD", odd + "t@0k@0020ble@002f@0025.MYI", odd + "t@0k@0020ble@002f@0025.frm",
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("tables by name:\n%q, want\n%q", got, want)
	}
}

// fullTextID are the ids in the names of a full-text index's tablespaces.
var fullTextID = regexp.MustCompile(`FTS_[0-9a-f]{16}_(?:[0-9a-f]{16}_)?`)

// byServer has a server recover a partial backup: it must be told that something
// is missing, and the message says how.
func byServer(t *testing.T, archive string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "byserver")
	args := []string{"-x", "--prepare", "--with-server", "-C", dir}
	log, _, err := run(t, nil, nil, append(args, archive)...)
	if err == nil || !strings.Contains(log, "--server-option=innodb-force-recovery=1") {
		t.Errorf("%v\n%s", err, log)
	}
	receive(t, append(args, "--server-option=innodb-force-recovery=1", archive)...)
}

// Tables out of a full archive, prepared for export, imported into another
// server: they hold what they held at the backup's moment.
func TestTablesAreImported(t *testing.T) {
	ctx := t.Context()
	source := underLoad(t)
	check(t, source.Exec(ctx, "USE `load`", "CREATE TABLE instant (id INT PRIMARY KEY, a INT, b VARCHAR(100)) ENGINE=InnoDB",
		"INSERT INTO instant SELECT seq, seq, 'first' FROM seq_1_to_1000",
		"ALTER TABLE instant ADD COLUMN c INT DEFAULT 7 AFTER id, DROP COLUMN a, ALGORITHM=INSTANT",
		"UPDATE instant SET c = id WHERE id % 2",
		// Large ones that no writer knows: no deadlock ends the open transaction.
		"CREATE TABLE changed LIKE bulk_0", "INSERT INTO changed SELECT seq, seq, MD5(seq), REPEAT('c', 2000) FROM seq_1_to_1000",
		"CREATE TABLE grown LIKE bulk_0", "INSERT INTO grown SELECT * FROM changed"))
	open, err := source.DB().BeginTx(ctx, nil)
	check(t, err)
	defer open.Rollback()
	for _, change := range []string{"UPDATE `load`.changed SET b = 'not committed'", "DELETE FROM `load`.instant", "INSERT INTO `load`.grown SELECT id + 100000, a, b, c FROM `load`.grown"} {
		_, err := open.ExecContext(ctx, change)
		check(t, err)
	}
	sums := watched(t, source, "load", nil)
	archive := filepath.Join(t.TempDir(), "full.xb")
	sendTo(t, archive, source)
	dir := filepath.Join(t.TempDir(), "export")
	receive(t, "-x", "--only", "load.*", "--prepare", "--export", "-C", dir, archive)

	target := servertest.New(t, servertest.Options{})
	check(t, target.Exec(ctx, "CREATE DATABASE `load` CHARACTER SET utf8mb4"))
	imported := 0
	for table, sum := range readChecksums(t, sums) {
		i := importer{source: source, target: target, dir: dir, table: strings.TrimPrefix(table, "load.")}
		if i.t = t; !i.innodb() {
			continue
		}
		t.Run(table, func(t *testing.T) {
			i.t = t
			i.run()
			if got := checksum(t, target, table); got != sum {
				t.Errorf("checksum %s, at the backup's moment %s", got, sum)
			}
			imported++
		})
	}
	if imported < 20 {
		t.Errorf("only %d tables were imported", imported)
	}
	noComplaints(t, target)
	check(t, open.Rollback())
	notExported(t, source)
}

// notExported backs up a table that a prepared transaction has changed: nobody
// can tell which rows to export.
func notExported(t *testing.T, source *servertest.Server) {
	t.Helper()
	t.Setenv("XB_TEST_HOOK", "")
	check(t, source.Exec(t.Context(), "XA START 'undecided'", "UPDATE `load`.instant SET c = 1", "XA END 'undecided'", "XA PREPARE 'undecided'"))
	archive := filepath.Join(t.TempDir(), "undecided.xb")
	sendTo(t, archive, source, "--tables=^load[.]instant$")
	log, _, err := run(t, nil, nil, "-x", "--prepare", "--export", "-C", filepath.Join(t.TempDir(), "undecided"), archive)
	if err == nil || !strings.Contains(log, "1 XA transactions are prepared") {
		t.Errorf("%v\n%s", err, log)
	}
}

// importer brings one table of the database load from an exported directory into
// a server, as the README shows it.
type importer struct {
	t              *testing.T
	source, target *servertest.Server
	dir, table     string
}

func (i importer) ask(query string) string {
	i.t.Helper()
	s, err := i.source.String(i.t.Context(), query)
	check(i.t, err)
	return s
}

func (i importer) innodb() bool {
	return i.ask("SELECT COUNT(*) FROM information_schema.INNODB_SYS_TABLES WHERE NAME = 'load/"+i.file()+"' OR NAME LIKE 'load/"+i.file()+"#P#%'") != "0"
}

// file is the table's name in the letters of file names.
func (i importer) file() string {
	return i.ask("SELECT CONVERT(CONVERT('" + i.table + "' USING filename) USING binary)")
}

func (i importer) run() {
	t := i.t
	var name, create string
	check(t, i.source.DB().QueryRowContext(t.Context(), "SHOW CREATE TABLE `load`.`"+i.table+"`").Scan(&name, &create))
	ref := "`load`.`" + i.table + "`"
	check(t, i.target.Exec(t.Context(), "USE `load`", "SET foreign_key_checks = 0", create))
	partitions := i.partitions()
	if len(partitions) == 0 {
		i.space(ref, i.file(), i.file())
	}
	for name, file := range partitions {
		check(t, i.target.Exec(t.Context(), "USE `load`", "CREATE TABLE one LIKE "+ref, "ALTER TABLE one REMOVE PARTITIONING"))
		i.space("`load`.one", file, "one")
		check(t, i.target.Exec(t.Context(), "ALTER TABLE "+ref+" EXCHANGE PARTITION `"+name+"` WITH TABLE `load`.one", "DROP TABLE `load`.one"))
	}
}

// space gives a table the exported tablespace from, under its own name.
func (i importer) space(ref, from, to string) {
	check(i.t, i.target.Exec(i.t.Context(), "SET foreign_key_checks = 0", "ALTER TABLE "+ref+" DISCARD TABLESPACE"))
	for _, end := range []string{".ibd", ".cfg"} {
		text, err := os.ReadFile(filepath.Join(i.dir, "load", from+end))
		check(i.t, err)
		check(i.t, os.WriteFile(filepath.Join(i.target.Datadir(), "load", to+end), text, 0o660))
	}
	check(i.t, i.target.Exec(i.t.Context(), "SET foreign_key_checks = 0", "ALTER TABLE "+ref+" IMPORT TABLESPACE"))
}

// partitions are the files of a partitioned table by the names of partitions or,
// if it has them, subpartitions.
func (i importer) partitions() map[string]string {
	rows, err := i.source.DB().QueryContext(i.t.Context(), "SELECT COALESCE(SUBPARTITION_NAME, PARTITION_NAME), CONVERT(CONVERT(CONCAT_WS('/', TABLE_NAME, PARTITION_NAME, SUBPARTITION_NAME) USING filename) USING binary) "+
		"FROM information_schema.PARTITIONS WHERE TABLE_SCHEMA = 'load' AND TABLE_NAME = '"+i.table+"' AND PARTITION_NAME IS NOT NULL")
	check(i.t, err)
	defer rows.Close()
	files := map[string]string{}
	for rows.Next() {
		var name, file string
		check(i.t, rows.Scan(&name, &file))
		file = strings.Replace(file, "@002f", "#P#", 1)
		files[name] = strings.Replace(file, "@002f", "#SP#", 1)
	}
	check(i.t, rows.Err())
	return files
}
