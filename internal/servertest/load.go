package servertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/internal/pause"
)

// LoadOptions says what is written and how fast. The zero value is four
// writers, 300 rows a table, as fast as the server takes it.
type LoadOptions struct {
	// Writers is the number of connections that write; 0 means 4.
	Writers int
	// Seed makes the sequence of each writer's statements repeatable.
	Seed uint64
	// MaxRowsPerTable bounds the tables: ids are drawn from 1 to this; 0
	// means 300.
	MaxRowsPerTable int
	// Rate is the number of operations a second of all writers together; 0
	// means no limit.
	Rate int
	// BulkBytes is the size of the rows put into further InnoDB tables
	// before the writers start, in bytes, roughly.
	BulkBytes int64
}

func (o LoadOptions) withDefaults() LoadOptions {
	if o.Writers == 0 {
		o.Writers = 4
	}
	if o.MaxRowsPerTable == 0 {
		o.MaxRowsPerTable = 300
	}
	return o
}

// LoadCounts says what a load did.
type LoadCounts struct {
	// Operations by name: insert, update, delete, blob, transaction, …
	Operations map[string]int
	// Rollbacks counts transactions rolled back on purpose, Retried those
	// that the server rolled back (deadlock, lock wait) or refused (foreign
	// key).
	Rollbacks, Retried int
}

// Total is the number of all operations.
func (c LoadCounts) Total() int {
	n := 0
	for v := range maps.Values(c.Operations) {
		n += v
	}
	return n
}

// Load is a running write load.
type Load struct {
	stop    context.CancelFunc
	writers errgroup.Group

	mu     sync.Mutex
	counts LoadCounts
}

// CreateSchema creates the tables of the load and fills the bulk tables. The
// statements are in the binary log, the bulk rows are not.
func (s *Server) CreateSchema(ctx context.Context, o LoadOptions) error {
	if err := s.Exec(ctx, schema(s.opts)...); err != nil {
		return fmt.Errorf("create schema: %w", err)
	}
	if err := s.fillBulk(ctx, o); err != nil {
		return fmt.Errorf("fill bulk tables: %w", err)
	}
	return s.fillTables(ctx, o.withDefaults())
}

// The bulk tables' rows are about bulkRow bytes, in transactions of about
// bulkBatch rows: with a small redo log, larger ones only wait for checkpoints.
const (
	bulkTables = 4
	bulkRow    = 2 << 10
	bulkBatch  = 4000
)

func bulkTable(i int) string { return fmt.Sprintf("%s.bulk_%d", ident(dbPlain), i) }

func (s *Server) fillBulk(ctx context.Context, o LoadOptions) error {
	rows := o.BulkBytes / bulkTables / bulkRow
	for i := range bulkTables {
		statements := []string{
			"CREATE TABLE " + bulkTable(i) + " (id INT NOT NULL PRIMARY KEY, a INT, b VARCHAR(200), c MEDIUMBLOB, KEY a (a)) ENGINE=InnoDB",
			"SET SESSION sql_log_bin = 0",
		}
		for from := int64(1); from <= rows; from += bulkBatch {
			// Half of a row is hexadecimal noise, half of it is text:
			// it compresses about as well as people's data do.
			statements = append(statements, s.insertNumbers(bulkTable(i), "SELECT seq, seq % 1000, LEFT(SHA2(seq, 256), 32), CONCAT(REPEAT('some text of row ', 64), "+
				"SHA2(seq, 512), SHA2(seq + 1, 512), SHA2(seq + 2, 512), SHA2(seq + 3, 512), "+
				"SHA2(seq + 4, 512), SHA2(seq + 5, 512), SHA2(seq + 6, 512), SHA2(seq + 7, 512))",
				from, min(from+bulkBatch-1, rows)))
		}
		if err := s.Exec(ctx, append([]string{"USE " + ident(dbPlain)}, statements...)...); err != nil {
			return err
		}
	}
	return nil
}

// insertNumbers is a statement that inserts what is selected of the numbers seq from
// one to another. A database must be in use.
func (s *Server) insertNumbers(into, selected string, from, to int64) string {
	if !s.opts.Release.MySQL() {
		return fmt.Sprintf("INSERT IGNORE INTO %s %s FROM mysql.seq_%d_to_%d", into, selected, from, to)
	}
	return fmt.Sprintf("INSERT IGNORE INTO %s WITH RECURSIVE numbers (seq) AS (SELECT %d UNION ALL SELECT seq + 1 FROM numbers WHERE seq < %d) %s FROM numbers",
		into, from, to, strings.Replace(selected, "SELECT ", "SELECT /*+ SET_VAR(cte_max_recursion_depth = 100000) */ ", 1))
}

