package chunker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/source"
)

// Discoverer finds the files of a server of one family.
type Discoverer interface {
	// InnoDB lists the files of all tablespaces that exist now: system,
	// undo, one per table. Temporary tablespaces are not among them; those
	// that are not wanted are, marked as LeftOut. The first page is read only
	// of the system tablespace.
	InnoDB(ctx context.Context) ([]File, error)
	// Others lists all other files that are wanted and worth copying.
	Others(ctx context.Context) ([]File, error)
	// Dirs lists the directories of the databases that are wanted, empty ones
	// too, as the manifest wants them.
	Dirs(ctx context.Context) ([]format.File, error)
	// Tally shows all databases and tables that exist to tallies.
	Tally(ctx context.Context, to ...*Tally) error
}

// Layout says where a server keeps its files: absolute paths, taken from its
// variables.
type Layout struct {
	// DataDir is datadir.
	DataDir string
	// DataHome is innodb_data_home_dir, empty for DataDir.
	DataHome string
	// DataFiles are the files of innodb_data_file_path, in order.
	DataFiles []DataFile
	// UndoDir, LogDir and AriaLogDir are innodb_undo_directory,
	// innodb_log_group_home_dir and aria_log_dir_path; empty for DataDir.
	UndoDir, LogDir, AriaLogDir string
	// PageSize is innodb_page_size in bytes.
	PageSize int
	// ExcludePaths are files and directories that are no data: pid file, socket,
	// error log and so on. A path also stands for everything below it.
	ExcludePaths []string
	// ExcludeBases are the base names of binary and relay logs, with their
	// directories. They stand for the files that the server makes of them, and not
	// for a database of that name.
	ExcludeBases []string
	// Filter, if set, says which tables are wanted.
	Filter *Filter
	// LeftOut, if set, is told of each entry of a database's directory that is
	// not backed up because no server makes such a thing, each time it is seen.
	LeftOut func(path, why string)
	// TableNames asks the server for the names that InnoDB gives tables, as
	// db/table in the letters of file names, by their ids. It is only called
	// with a Filter; one that is gone is left out of the answer.
	TableNames func(ctx context.Context, ids []uint64) (map[uint64]string, error)
}

// DataFile is one element of innodb_data_file_path.
type DataFile struct {
	// Name is as the variable has it: relative to DataHome, or absolute.
	Name string
	// Size is the initial size in bytes.
	Size       int64
	Autoextend bool
}

// File is a file found at the source.
type File struct {
	// Abs is the path to open, Rel the path below the target: relative,
	// slash separated.
	Abs, Rel string
	Kind     format.FileKind
	// Class is set for files that are not InnoDB's.
	Class Class
	// Table is the table or file as a message shows it: db.table, decoded.
	Table string
	// Root is the server's directory that Abs is below, and decides which links
	// are followed; nil follows all. Linked says that Abs itself may be one.
	Root   *source.Root
	Linked bool
	// Source is Abs where it is not below the data directory.
	Source string
	// System is set for the files of the system tablespace, whose later
	// files have no header of their own.
	System *System
	// LeftOut says that Layout.Filter does not want it.
	LeftOut bool
	// SpaceID, HeadLSN and Unwritten are set by ReadSpaces: the id and the LSN
	// that page 0 has, or that page 0 was not written yet, or says nothing.
	SpaceID   format.SpaceID
	HeadLSN   format.LSN
	Unwritten bool
	// Signature is set by ReadSpaces and ReadSignatures.
	Signature Signature
	// Amend, if set, changes the beginning of what is copied of a file that is
	// not InnoDB's: it is given the first bytes, all of a small file.
	Amend func(head []byte)
}

// System is what must be known beforehand of a file of the system tablespace.
type System struct {
	// FirstPage is the number of the file's first page.
	FirstPage format.PageNo
	// Unwritten says that page 0 was not yet written: the server has just made
	// the tablespace, so that all of it is in the redo log. Flags and
	// Doublewrite are not known then.
	Unwritten bool
	// Flags are FSP_SPACE_FLAGS of the first file.
	Flags uint32
	// Doublewrite are the pages that hold copies of other pages.
	Doublewrite [2]innodb.PageRange
}

func (f File) firstPage() format.PageNo {
	if f.System == nil {
		return 0
	}
	return f.System.FirstPage
}

