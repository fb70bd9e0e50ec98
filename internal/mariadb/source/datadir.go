package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xbstream/xbstream/server"
)

// ddlLog is the file in the data directory that BACKUP STAGE START creates, or
// truncates if it exists; until BLOCK_DDL every DDL statement appends a line
// (sql/backup.cc, start_ddl_logging; seen on 10.11 and 11.8).
const ddlLog = "ddl.log"

const (
	// provenAfter is how many rounds in a row must agree. One alone could be
	// the work of another backup that begins in that directory at the same
	// moment, as two nightly jobs do that got each other's directory.
	provenAfter = 2
	// refutedAfter is how many rounds may disagree.
	refutedAfter = 2
)

// The pauses between the rounds.
const (
	// clockTick is longer than one tick of the clock of file times: a change
	// must show against the one of the round before.
	clockTick = 12 * time.Millisecond
	// jitter is the most that is added to it, so that two backups that began
	// at the same moment do not stay in step.
	jitter = 20 * time.Millisecond
	// coarseTick is the same for file systems that keep whole seconds, or
	// two. It is tried before a directory is refused.
	coarseTick = 2100 * time.Millisecond
)

// CheckDataDir takes BACKUP STAGE START and looks at ddl.log: in the server's own
// directory that statement truncates it, and while the stage is held nothing
// else does. It needs no more than to search the directory.
func (m *mariadb) CheckDataDir(ctx context.Context, dir string) error {
	l, err := m.s.NewLock(ctx, server.LockOptions{
		Setup: []string{"SET SESSION max_statement_time=0"}, Blocked: stageBlockDDL, Blockers: blockers,
	})
	if err != nil {
		return err
	}
	defer l.Close()
	path := filepath.Join(dir, ddlLog)
	for good, bad := 0, 0; ; {
		ok, err := truncatedByStart(ctx, l, path)
		if err != nil {
			return err
		}
		if good++; ok && good == provenAfter {
			return l.End(ctx, stageEnd)
		}
		if err := l.Exec(ctx, "release the locks", stageEnd); err != nil {
			return err
		}
		if ok {
			continue
		}
		if good, bad = 0, bad+1; bad == refutedAfter {
			return foreign(dir)
		}
		if err := wait(ctx, coarseTick); err != nil {
			return err
		}
	}
}

const stageEnd = "BACKUP STAGE END"

// foreign refuses a directory.
func foreign(dir string) error {
	return &server.Error{Kind: server.ErrForeignDir, Err: fmt.Errorf("%s is not the data directory of this server: BACKUP STAGE START did not write %s there", dir, ddlLog)}
}

// truncatedByStart is one round: it takes START, holds it for a moment and says
// whether START, and nothing else, truncated the file at path.
func truncatedByStart(ctx context.Context, l *server.Lock, path string) (bool, error) {
	before, err := look(path)
	if err != nil {
		return false, err
	}
	if err := l.Stage(ctx, stageStart, "BACKUP STAGE "+stageStart); err != nil {
		return false, err
	}
	after, err := look(path)
	if err != nil {
		return false, err
	}
	if err := wait(ctx, clockTick+rand.N(jitter)); err != nil {
		return false, err
	}
	later, err := look(path)
	if err != nil {
		return false, err
	}
	return after.truncatedSince(before) && !later.truncatedSince(after), nil
}

// sight is what a look at a file shows; all zero if it is not there.
type sight struct {
	dev, inode   uint64
	size         int64
	mtime, ctime int64 // nanoseconds since 1970
}

func look(path string) (sight, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	if errors.Is(err, fs.ErrNotExist) {
		return sight{}, nil
	}
	if err != nil {
		return sight{}, fmt.Errorf("stat %s: %w", path, err)
	}
	return sight{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}, nil
}

// truncatedSince says whether the file was created or truncated since it looked
// like old. Lines that were appended are told from that: they make it longer.
func (s sight) truncatedSince(old sight) bool {
	switch {
	case s == sight{}:
		return old != sight{} // removed: the server does not do that
	case s.dev != old.dev || s.inode != old.inode || s.size < old.size:
		return true
	}
	return s.size == old.size && s.mtime != old.mtime
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
