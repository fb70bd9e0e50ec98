package prepare

import (
	"errors"
	"log/slog"
	"runtime"
	"time"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
)

// Options of Run and WithServer. The zero value works.
type Options struct {
	// Memory bounds the redo held at once, in bytes; 0 means DefaultMemory.
	Memory int64
	// Parallel is the number of workers; 0 means one a core.
	Parallel int
	// Verify reads every page of every tablespace at the end, not only those
	// that redo touched.
	Verify bool
	// Staged says that the directory is thrown away when Run fails, and synced
	// by the caller when it does not: Run then neither keeps what a killed
	// run needs nor waits for the disk.
	Staged bool
	// Feed, if set, has followed the log since it began to arrive. It was made
	// with the same Memory and Parallel.
	Feed *Feed
	// Log receives what an operator may want to know; nil is silent.
	Log *slog.Logger
	// Progress, if set, is called now and then with the stage's name and the
	// bytes done of the total. It may be called from several goroutines, not
	// at the same time.
	Progress func(stage string, done, total int64)
	// ServerArgs are further arguments for the server that WithServer starts,
	// such as the ones that load a key plugin.
	ServerArgs []string
	// NothingImported says that no table was imported within the redo of the
	// backup, which WithServer cannot tell from an encrypted log.
	NothingImported bool
	// ServerWait bounds how long WithServer waits for recovery; 0 means
	// DefaultServerWait.
	ServerWait time.Duration
}

// DefaultMemory is the redo held at once when Options.Memory is 0.
const DefaultMemory = 512 << 20

// DefaultServerWait is how long a server's recovery may take when
// Options.ServerWait is 0.
const DefaultServerWait = 12 * time.Hour

func (o Options) withDefaults() Options {
	if o.Memory <= 0 {
		o.Memory = DefaultMemory
	}
	o.Memory = max(o.Memory, minMemory)
	if o.Parallel <= 0 {
		o.Parallel = runtime.GOMAXPROCS(0)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	if o.ServerWait <= 0 {
		o.ServerWait = DefaultServerWait
	}
	return o
}

// minMemory is what one mini-transaction of the largest size and its index
// need with room to spare.
const minMemory = 8 << 20

// Report says what a successful preparation did and proved.
type Report struct {
	// AlreadyPrepared says that there was nothing to do.
	AlreadyPrepared bool
	// CheckpointLSN is where the redo started, EndLSN where it ended.
	CheckpointLSN, EndLSN format.LSN
	// RedoBytes is the length of the redo read.
	RedoBytes int64
	// Records counts redo records of pages; Applied those that were applied
	// and not already in the page, dropped with it or void.
	Records, Applied int64
	// PagesTouched counts pages named by redo, PagesRead and PagesWritten the
	// reads and writes of pages; a page counts once for each batch.
	PagesTouched, PagesRead, PagesWritten int64
	// PagesVerified counts the pages read by Options.Verify.
	PagesVerified int64
	// PreparedRolledBack counts the transactions that the source had prepared
	// by itself, not for XA PREPARE, and not committed when the backup ended,
	// as a parallel replica has them. Run leaves it to the server to roll them
	// back when it starts, as it does with all others that are open.
	PreparedRolledBack int
	// Batches is how often the redo had to be cut to fit Options.Memory.
	Batches int
	// Rebuilt lists tablespaces that came from redo alone; Deleted those
	// dropped during the backup, Renamed "old -> new" those renamed. Paths
	// are relative and slash separated.
	Rebuilt, Deleted, Renamed []string
	// Unfinished lists the new tables of ALTERs that had not ended, whose files Run
	// removed.
	Unfinished []string
	// Ignored lists tablespaces named by redo whose absence is explained:
	// dropped, left out of the backup, or left over by an interrupted ALTER.
	Ignored []string
}

// Errors a caller decides on.
var (
	// ErrEncrypted: redo or a tablespace is encrypted; WithServer with the
	// server's key plugin can prepare it.
	ErrEncrypted = backupdir.ErrEncrypted
	// ErrNotBackup: the directory does not hold a backup.
	ErrNotBackup = backupdir.ErrNotBackup
	// ErrIncomplete: redo or a tablespace is missing.
	ErrIncomplete = backupdir.ErrIncomplete
	// ErrDamaged: redo or a page is not what it claims to be.
	ErrDamaged = backupdir.ErrDamaged
	// ErrImported: a table may have been imported within an encrypted redo log;
	// Options.NothingImported says that none was.
	ErrImported = errors.New("may have been imported within the encrypted redo")
	// ErrServer: the server's own recovery failed.
	ErrServer = errors.New("server recovery failed")
)
