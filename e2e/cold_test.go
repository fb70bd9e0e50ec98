package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/servertest"
)

// growOld waits until what was written is so old that a copy of it is believed: two
// seconds (chunker), and a change time cannot be set.
func growOld() { time.Sleep(2500 * time.Millisecond) }

// restartCold starts the server again so that no table is open that the server
// does not need for itself, waits until copies of its files are trusted, and
// checks that InnoDB cannot tell those tables from discarded ones.
func restartCold(t *testing.T, s *servertest.Server, tables ...string) {
	t.Helper()
	// With nothing left to purge, which would open tables.
	check(t, s.Exec(t.Context(), "SET GLOBAL innodb_fast_shutdown = 0"))
	check(t, s.RestartWith(t.Context(), "--innodb-buffer-pool-load-at-startup=OFF"))
	growOld()
	rows, err := s.DB().QueryContext(t.Context(), `SELECT NAME FROM information_schema.INNODB_SYS_TABLES
		WHERE SPACE NOT IN (SELECT SPACE FROM information_schema.INNODB_SYS_TABLESPACES)`)
	check(t, err)
	defer rows.Close()
	closed := map[string]bool{}
	for rows.Next() {
		var name string
		check(t, rows.Scan(&name))
		closed[name] = true
	}
	check(t, rows.Err())
	for _, name := range tables {
		if !closed[name] {
			t.Errorf("%s is open after the start of the server: %v", name, closed)
		}
	}
}

// copies counts how often the files of tables are copied, and how often while DDL
// is blocked. A table has a definition and a tablespace.
type copies struct {
	mu      sync.Mutex
	all     map[string]int
	blocked []string
	ddl     bool
}

func (c *copies) event(event, table string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch event {
	case "stage-block-ddl":
		c.ddl = true
	case "before-copy":
		if c.all == nil {
			c.all = map[string]int{}
		}
		c.all[table]++
		if c.ddl {
			c.blocked = append(c.blocked, table)
		}
	}
}

// once fails the test unless each file of the tables was copied once, and none
// while DDL was blocked.
func (c *copies) once(t *testing.T, tables ...string) {
	t.Helper()
	for _, table := range tables {
		if n := c.all[table]; n != 2 {
			t.Errorf("the definition and the tablespace of %s were copied %d times together, want 2", table, n)
		}
	}
	if len(c.blocked) > 0 {
		t.Errorf("copied while DDL was blocked: %v", c.blocked)
	}
}

// coldTables makes tables of about 6 MB each in database cold and returns their
// names.
func coldTables(t *testing.T, s *servertest.Server, n int) (names []string) {
	t.Helper()
	check(t, s.Exec(t.Context(), "CREATE DATABASE cold"))
	for i := range n {
		name := fmt.Sprintf("t%d", i)
		check(t, s.Exec(t.Context(), "CREATE TABLE cold."+name+importedColumns,
			"INSERT INTO cold."+name+" SELECT seq, seq % 77, REPEAT(MD5(seq), 7) FROM cold.seq_1_to_20000"))
		names = append(names, "cold/"+name)
	}
	return names
}

// A1, P6: InnoDB opens a tablespace when its table is first used, and a server
// that has just started lists no others. Every file is copied once, and none
// while DDL is blocked.
func TestServerThatHasJustStarted(t *testing.T) {
	source := servertest.New(t, servertest.Options{LogFileSize: 96 << 20})
	tables := coldTables(t, source, 5)
	restartCold(t, source, tables...)
	var c copies
	hooked(t, "cold/*", func(event, table string) error { c.event(event, table); return nil })
	archive := filepath.Join(t.TempDir(), "archive.xb")
	sendTo(t, archive, source)
	c.once(t, tables...)

	st, err := os.Stat(archive)
	check(t, err)
	if data := dataSize(t, source.Datadir()); float64(st.Size()) > 1.03*float64(data) {
		t.Errorf("the archive has %d bytes, the data %d", st.Size(), data)
	}
	dir := filepath.Join(t.TempDir(), "copy")
	receive(t, "-x", "--prepare", "-C", dir, archive)
	if n := restoredManifest(t, dir).Discarded; n != 0 {
		t.Errorf("%d files were copied more than once", n)
	}
	sameRows(t, source, startCopy(t, dir), 100_000)
}

