package e2e

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/internal/servertest"
)

// A replicaRow is a replica under load that copies are taken of.
type replicaRow struct {
	release servertest.Release
	mode    string // slave_parallel_mode; empty: one applier a connection
	// xa makes half of the transactions XA transactions. A replica does not apply
	// one and record its GTID in one transaction, so that a copy may hold one
	// without the other (seen: XAER_NOTA at XA ROLLBACK, XAER_DUPID at XA PREPARE).
	// These copies are taken with --safe-slave-backup.
	xa       bool
	multi    bool // two sources, one by GTID, one by file and position
	semiSync bool // the sources wait for the replica
	noLog    bool // the replica writes no binary log
	// copies are the copies to take, each started with a binary log or without.
	copies []bool
}

func (r replicaRow) String() string {
	words := []string{r.release.String(), "single-threaded"}
	if r.mode != "" {
		words[1] = r.mode
	}
	for _, w := range []struct {
		is   bool
		word string
	}{{r.xa, "XA"}, {r.multi, "two sources"}, {r.semiSync, "semi-sync"}, {r.noLog, "no log on the replica"}} {
		if w.is {
			words = append(words, w.word)
		}
	}
	return strings.Join(words, ", ")
}

// shortReplicas has each mode, kind of topology and release at least once.
var shortReplicas = []replicaRow{
	{release: servertest.MariaDB1011, xa: true, copies: []bool{true}},
	{release: servertest.MariaDB118, multi: true, copies: []bool{false}},
	{release: servertest.MariaDB1011, mode: "conservative", semiSync: true, copies: []bool{false}},
	{release: servertest.MariaDB118, mode: "conservative", xa: true, copies: []bool{true}},
	{release: servertest.MariaDB1011, mode: "optimistic", copies: []bool{false, true}},
	{release: servertest.MariaDB118, mode: "optimistic", xa: true, copies: []bool{true}},
	{release: servertest.MariaDB118, mode: "optimistic", noLog: true, semiSync: true, copies: []bool{false}},
	{release: servertest.MariaDB1011, mode: "aggressive", multi: true, copies: []bool{true}},
	{release: servertest.MariaDB118, mode: "aggressive", copies: []bool{false}},
}

// allReplicas are all combinations, 112 copies.
func allReplicas() (all []replicaRow) {
	for _, release := range []servertest.Release{servertest.MariaDB1011, servertest.MariaDB118} {
		for _, mode := range []string{"", "conservative", "optimistic", "aggressive"} {
			row := replicaRow{release: release, mode: mode, copies: []bool{false, true}}
			for _, row.xa = range []bool{false, true} {
				row.multi, row.semiSync = false, false
				all = append(all, row)
				row.multi = true
				all = append(all, row)
				row.multi, row.semiSync = false, true
				all = append(all, row)
			}
			all = append(all, replicaRow{release: release, mode: mode, noLog: true, copies: row.copies})
		}
	}
	return all
}

// G1, P1 of replicas: whatever the appliers were doing, a copy starts, takes the
// replica's place and has the same rows.
func TestCopiesOfLoadedReplicas(t *testing.T) {
	servertest.Releases(t)
	rows := shortReplicas
	if os.Getenv("XB_REPEAT") != "" {
		rows = allReplicas()
	}
	var taken, good atomic.Int64
	t.Run("rows", func(t *testing.T) {
		for n := range repeats(t) {
			for _, row := range rows {
				t.Run(fmt.Sprintf("%s/%d", row, n), func(t *testing.T) {
					t.Parallel()
					l := newLoadedReplica(t, row, uint64(n))
					for i, logBin := range row.copies {
						taken.Add(1)
						if t.Run(fmt.Sprintf("copy %d, log-bin %t", i, logBin), func(t *testing.T) { l.copy(t, logBin) }) {
							good.Add(1)
						}
					}
					check(t, l.stop())
					t.Logf("%d transactions; appliers waited for prior ones in %d of %d looks, at most %d", l.transactions.Load(), l.waiting, l.looks, l.most)
				})
			}
		}
	})
	t.Logf("%d of %d copies start, follow and are equal", good.Load(), taken.Load())
}

