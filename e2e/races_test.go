package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/internal/servertest"
)

// P1, the races without luck: one server with a database for each operation,
// engine and moment; at that moment of the backup the operation happens there,
// and nothing else. So the copy must equal the source exactly, down to the names
// of the files.
func TestDDLAtEveryMoment(t *testing.T) {
	ctx := t.Context()
	source := servertest.New(t, servertest.Options{LogFileSize: 64 << 20, Args: []string{
		// Nobody will pull the plug, and it takes half of the time.
		"--innodb-flush-method=nosync", "--sync-frm=0"}})
	all := races()
	prepareRaces(t, source, all)

	h := &happening{server: source, races: map[string][]race{}, calls: map[string]int{}}
	for _, r := range all {
		key := r.key()
		h.races[key] = append(h.races[key], r)
	}
	hooked(t, "race_*_copy_?/t*", func(event, table string) error { return h.event(ctx, event, table) })
	dir := filepath.Join(t.TempDir(), "copy")
	pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + source.Socket(), "-j1"},
		[]string{"xbstream", "-x", "--prepare", "-C", dir})
	for _, left := range h.races {
		for _, r := range left {
			t.Errorf("%s: its moment never came", r.db)
		}
	}
	sameNames(t, source.Datadir(), dir)
	copied := startCopy(t, dir)
	c, err := servertest.Compare(ctx, source, copied)
	check(t, err)
	for _, d := range c.Differences {
		t.Error(d)
	}
	if h.happened != len(all) || c.Tables < len(all) {
		t.Errorf("%d of %d races, %d tables compared", h.happened, len(all), c.Tables)
	}
	t.Logf("%d races, %d tables and %d rows equal", h.happened, c.Tables, c.Rows)
}

// An operation is DDL that happens to a table t at some moment of a backup.
// Of the statements, those that begin with ! must be refused. They are
// templates:
//
//	$db     database of its own
//	$new    name of a database that does not exist yet
//	$table  columns, engine and options of a table
//	$rows   200 rows, in a SELECT, as t has them
//	$more   other rows
//	$own    engine and options of that table
//	$engine another engine
//	$import t is discarded and imported with the tablespace of u
type operation struct {
	name string
	// only are the engines it is for; nil means all but MERGE.
	only []string
	// before is executed before the backup.
	before []string
	do     []string
}

var (
	everyEngine = []string{"innodb", "aria", "aria0", "myisam", "csv", "merge"}
	withKeys    = []string{"innodb", "aria", "aria0", "myisam"}
	onlyInnoDB  = []string{"innodb"}
	onlyCSV     = []string{"csv"}
	onlyMerge   = []string{"merge"}
	notInnoDB   = []string{"aria", "aria0", "myisam", "csv"}
)

