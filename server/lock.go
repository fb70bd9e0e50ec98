package server

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/xbstream/xbstream/format"
)

const (
	// abortGrace bounds each step of giving up: the KILL, the end of the
	// statement, the server's letting go.
	abortGrace = 3 * time.Second
	// serverGrace is what lock_wait_timeout has beyond the budget, so that
	// the budget ends first and the blockers can still be asked for. The
	// server's own limit stands for the case that this process hangs.
	serverGrace = 2 * time.Second
)

// LockOptions is what a dialect adds to a Lock.
type LockOptions struct {
	// Setup has the statements that prepare the session.
	Setup []string
	// Optional has those that a server may not know.
	Optional []string
	// Blocked is the stage from which on DDL is blocked.
	Blocked string
	// Sessions is the table that lists the server's connections by ID; the default is
	// information_schema.PROCESSLIST.
	Sessions string
	// Blockers says in a few words who holds up the connection id, or
	// nothing. It is asked when a budget has run out.
	Blockers func(ctx context.Context, db *sql.DB, id uint64) string
}

// Lock is the connection that holds the locks of a backup, for a dialect to
// build its Backup on. It is never replaced by another connection: once gone,
// every method fails.
type Lock struct {
	s       *Session
	opt     LockOptions
	db      *sql.DB   // only conn
	conn    *sql.Conn // used by one statement at a time, under busy
	control *sql.DB   // watches and kills
	id      uint64    // CONNECTION_ID() of conn
	opened  time.Time // when conn was there

	busy sync.Mutex

	mu      sync.Mutex // guards what follows
	err     error      // why the locks are gone
	lost    chan struct{}
	stages  []stage
	wanted  stage     // the stage being waited for; its name is empty when none is
	ended   time.Time // when End was done or the locks were lost
	stop    context.CancelFunc
	stopped sync.WaitGroup
}

type stage struct {
	name               string
	requested, granted time.Time
}

// NewLock opens the connection and begins to watch it. When ctx ends, the
// connection is closed.
func (s *Session) NewLock(ctx context.Context, opt LockOptions) (*Lock, error) {
	l := &Lock{s: s, opt: opt, lost: make(chan struct{})}
	if err := l.open(ctx); err != nil {
		l.closeDBs()
		return nil, err
	}
	life, stop := context.WithCancel(ctx)
	l.stop = stop
	l.stopped.Go(func() { l.watch(life) })
	return l, nil
}

func (l *Lock) open(ctx context.Context) error {
	var err error
	if l.db, err = l.s.newDB(1); err != nil {
		return &Error{Kind: ErrConnect, Op: l.s.connecting(), Err: err}
	}
	if l.control, err = l.s.newDB(2); err != nil {
		return &Error{Kind: ErrConnect, Op: l.s.connecting(), Err: err}
	}
	// The second connection is opened first: a lock that cannot be watched
	// is not taken.
	for _, db := range []*sql.DB{l.control, l.db} {
		if err := l.s.ping(ctx, db); err != nil {
			return err
		}
	}
	if l.conn, err = l.db.Conn(ctx); err != nil {
		return l.s.Fail("open the lock connection", err)
	}
	l.opened = time.Now()
	return l.setup(ctx)
}

func (l *Lock) setup(ctx context.Context) error {
	err := answered(ctx, l.s.patience(), l.trySetup)
	if errors.Is(err, errSilent) {
		return l.s.Fail("open the lock connection", err)
	}
	return err
}

func (l *Lock) trySetup(ctx context.Context) error {
	if err := l.conn.QueryRowContext(ctx, "SELECT CONNECTION_ID()").Scan(&l.id); err != nil {
		return l.s.Fail("open the lock connection", err)
	}
	statements := append([]string{
		fmt.Sprintf("SET SESSION lock_wait_timeout=%d", l.s.config.lockWaitSeconds()),
		// The largest value all families accept (Windows' limit): the
		// connection is idle while files are copied.
		"SET SESSION wait_timeout=2147483",
	}, l.opt.Setup...)
	for _, q := range statements {
		if _, err := l.conn.ExecContext(ctx, q); err != nil {
			return l.s.Fail("prepare the lock connection: "+q, err)
		}
	}
	for _, q := range l.opt.Optional {
		if _, err := l.conn.ExecContext(ctx, q); err != nil && broken(err) {
			return l.s.Fail("prepare the lock connection: "+q, err)
		}
	}
	return nil
}