// appliers is slave_parallel_threads of the replicas and their copies.
const appliers = 6

// args are the options of the replica, and of a copy in its place.
func (r replicaRow) args(logBin bool) []string {
	args := []string{"--event-scheduler=OFF"}
	if logBin {
		args = append(args, "--log-slave-updates")
	}
	if r.mode != "" {
		args = append(args, fmt.Sprintf("--slave-parallel-threads=%d", appliers), "--slave-parallel-mode="+r.mode)
	}
	if r.semiSync {
		args = append(args, "--rpl-semi-sync-slave-enabled=ON")
	}
	return args
}

// loadedReplica is a replica with its sources, which are written to all the time.
type loadedReplica struct {
	*servertest.Server
	row     replicaRow
	sources map[string]*servertest.Server // by connection
	gate    sync.RWMutex                  // held for reading by each transaction of the load
	stop    func() error                  // the load

	transactions, behind atomic.Int64
	waiting, looks, most int // of appliers; read after stop
}

func newLoadedReplica(t *testing.T, row replicaRow, seed uint64) *loadedReplica {
	ctx := t.Context()
	l := &loadedReplica{row: row, sources: map[string]*servertest.Server{}}
	connections := []string{""}
	if row.multi {
		connections = append(connections, named)
	}
	l.Server = servertest.New(t, servertest.Options{Release: row.release, ServerID: 5, LogBin: !row.noLog, Args: row.args(!row.noLog)})
	for i, connection := range connections {
		source := servertest.New(t, servertest.Options{Release: row.release, LogBin: true, TCP: true, ServerID: uint32(1 + i), Args: []string{
			fmt.Sprintf("--gtid-domain-id=%d", i),
			// Group commit: transactions of one group can be applied at once
			// in every mode.
			"--binlog-commit-wait-count=3", "--binlog-commit-wait-usec=2000",
			fmt.Sprintf("--rpl-semi-sync-master-enabled=%t", row.semiSync),
		}})
		l.sources[connection] = source
		check(t, createLoaded(ctx, source, i))
		use := "MASTER_USE_GTID=slave_pos"
		if i > 0 {
			use = "MASTER_USE_GTID=no, MASTER_LOG_FILE='binlog.000001', MASTER_LOG_POS=4"
		}
		check(t, l.Exec(ctx, servertest.ChangeMaster(connection, source, use)))
	}
	check(t, l.Exec(ctx, "START ALL SLAVES"))
	for _, s := range l.sources {
		check(t, l.WaitCaughtUp(ctx, s))
	}
	l.startLoad(t, seed)
	await(t, "transactions on the replica", func() bool { return l.transactions.Load() > 500 })
	return l
}

// loadedTables is the number of tables of a source, loadedRows of rows in each.
const loadedTables, loadedRows = 6, 400

func loadedTable(source, i int) string { return fmt.Sprintf("db%d.t%d", source, i) }

func createLoaded(ctx context.Context, s *servertest.Server, source int) error {
	list := []string{fmt.Sprintf("CREATE DATABASE db%d", source)}
	for i := range loadedTables {
		list = append(list,
			"CREATE TABLE "+loadedTable(source, i)+" (id INT NOT NULL PRIMARY KEY, a INT NOT NULL, b VARCHAR(200), KEY (a)) ENGINE=InnoDB",
			fmt.Sprintf("INSERT INTO %s SELECT seq, seq, REPEAT('b', 100) FROM mysql.seq_1_to_%d", loadedTable(source, i), loadedRows))
	}
	return s.Exec(ctx, list...)
}

// loadWriters is the number of connections that write to each source.
const loadWriters = 6

