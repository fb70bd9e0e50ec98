package chunker

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
)

// Sink takes what was read. Its methods are called from many goroutines.
// *format.Writer is one.
type Sink interface {
	// BeginFile announces a file and returns its number.
	BeginFile(f format.File) (format.FileNo, error)
	// WriteData writes the bytes of b at off, and takes b also when it fails.
	WriteData(no format.FileNo, off int64, b *format.Buffer) error
	// WriteHole says that n bytes at off are zero.
	WriteHole(no format.FileNo, off, n int64) error
	// EndFile says that the file is whole, and its size.
	EndFile(no format.FileNo, size int64) error
}

// Copier reads files and gives them to Sink. The fields are not changed once
// it is used.
type Copier struct {
	Sink Sink
	// PageSize is innodb_page_size in bytes.
	PageSize int
	// ParseFlags reads tablespace flags in the server's dialect; nil means
	// innodb.ParseFlags.
	ParseFlags func(flags uint32) (innodb.PageFormat, error)
	// Parallel is the number of workers; 0 means one a core.
	Parallel int
	// Rate limits reading to so many bytes a second; 0 does not.
	Rate int64
	// Log takes what happens on the way; nil means nowhere.
	Log *slog.Logger
	// Progress, if set, is told of each piece of so many bytes.
	Progress func(bytes int64)
	// Unused, if set, is asked about a tablespace file whose page 0 is not sound.
	// If it says that no table uses the file, that is no damage.
	Unused func(ctx context.Context, f File) (bool, error)
	// Before and After, if set, are called around the copy of each file. An
	// error ends the copy. After is not called for files that are gone.
	Before, After func(File) error

	limit   sync.Once
	limiter *rate.Limiter // of Rate
	// openFile is openDisk but in tests.
	openFile func(File) (opened, error)
}

// Result is what became of a file.
type Result struct {
	File File
	// Gone says that the file did not exist any more; all else is zero then.
	Gone bool
	// Unused says that the file is there, but is no tablespace and no table
	// uses it. Gone is set too.
	Unused bool
	// Entry is for the manifest, as the file is called now.
	Entry format.File
	// Signature is the one before the first byte was read, Began when.
	Signature Signature
	Began     time.Time
	// Changed says that the file was written while it was read.
	Changed bool
	// MaxLSN is the newest of an InnoDB file's pages.
	MaxLSN format.LSN
	// Foreign says that pages bear the id of another tablespace than page 0.
	Foreign bool
	// Encrypted says that pages are encrypted, or may be by what page 0 said
	// when the copy began or when its turn came.
	Encrypted bool
	// Age is what the LSNs of an InnoDB file's pages say.
	Age innodb.Age
}

// Unchanged says whether the file with signature now is surely what was copied:
// the same file, not written since. A last change less than two seconds before
// the copy is not trusted, since file times are coarse.
//
// It cannot see writes through a memory map, whose times are late: with
// myisam_use_mmap nothing may be copied early.
func (r Result) Unchanged(now Signature) bool {
	return !r.Gone && !r.Changed && now == r.Signature && r.Signature.settledAt(r.Began)
}

func (c *Copier) workers() int { return cmp.Or(max(c.Parallel, 0), runtime.GOMAXPROCS(0)) }

func (c *Copier) log() *slog.Logger { return cmp.Or(c.Log, slog.New(slog.DiscardHandler)) }

func (c *Copier) parseFlags(flags uint32) (innodb.PageFormat, error) {
	if c.ParseFlags != nil {
		return c.ParseFlags(flags)
	}
	return innodb.ParseFlags(flags)
}

func (c *Copier) opener() func(File) (opened, error) {
	if c.openFile != nil {
		return c.openFile
	}
	return openDisk
}

func (c *Copier) progress(n int64) {
	if c.Progress != nil {
		c.Progress(n)
	}
}

func (c *Copier) before(f File) error { return hook("before", c.Before, f) }

func (c *Copier) after(f File) error { return hook("after", c.After, f) }

func hook(when string, h func(File) error, f File) error {
	if h == nil {
		return nil
	}
	if err := h(f); err != nil {
		return fmt.Errorf("hook %s copying %s: %w", when, f.Table, err)
	}
	return nil
}

// entry is what a file's inode says for the manifest.
func entry(f File, st *unix.Stat_t) format.File {
	return format.File{
		Path: f.Rel, Kind: f.Kind, Source: f.Source, Size: st.Size,
		Mode: st.Mode & 0o777, ModTime: time.Unix(st.Mtim.Unix()).UTC(),
	}
}

// pace lets a piece of n bytes pass, a ChunkSize at most, when its time has come.
func (c *Copier) pace(ctx context.Context, n int64) error {
	if c.Rate <= 0 {
		return context.Cause(ctx)
	}
	c.limit.Do(func() { c.limiter = rate.NewLimiter(rate.Limit(c.Rate), format.ChunkSize) })
	if err := c.limiter.WaitN(ctx, int(n)); err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	return nil
}