var operations = []operation{
	{"create", everyEngine, nil, []string{"CREATE TABLE $db.n $table", "INSERT INTO $db.n $more"}},
	{"drop", everyEngine, nil, []string{"DROP TABLE $db.t"}},
	{"recreate", everyEngine, nil, []string{"DROP TABLE $db.t", "CREATE TABLE $db.t $table", "INSERT INTO $db.t $more"}},
	{"rename", everyEngine, nil, []string{"RENAME TABLE $db.t TO $db.n"}},
	{"and_back", everyEngine, nil, []string{"RENAME TABLE $db.t TO $db.n", "INSERT INTO $db.n $more", "RENAME TABLE $db.n TO $db.t"}},
	{"chain", everyEngine, nil, []string{"RENAME TABLE $db.t TO $db.n", "CREATE TABLE $db.t $table", "RENAME TABLE $db.t TO $db.m", "INSERT INTO $db.m $more"}},
	{"swap", everyEngine, []string{"CREATE TABLE $db.u $table", "INSERT INTO $db.u $more"},
		[]string{"RENAME TABLE $db.t TO $db.n, $db.u TO $db.t, $db.n TO $db.u"}},
	{"circle", everyEngine, []string{"CREATE TABLE $db.u $table", "INSERT INTO $db.u $more", "CREATE TABLE $db.v $table"},
		[]string{"RENAME TABLE $db.t TO $db.n, $db.u TO $db.t, $db.v TO $db.u, $db.n TO $db.v", "INSERT INTO $db.u $rows"}},
	{"truncate", everyEngine, nil, []string{"TRUNCATE TABLE $db.t", "INSERT INTO $db.t $more", "TRUNCATE TABLE $db.t", "INSERT INTO $db.t $rows"}},
	{"optimize", withKeys, []string{"DELETE FROM $db.t WHERE id % 3 = 0"}, []string{"OPTIMIZE TABLE $db.t"}},
	{"index", onlyInnoDB, nil, []string{"ALTER TABLE $db.t ADD INDEX i (a), ALGORITHM=INPLACE"}},
	{"index_copied", withKeys, nil, []string{"ALTER TABLE $db.t ADD INDEX i (a), ALGORITHM=COPY"}},
	{"column_copied", nil, nil, []string{"ALTER TABLE $db.t ADD COLUMN c INT NOT NULL FIRST, ALGORITHM=COPY"}},
	{"rebuild", onlyInnoDB, nil, []string{"ALTER TABLE $db.t FORCE, ALGORITHM=INPLACE"}},
	{"failed_index", withKeys, nil, []string{"!ALTER TABLE $db.t ADD UNIQUE i (a)", "INSERT INTO $db.t $more"}},
	{"failed_copy", nil, nil, []string{"!ALTER TABLE $db.t MODIFY b INT NOT NULL, ALGORITHM=COPY"}},
	{"instant", onlyInnoDB, nil, []string{"ALTER TABLE $db.t ADD COLUMN c INT NOT NULL DEFAULT 7 FIRST, ALGORITHM=INSTANT",
		"ALTER TABLE $db.t DROP COLUMN b, ALGORITHM=INSTANT"}},
	{"default", notInnoDB, nil, []string{"ALTER TABLE $db.t ALTER COLUMN a SET DEFAULT 9"}},
	{"exchange", withKeys, []string{"DELETE FROM $db.t WHERE id % 3 <> 1", "CREATE TABLE $db.p $table PARTITION BY HASH (id) PARTITIONS 3", "INSERT INTO $db.p $more"},
		[]string{"ALTER TABLE $db.p EXCHANGE PARTITION p1 WITH TABLE $db.t"}},
	{"partition", withKeys, []string{"ALTER TABLE $db.t PARTITION BY RANGE (id) (PARTITION a VALUES LESS THAN (60), PARTITION b VALUES LESS THAN (130), PARTITION c VALUES LESS THAN MAXVALUE)"},
		[]string{"ALTER TABLE $db.t TRUNCATE PARTITION c", "ALTER TABLE $db.t DROP PARTITION a", "ALTER TABLE $db.t REORGANIZE PARTITION b INTO (PARTITION a VALUES LESS THAN (80), PARTITION b VALUES LESS THAN (130))"}},
	{"unpartition", withKeys, []string{"ALTER TABLE $db.t PARTITION BY HASH (id) PARTITIONS 3"}, []string{"ALTER TABLE $db.t REMOVE PARTITIONING"}},
	{"import", onlyInnoDB, []string{"CREATE TABLE $db.u $table", "INSERT INTO $db.u $more"},
		[]string{"$import", "UPDATE $db.t SET a = a + 1"}},
	{"only_import", onlyInnoDB, []string{"CREATE TABLE $db.u $table", "INSERT INTO $db.u $more", "ALTER TABLE $db.t DISCARD TABLESPACE"}, []string{"$import"}},
	{"move", nil, nil, []string{"CREATE DATABASE $new", "RENAME TABLE $db.t TO $new.t", "INSERT INTO $new.t $more"}},
	{"drop_database", everyEngine, nil, []string{"DROP DATABASE $db"}},
	{"recreate_database", nil, nil, []string{"DROP DATABASE $db", "CREATE DATABASE $db CHARACTER SET latin1", "CREATE TABLE $db.t $table", "INSERT INTO $db.t $more"}},
	{"create_database", nil, nil, []string{"CREATE DATABASE $new", "CREATE TABLE $new.n $table", "INSERT INTO $new.n $more"}},
	{"engine", nil, nil, []string{"ALTER TABLE $db.t ENGINE=$engine"}},
	{"engine_and_back", withKeys, nil, []string{"ALTER TABLE $db.t ENGINE=$engine", "INSERT INTO $db.t $more", "ALTER TABLE $db.t $own"}},
	{"trigger", []string{"innodb", "myisam"}, []string{"CREATE VIEW $db.w AS SELECT a FROM $db.t", "CREATE TRIGGER $db.old BEFORE INSERT ON $db.t FOR EACH ROW SET NEW.a = 1"},
		[]string{"DROP TRIGGER $db.old", "CREATE TRIGGER $db.tr BEFORE INSERT ON $db.t FOR EACH ROW SET NEW.a = NEW.a + 1", "DROP VIEW $db.w", "CREATE VIEW $db.x AS SELECT b FROM $db.t"}},
	{"sequence", []string{"innodb", "aria"}, []string{"CREATE SEQUENCE $db.s", "CREATE SEQUENCE $db.old"},
		[]string{"ALTER SEQUENCE $db.s RESTART 50", "DROP SEQUENCE $db.old", "CREATE SEQUENCE $db.q START WITH 9", "DO NEXTVAL($db.s)"}},
	{"union", onlyMerge, nil, []string{"ALTER TABLE $db.t UNION=($db.one)"}},
	{"failed", onlyMerge, nil, []string{"!ALTER TABLE $db.t ADD COLUMN id INT"}},
	{"failed", onlyCSV, nil, []string{"!ALTER TABLE $db.t ADD COLUMN c INT"}},
}

