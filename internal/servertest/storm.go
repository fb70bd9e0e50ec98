package servertest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sync/errgroup"
)

// Storm is a running load of DDL: tables of every engine are created, filled,
// altered in every way, renamed, swapped, truncated, exchanged with partitions,
// discarded and imported, and dropped, databases, views, triggers and sequences
// too, without end. It goes beside a Load.
type Storm struct {
	stop    context.CancelFunc
	workers errgroup.Group
	steps   atomic.Int64

	mu   sync.Mutex
	done map[string]int
}

// Done returns how many statements of each kind have succeeded. A kind is a statement
// without its names and numbers.
func (st *Storm) Done() map[string]int {
	st.mu.Lock()
	defer st.mu.Unlock()
	return maps.Clone(st.done)
}

// Names and values of the statements of a storm.
var nameOrValue = regexp.MustCompile("`[^`]*`\\.?|[a-z0-9$_]+|'[^']*'|\\(.*")

func kindOf(statement string) string {
	return strings.Join(strings.Fields(nameOrValue.ReplaceAllString(statement, " ")), " ")
}

func (st *Storm) succeeded(statement string) {
	kind := kindOf(statement)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.done[kind]++
}

// Await returns when the storm has taken that many steps more, of one or a few
// statements each.
func (st *Storm) Await(ctx context.Context, steps int) error {
	return Await(ctx, "steps of the storm", steps, func() int { return int(st.steps.Load()) })
}

// stormEngines each have a worker of their own, in a database of its own.
var stormEngines = []struct{ name, options string }{
	{"innodb", "ENGINE=InnoDB"},
	{"zip", "ENGINE=InnoDB ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8"},
	{"aria", "ENGINE=Aria TRANSACTIONAL=1"},
	{"aria0", "ENGINE=Aria TRANSACTIONAL=0"},
	{"myisam", "ENGINE=MyISAM"},
	{"csv", "ENGINE=CSV"},
	{"parts", "ENGINE=InnoDB"},
	{importer, "ENGINE=InnoDB"},
	{"archive", "ENGINE=ARCHIVE"},
	{undoer, "ENGINE=InnoDB"},
}

// importer is the worker that discards and imports tablespaces.
const importer = "import"

