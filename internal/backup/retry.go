package backup

import (
	"context"
	"errors"
	"time"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/pause"
	"github.com/xbstream/xbstream/server"
)

// copyAll copies everything but redo and returns the manifest, which lacks only
// what the redo tail knows. A lock that is not granted in time is given up with
// all the others, and asked for again as often as the flags allow.
//
// Nothing that was copied is lost by that: while no lock is held, the server
// can do no more than it can before the locks, and what it does is found out in
// the same way. Redo was followed without a gap since before the first page was
// read; which copies stand for which tablespaces, and which other files have
// changed, is settled anew under the new locks. BACKUP STAGE START alone keeps
// nothing still.
func (b *run) copyAll(ctx context.Context) (*format.Manifest, error) {
	p := &phases{run: b, early: map[string]chunker.Result{}, others: map[string]chunker.Result{}, stages: b.stages}
	for left := b.retries; ; left-- {
		m, err := p.attempt(ctx)
		e, ok := errors.AsType[*server.Error](err)
		if err == nil || !ok || e.Kind != server.ErrLockTimeout || p.pos.LSN != 0 || left <= 0 {
			return m, err
		}
		p.giveUp(e)
		idle := retryPause(b.LockTimeout)
		b.Log.Warn(err.Error()+"; nothing is locked now", "tried_again_in", idle, "retries_left", left)
		if err := pause.For(ctx, idle); err != nil {
			return nil, err
		}
	}
}

// attempt copies what is missing, under locks of its own.
func (p *phases) attempt(ctx context.Context) (*format.Manifest, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := p.listDiscarded(ctx)
	if err != nil {
		return nil, err
	}
	if p.locks, err = p.source.Begin(ctx); err != nil {
		return nil, err
	}
	defer p.locks.Close()
	// A lock that is lost ends the copy at once: what it protected is gone.
	go func(locks server.Backup) {
		select {
		case <-locks.Lost():
			cancel(locks.Err())
		case <-ctx.Done():
		}
	}(p.locks)
	m, err := p.once(ctx)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		p.locks.Close() // first, for the threads that would wait for them
		if left := p.resumeReplication(ctx); left != nil {
			p.Log.Warn("replication is still stopped: " + left.Error())
		}
		return nil, err
	}
	return m, nil
}

// giveUp forgets what held only under the locks, and keeps the copies.
func (p *phases) giveUp(e *server.Error) {
	p.stages = append(p.stages, e.Stages...)
	if p.locks != nil {
		p.lockSeconds += p.locks.LockSeconds()
		p.locks = nil
	}
	p.late = nil
	for rel, r := range p.others {
		if p.mayBeEarly(r.File) {
			p.early[rel] = r
		}
	}
	clear(p.others)
}

// retryPause is how long the server is left alone: as long as the lock, and all
// who queued behind it, had waited, but no more than a minute.
func retryPause(lockTimeout time.Duration) time.Duration {
	if lockTimeout <= 0 {
		lockTimeout = server.DefaultLockTimeout
	}
	return min(lockTimeout, time.Minute)
}