// moment is one at which operations happen. A number counts the files of table
// t: one of InnoDB has its tablespace and then its definition, the others have
// the definition, data and index.
type moment struct {
	name  string
	files int // that a table must have
	// innodb says that other engines see no difference to redo-started.
	innodb bool
}

var moments = []moment{
	{"redo-started", 0, false}, {"stage-start", 0, true}, {"tablespaces-listed", 0, true},
	{"before-copy 1", 1, false}, {"after-copy 1", 1, false}, {"after-copy 2", 2, false}, {"after-copy 3", 3, false},
	{"stage-flush", 0, false},
}

// counted returns the table whose files are counted, and their number.
func counted(o operation, engine string) (table string, files int) {
	table, files = "t", 3
	if engine == "innodb" || engine == "merge" {
		files = 2
	}
	switch o.name {
	case "only_import":
		files-- // it has no tablespace yet
	case "partition":
		return "t#P#b", files - 1 // the definition is not the partition's
	case "unpartition":
		return "t#P#p1", files - 1
	}
	return table, files
}

// engines are the engines with their options.
var engines = map[string]string{
	"innodb": "ENGINE=InnoDB",
	"aria":   "ENGINE=Aria TRANSACTIONAL=1",
	"aria0":  "ENGINE=Aria TRANSACTIONAL=0",
	"myisam": "ENGINE=MyISAM",
	"csv":    "ENGINE=CSV",
	"merge":  "ENGINE=MERGE UNION=($db.one, $db.two) INSERT_METHOD=LAST",
}

// keys are what the columns of a table have besides.
var keys = map[string]string{"csv": "", "merge": ", KEY (id)"}

func columns(engine string) string {
	key, ok := keys[engine]
	if !ok {
		key = ", PRIMARY KEY (id)"
	}
	return "(id INT NOT NULL, a INT NOT NULL, b VARCHAR(300) NOT NULL" + key + ")"
}

// race is one operation on a table of one engine at one moment.
type race struct {
	operation
	engine string
	moment string
	db     string
	fill   *strings.Replacer
}