// StartStorm begins the storm; only some engines if names are given. Nothing is
// imported while innodb_file_per_table is off: a table in the system tablespace
// has no tablespace of its own.
func (s *Server) StartStorm(ctx context.Context, seed uint64, only ...string) (*Storm, error) {
	filePerTable, err := s.String(ctx, "SELECT @@GLOBAL.innodb_file_per_table")
	if err != nil {
		return nil, fmt.Errorf("start storm: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	st := &Storm{stop: cancel, done: map[string]int{}}
	for i, e := range stormEngines {
		if len(only) > 0 && !slices.Contains(only, e.name) || e.name == importer && filePerTable == "0" {
			continue
		}
		ofMySQL, ofMariaDB := e.name == "archive" || e.name == undoer, strings.HasPrefix(e.name, "aria")
		if s.opts.Release.MySQL() && ofMariaDB || !s.opts.Release.MySQL() && ofMySQL {
			continue
		}
		conn, err := s.db.Conn(ctx)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("start storm: %w", err)
		}
		w := &stormWorker{storm: st, server: s, conn: conn, engine: e.name, options: e.options, rand: rand.New(rand.NewPCG(seed, uint64(i))), db: "storm_" + e.name}
		st.workers.Go(func() error { return w.run(ctx) })
	}
	return st, nil
}

// Stop ends the storm after the statements under way.
func (st *Storm) Stop() error {
	st.stop()
	return st.workers.Wait()
}

type stormWorker struct {
	storm   *Storm
	server  *Server
	conn    *sql.Conn
	engine  string
	options string
	db      string
	rand    *rand.Rand
	n       int
}

func (w *stormWorker) run(ctx context.Context) error {
	work := context.WithoutCancel(ctx)
	defer discard(w.conn)
	// A backup holds DDL up for a moment; a test that hangs is none.
	if err := w.do(work, "SET SESSION lock_wait_timeout = 120"); err != nil {
		return err
	}
	for _, q := range []string{"CREATE DATABASE IF NOT EXISTS " + w.db, "USE " + w.db} {
		if err := w.do(work, q); err != nil {
			return err
		}
	}
	step := w.step
	if w.engine == importer {
		step = w.importTwin
		// An import that failed left them.
		if err := w.server.DropTwins(work); err != nil {
			return fmt.Errorf("storm of %s: %w", w.engine, err)
		}
	}
	if w.engine == undoer {
		step = w.truncateUndo
		if err := w.createUndo(work); err != nil {
			return fmt.Errorf("storm of %s: %w", w.engine, err)
		}
	}
	for ctx.Err() == nil {
		if err := step(work); err != nil {
			return fmt.Errorf("storm of %s: %w", w.engine, err)
		}
		w.storm.steps.Add(1)
		time.Sleep(time.Duration(w.rand.IntN(10)) * time.Millisecond)
	}
	return nil
}

// names the tables of a worker have: few, so that they are reused at once.
var stormNames = []string{"a", "b", "c", "d", "ä $"}

func (w *stormWorker) name() string {
	return ident(w.db) + "." + ident(stormNames[w.rand.IntN(len(stormNames))])
}

func (w *stormWorker) step(ctx context.Context) error {
	t := w.name()
	options := w.options
	if w.engine == "parts" && w.rand.IntN(2) == 0 {
		options += " PARTITION BY HASH (id) PARTITIONS 3"
	}
	all := []func() error{
		func() error { return w.create(ctx, t, options) },
		func() error { return w.create(ctx, t, options) },
		func() error { return w.fill(ctx, t) },
		func() error { return w.fill(ctx, t) },
		func() error { return w.fill(ctx, t) },
		func() error { return w.do(ctx, "DROP TABLE IF EXISTS "+t) },
		func() error { return w.do(ctx, "TRUNCATE TABLE "+t) },
		func() error { return w.do(ctx, "RENAME TABLE "+t+" TO "+w.name()) },
		func() error { return w.swap(ctx, t) },
		func() error {
			return w.do(ctx, fmt.Sprintf("ALTER TABLE %s ADD COLUMN x%d INT NOT NULL DEFAULT 7", t, w.rand.IntN(4)))
		},
		func() error {
			return w.do(ctx, fmt.Sprintf("ALTER TABLE %s DROP COLUMN x%d", t, w.rand.IntN(4)))
		},
		func() error {
			return w.do(ctx, fmt.Sprintf("ALTER TABLE %s ADD INDEX i%d (a)", t, w.rand.IntN(3)))
		},
		func() error {
			return w.do(ctx, fmt.Sprintf("ALTER TABLE %s DROP INDEX i%d", t, w.rand.IntN(3)))
		},
		func() error { return w.do(ctx, "ALTER TABLE "+t+" FORCE, ALGORITHM=COPY") },
		func() error { return w.do(ctx, "OPTIMIZE TABLE "+t) },
		func() error { return w.database(ctx) },
		func() error { return w.view(ctx, t) },
		func() error { return w.trigger(ctx, t) },
		func() error { return w.sequence(ctx) },
	}
	if w.engine == "innodb" {
		all = append(all, func() error { return w.do(ctx, "ALTER TABLE "+t+" FORCE, ALGORITHM=INPLACE") })
	}
	if w.engine == "parts" {
		all = append(all, func() error { return w.exchange(ctx, t) }, func() error { return w.exchange(ctx, t) }, func() error {
			return w.do(ctx, "ALTER TABLE "+t+" TRUNCATE PARTITION p1")
		})
	}
	return all[w.rand.IntN(len(all))]()
}

func (w *stormWorker) create(ctx context.Context, t, options string) error {
	columns := "(id INT NOT NULL PRIMARY KEY, a INT, b VARCHAR(300)) "
	if w.engine == "csv" || w.engine == "archive" { // no keys
		columns = "(id INT NOT NULL, a INT NOT NULL, b VARCHAR(300) NOT NULL) "
	}
	return w.do(ctx, "CREATE TABLE IF NOT EXISTS "+t+" "+columns+options)
}

func (w *stormWorker) fill(ctx context.Context, t string) error {
	from := w.rand.IntN(2000)
	return w.do(ctx, w.server.insertNumbers(t+" (id, a, b)", "SELECT seq, seq % 77, REPEAT(LEFT(SHA2(seq, 256), 32), 6)", int64(from), int64(from+w.rand.IntN(600))))
}

func (w *stormWorker) swap(ctx context.Context, t string) error {
	other, spare := w.name(), ident(w.db)+".spare"
	if other == t {
		return nil
	}
	return w.do(ctx, "RENAME TABLE "+t+" TO "+spare+", "+other+" TO "+t+", "+spare+" TO "+other)
}

// database creates or drops a database with a table in it, or moves a table
// there.
func (w *stormWorker) database(ctx context.Context) error {
	db := ident(fmt.Sprintf("%s_%d", w.db, w.rand.IntN(2)))
	switch w.rand.IntN(3) {
	case 0:
		return w.do(ctx, "DROP DATABASE IF EXISTS "+db)
	case 1:
		return w.do(ctx, "RENAME TABLE "+w.name()+" TO "+db+".moved")
	}
	if err := w.do(ctx, "CREATE DATABASE IF NOT EXISTS "+db); err != nil {
		return err
	}
	return w.create(ctx, db+".t", w.options)
}

func (w *stormWorker) view(ctx context.Context, t string) error {
	v := ident(w.db) + ".v" + fmt.Sprint(w.rand.IntN(2))
	if w.rand.IntN(2) == 0 {
		return w.do(ctx, "DROP VIEW IF EXISTS "+v)
	}
	return w.do(ctx, "CREATE OR REPLACE VIEW "+v+" AS SELECT id FROM "+t)
}

func (w *stormWorker) trigger(ctx context.Context, t string) error {
	if w.rand.IntN(2) == 0 {
		return w.do(ctx, "DROP TRIGGER IF EXISTS "+ident(w.db)+".tr")
	}
	return w.do(ctx, "CREATE TRIGGER "+ident(w.db)+".tr BEFORE INSERT ON "+t+" FOR EACH ROW SET NEW.a = NEW.a + 1")
}

func (w *stormWorker) exchange(ctx context.Context, t string) error {
	single := w.name()
	if single != t && w.rand.IntN(2) == 0 {
		// A table with the same columns.
		for _, q := range []string{"DROP TABLE IF EXISTS " + single, "CREATE TABLE " + single + " LIKE " + t, "ALTER TABLE " + single + " REMOVE PARTITIONING"} {
			if err := w.do(ctx, q); err != nil {
				return err
			}
		}
		if err := w.fill(ctx, single); err != nil {
			return err
		}
	}
	// Only rows that belong into the partition are let in.
	if err := w.do(ctx, "DELETE FROM "+single+" WHERE id % 3 <> 1"); err != nil {
		return err
	}
	return w.do(ctx, "ALTER TABLE "+t+" EXCHANGE PARTITION p1 WITH TABLE "+single)
}

func (w *stormWorker) sequence(ctx context.Context) error {
	if w.server.opts.Release.MySQL() { // has none
		return w.instant(ctx)
	}
	q := ident(w.db) + ".q" + fmt.Sprint(w.rand.IntN(2))
	switch w.rand.IntN(5) {
	case 0:
		return w.do(ctx, "DROP SEQUENCE IF EXISTS "+q)
	case 1:
		return w.do(ctx, "CREATE SEQUENCE IF NOT EXISTS "+q+" CACHE 5 "+w.options)
	case 2:
		return w.do(ctx, "ALTER SEQUENCE "+q+" RESTART 1000")
	case 3:
		return w.do(ctx, "RENAME TABLE "+q+" TO "+q+"r")
	}
	return w.do(ctx, "DO NEXTVAL("+q+")")
}

// importTwin puts an imported twin in the place of a table, which has the same
// rows afterwards. A replica could not follow: it lacks the files. So the binary
// log hears only of the rows in table t, not of twin and old, which a copy may
// have in any state.
func (w *stormWorker) importTwin(ctx context.Context) error {
	for _, q := range []string{
		"CREATE TABLE IF NOT EXISTS $db.t (id INT NOT NULL PRIMARY KEY, a INT, b VARCHAR(300)) ENGINE=InnoDB",
		fmt.Sprintf("DELETE FROM $db.t WHERE a = %d", w.rand.IntN(77)),
		w.server.insertNumbers("$db.t (id, a, b)", fmt.Sprintf("SELECT seq, seq %% 77, REPEAT(LEFT(SHA2(seq + %d, 256), 32), 6)", w.rand.IntN(1000)), 1, 2000),
		"SET SESSION sql_log_bin = 0",
		"CREATE TABLE $db.twin LIKE $db.t",
		"",
		"RENAME TABLE $db.t TO $db.old, $db.twin TO $db.t",
		"DROP TABLE $db.old",
		"SET SESSION sql_log_bin = 1",
	} {
		var err error
		if q == "" {
			err = w.server.ImportTablespace(ctx, w.db, "t", "twin")
		} else {
			_, err = w.conn.ExecContext(ctx, strings.ReplaceAll(q, "$db", w.db))
		}
		if err != nil {
			return fmt.Errorf("%.200s: %w", q, err)
		}
	}
	w.storm.succeeded("ALTER TABLE IMPORT TABLESPACE")
	return nil
}

// DropTwins drops what the storm leaves of its imports and a binary log knows
// nothing of: of one that a copy was taken in, or that failed.
func (s *Server) DropTwins(ctx context.Context) error {
	db := "storm_" + importer
	return s.Exec(ctx, "SET SESSION sql_log_bin = 0", "DROP TABLE IF EXISTS "+db+".twin, "+db+".old")
}

// do executes a statement. Most errors are the storm's nature: a table that is
// not there, a column that is. Those of a broken server or statement are not.
func (w *stormWorker) do(ctx context.Context, q string) error {
	w.n++
	_, err := w.conn.ExecContext(ctx, q)
	if e, refused := errors.AsType[*mysql.MySQLError](err); refused && !slices.Contains(broken, e.Number) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%.200s: %w", q, err)
	}
	w.storm.succeeded(q)
	return nil
}

// broken are errors of statements that could never work: no database selected,
// unknown engine, syntax.
var broken = []uint16{1046, 1286, 1064}