// A1: tables that come into use during the backup are written all the time. The
// redo has what was written, so that their files are not copied again.
func TestTablesComeIntoUseDuringTheBackup(t *testing.T) {
	source := servertest.New(t, servertest.Options{LogFileSize: 96 << 20})
	tables := coldTables(t, source, 5)
	restartCold(t, source, tables...)
	ctx := t.Context()
	var c copies
	hooked(t, "cold/*", func(event, table string) error {
		c.event(event, table)
		if event != "stage-flush" { // all tablespaces were copied
			return nil
		}
		before := map[string]time.Time{}
		for i, table := range tables {
			var err error
			if before[table], err = modified(source.Datadir(), table); err != nil {
				return err
			}
			if err := source.Exec(ctx, fmt.Sprintf("UPDATE cold.t%d SET b = 'after' WHERE id %% 100 = 7", i)); err != nil {
				return err
			}
		}
		if err := source.Exec(ctx, "SET GLOBAL innodb_max_dirty_pages_pct_lwm = 0", "SET GLOBAL innodb_max_dirty_pages_pct = 0"); err != nil {
			return err
		}
		return awaitWrites(source.Datadir(), before)
	})
	dir := filepath.Join(t.TempDir(), "copy")
	pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + source.Socket()}, []string{"xbstream", "-x", "--prepare", "-C", dir})
	c.once(t, tables...)
	sameRows(t, source, startCopy(t, dir), 100_000)
}

// awaitWrites waits until the server has written to all the files, which were as
// before says.
func awaitWrites(datadir string, before map[string]time.Time) error {
	for range 600 {
		left := ""
		for table, then := range before {
			now, err := modified(datadir, table)
			if err != nil {
				return err
			}
			if now.Equal(then) {
				left = table
			}
		}
		if left == "" {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("the server did not write its pages within a minute")
}

func modified(datadir, table string) (time.Time, error) {
	st, err := os.Stat(filepath.Join(datadir, table+".ibd"))
	if err != nil {
		return time.Time{}, err
	}
	return st.ModTime(), nil
}

// A1, P1: on a server that has just started, a discarded table looks like one that
// was not used yet. One that is imported during the backup is copied as it is
// after the import, at whatever moment that happens, and whether its file was
// put in place before the start of the server or later.
func TestImportOnServerThatHasJustStarted(t *testing.T) {
	ctx := t.Context()
	source := importSource(t)
	// A file that was put in place before the start has the space id of another
	// table, or the id of its own table, if it was kept while the table was away;
	// it may be replaced, in place, by a later state of the same table.
	later := map[string]map[string][]byte{}
	moments := []string{"redo-started", "tablespaces-listed", "before-copy", "after-copy", "stage-flush"}
	kinds := []string{"later", "other", "own", "replaced"}
	var names []string
	for _, kind := range kinds {
		for i := range moments {
			table := fmt.Sprintf("%s%d", kind, i)
			check(t, source.Exec(ctx, "CREATE TABLE twins."+table+importedColumns, "INSERT INTO twins."+table+" SELECT id, -1, b FROM twins.seed"))
			switch kind {
			case "later":
				check(t, source.Exec(ctx, "ALTER TABLE twins."+table+" DISCARD TABLESPACE"))
			case "other":
				check(t, source.ReplaceTablespace(ctx, "twins", "seed", table))
			case "own", "replaced":
				kept := exported(t, source, table)
				// The import will change the number of the index in its pages.
				check(t, source.Exec(ctx, "ALTER TABLE twins."+table+" DROP INDEX a, ALGORITHM=INPLACE", "ALTER TABLE twins."+table+" ADD INDEX a (a), ALGORITHM=INPLACE"))
				if kind == "replaced" {
					check(t, source.Exec(ctx, "UPDATE twins."+table+" SET a = id, b = 'after'"))
					later[table] = exported(t, source, table)
				}
				check(t, source.Exec(ctx, "ALTER TABLE twins."+table+" DISCARD TABLESPACE"))
				check(t, writeFiles(kept))
			}
			names = append(names, "twins/"+table)
		}
	}
	restartCold(t, source, names...)
	done := map[string]bool{}
	importTable := func(kind string, i int) error {
		table := fmt.Sprintf("%s%d", kind, i)
		if done[table] {
			return nil
		}
		done[table] = true
		if kind == "later" { // the file is put in place now
			return source.ImportTablespace(ctx, "twins", "seed", table)
		}
		if err := writeFiles(later[table]); err != nil {
			return err
		}
		return source.Exec(ctx, "ALTER TABLE twins."+table+" IMPORT TABLESPACE")
	}
	var mu sync.Mutex
	hooked(t, "twins/*[0-9]", func(event, table string) error {
		mu.Lock()
		defer mu.Unlock()
		i := slices.Index(moments, event)
		if i < 0 {
			return nil
		}
		for _, kind := range kinds {
			// Where no file is in place, the definition is what is copied.
			if name := fmt.Sprintf("twins/%s%d", kind, i); table != "" && table != name {
				continue
			}
			if err := importTable(kind, i); err != nil {
				return err
			}
		}
		return nil
	})
	dir := filepath.Join(t.TempDir(), "copy")
	pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + source.Socket(), "-j1"},
		[]string{"xbstream", "-x", "--prepare", "-C", dir})
	if len(done) != len(names) {
		t.Errorf("imported are %d tables, want %d", len(done), len(names))
	}
	sameRows(t, source, startCopy(t, dir), int64(2000*(len(names)+1)))
}