// Class says what a file that is not InnoDB's is, as far as it matters for when
// it may be copied.
type Class int

// The classes, in the order in which files are copied under one stage.
const (
	// ClassSchema: definitions: .frm, .par, .TRG, .TRN, db.opt.
	ClassSchema Class = iota + 1
	// ClassTable: tables of MyISAM, CSV, ARCHIVE, MERGE.
	ClassTable
	// ClassUnknown: what no engine uses, which no lock keeps: notes somebody
	// left, the .cfg of FLUSH TABLES … FOR EXPORT.
	ClassUnknown
	// ClassAriaControl: the control file of Aria, to be read before all
	// other files of Aria, so that recovery starts early enough.
	ClassAriaControl
	// ClassAria: tables of Aria.
	ClassAria
	// ClassServerTable: log tables and statistics tables, which the server
	// writes even when nobody else may.
	ClassServerTable
	// ClassAriaLog: the logs of Aria, to be read after all its tables.
	ClassAriaLog
)

// Stage is a stage of the backup at which files of some classes stand still.
type Stage int

// The stages.
const (
	StageBlockDDL Stage = iota + 1
	StageBlockCommit
)

// Stage returns from which stage on files of the class do not change.
func (c Class) Stage() Stage {
	if c <= ClassUnknown {
		return StageBlockDDL
	}
	return StageBlockCommit
}

// Signature tells whether a file is the one it was.
type Signature struct {
	Dev, Inode   uint64
	Size         int64
	Mtime, Ctime int64 // nanoseconds since 1970
}

// SameFile says whether both are of one file, whatever its content.
func (s Signature) SameFile(o Signature) bool { return s.Dev == o.Dev && s.Inode == o.Inode }

// settle is how much older than the copy the last change must be for the
// signature to be believed: file times come from a clock that only ticks every
// few milliseconds, or every second or two on some file systems.
const settle = 2 * time.Second

// settledAt says whether the last change was well before t.
func (s Signature) settledAt(t time.Time) bool {
	limit := t.Add(-settle).UnixNano()
	return s.Mtime < limit && s.Ctime < limit
}

func signature(st *unix.Stat_t) Signature {
	return Signature{
		Dev: uint64(st.Dev), Inode: st.Ino, Size: st.Size,
		Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(),
	}
}

// ErrDamagedPage is wrapped when a page of the source stays bad.
var ErrDamagedPage = errors.New("damaged page")

// PageError says which page is bad.
type PageError struct {
	// Table is the table as the server calls it, Path the file.
	Table, Path string
	SpaceID     format.SpaceID
	PageNo      format.PageNo
	// LSN is the one in the header of the bad page.
	LSN format.LSN
	// Tries is how often the page was read.
	Tries int
	Cause error
}

func (e *PageError) Error() string {
	return fmt.Sprintf("%s: page %d of %s (space %d, lsn %d) is damaged, read %d times: %v",
		e.Table, e.PageNo, e.Path, e.SpaceID, e.LSN, e.Tries, e.Cause)
}

func (e *PageError) Unwrap() []error { return []error{ErrDamagedPage, e.Cause} }

// opened is an open file of the server. Tests put others in the place of
// diskFile.
type opened interface {
	ReadAt(p []byte, off int64) (int, error)
	Stat() (unix.Stat_t, error)
	// Forget drops what the kernel has cached of a range.
	Forget(off, n int64)
	Close() error
}

type diskFile struct{ *os.File }

// open opens the file, a regular one, without ever waiting.
func (f File) open() (fd int, st unix.Stat_t, err error) {
	if f.Root == nil {
		return source.Open(f.Abs)
	}
	return f.Root.Open(f.Abs, f.Linked)
}

func openDisk(f File) (opened, error) {
	fd, _, err := f.open()
	if err != nil {
		return nil, err
	}
	return diskFile{os.NewFile(uintptr(fd), f.Abs)}, nil
}

func (f diskFile) Stat() (st unix.Stat_t, err error) {
	if err = unix.Fstat(int(f.Fd()), &st); err != nil {
		err = fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	return st, err
}

// Forget: servers write past the page cache, so what it holds may be old. The
// advice may be ignored by the file system, then reading again is all we can do.
func (f diskFile) Forget(off, n int64) {
	_ = unix.Fadvise(int(f.Fd()), off, n, unix.FADV_DONTNEED)
}

func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
