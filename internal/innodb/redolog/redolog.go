// Package redolog is what recovery must be told about the redo of a family of
// servers: where mini-transactions end, which page a record is for, and what it
// does to that page. It is a contract and holds no implementation.
//
// The redo of a backup is one file: a head of the family's, and behind it whole
// mini-transactions, without gaps and without blocks.
package redolog

import (
	"errors"
	"fmt"
	"io"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
)

// What a Dialect says of bytes that it cannot read.
var (
	// ErrShort means that the bytes end before the mini-transaction does.
	ErrShort = errors.New("mini-transaction is not complete")
	// ErrMalformed means that the lengths of the records make no sense.
	ErrMalformed = errors.New("malformed redo record")
)

// MaxMTR bounds the size of a mini-transaction in bytes, in every dialect. MySQL
// writes a partial update of a JSON column in one, however large the new value is.
const MaxMTR = 32 << 20

// Dialect reads the redo of one family. Its methods may be called from several
// goroutines, and keep nothing of what they are given.
type Dialect interface {
	// Family is the manifest's word for the family.
	Family() string
	// Server says how a server of the family is made to recover a backup.
	Server() Server
	// ForServer returns what writes the log that a server recovers from, up to the LSN
	// end; nil if that is the log of the backup itself. create makes its files, one
	// when the one before it is written; the first has the name LeftName.
	ForServer(create func(name string) (io.Writer, error), head Head, end format.LSN) (LogWriter, error)

	// ParseFlags reads the flags of a tablespace.
	ParseFlags(flags uint32) (innodb.PageFormat, error)

	// HeadSize is the size of the head, in bytes.
	HeadSize() int
	// ReadHead reads a head. The error says what is wrong with it, or names the
	// kind of log that it is of.
	ReadHead(head []byte) (Head, error)
	// Position returns where in a log an LSN is; ok is false if nothing can start
	// or end there. LSN is the reverse.
	Position(lsn format.LSN) (p Position, ok bool)
	LSN(p Position) format.LSN
	// Leave returns what a server starts from when all redo up to an LSN is in the
	// pages. kept are records of Keep, in the order of the log.
	Leave(end format.LSN, creator string, kept [][]byte) (Left, error)
	// LeftName is Left.Name. LeftSize is how many bytes follow the head of a log
	// that is left under the name of the backup's own; -1 if it has another name.
	LeftName() string
	LeftSize() int64
	// LeftEnd reads the first HeadSize bytes of a log that Leave made under another
	// name, and returns an LSN that is not below the one it was made for; ok is false
	// if it is something else.
	LeftEnd(head []byte) (end format.LSN, ok bool)
	// Keep returns what Leave must be given of a run that is Keeps: a record. Of those
	// with the same key only that of the highest rank is needed.
	Keep(run []byte) (key uint64, rank Rank, record []byte, err error)
	// RollsBack says whether a server that starts without a binary log rolls back the
	// transactions that its source had prepared by itself, or refuses to start.
	RollsBack() bool

	// Next reads the mini-transaction at the start of b. The error is bare:
	// ErrShort, ErrMalformed, or that no mini-transaction starts here.
	Next(s *Scan, b []byte, encrypted bool) error
	// Frame appends a mini-transaction of the given records.
	Frame(dst, records []byte) []byte

	// Run looks into the first record of a run.
	Run(run []byte) (Run, error)
	// Open starts to recover a page, which is changed in place.
	Open(page []byte, t Target) Page
	// MakesPage says whether a run starts by making its page anew; Replaces, whether
	// it also does not matter then what LSN the page has in the file.
	MakesPage(run []byte) bool
	Replaces(run []byte) bool
	// File reads a run that is a file record.
	File(run []byte) (FileRecord, error)
	// Files returns the file records of a mini-transaction.
	Files(records []byte) ([]FileRecord, error)

	// Hide changes records of hidden tablespaces so that a server passes over
	// them, without moving a byte. It says whether there were any.
	Hide(records []byte, hidden func(format.SpaceID) bool) (changed bool, err error)
	// Traces returns an empty collection of what an encrypted log shows.
	Traces() Traces
}

// Position counts the bytes of a log, as a backup keeps it: where LSNs count other
// bytes, too, as those of log blocks, an LSN does not say where in the file something
// is. Positions are in the order of LSNs.
type Position = format.RedoPosition

// Rank orders records that replace each other, by its first number, then by its second.
type Rank [2]uint64

// Server says how to drive a server of a family.
type Server struct {
	// Programs are the names of the server's program, the best first.
	Programs []string
	// Foreign says whether what a program answers to --version is another family's:
	// those of MariaDB are often called mysqld, too.
	Foreign func(version string) bool
	// LSN is the status variable with the server's LSN.
	LSN string
	// Args are those that depend on the source.
	Args func(s *format.Server) []string
	// Traces are names, with wildcards of path.Match, of what a start leaves in the
	// data directory and a copy does not need.
	Traces []string
	// Damage are marks in a server's log of what it found and does not end because of,
	// each with what it means.
	Damage map[string]string
}