// fillTables puts half of the rows into every table, so that updates and
// deletes find some from the start.
func (s *Server) fillTables(ctx context.Context, o LoadOptions) error {
	for _, t := range tables(s.opts) {
		rows := o.MaxRowsPerTable / 2
		q := fmt.Sprintf("INSERT INTO %s SET id = ?, a = ?, b = ?, c = ?%s", t.ref(), t.set)
		for id := 1; id <= rows; id++ {
			if _, err := s.db.ExecContext(ctx, q, id, id%100, fmt.Sprint("first ", id), strings.Repeat("c", id%500)); err != nil {
				return fmt.Errorf("fill %s: %w", t.ref(), err)
			}
		}
	}
	return nil
}

// StartLoad lets writers write to the tables of CreateSchema until Stop.
func (s *Server) StartLoad(ctx context.Context, o LoadOptions) (*Load, error) {
	o = o.withDefaults()
	if err := s.Exec(ctx, "SET GLOBAL event_scheduler = ON"); err != nil {
		return nil, fmt.Errorf("start load: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &Load{stop: cancel, counts: LoadCounts{Operations: map[string]int{}}}
	for n := range o.Writers {
		w := &writer{
			load: l, server: s, rows: o.MaxRowsPerTable,
			bulkRows: int(o.BulkBytes / bulkTables / bulkRow),
			tables:   tables(s.opts),
			rand:     rand.New(rand.NewPCG(o.Seed, uint64(n))),
		}
		if o.Rate > 0 {
			w.pause = time.Duration(o.Writers) * time.Second / time.Duration(o.Rate)
		}
		l.writers.Go(func() error { return w.run(ctx) })
	}
	return l, nil
}

// Stop ends the writers and says what they did. The error is the first that a
// writer met and did not expect.
func (l *Load) Stop() (LoadCounts, error) {
	l.stop()
	err := l.writers.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counts
	c.Operations = maps.Clone(c.Operations)
	return c, err
}

// StopEvents turns the event scheduler off and waits for the events under way,
// which the server does not: then nothing writes any more once the load stopped.
func (s *Server) StopEvents(ctx context.Context) error {
	if err := s.Exec(ctx, "SET GLOBAL event_scheduler = OFF"); err != nil {
		return err
	}
	for limit := time.Now().Add(standTimeout); ; time.Sleep(10 * time.Millisecond) {
		n, err := s.String(ctx, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE COMMAND = 'Connect' OR USER = 'event_scheduler'")
		if err != nil || n == "0" {
			return err
		}
		if time.Now().After(limit) {
			return fmt.Errorf("an event still runs after %v", standTimeout)
		}
	}
}

// Operations is the number of operations done so far.
func (l *Load) Operations() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts.Total()
}

// Await returns when the writers have done that many operations more.
func (l *Load) Await(ctx context.Context, operations int) error {
	return Await(ctx, "operations of the load", operations, l.Operations)
}

// Await returns when done has grown by n. The error says of what there were too
// few for too long.
func Await(ctx context.Context, what string, n int, done func() int) error {
	from := done()
	for limit := time.Now().Add(standTimeout); done() < from+n; {
		if time.Now().After(limit) {
			return fmt.Errorf("%d of %d %s in %v", done()-from, n, what, standTimeout)
		}
		if err := pause.For(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func (l *Load) count(f func(*LoadCounts)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.counts)
}

// rejected says whether the server refused a statement for a reason that
// concurrent writers must expect.
func rejected(err error) bool {
	const (
		lockWaitTimeout    = 1205
		deadlock           = 1213
		rowIsReferenced    = 1451
		noReferencedRow    = 1452
		changedSinceRead   = 1020
		recordWasVersioned = 4129
		needsReprepare     = 1615 // its tables were closed again and again meanwhile
	)
	const fileNotFound = 29
	var e *mysql.MySQLError
	if errors.As(err, &e) && e.Number == fileNotFound && strings.Contains(e.Message, ".CSV'") {
		// 11.8.9 on a busy machine now and then misses the file of a CSV table
		// that another session has just written, also when no backup is taken.
		return true
	}
	return errors.As(err, &e) && slices.Contains([]uint16{
		lockWaitTimeout, deadlock, rowIsReferenced, noReferencedRow, changedSinceRead, recordWasVersioned, needsReprepare,
	}, e.Number)
}
