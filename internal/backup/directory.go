package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/pause"
	"github.com/xbstream/xbstream/redotail"
	"github.com/xbstream/xbstream/server"
)

// This file makes sure that the files are those of the server: a server in a
// container names paths that on this host may be another server's.

// proveDataDir proves it of the data directory before anything is read there. A
// lock that is not granted in time counts as one of the retries.
func (b *run) proveDataDir(ctx context.Context) error {
	for {
		err := b.source.CheckDataDir(ctx, b.layout.DataDir)
		if errors.Is(err, server.ErrForeignDir) {
			return fmt.Errorf("%w; several servers on this host: check --socket, --port and --datadir; a server in a container or on another host: run xbsend there, or give the directory as this process sees it with --datadir", err)
		}
		e, ok := errors.AsType[*server.Error](err)
		if !ok || e.Kind != server.ErrLockTimeout || b.retries == 0 {
			return err
		}
		b.stages = append(b.stages, e.Stages...)
		idle := retryPause(b.LockTimeout)
		b.Log.Warn(err.Error()+"; nothing is locked now", "tried_again_in", idle, "retries_left", b.retries)
		b.retries--
		if err := pause.For(ctx, idle); err != nil {
			return err
		}
	}
}

// openRedo opens the server's redo log at its newest checkpoint.
func (b *run) openRedo(ctx context.Context) (log redotail.Log, err error) {
	err = b.proveRedo(ctx, func() (format.LSN, error) {
		if log != nil {
			log.Close()
		}
		var err error
		if log, err = b.source.OpenRedo(ctx, b.layout.InnoDB.LogDir); err != nil {
			return 0, err
		}
		return log.Checkpoint(), nil
	})
	if err != nil && log != nil {
		log.Close()
		log = nil
	}
	return log, err
}

// agreeWithin is how long the checkpoint of the log file and the one that the
// server tells may differ: it is written to the one before the other, and an
// online resize replaces the file.
const agreeWithin = 3 * time.Second

// proveRedo compares the newest checkpoint in the redo log, which read returns,
// with what the server says of it. It matters where the log is not in the data
// directory. Two servers have the same checkpoint only while they stand at the
// same LSN, as copies of one directory do; then their logs hold the same.
func (b *run) proveRedo(ctx context.Context, read func() (format.LSN, error)) error {
	for limit := time.Now().Add(agreeWithin); ; {
		before, err := b.source.Checkpoint(ctx)
		if err != nil {
			return err
		}
		found, err := read()
		if err != nil {
			return err
		}
		after, err := b.source.Checkpoint(ctx)
		if err != nil {
			return err
		}
		if before <= found && found <= after {
			return nil
		}
		if time.Now().After(limit) {
			return b.foreignRedo(fmt.Errorf("its checkpoint is at LSN %v, and the server's at %v", found, after))
		}
		if err := pause.For(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// stillTheServersRedo does it once more when the redo has been read: two logs
// that were alike when the backup began are so no longer if the servers wrote.
func (b *run) stillTheServersRedo(ctx context.Context) error {
	if sameDir(b.layout.InnoDB.LogDir, b.layout.DataDir) {
		return nil // and that was proved
	}
	log, err := b.openRedo(ctx)
	if err != nil {
		return err
	}
	return log.Close()
}

func (b *run) foreignRedo(why error) error {
	return &server.Error{Kind: server.ErrForeignDir, Op: "the redo log in " + b.layout.InnoDB.LogDir + " is not the one of this server",
		Err: fmt.Errorf("%w; check --datadir and --innodb-log-group-home-dir", why)}
}

func sameDir(a, b string) bool {
	first, err1 := os.Stat(a)
	second, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(first, second)
}