// startLoad writes many small transactions, some of which conflict, and some
// large ones: the appliers of those behind a large one wait for it, prepared.
func (l *loadedReplica) startLoad(t *testing.T, seed uint64) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	var g errgroup.Group
	for connection, s := range l.sources {
		source := 0
		if connection != "" {
			source = 1
		}
		for n := range loadWriters {
			w := loadedWriter{source: source, xa: l.row.xa, name: fmt.Sprintf("w%d-%d", source, n), rand: rand.New(rand.NewPCG(seed, uint64(10*source+n)))}
			g.Go(func() error {
				conn, err := s.DB().Conn(t.Context())
				if err != nil {
					return err
				}
				defer conn.Close()
				for ctx.Err() == nil {
					l.gate.RLock()
					err := w.transaction(t.Context(), conn)
					l.gate.RUnlock()
					if err != nil {
						return fmt.Errorf("load: %w", err)
					}
					l.transactions.Add(1)
					for l.behind.Load() > farBehind && ctx.Err() == nil {
						time.Sleep(10 * time.Millisecond)
					}
				}
				return nil
			})
		}
	}
	g.Go(func() error {
		for ctx.Err() == nil {
			if err := l.look(t.Context()); err != nil {
				return err
			}
			time.Sleep(50 * time.Millisecond)
		}
		return nil
	})
	l.stop = func() error {
		cancel()
		return g.Wait()
	}
}

// farBehind is how many transactions the replica may be behind: the appliers
// always have some to apply, and none waits for long to be applied.
const farBehind = 200

