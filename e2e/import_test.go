package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/internal/servertest"
)

// importing are the lives of tables that are discarded and imported, one table
// each, as statements; $import gives the table the tablespace of seed. All of it
// lies in the redo of one backup.
var importing = map[string][]string{
	"only":    {"CREATE TABLE $t" + importedColumns, "$import"},
	"written": {"CREATE TABLE $t" + importedColumns, "$import", "INSERT INTO $t VALUES (9001, 1, 'after')", "UPDATE $t SET a = a + 1 WHERE id % 7 = 0"},
	"renamed": {"CREATE TABLE $t" + importedColumns, "$import", "RENAME TABLE $t TO $t_n", "INSERT INTO $t_n VALUES (9001, 1, 'after')"},
	"swapped": {"CREATE TABLE $t_n" + importedColumns, "INSERT INTO $t_n SELECT id, a, 'before' FROM twins.seed",
		"CREATE TABLE $t" + importedColumns, "$import", "RENAME TABLE $t_n TO $t_o, $t TO $t_n", "DROP TABLE $t_o", "DELETE FROM $t_n WHERE a < 20"},
	"emptied": {"CREATE TABLE $t" + importedColumns, "$import", "DELETE FROM $t"},
	"twice": {"CREATE TABLE $t" + importedColumns, "INSERT INTO $t SELECT id, 5, 'before' FROM twins.seed", "$import", "RENAME TABLE $t TO $t_n",
		"DELETE FROM $t_n WHERE a < 20", "RENAME TABLE $t_n TO $t", "$import", "UPDATE $t SET b = 'after' WHERE a = 30"},
}

const importedColumns = " (id INT NOT NULL PRIMARY KEY, a INT, b VARCHAR(300), KEY (a)) ENGINE=InnoDB"

// importTables lets all of them happen; name goes into the names of the tables.
func importTables(ctx context.Context, s *servertest.Server, name string) error {
	for kind, statements := range importing {
		table := name + "_" + kind
		for _, q := range statements {
			var err error
			if q == "$import" {
				err = s.ImportTablespace(ctx, "twins", "seed", table)
			} else {
				err = s.Exec(ctx, strings.ReplaceAll(q, "$t", "twins."+table))
			}
			if err != nil {
				return fmt.Errorf("%s: %w", table, err)
			}
		}
	}
	return nil
}

// importSource is a server with a table to import, which makes no checkpoint by
// itself.
func importSource(t *testing.T, args ...string) *servertest.Server {
	source := servertest.New(t, servertest.Options{LogFileSize: 96 << 20, Args: append([]string{"--innodb-max-dirty-pages-pct=90"}, args...)})
	check(t, source.Exec(t.Context(), "CREATE DATABASE twins", "CREATE TABLE twins.seed"+importedColumns,
		"INSERT INTO twins.seed SELECT seq, seq % 77, REPEAT(MD5(seq), 6) FROM twins.seq_1_to_2000"))
	return source
}

// P1: tables that were discarded and imported before and during the backup, in
// one redo, hold the rows of the source whoever recovers them. A server that is
// left to itself with that redo loses rows (README, what it does not do).
func TestImportedTables(t *testing.T) {
	ctx := t.Context()
	source := importSource(t)
	check(t, importTables(ctx, source, "early"))
	hooked(t, "none", func(event, _ string) error {
		if event != "stage-flush" { // all tablespaces were copied once
			return nil
		}
		if err := importTables(ctx, source, "late"); err != nil {
			return err
		}
		if err := source.ImportTablespace(ctx, "twins", "seed", "early_only"); err != nil {
			return err
		}
		return source.Exec(ctx, "UPDATE twins.early_only SET a = a + 1 WHERE id % 5 = 0")
	})
	archive := filepath.Join(t.TempDir(), "archive.xb")
	sendTo(t, archive, source)
	for _, how := range [][]string{nil, {"--with-server"}} {
		t.Run(fmt.Sprint(how), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "copy")
			said := receive(t, append([]string{"-x", "--prepare", "-C", dir, archive}, how...)...)
			compareImported(t, source, startCopy(t, dir))
			// All of late but late_only, to which nothing happens, and early_only.
			hidden := regexp.MustCompile(`hidden from the server \(tablespaces (\d+)\)`).FindStringSubmatch(said)
			if how == nil && hidden != nil {
				t.Errorf("no server, and %s", hidden[0])
			}
			if how != nil && (hidden == nil || atoi(t, hidden[1]) < len(importing)) {
				t.Errorf("%d tablespaces were imported during the backup and changed: %s", len(importing), said)
			}
		})
	}
}

