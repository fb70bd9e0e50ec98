package source

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"time"

	sqldriver "github.com/go-sql-driver/mysql"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/pause"
	"github.com/xbstream/xbstream/server"
)

// hold is a redo log consumer: the server keeps what it has not read. There is
// one for a whole server, and it belongs to a session, so that the server lets go
// when the connection is closed (InnoDB log0meb.cc).
//
// A server whose log is full waits for its consumer, and all writes with it. So the
// session is a lease: this process renews it, and loses it when it is stopped or cut
// off.
type hold struct {
	s *server.Session

	mu   sync.Mutex
	conn *sql.Conn // nil when it is given up
	last format.LSN
}

// holdPatience bounds a statement on the connection that holds redo. The functions
// wait for nobody.
const holdPatience = 10 * time.Second

// leaseSeconds is how long the server keeps redo for a process that says nothing,
// renewEvery how often this one says something.
const (
	leaseSeconds = 5
	renewEvery   = time.Second
)

// HoldRedo registers a consumer. Another backup may have done that; then this one
// goes on without.
func (m *mysql) HoldRedo(ctx context.Context) (server.RedoHold, error) {
	const op = "ask the server to keep redo"
	conn, err := m.s.DB.Conn(ctx)
	if err != nil {
		return nil, m.s.Fail(op, err)
	}
	h := &hold{s: m.s, conn: conn}
	context.AfterFunc(ctx, func() { h.Close() })
	if _, err := conn.ExecContext(ctx, fmt.Sprintf("SET SESSION wait_timeout=%d", leaseSeconds)); err != nil {
		h.Close()
		return nil, m.s.Fail(op, err)
	}
	refused, err := h.call(ctx, "SELECT innodb_redo_log_consumer_register()")
	if _, answered := errors.AsType[*sqldriver.MySQLError](err); answered {
		// Builds that are not MySQL's own may have it otherwise.
		h.Close()
		m.s.Log.Warn("the server cannot keep redo for this backup: redo may be lost if it is not read in time", "error", err)
		return nil, nil
	}
	if err != nil {
		h.Close()
		return nil, m.s.Fail(op, err)
	}
	if refused != 0 {
		h.Close()
		m.s.Log.Warn("the server keeps redo for another backup already, and not for this one: redo may be lost if it is not read in time")
		return nil, nil
	}
	go h.renew(ctx)
	return h, nil
}

// renew keeps the session from being idle for too long. If the session has ended, the
// next Advance reports it.
func (h *hold) renew(ctx context.Context) {
	for pause.For(ctx, renewEvery) == nil {
		if _, err := h.call(ctx, "SELECT 0"); err != nil {
			return
		}
	}
}

// call returns what a function does. It says 1 for a refusal, which is no error.
func (h *hold) call(ctx context.Context, query string) (refused int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn == nil {
		return 0, errors.New("the hold on redo has ended")
	}
	ctx, cancel := context.WithTimeout(ctx, holdPatience)
	defer cancel()
	err = h.conn.QueryRowContext(ctx, query).Scan(&refused)
	return refused, err
}

// Advance passes on the start of the block of an LSN: the server stops with an
// assertion when it is given one that lies between blocks (8.0.30).
func (h *hold) Advance(ctx context.Context, lsn format.LSN) error {
	const block = 512
	lsn -= lsn % block
	if lsn <= h.last {
		return nil
	}
	refused, err := h.call(ctx, fmt.Sprintf("SELECT innodb_redo_log_consumer_advance(%d)", lsn))
	if err == nil && refused != 0 {
		// It began at the checkpoint of that time, which may be after the one
		// that is read from.
		return nil
	}
	if err != nil {
		return errors.Join(h.s.Fail("tell the server how far redo was read", err), h.Close())
	}
	h.last = lsn
	return nil
}

// Close ends the session, and the hold with it. A connection that went back to the
// pool would hold on.
func (h *hold) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn == nil {
		return nil
	}
	end(h.conn)
	h.conn = nil
	return nil
}

// end closes a connection for good.
func end(conn *sql.Conn) {
	_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // it does not go back
	_ = conn.Close()
}
