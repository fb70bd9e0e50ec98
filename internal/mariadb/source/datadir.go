package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xbstream/xbstream/internal/pause"
	files "github.com/xbstream/xbstream/internal/source"
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
	// unclearAtMost is how many rounds may show nothing.
	unclearAtMost = 50
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
	for good, bad, open := 0, 0, 0; ; {
		saw, err := round(ctx, l, path)
		if err != nil {
			return err
		}
		if good++; saw == truncated && good == provenAfter {
			return l.End(ctx, stageEnd)
		}
		if err := l.Exec(ctx, "release the locks", stageEnd); err != nil {
			return err
		}
		switch saw {
		case truncated:
			continue
		case unclear:
			good, open = 0, open+1
		default:
			good, bad = 0, bad+1
		}
		if bad == refutedAfter || open == unclearAtMost {
			return foreign(dir)
		}
		if saw == unclear {
			continue // the next one begins with a file that has something in it
		}
		if err := pause.For(ctx, coarseTick); err != nil {
			return err
		}
	}
}

const stageEnd = "BACKUP STAGE END"

// foreign refuses a directory.
func foreign(dir string) error {
	return &server.Error{Kind: server.ErrForeignDir, Err: fmt.Errorf("%s is not the data directory of this server: BACKUP STAGE START did not write %s there", dir, ddlLog)}
}

// change is what happened to ddl.log between two looks.
type change int

const (
	untouched change = iota
	appended
	truncated
	// unclear: it has become longer, and what it had before, if anything, is not
	// known.
	unclear
)

// round takes START, holds it for a moment and says what it did to the file at
// path: truncated, if START did that and nothing else truncated it since.
func round(ctx context.Context, l *server.Lock, path string) (change, error) {
	before, err := look(path)
	if err != nil {
		return 0, err
	}
	if err := l.Stage(ctx, stageStart, "BACKUP STAGE "+stageStart); err != nil {
		return 0, err
	}
	after, err := look(path)
	if err != nil {
		return 0, err
	}
	if err := pause.For(ctx, clockTick+rand.N(jitter)); err != nil {
		return 0, err
	}
	later, err := look(path)
	if err != nil {
		return 0, err
	}
	saw := after.since(before)
	if saw == truncated && later.since(after) == truncated {
		return untouched, nil // by somebody else, both times
	}
	return saw, nil
}

// sight is what a look at a file shows; all zero if it is not there.
type sight struct {
	dev, inode   uint64
	size         int64
	mtime, ctime int64  // nanoseconds since 1970
	head         string // its first bytes, empty if they cannot be read
}

// headSize is how much of the file is looked at: each line has an id of its table,
// so that a few differ in any case.
const headSize = 4096

func look(path string) (sight, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	if errors.Is(err, fs.ErrNotExist) {
		return sight{}, nil
	}
	if err != nil {
		return sight{}, fmt.Errorf("stat %s: %w", path, err)
	}
	s := sight{dev: uint64(st.Dev), inode: st.Ino, size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()}
	fd, _, err := files.NewRoot(filepath.Dir(path)).Open(path, false)
	if err != nil {
		return s, nil // it is enough to search the directory
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	head := make([]byte, headSize)
	n, err := io.ReadFull(f, head)
	if err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
		s.head = string(head[:n])
	}
	return s, nil
}

// since says what happened to the file since it looked like old. A server that is
// busy with DDL appends lines at once, so that a file that was truncated may be
// longer than before when it is looked at.
func (s sight) since(old sight) change {
	switch {
	case s == old:
		return untouched
	case s.dev != old.dev || s.inode != old.inode || s.size < old.size:
		return truncated // or created, or removed, which the server does not do
	case s.size == old.size && s.mtime != old.mtime:
		return truncated
	case s.size == old.size:
		return untouched
	case s.head == "" || old.head == "":
		return unclear
	}
	if n := min(len(s.head), len(old.head)); s.head[:n] == old.head[:n] {
		return appended
	}
	return truncated
}