func compareImported(t *testing.T, source, copied *servertest.Server) {
	t.Helper()
	c, err := servertest.Compare(t.Context(), source, copied)
	check(t, err)
	for _, d := range c.Differences {
		t.Error(d)
	}
	if c.Rows < 15_000 {
		t.Errorf("only %d rows compared", c.Rows)
	}
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	check(t, err)
	return n
}

// P1: with an encrypted redo log only the server can read what a table went through, and
// preparing is refused for those that may have been imported.
func TestImportInEncryptedRedo(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	check(t, os.WriteFile(keys, []byte("1;"+strings.Repeat("a7", 32)+"\n"), 0o600))
	plugin := []string{"--plugin-load-add=file_key_management", "--file-key-management-filename=" + keys, "--innodb-encrypt-log=ON", "--innodb-encrypt-tables=ON"}
	source := importSource(t, plugin...)
	var said string // by xbsend
	prepare := func(name string, more ...string) (string, error) {
		archive := filepath.Join(dir, name+".xb")
		if _, err := os.Stat(archive); err != nil {
			said = sendTo(t, archive, source)
		}
		args := []string{"-x", "--prepare", "--with-server", "-C", filepath.Join(dir, name+fmt.Sprint(more)), archive}
		for _, option := range plugin {
			args = append(args, "--server-option="+option)
		}
		_, xbstream := binaries(t)
		out, err := exec.CommandContext(ctx, xbstream, append(args, more...)...).CombinedOutput()
		return string(out), err
	}

	load := "INSERT INTO twins.$t SELECT * FROM twins.seed"
	for i, then := range [][]string{
		{"DROP TABLE twins.$t", "CREATE TABLE twins.$t" + importedColumns, load},
		{"TRUNCATE TABLE twins.$t", load},
		{"OPTIMIZE TABLE twins.$t", "UPDATE twins.$t SET a = a + 1"},
		{"ALTER TABLE twins.$t FORCE, ALGORITHM=COPY", "UPDATE twins.$t SET a = a + 1"},
		{"RENAME TABLE twins.$t TO twins.$t_n", "CREATE TABLE twins.$t LIKE twins.$t_n", "DROP TABLE twins.$t_n", load},
	} {
		for _, q := range slices.Concat([]string{"CREATE TABLE twins.$t" + importedColumns, load}, then) {
			check(t, source.Exec(ctx, strings.ReplaceAll(q, "$t", fmt.Sprintf("changed%d", i))))
		}
	}
	if out, err := prepare("changed"); err != nil || strings.Contains(said, "imported") {
		t.Errorf("nothing was imported: %v\n%s%s", err, said, out)
	}

	check(t, importTables(ctx, source, "early"))
	out, err := prepare("imported")
	refused := regexp.MustCompile(`twins/(early_\w+)\.ibd \(space \d+\): may have been imported .* at LSN (\d+)`).FindStringSubmatch(out)
	if exitCode(t, err) != exitPrepare || refused == nil {
		t.Fatalf("%v, want exit code %d and a table that was imported\n%s", err, exitPrepare, out)
	}
	if warned := regexp.MustCompile(`twins\.` + refused[1] + ` may have been imported .*\(discarded at lsn ` + refused[2] + `\)`); !warned.MatchString(said) {
		t.Errorf("xbsend warned of other tables, or of none: %s", said)
	}
	if out, err := prepare("imported", "--nothing-imported"); err != nil {
		t.Errorf("--nothing-imported: %v\n%s", err, out)
	}
}

// P1: a tablespace that waits to be imported, and has the space id of another
// table, is in the way of no recovery, and can be imported into the copy.
func TestTablespaceThatWaitsForImport(t *testing.T) {
	ctx := t.Context()
	source := importSource(t)
	check(t, source.Exec(ctx, "CREATE TABLE twins.waits"+importedColumns, "INSERT INTO twins.waits VALUES (1, 1, 'before')"))
	check(t, source.ReplaceTablespace(ctx, "twins", "seed", "waits"))
	archive := filepath.Join(t.TempDir(), "archive.xb")
	sendTo(t, archive, source)
	for _, how := range []string{"--verify", "--with-server"} {
		t.Run(how, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "copy")
			receive(t, "-x", "-C", dir, archive)
			receive(t, "prepare", how, dir)
			sameNames(t, source.Datadir(), dir)
			copied := servertest.NewOn(t, dir, servertest.Options{})
			check(t, copied.Exec(ctx, "ALTER TABLE twins.waits IMPORT TABLESPACE"))
			if n, err := copied.String(ctx, "SELECT COUNT(*) FROM twins.waits"); n != "2000" || err != nil {
				t.Errorf("%s rows were imported, want 2000; %v", n, err)
			}
		})
	}
}