// look counts the appliers that wait, and how far behind the replica is.
func (l *loadedReplica) look(ctx context.Context) error {
	n, err := l.String(ctx, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE = 'Waiting for prior transaction to commit'")
	if err != nil {
		return err
	}
	waiting, err := strconv.Atoi(n)
	if err != nil {
		return err
	}
	l.looks++
	if waiting > 0 {
		l.waiting++
	}
	l.most = max(l.most, waiting)
	at, err := l.String(ctx, "SELECT @@gtid_slave_pos")
	if err != nil {
		return err
	}
	behind := -transactionsOf(at)
	for _, s := range l.sources {
		if at, err = s.String(ctx, "SELECT @@gtid_binlog_pos"); err != nil {
			return err
		}
		behind += transactionsOf(at)
	}
	l.behind.Store(behind)
	return nil
}

// transactionsOf is how many transactions a GTID position stands for.
func transactionsOf(position string) (n int64) {
	for gtid := range strings.SplitSeq(position, ",") {
		_, rest, _ := strings.Cut(gtid, "-")
		_, number, _ := strings.Cut(rest, "-")
		one, _ := strconv.ParseInt(number, 10, 64) // the empty position is 0
		n += one
	}
	return n
}

// loadedWriter is one connection of the load.
type loadedWriter struct {
	source int
	xa     bool
	name   string
	rand   *rand.Rand
	n      int
}

// transaction is one transaction; the server may refuse it.
func (w *loadedWriter) transaction(ctx context.Context, conn *sql.Conn) error {
	w.n++
	begin, end := []string{"BEGIN"}, []string{"COMMIT"}
	undo := []string{"ROLLBACK"}
	if w.xa && w.rand.IntN(2) == 0 {
		xid := fmt.Sprintf("'%s-%d'", w.name, w.n)
		begin, end = []string{"XA START " + xid}, []string{"XA END " + xid, "XA PREPARE " + xid, "DO SLEEP(0.003)", "XA COMMIT " + xid}
		if w.rand.IntN(5) == 0 {
			end[3] = "XA ROLLBACK " + xid
		}
		undo = []string{"XA END " + xid, "XA ROLLBACK " + xid}
	}
	for _, q := range slices.Concat(begin, w.changes(), end) {
		_, err := conn.ExecContext(ctx, q)
		if refused(err) {
			for _, q := range undo {
				if _, err := conn.ExecContext(ctx, q); err != nil && !refused(err) {
					return fmt.Errorf("%s: %w", q, err)
				}
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	return nil
}

// refused says that the server gave a transaction up because of another one, or
// has given it up already.
func refused(err error) bool {
	e, ok := errors.AsType[*mysql.MySQLError](err)
	// Lock wait, deadlock, XA: wrong state, rolled back, rolled back because of a deadlock,
	// unknown; changed since it was read.
	return ok && slices.Contains([]uint16{1205, 1213, 1399, 1402, 1614, 1613, 1397, 1020}, e.Number)
}

// changes are the statements of one transaction.
func (w *loadedWriter) changes() (list []string) {
	table := func() string { return loadedTable(w.source, w.rand.IntN(loadedTables)) }
	if w.rand.IntN(10) == 0 {
		from := w.rand.IntN(loadedRows)
		return []string{fmt.Sprintf("UPDATE %s SET b = REVERSE(b), a = a + 1 WHERE id BETWEEN %d AND %d", table(), from, from+200)}
	}
	for range 1 + w.rand.IntN(4) {
		id := 1 + w.rand.IntN(2*loadedRows)
		if w.rand.IntN(4) == 0 {
			id = 1 + w.rand.IntN(5) // where they conflict
		}
		switch w.rand.IntN(4) {
		case 0:
			list = append(list, fmt.Sprintf("DELETE FROM %s WHERE id = %d", table(), id))
		case 1:
			list = append(list, fmt.Sprintf("UPDATE %s SET a = a + %d WHERE id = %d", table(), w.rand.IntN(100), id))
		default:
			list = append(list, fmt.Sprintf("REPLACE INTO %s VALUES (%d, %d, REPEAT('%c', %d))", table(), id, w.rand.IntN(1000), 'a'+rune(w.rand.IntN(26)), w.rand.IntN(200)))
		}
	}
	return list
}

// sameGTIDs says that a statement sets gtid_slave_pos to that position. The order
// of the domains does not count.
func sameGTIDs(statement, position string) bool {
	recorded, ok := strings.CutPrefix(statement, "SET GLOBAL gtid_slave_pos = '")
	a, b := strings.Split(strings.TrimSuffix(recorded, "'"), ","), strings.Split(position, ",")
	slices.Sort(a)
	slices.Sort(b)
	return ok && slices.Equal(a, b)
}

// copy takes a copy under load, puts it in the replica's place and compares it
// when the load pauses.
func (l *loadedReplica) copy(t *testing.T, logBin bool) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "copy")
	sender := []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + l.Socket(), "--slave-info"}
	if l.row.xa {
		sender = append(sender, "--safe-slave-backup")
	}
	pipeline(t, sender, []string{"xbstream", "-x", "--prepare", "-C", dir})
	copied := servertest.NewOn(t, dir, servertest.Options{Release: l.row.release, ServerID: 9, LogBin: logBin, Args: l.row.args(logBin)})
	own, err := copied.String(ctx, "SELECT @@gtid_slave_pos")
	check(t, err)
	statements := takePlace(t, dir, l.sources)
	// The table that the server has its own position from changes in the same
	// transactions as the rows: what it says is true of this copy.
	if !slices.ContainsFunc(statements, func(q string) bool { return sameGTIDs(q, own) }) {
		t.Errorf("the copy holds the transactions up to %s, and the backup recorded another position: %q", own, statements)
	}
	check(t, copied.Exec(ctx, statements...))
	from := l.transactions.Load()
	await(t, "transactions", func() bool { return l.transactions.Load() > from+200 }) // so that there is something to follow
	l.gate.Lock()
	defer l.gate.Unlock()
	for _, source := range l.sources {
		check(t, l.WaitCaughtUp(ctx, source))
		check(t, copied.WaitCaughtUp(ctx, source))
	}
	c, err := servertest.Compare(ctx, l.Server, copied)
	check(t, err)
	for _, d := range c.Differences {
		t.Error(d)
	}
	if c.Rows < loadedRows {
		t.Errorf("only %d rows compared", c.Rows)
	}
	noComplaints(t, copied)
}