// exported returns the files of a table of twins as FOR EXPORT makes them, by their
// paths.
func exported(t *testing.T, s *servertest.Server, table string) map[string][]byte {
	t.Helper()
	conn, err := s.DB().Conn(t.Context())
	check(t, err)
	defer conn.Close()
	_, err = conn.ExecContext(t.Context(), "FLUSH TABLES twins."+table+" FOR EXPORT")
	check(t, err)
	files := map[string][]byte{}
	for _, ext := range []string{".ibd", ".cfg"} {
		file := filepath.Join(s.Datadir(), "twins", table+ext)
		files[file], err = os.ReadFile(file)
		check(t, err)
	}
	_, err = conn.ExecContext(t.Context(), "UNLOCK TABLES")
	check(t, err)
	return files
}

// writeFiles writes files in place: one that exists stays the same inode.
func writeFiles(files map[string][]byte) error {
	for name, content := range files {
		if err := os.WriteFile(name, content, 0o660); err != nil {
			return err
		}
	}
	return nil
}

// A1, P1: where neither table was used since the start, the server has no file
// open that bears the id of both: its dictionary names the right one.
func TestTablespaceThatWaitsForImportOnServerThatHasJustStarted(t *testing.T) {
	ctx := t.Context()
	source := importSource(t)
	check(t, source.Exec(ctx, "CREATE TABLE twins.waits"+importedColumns))
	check(t, source.ReplaceTablespace(ctx, "twins", "seed", "waits"))
	restartCold(t, source, "twins/seed", "twins/waits")
	dir := filepath.Join(t.TempDir(), "copy")
	log, _ := pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + source.Socket()}, []string{"xbstream", "-x", "--prepare", "-C", dir})
	if !strings.Contains(log, "space id of another table") {
		t.Errorf("xbsend said nothing of a file that waits for its import:\n%s", log)
	}
	sameNames(t, source.Datadir(), dir)
	copied := servertest.NewOn(t, dir, servertest.Options{})
	check(t, copied.Exec(ctx, "ALTER TABLE twins.waits IMPORT TABLESPACE"))
	for _, table := range []string{"seed", "waits"} {
		if n, err := copied.String(ctx, "SELECT COUNT(*) FROM twins."+table); n != "2000" || err != nil {
			t.Errorf("%s has %s rows, want 2000; %v", table, n, err)
		}
	}
}

func sameRows(t *testing.T, source, copied *servertest.Server, atLeast int64) {
	t.Helper()
	c, err := servertest.Compare(t.Context(), source, copied)
	check(t, err)
	for _, d := range c.Differences {
		t.Error(d)
	}
	if int64(c.Rows) < atLeast {
		t.Errorf("only %d rows compared", c.Rows)
	}
}

// dataSize is the size of what a backup of the directory has to hold: all but
// redo, temporary files and what is the server's own business.
func dataSize(t *testing.T, datadir string) (size int64) {
	t.Helper()
	check(t, filepath.WalkDir(datadir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || strings.HasPrefix(e.Name(), "ib_logfile") || e.Name() == "ibtmp1" {
			return err
		}
		st, err := e.Info()
		if err == nil {
			size += st.Size()
		}
		return err
	}))
	return size
}

func restoredManifest(t *testing.T, dir string) *format.Manifest {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "xbstream_manifest.json"))
	check(t, err)
	defer f.Close()
	m, err := format.DecodeManifest(f, func(*format.File) error { return nil })
	check(t, err)
	return m
}
