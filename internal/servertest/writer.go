package servertest

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// writer is one connection of a load.
type writer struct {
	load     *Load
	server   *Server
	tables   []table
	rows     int
	bulkRows int
	pause    time.Duration
	rand     *rand.Rand

	conn *sql.Conn
}

// run writes until ctx ends. The statement under way is finished first: a
// statement cut off halfway in a table without transactions would leave table
// and binary log at odds, which is no backup's fault.
func (w *writer) run(ctx context.Context) error {
	work := context.WithoutCancel(ctx)
	conn, err := w.server.db.Conn(work)
	if err != nil {
		return fmt.Errorf("write load: %w", err)
	}
	defer discard(conn)
	w.conn = conn
	if err := w.exec(work, "USE "+ident(dbPlain)); err != nil {
		return fmt.Errorf("write load: %w", err)
	}
	for ctx.Err() == nil {
		if err := w.step(work); err != nil {
			return fmt.Errorf("write load: %w", err)
		}
		w.wait(ctx)
	}
	return nil
}

func (w *writer) wait(ctx context.Context) {
	if w.pause == 0 {
		return
	}
	t := time.NewTimer(w.pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// step does one operation: a statement, or a transaction of several.
func (w *writer) step(ctx context.Context) error {
	name, do := w.choose()
	err := do(ctx)
	if rejected(err) {
		w.load.count(func(c *LoadCounts) { c.Retried++ })
		// A deadlock rolls the transaction back, a lock wait timeout
		// only the statement.
		return w.exec(ctx, "ROLLBACK")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	w.load.count(func(c *LoadCounts) { c.Operations[name]++ })
	return nil
}

func (w *writer) choose() (string, func(context.Context) error) {
	switch n := w.rand.IntN(100); {
	case n < 60:
		return "row", func(ctx context.Context) error { return w.row(ctx, w.anyTable()) }
	case n < 85:
		return "transaction", w.transaction
	case n < 87:
		return "long transaction", w.longTransaction
	case n < 91:
		return "sequence", w.sequence
	case n < 95:
		return "procedure", w.procedure
	default:
		return "bulk", w.bulk
	}
}

func (w *writer) exec(ctx context.Context, q string, args ...any) error {
	if _, err := w.conn.ExecContext(ctx, q, args...); err != nil {
		return fmt.Errorf("%.200s: %w", q, err)
	}
	return nil
}

func (w *writer) anyTable() table { return w.tables[w.rand.IntN(len(w.tables))] }

// transactionalTable picks a table that a transaction of several statements
// may write to.
func (w *writer) transactionalTable() table {
	for {
		if t := w.anyTable(); !t.single {
			return t
		}
	}
}

func (w *writer) id() int { return 1 + w.rand.IntN(w.rows) }

// row changes one row of a table.
func (w *writer) row(ctx context.Context, t table) error {
	switch {
	case t.insertOnly:
		return w.insert(ctx, t, "")
	case t.noKey:
		return w.rowWithoutKey(ctx, t)
	}
	switch n := w.rand.IntN(10); {
	case n < 4:
		return w.insert(ctx, t, " ON DUPLICATE KEY UPDATE a = VALUES(a), b = VALUES(b)")
	case n < 6:
		return w.exec(ctx, "UPDATE "+t.ref()+" SET a = ?, b = ? WHERE id = ?", w.rand.IntN(100000), w.text(), w.id())
	case n < 8:
		return w.exec(ctx, "UPDATE "+t.ref()+" SET c = ? WHERE id = ?", w.blob(), w.id())
	default:
		return w.exec(ctx, "DELETE FROM "+t.ref()+" WHERE id = ?", w.id())
	}
}

func (w *writer) insert(ctx context.Context, t table, onDuplicate string) error {
	return w.exec(ctx, "INSERT INTO "+t.ref()+" SET id = ?, a = ?, b = ?, c = ?"+t.set+onDuplicate,
		w.id(), w.rand.IntN(100000), w.text(), w.blob())
}

// rowWithoutKey keeps a table without key at its size: as many rows go as
// come.
func (w *writer) rowWithoutKey(ctx context.Context, t table) error {
	if w.rand.IntN(2) == 0 {
		return w.exec(ctx, "DELETE FROM "+t.ref()+" WHERE id = ?", w.id())
	}
	return w.exec(ctx, "INSERT INTO "+t.ref()+" SET id = ?, a = ?, b = ?, c = ?",
		w.id(), w.rand.IntN(100000), w.words(), w.blob()[:w.rand.IntN(50)])
}

// transaction changes several rows and ends in a rollback one time out of
// four.
func (w *writer) transaction(ctx context.Context) error {
	return w.within(ctx, 2+w.rand.IntN(8), w.rand.IntN(4) == 0, 0)
}

// longTransaction stays open for a while, so that a backup meets changes that
// are not committed.
func (w *writer) longTransaction(ctx context.Context) error {
	return w.within(ctx, 20+w.rand.IntN(20), w.rand.IntN(2) == 0, 10*time.Millisecond)
}

func (w *writer) within(ctx context.Context, statements int, rollback bool, pause time.Duration) error {
	if err := w.exec(ctx, "START TRANSACTION"); err != nil {
		return err
	}
	for range statements {
		if err := w.row(ctx, w.transactionalTable()); err != nil {
			return err
		}
		time.Sleep(pause)
	}
	if !rollback {
		return w.exec(ctx, "COMMIT")
	}
	w.load.count(func(c *LoadCounts) { c.Rollbacks++ })
	return w.exec(ctx, "ROLLBACK")
}

func (w *writer) sequence(ctx context.Context) error {
	if w.server.opts.Release.MySQL() { // has none
		return w.row(ctx, w.anyTable())
	}
	name := "numbers"
	if w.rand.IntN(2) == 0 {
		name = "aria_numbers"
	}
	return w.exec(ctx, "DO NEXTVAL("+ident(dbPlain)+"."+name+")")
}

func (w *writer) procedure(ctx context.Context) error {
	return w.exec(ctx, "CALL bump(?, ?)", w.id(), w.rand.IntN(1000))
}

// bulk touches pages all over the large tables.
func (w *writer) bulk(ctx context.Context) error {
	if w.bulkRows == 0 {
		return w.row(ctx, w.transactionalTable())
	}
	from := 1 + w.rand.IntN(w.bulkRows)
	return w.exec(ctx, "UPDATE "+bulkTable(w.rand.IntN(bulkTables))+" SET a = a + 1, b = ? WHERE id BETWEEN ? AND ?",
		w.text(), from, from+w.rand.IntN(20))
}

var vocabulary = strings.Fields("apple bridge cloud dragon engine forest garden harbour island jungle kettle lantern mountain ñandú öl über")

// text is NULL, empty, or a few words.
func (w *writer) text() any {
	switch w.rand.IntN(20) {
	case 0:
		return nil
	case 1:
		return ""
	}
	return w.words()
}

func (w *writer) words() string {
	words := make([]string, 1+w.rand.IntN(12))
	for i := range words {
		words[i] = vocabulary[w.rand.IntN(len(vocabulary))]
	}
	return strings.Join(words, " ")
}

// blob is mostly short, sometimes long enough for pages of its own.
func (w *writer) blob() []byte {
	n := 50 + w.rand.IntN(400)
	switch w.rand.IntN(30) {
	case 0:
		n = 20000 + w.rand.IntN(60000)
	case 1, 2, 3:
		n = 3000 + w.rand.IntN(6000)
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(w.rand.Uint32())
	}
	return b
}