func newRace(o operation, engineName, moment string) race {
	r := race{operation: o, engine: engineName, moment: moment}
	r.db = "race_" + strings.NewReplacer("-", "_", " ", "_").Replace(engineName+"_"+o.name+"_"+moment)
	other := map[string]string{"innodb": "Aria", "aria": "MyISAM", "aria0": "InnoDB", "myisam": "InnoDB", "csv": "InnoDB"}[engineName]
	own := strings.ReplaceAll(engines[engineName], "$db", r.db)
	r.fill = strings.NewReplacer("$db", r.db, "$new", r.db+"_new", "$engine", other, "$own", own, "$table", columns(engineName)+" "+own,
		"$rows", "SELECT seq, seq % 77, REPEAT(MD5(seq), 7) FROM mysql.seq_1_to_200", "$more", "SELECT seq, seq % 7, REPEAT(MD5(seq), 5) FROM mysql.seq_1000_to_1099")
	return r
}

// races are all that make sense.
func races() (all []race) {
	for _, o := range operations {
		only := o.only
		if only == nil {
			only = everyEngine[:len(everyEngine)-1]
		}
		for _, e := range only {
			for _, m := range moments {
				if _, n := counted(o, e); m.files <= n && (e == "innodb" || !m.innodb) {
					all = append(all, newRace(o, e, m.name))
				}
			}
		}
	}
	return all
}

func (r race) statements(templates []string) (list []string) {
	for _, s := range templates {
		list = append(list, r.fill.Replace(s))
	}
	return list
}

// prepare makes the table as it is when the backup begins.
func (r race) prepare(ctx context.Context, s *servertest.Server) error {
	list := []string{"CREATE DATABASE $db"}
	if r.engine == "merge" {
		for _, t := range []string{"one", "two"} {
			list = append(list, "CREATE TABLE $db."+t+" "+columns("merge")+" ENGINE=MyISAM")
		}
	}
	list = append(list, "CREATE TABLE $db.t $table", "INSERT INTO $db.t $rows")
	return s.Exec(ctx, r.statements(slices.Concat(list, r.before))...)
}