// lockWaitSeconds is the server's own limit; a year is the most it accepts.
func (c Config) lockWaitSeconds() int64 {
	const year = 365 * 24 * 3600
	budget := c.lockTimeout()
	if budget < 0 {
		return year
	}
	return min(int64(math.Ceil((budget + serverGrace).Seconds())), year)
}

// WithinLockTimeout bounds a question that is asked while locks are held by the time
// that a lock may take.
func (s *Session) WithinLockTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if d := s.config.lockTimeout(); d >= 0 {
		return context.WithTimeout(ctx, d)
	}
	return context.WithCancel(ctx)
}

// Stage takes a lock. It gives everything up when the budget runs out, when ctx
// ends, or when the statement fails.
func (l *Lock) Stage(ctx context.Context, name, statement string) error {
	l.busy.Lock()
	defer l.busy.Unlock()
	requested := time.Now()
	l.want(stage{name: name, requested: requested})
	defer l.want(stage{})
	err := l.run(ctx, statement, l.s.config.lockTimeout(), func(ctx context.Context) error {
		_, err := l.conn.ExecContext(ctx, statement)
		return err
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stages = append(l.stages, stage{name, requested, time.Now()})
	return nil
}

// Exec runs a statement under the locks.
func (l *Lock) Exec(ctx context.Context, op, statement string) error {
	l.busy.Lock()
	defer l.busy.Unlock()
	return l.run(ctx, op, -1, func(ctx context.Context) error {
		_, err := l.conn.ExecContext(ctx, statement)
		return err
	})
}

// Query returns a statement's rows, column by name, NULL as empty text. A
// statement that is only refused, for a missing privilege for one, leaves the
// locks as they are.
func (l *Lock) Query(ctx context.Context, op, query string) ([]map[string]string, error) {
	l.busy.Lock()
	defer l.busy.Unlock()
	var rows []map[string]string
	var refused error
	err := l.run(ctx, op, -1, func(ctx context.Context) error {
		var err error
		rows, err = Rows(ctx, l.conn, query)
		if number(err) != 0 && !broken(err) && number(err) != erQueryKilled {
			refused = err
			return nil
		}
		return err
	})
	if err == nil && refused != nil {
		err = l.s.Fail(op, refused)
	}
	return rows, err
}

// End releases the locks with a statement, after it has proved that they are
// still those that were taken, and closes the connection.
func (l *Lock) End(ctx context.Context, statement string) error {
	if err := l.Exec(ctx, "release the locks", statement); err != nil {
		return err
	}
	l.mu.Lock()
	if l.err == nil {
		l.err, l.ended = errEnded, time.Now()
	}
	err := l.err
	l.mu.Unlock()
	l.stop()
	l.stopped.Wait()
	l.closeDBs()
	if err != errEnded {
		return err
	}
	return nil
}

// errEnded marks a Lock whose End is done.
var errEnded = errors.New("the backup's locks have been released")

// Close gives the locks up unless End did.
func (l *Lock) Close() error {
	l.fail(errors.New("the backup was given up"))
	l.stop()
	l.stopped.Wait()
	return nil
}

// Lost is closed when the locks are gone before End.
func (l *Lock) Lost() <-chan struct{} { return l.lost }

// Err says why the locks are gone; nil while they are held and after End.
func (l *Lock) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == errEnded {
		return nil
	}
	return l.err
}

// Stages lists the locks taken. Held goes on until the next lock is granted: it
// includes the wait for it.
func (l *Lock) Stages() []format.Stage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.list()
}

// list is Stages, under mu.
func (l *Lock) list() []format.Stage {
	var list []format.Stage
	for i, s := range l.stages {
		until := l.end()
		if i+1 < len(l.stages) {
			until = l.stages[i+1].granted
		}
		list = append(list, format.Stage{
			Name:   s.name,
			Waited: s.granted.Sub(s.requested).Seconds(),
			Held:   until.Sub(s.granted).Seconds(),
		})
	}
	return list
}

// LockSeconds is the time from the Blocked stage on.
func (l *Lock) LockSeconds() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.stages {
		if s.name == l.opt.Blocked {
			return l.end().Sub(s.granted).Seconds()
		}
	}
	return 0
}

func (l *Lock) end() time.Time {
	if l.ended.IsZero() {
		return time.Now()
	}
	return l.ended
}

func (l *Lock) want(s stage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wanted = s
}