// LogWriter writes a log for a server.
type LogWriter interface {
	// Add writes a mini-transaction.
	Add(mtr []byte) error
	// Close writes what is behind the last one.
	Close() error
}

// Left is what recovery leaves in place of the log of a backup.
type Left struct {
	// Name is that of the log's file in the data directory, slash separated.
	Name    string
	Content []byte
	// FlushLSN is what the system tablespace must say of the LSN up to which all is
	// in the files, 0 if it need not say anything.
	FlushLSN format.LSN
}

// Page is a page that is being recovered. It is used by one goroutine.
type Page interface {
	// Apply applies a run and returns the number of its records. The page's LSN is
	// left alone. After an error, nothing but Close may be called.
	Apply(run []byte) (records int, err error)
	// Close ends the recovery of the page. The error says that it cannot be
	// recovered, although each run was applied. The Page must not be used
	// afterwards.
	Close() error
}

// Head is what the head of a log says.
type Head struct {
	// FirstLSN is the LSN of the first byte behind the head.
	FirstLSN format.LSN
	// Checkpoint is where recovery starts; CheckpointEnd is where the records
	// that belong to it must have been met, 0 if the log has none.
	Checkpoint, CheckpointEnd format.LSN
	// Encrypted says that records are encrypted.
	Encrypted bool
	// Creator is the program that made the log.
	Creator string
}

// Scan finds the runs in one mini-transaction after the other. A run is a record
// that names its page, with the records after it that go on there, or a file
// record.
type Scan struct {
	// Starts is where runs start, in bytes from the start of their
	// mini-transaction. Next appends to it.
	Starts []uint32
	// Records counts the page records.
	Records int
	// RecordsEnd and Size are where the records of the last mini-transaction end
	// and where it ends itself, in bytes from its start.
	RecordsEnd, Size int
}

// Run is what the first record of a run says.
type Run struct {
	// File says that it is a file record; the rest is zero then.
	File  bool
	Space format.SpaceID
	Page  format.PageNo
	Kind  RunKind
}

// RunKind is what a run means for what came before it.
type RunKind byte

// The kinds of runs. After all but Changes, records for the page that came before
// do not count.
const (
	Changes RunKind = iota // a page is changed
	Makes                  // the page is made anew, then changed
	Frees                  // the page is no longer in use
	Trims                  // the tablespace ends before the page
	Keeps                  // no page: the record must be in the log that is left
)

// Target says which page is being recovered.
type Target struct {
	Space format.SpaceID
	Page  format.PageNo
	// Zip marks a page of a ROW_FORMAT=COMPRESSED tablespace.
	Zip bool
	// Logical is innodb_page_size, the size of a page of such a tablespace once it is
	// expanded; 0 where that does not matter.
	Logical int
}

// FileOp is what happened to the file of a tablespace.
type FileOp byte

// The operations.
const (
	FileModified FileOp = iota // it is only named
	FileCreated
	FileDeleted
	FileRenamed
	FileCheckpoint // no file: the mark of a checkpoint
)

// FileRecord is a record about a tablespace's file, or the mark of a checkpoint.
type FileRecord struct {
	Op    FileOp
	Space format.SpaceID
	// Name is the file's name as the server wrote it, NewName the one after a
	// rename. They are not to be trusted as paths.
	Name, NewName string
	// Checkpoint is the one that FileCheckpoint marks.
	Checkpoint format.LSN
}

// Traces are what an encrypted log shows of file records.
type Traces interface {
	// Add adds those of the mini-transaction from at to end.
	Add(records []byte, at, end format.LSN) error
	// Deleted says whether a tablespace may have been deleted.
	Deleted() bool
	// Imported says whether a tablespace may have been imported, and where it was
	// discarded then. age is called, if at all, with an LSN: whether pages are
	// newer than that is what counts.
	Imported(id format.SpaceID, name string, age func(floor format.LSN) (innodb.Age, error)) (at format.LSN, may bool, err error)
}

var dialects []Dialect

// Register makes a dialect known. It is called while the program starts.
func Register(d Dialect) { dialects = append(dialects, d) }

// All returns the dialects.
func All() []Dialect { return dialects }

// Named returns the dialect of a family, that of First if there is none.
func Named(family string) Dialect {
	for _, d := range dialects {
		if d.Family() == family {
			return d
		}
	}
	return First()
}

// First returns the dialect that was registered first.
func First() Dialect { return dialects[0] }

// Detect reads the head of a log, and says whose it is. If it is nobody's, the
// error is that of the first dialect.
func Detect(log io.ReaderAt) (Dialect, Head, error) {
	var first error
	for _, d := range dialects {
		head := make([]byte, d.HeadSize())
		n, err := log.ReadAt(head, 0)
		if n == len(head) {
			var h Head
			if h, err = d.ReadHead(head); err == nil {
				return d, h, nil
			}
		} else if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%d bytes where the head has %d: %w", n, len(head), io.ErrUnexpectedEOF)
		}
		if first == nil {
			first = err
		}
	}
	return nil, Head{}, first
}
