package server

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/xbstream/xbstream/internal/pause"
)

const (
	// watchInterval is how often the lock connection is looked for: often
	// enough that a backup without lock stops before it has copied much,
	// seldom enough that the server does not notice.
	watchInterval = 250 * time.Millisecond
	// watchGrace is how long the server may refuse the watching connection
	// before the lock counts as lost. A server that is merely slow to answer
	// does not refuse.
	watchGrace = 3 * time.Second
	// watchPatience bounds one look.
	watchPatience = 30 * time.Second
)

// watch looks for the lock connection until the locks are gone or ended, and
// releases what is left of them.
func (l *Lock) watch(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	var refused time.Time
	for {
		select {
		case <-l.lost:
			l.release(context.WithoutCancel(ctx))
			return
		case <-ctx.Done():
			if l.gone() == nil {
				l.fail(fmt.Errorf("hold the backup's locks: %w", context.Cause(ctx)))
			}
			if l.gone() != errEnded {
				l.release(context.WithoutCancel(ctx))
			}
			return
		case <-tick.C:
			refused = l.look(ctx, refused)
		}
	}
}

// look asks once. It returns since when the server has refused to answer.
func (l *Lock) look(ctx context.Context, refused time.Time) time.Time {
	there, err := l.present(ctx)
	switch {
	case err == nil && there, ctx.Err() != nil:
		return time.Time{}
	case err == nil:
		l.fail(l.vanished(fmt.Errorf("the lock connection (id %d) is gone from the server: another session killed it (KILL), or the network closed it; the server has released the locks", l.id)))
	case refused.IsZero():
		return time.Now()
	case time.Since(refused) >= watchGrace:
		l.fail(l.vanished(plain(err)))
	}
	return refused
}

// vanished names the stage the backup was in.
func (l *Lock) vanished(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := "before the first lock"
	if n := len(l.stages); n > 0 {
		at = "in stage " + l.stages[n-1].name
	}
	if l.wanted.name != "" {
		at = "waiting for stage " + l.wanted.name
	}
	return &Error{Kind: ErrLockLost, Op: "hold the backup's locks, " + at, Err: err}
}

func (l *Lock) present(ctx context.Context) (bool, error) {
	limited, cancel := context.WithTimeout(ctx, watchPatience)
	defer cancel()
	var n int
	err := l.control.QueryRowContext(limited, WatchQuery(l.opt.Sessions, l.id)).Scan(&n)
	return n > 0, err
}

// WatchQuery is the statement that looks for a lock connection, for a dialect to
// recognise it in the process list. sessions is LockOptions.Sessions.
func WatchQuery(sessions string, id uint64) string {
	return fmt.Sprintf("SELECT COUNT(*) FROM %s WHERE ID=%d", cmp.Or(sessions, "information_schema.PROCESSLIST"), id)
}

// release kills the lock connection and waits, bounded, until the server has
// forgotten it: locks go with the session, not with the socket.
func (l *Lock) release(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, abortGrace)
	defer cancel()
	restarted, err := l.restarted(limited)
	if err == nil && !restarted {
		_, err = l.control.ExecContext(limited, fmt.Sprintf("KILL CONNECTION %d", l.id))
	}
	for err == nil && !restarted && limited.Err() == nil {
		var there bool
		if there, err = l.present(limited); !there {
			break
		}
		_ = pause.For(limited, 10*time.Millisecond) // the loop looks at it
	}
	// The statement that may still run on it returns now: run sees lost.
	l.closeDBs()
}

// restarted says whether the server was started after the lock connection was
// opened. Then the locks are gone, and the number is somebody else's.
func (l *Lock) restarted(ctx context.Context) (bool, error) {
	var name string
	var up int64 // whole seconds
	if err := l.control.QueryRowContext(ctx, "SHOW GLOBAL STATUS LIKE 'Uptime'").Scan(&name, &up); err != nil {
		return false, err
	}
	return time.Since(l.opened) > time.Duration(up+1)*time.Second, nil
}

// closeDBs closes the sockets; a connection is not given back to a pool, where
// it would live on with its locks.
func (l *Lock) closeDBs() {
	if l.db != nil {
		l.db.Close()
	}
	if l.conn != nil {
		l.conn.Close()
	}
	if l.control != nil {
		l.control.Close()
	}
}