// run executes one statement on the lock connection, under busy. Any failure
// releases the locks. The statement does not see ctx: the driver would answer
// its end by closing the connection, and a server may notice that late while it
// waits for a lock. It is killed from the other connection instead.
func (l *Lock) run(ctx context.Context, op string, budget time.Duration, f func(context.Context) error) error {
	if err := l.gone(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return l.abort(fmt.Errorf("%s: %w", op, context.Cause(ctx)))
	}
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- l.checked(inner, f) }()
	expired, stopTimer := timer(budget)
	defer stopTimer()
	select {
	case err := <-done:
		return l.settle(op, err)
	case <-expired:
		cause := l.timedOut(ctx, op, budget)
		l.interrupt(ctx, done, cancel)
		return l.abort(cause)
	case <-ctx.Done():
		l.interrupt(ctx, done, cancel)
		return l.abort(fmt.Errorf("%s: %w", op, context.Cause(ctx)))
	case <-l.lost:
		cancel()
		<-done
		return l.gone()
	}
}

// timer returns a channel that never fires for a budget below 0.
func timer(budget time.Duration) (<-chan time.Time, func() bool) {
	if budget < 0 {
		return nil, func() bool { return true }
	}
	t := time.NewTimer(budget)
	return t.C, t.Stop
}

// checked runs f and proves that the connection is still the first one.
func (l *Lock) checked(ctx context.Context, f func(context.Context) error) error {
	if err := f(ctx); err != nil {
		return err
	}
	var id uint64
	if err := l.conn.QueryRowContext(ctx, "SELECT CONNECTION_ID()").Scan(&id); err != nil {
		return err
	}
	if id != l.id {
		return &Error{Kind: ErrLockLost, Err: fmt.Errorf("the lock connection is %d, was %d", id, l.id)}
	}
	return nil
}

// settle turns a statement's own failure into one of the lock's.
func (l *Lock) settle(op string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Kind: kindOf(err), Op: op, Err: plain(err)}
	switch {
	case number(err) == erLockWait:
		e.Kind, e.Err = ErrLockTimeout, &cause{"not granted in time", err}
	case number(err) == erQueryKilled:
		e.Kind, e.Err = ErrLockLost, &cause{"another session killed the statement", err}
	case number(err) == erConnKilled:
		e.Kind, e.Err = ErrLockLost, &cause{"another session killed the lock connection (KILL); the server has released the locks", err}
	case number(err) == erServerShutdown:
		e.Kind, e.Err = ErrLockLost, &cause{"the server is shutting down; the lock connection and the locks are gone", err}
	case broken(err) || errors.Is(err, sql.ErrConnDone):
		e.Kind, e.Err = ErrLockLost, &cause{"the lock connection broke: another session killed it (KILL), the server stopped, or the network closed it; the locks are released", err}
	}
	return l.abort(e)
}

func (l *Lock) timedOut(ctx context.Context, op string, budget time.Duration) error {
	text := fmt.Sprintf("not granted within %s", budget)
	if l.opt.Blockers != nil {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortGrace)
		defer cancel()
		if who := l.opt.Blockers(limited, l.control, l.id); who != "" {
			text += "; " + who
		}
	}
	return &Error{Kind: ErrLockTimeout, Op: op, Err: errors.New(text)}
}

// interrupt ends the running statement, or the connection if that does not help.
func (l *Lock) interrupt(ctx context.Context, done <-chan error, cancel func()) {
	limited, stop := context.WithTimeout(context.WithoutCancel(ctx), abortGrace)
	defer stop()
	// An error means that the connection cannot be reached or is gone;
	// either way what is left is to close our end.
	if _, err := l.control.ExecContext(limited, fmt.Sprintf("KILL QUERY %d", l.id)); err == nil {
		select {
		case <-done:
			return
		case <-limited.Done():
		}
	}
	cancel()
	<-done
}

// abort records why the locks are gone and waits until they are.
func (l *Lock) abort(err error) error {
	l.fail(err)
	l.stop()
	l.stopped.Wait()
	return l.gone()
}

// fail keeps the first reason. The watching goroutine sees lost and releases.
func (l *Lock) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err, l.ended = err, time.Now()
	if e, ok := errors.AsType[*Error](err); ok && e.Kind == ErrLockTimeout {
		e.Stages = l.list()
		if w := l.wanted; w.name != "" {
			e.Stages = append(e.Stages, format.Stage{Name: w.name, Waited: l.ended.Sub(w.requested).Seconds(), GaveUp: true})
		}
	}
	close(l.lost)
}

// gone is Err for the methods that come after: an ended lock is gone too.
func (l *Lock) gone() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
