package tail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/xbstream/xbstream/format"
	ondisk "github.com/xbstream/xbstream/internal/mysql/redo"
	"github.com/xbstream/xbstream/internal/pause"
)

// list returns the numbers of the files in use, in order, and the size of all
// files, spare ones too.
func (l *Log) list() (ids []uint64, size int64, err error) {
	entries, err := l.root.ReadDir(l.dir)
	if err != nil {
		return nil, 0, err
	}
	for _, e := range entries {
		id, spare, ok := ondisk.ParseFileName(e.Name())
		if !ok {
			continue
		}
		if st, err := os.Lstat(filepath.Join(l.dir, e.Name())); err == nil { // or renamed since
			size += max(st.Size()-ondisk.StartOffset, 0)
		}
		if !spare {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, size, nil
}

// scan reads the heads of all files in use. One that is gone is left out; one whose
// header is half written fails.
func (l *Log) scan() (ondisk.Log, int64, error) {
	ids, size, err := l.list()
	if err != nil {
		return nil, 0, err
	}
	var all []ondisk.File
	for _, id := range ids {
		f, open, err := l.openFile(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		open.Close()
		all = append(all, f)
	}
	return ondisk.NewLog(all), size, nil
}

// errVanished says that the file of the checkpoint is no longer the one it was.
var errVanished = errors.New("the file of the newest checkpoint is gone")

// begin opens the file of the newest checkpoint and finds the first
// mini-transaction from there on.
func (l *Log) begin(ctx context.Context) error {
	if err := l.olderFormat(); err != nil {
		return err
	}
	for began := time.Now(); ; {
		err := l.tryBegin(ctx)
		again := errors.Is(err, ondisk.ErrChecksum) || errors.Is(err, ondisk.ErrNoCheckpoint) || errors.Is(err, errVanished) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, io.EOF)
		if !again || time.Since(began) > scanPatience {
			return err
		}
		if err := pause.For(ctx, scanPause); err != nil {
			return err
		}
	}
}

// olderFormat names a log that is in a file of an older server.
func (l *Log) olderFormat() error {
	if _, err := os.Lstat(l.dir); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	const old = "ib_logfile0"
	fd, _, err := l.root.Open(filepath.Join(l.root.Path(), old), true)
	if err != nil {
		return nil // scan says that there is no directory
	}
	f := os.NewFile(uintptr(fd), old)
	defer f.Close()
	_, err = ondisk.ReadFile(f, 0, 0)
	return err
}

func (l *Log) tryBegin(ctx context.Context) error {
	files, size, err := l.scan()
	if err != nil {
		return err
	}
	checkpoint, err := files.Checkpoint()
	if err != nil {
		return err
	}
	if files.Flags()&ondisk.NoLogging != 0 {
		return l.usable(files[len(files)-1])
	}
	at, ok := ondisk.PositionOf(checkpoint)
	if !ok {
		return fmt.Errorf("checkpoint at LSN %v, where no record can be: %w", checkpoint, ondisk.ErrChecksum)
	}
	i := slices.IndexFunc(files, func(f ondisk.File) bool { return f.Contains(checkpoint) })
	f, open, err := l.openFile(files[i].ID)
	if err != nil {
		return err
	}
	if l.open != nil { // of an attempt that failed
		l.open.Close()
	}
	l.file, l.open, l.head, l.newest, l.size, l.looked = f, open, f.Header, checkpoint, size, time.Now()
	if f.Header.Start != files[i].Header.Start {
		return errVanished
	}
	if err := l.usable(f); err != nil {
		return err
	}
	return l.synchronise(ctx, checkpoint, at)
}

// synchronise finds where the first mini-transaction begins that does not begin
// before the checkpoint. The checkpoint may lie within one; what that has changed
// is on disk. Blocks say where the first one begins in them; one that a long
// mini-transaction fills does not, and an earlier one must be asked.
func (l *Log) synchronise(ctx context.Context, checkpoint format.LSN, at ondisk.Position) error {
	start, first := ondisk.Align(checkpoint), 0
	for ; ; start -= ondisk.BlockSize {
		if n, err := l.open.ReadAt(l.raw[:ondisk.BlockSize], l.file.Offset(start)); n < ondisk.BlockSize {
			return l.failed("read", err)
		}
		b, state := ondisk.ParseBlock(l.raw, start)
		begins := (state == ondisk.Complete || state == ondisk.Partial) && b.First != 0 && start+format.LSN(b.First) <= checkpoint
		if begins {
			first = b.First
			break
		}
		if start == l.file.Header.Start {
			// What is before is in another file, and perhaps gone.
			start = ondisk.Align(checkpoint)
			break
		}
	}
	l.lsn, l.taken, l.rest = start, 0, nil
	if first == 0 {
		return l.synchroniseLater(ctx)
	}
	l.at, _ = ondisk.PositionOf(start + format.LSN(first))
	l.taken = int(l.at - ondisk.Position(start/ondisk.BlockSize*ondisk.BlockPayload))
	return l.skipTo(ctx, at)
}

// skipTo drops mini-transactions that begin before a position.
func (l *Log) skipTo(ctx context.Context, to ondisk.Position) error {
	for {
		for l.at < to {
			m, err := ondisk.ScanMTR(l.rest)
			if err == ondisk.ErrShort {
				break
			}
			if err != nil {
				return l.damaged(err)
			}
			l.rest, l.at = l.rest[m.Size:], l.at+ondisk.Position(m.Size)
		}
		if l.at >= to {
			l.first = l.at.LSN()
			return nil
		}
		if err := l.await(ctx); err != nil {
			return err
		}
	}
}

// synchroniseLater goes on to the first block in which a mini-transaction begins.
func (l *Log) synchroniseLater(ctx context.Context) error {
	for began := time.Now(); ; {
		if l.lsn >= l.file.End() {
			if _, err := l.nextFile(ctx); err != nil {
				return err
			}
		}
		if l.lsn < l.file.End() {
			if n, err := l.open.ReadAt(l.raw[:ondisk.BlockSize], l.file.Offset(l.lsn)); n < ondisk.BlockSize {
				return l.failed("read", err)
			}
			b, state := ondisk.ParseBlock(l.raw, l.lsn)
			switch {
			case (state == ondisk.Complete || state == ondisk.Partial) && b.First != 0:
				l.at, _ = ondisk.PositionOf(l.lsn + format.LSN(b.First))
				l.taken = int(l.at - ondisk.Position(l.lsn/ondisk.BlockSize*ondisk.BlockPayload))
				l.first = l.at.LSN()
				return nil
			case state == ondisk.Complete:
				l.lsn += ondisk.BlockSize
				continue
			case state == ondisk.Overtaken:
				return errVanished
			}
		}
		if time.Since(began) > scanPatience {
			return l.damaged(errors.New("no mini-transaction begins after the checkpoint"))
		}
		if err := pause.For(ctx, scanPause); err != nil {
			return err
		}
	}
}

// await reads more, and waits where there is nothing yet.
func (l *Log) await(ctx context.Context) error {
	for began := time.Now(); ; {
		more, err := l.fill(ctx)
		if err != nil || more {
			return err
		}
		if time.Since(began) > scanPatience {
			return l.damaged(errors.New("the mini-transaction at the checkpoint does not end"))
		}
		if err := pause.For(ctx, scanPause); err != nil {
			return err
		}
	}
}

// survey looks at the checkpoints of all files now and then, and at the flags of
// the newest: without redo, a backup is of no use. Files that come and go meanwhile
// are no reason to fail.
func (l *Log) survey(now time.Time) error {
	if now.Sub(l.looked) < surveyEvery {
		return nil
	}
	l.looked = now
	files, size, err := l.scan()
	if err != nil || len(files) == 0 {
		return nil
	}
	l.size = size
	if c, err := files.Checkpoint(); err == nil {
		l.newest = max(l.newest, c)
	}
	return l.usable(files[len(files)-1])
}