// happen executes the operation.
func (r race) happen(ctx context.Context, s *servertest.Server) error {
	for _, q := range r.statements(r.do) {
		refused, must := strings.CutPrefix(q, "!")
		var err error
		if q == "$import" {
			err = s.ImportTablespace(ctx, r.db, "u", "t")
		} else {
			err = s.Exec(ctx, "SET SESSION lock_wait_timeout = "+r.patience(), refused)
		}
		if r.patience() == "0" && isLockWait(err) {
			continue
		}
		if _, ok := errors.AsType[*mysql.MySQLError](err); must && ok {
			continue
		}
		if must {
			return fmt.Errorf("%s was not refused: %v", q, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// key says when it happens.
func (r race) key() string {
	if strings.Contains(r.moment, " ") {
		table, _ := counted(r.operation, r.engine)
		return r.moment + " " + r.db + "/" + table
	}
	return r.moment
}

// patience is lock_wait_timeout of the statements. BACKUP STAGE FLUSH holds up
// what writes to tables without transactions, some ALTER TABLE too: these cannot
// happen at that moment.
func (r race) patience() string {
	if r.moment == "stage-flush" && r.engine != "innodb" {
		return "0"
	}
	return "60"
}

func isLockWait(err error) bool {
	e, ok := errors.AsType[*mysql.MySQLError](err)
	return ok && e.Number == 1205
}

// clients is how many races are prepared, or happen, side by side.
const clients = 4

// prepareRaces makes the tables of all races and waits until they are so old
// that copies of them are believed.
func prepareRaces(t *testing.T, s *servertest.Server, all []race) {
	t.Helper()
	var g errgroup.Group
	for n := range clients {
		g.Go(func() error {
			for i := n; i < len(all); i += clients {
				if err := all[i].prepare(t.Context(), s); err != nil {
					return err
				}
			}
			return nil
		})
	}
	check(t, g.Wait())
	growOld()
}

// happening executes races when their moment comes.
type happening struct {
	server *servertest.Server

	mu       sync.Mutex
	races    map[string][]race // still to come, by key
	calls    map[string]int    // of an event, by event and table
	happened int
}

func (h *happening) event(ctx context.Context, event, table string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := event
	if table != "" {
		h.calls[event+table]++
		key = fmt.Sprintf("%s %d %s", event, h.calls[event+table], table)
	}
	var g errgroup.Group
	g.SetLimit(clients)
	for _, r := range h.races[key] {
		g.Go(func() error {
			if err := r.happen(ctx, h.server); err != nil {
				return fmt.Errorf("%s: %w", r.db, err)
			}
			return nil
		})
		h.happened++
	}
	if err := g.Wait(); err != nil {
		return err
	}
	delete(h.races, key)
	switch event {
	case "stage-block-ddl":
		return h.write(ctx, 0)
	case "reconcile":
		return h.write(ctx, 1)
	}
	return nil
}

// write changes every other table with transactions: until commits are blocked
// too, they can be written.
func (h *happening) write(ctx context.Context, odd int) error {
	rows, err := h.server.DB().QueryContext(ctx, `SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES
		WHERE TABLE_SCHEMA LIKE 'race%' AND TABLE_TYPE = 'BASE TABLE' AND (ENGINE = 'InnoDB' OR ENGINE = 'Aria' AND CREATE_OPTIONS LIKE '%transactional=1%') ORDER BY 1, 2`)
	if err != nil {
		return err
	}
	defer rows.Close()
	list := []string{"SET SESSION lock_wait_timeout = 60"}
	for n := 0; rows.Next(); n++ {
		var db, table string
		if err := rows.Scan(&db, &table); err != nil {
			return err
		}
		if n%2 == odd {
			list = append(list, "UPDATE "+db+"."+table+" SET a = a + 1 WHERE id % 3 = 1")
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return h.server.Exec(ctx, list...)
}

// sameNames compares the names of all files in the directories of databases.
func sameNames(t *testing.T, source, copied string) {
	t.Helper()
	a, b := databaseFiles(t, source), databaseFiles(t, copied)
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if !b[name] {
			t.Errorf("%s: only in the source", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b)) {
		if !a[name] {
			t.Errorf("%s: only in the copy", name)
		}
	}
}

// sdi: MySQL names such files by an id, which a replica gives a table itself.
var sdi = regexp.MustCompile(`_[0-9]+[.]sdi$`)

func databaseFiles(t *testing.T, datadir string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	check(t, fs.WalkDir(os.DirFS(datadir), ".", func(name string, _ fs.DirEntry, err error) error {
		// A server keeps a .TRG- of a .TRG while it changes triggers, and may
		// leave it behind when that fails.
		if strings.Contains(name, "/") && !strings.HasSuffix(name, ".TRG-") && !strings.HasSuffix(name, ".TRN-") && !strings.HasPrefix(name, "#innodb_") {
			names[sdi.ReplaceAllString(name, "_ID.sdi")] = true
		}
		return err
	}))
	return names
}

// P1: no lock keeps a file that is none of the server's, such as the .cfg of an
// export that ends. One that goes while it is to be copied is left out, and said.
func TestForeignFileGoesUnderTheLocks(t *testing.T) {
	source := servertest.New(t, servertest.Options{})
	check(t, source.Exec(t.Context(), "CREATE DATABASE aside", "CREATE TABLE aside.a (id INT PRIMARY KEY) ENGINE=InnoDB"))
	note := filepath.Join(source.Datadir(), "aside", "note.txt")
	write := func() error { return os.WriteFile(note, []byte(time.Now().String()), 0o600) }
	check(t, write())
	var copies, locked atomic.Int32
	hooked(t, "aside/note", func(event, table string) error {
		switch {
		case event == "stage-block-ddl":
			locked.Store(1)
			return write() // so that it must be copied again
		case event == "before-copy" && table != "":
			copies.Add(1)
			if locked.Load() == 1 {
				return os.Remove(note)
			}
		}
		return nil
	})
	dir := filepath.Join(t.TempDir(), "copy")
	log, _ := pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + source.Socket()}, []string{"xbstream", "-x", "--prepare", "-C", dir})
	if copies.Load() != 2 || !strings.Contains(log, note) {
		t.Errorf("it was to be copied %d times, want 2, and xbsend said:\n%s", copies.Load(), log)
	}
	if _, err := os.Lstat(filepath.Join(dir, "aside", "note.txt")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the copy holds a file that was removed: %v", err)
	}
}
