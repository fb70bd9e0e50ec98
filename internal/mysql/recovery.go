package mysql

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"strings"
	"sync"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
	"github.com/xbstream/xbstream/internal/mysql/apply"
	"github.com/xbstream/xbstream/internal/mysql/pages"
	"github.com/xbstream/xbstream/internal/mysql/redo"
)

// Redo returns what recovery must know of the redo log.
func Redo() redolog.Dialect { return recovery{} }

// recovery implements redolog.Dialect.
type recovery struct{}

func (recovery) Family() string { return format.DialectMySQL }

func (recovery) Server() redolog.Server {
	return redolog.Server{
		Programs: []string{"mysqld"},
		Foreign:  func(version string) bool { return strings.Contains(version, "MariaDB") },
		LSN:      "Innodb_redo_log_current_lsn",
		Args: func(*format.Server) []string {
			// The copy gets an identity and keys of its own when it is used.
			return []string{"--loose-mysqlx=OFF", "--auto-generate-certs=OFF", "--loose-sha256-password-auto-generate-rsa-keys=OFF", "--caching-sha2-password-auto-generate-rsa-keys=OFF"}
		},
		Traces: []string{"auto.cnf", "ibtmp1", "ib_buffer_pool", "#ib_*dblwr", "#innodb_temp", "tc.log", "mysql_upgrade_history"},
		// It waits for such a page for ever (seen on 9.7.4). With innodb_force_recovery,
		// it goes on without the one or the other.
		Damage: map[string]string{
			"[MY-011906]": "it found a damaged page, or has another key of its tablespace",
			"[MY-012226]": "it does not have the key of an encrypted tablespace; is the right keyring loaded?",
		},
	}
}

func (recovery) ForServer(create func(string) (io.Writer, error), head redolog.Head, end format.LSN) (redolog.LogWriter, error) {
	return newServerLog(create, head, end, largestLog)
}

// serverLog writes a log in blocks, into as many files as it needs, all of one size.
type serverLog struct {
	create func(name string) (io.Writer, error)
	header redo.Header // of the file that is written
	w      io.Writer
	pack   *redo.Packer

	id, files uint64 // of this file, and how many there are
	size, n   int64  // of a file, and of what was written of this one
}

// largestLog is the largest file of a log (InnoDB log0constants.h,
// LOG_FILE_MAX_SIZE); sizes are multiples of the largest page.
const (
	largestLog = 4 << 30
	logUnit    = 64 << 10
)

// newServerLog makes a log that reaches from the head to an LSN. Its files are not
// larger than largest.
func newServerLog(create func(string) (io.Writer, error), head redolog.Head, end format.LSN, largest int64) (*serverLog, error) {
	l := &serverLog{create: create, header: redo.Header{UUID: packedUUID, Start: redo.Align(head.FirstLSN), Creator: head.Creator}}
	// Files of one size, with some room to go on in the last one.
	total := int64(max(end, head.FirstLSN) - l.header.Start)
	l.size = (total/(total/(largest-3*logUnit)+1)/logUnit + 2) * logUnit
	l.files = uint64(total/(l.size-redo.StartOffset) + 1)
	if err := l.begin(head.Checkpoint); err != nil {
		return nil, err
	}
	var err error
	l.pack, err = redo.NewPacker(l, head.FirstLSN)
	return l, err
}

// begin makes the next file. The checkpoint is in the first one.
func (l *serverLog) begin(checkpoint format.LSN) (err error) {
	if l.header.Flags = 0; l.id+1 < l.files {
		l.header.Flags = redo.FileFull
	}
	if l.w, err = l.create(redo.Directory + "/" + redo.FileName(l.id)); err != nil {
		return err
	}
	n, err := l.w.Write(redo.Head(l.header, checkpoint))
	l.n = int64(n)
	return err
}

var errMoreRedo = errors.New("there is more redo than up to the end of the backup")

// Write writes a block.
func (l *serverLog) Write(p []byte) (int, error) {
	if l.n == l.size {
		if l.id++; l.id == l.files {
			return 0, errMoreRedo
		}
		l.header.Start += format.LSN(l.size - redo.StartOffset)
		if err := l.begin(0); err != nil {
			return 0, err
		}
	}
	n, err := l.w.Write(p)
	l.n += int64(n)
	return n, err
}

func (l *serverLog) Add(mtr []byte) error { return l.pack.Add(mtr) }

func (l *serverLog) Close() error {
	if err := l.pack.Close(); err != nil {
		return err
	}
	_, err := l.w.Write(make([]byte, l.size-l.n)) // less than the loss of all files
	return err
}

func (recovery) ParseFlags(flags uint32) (innodb.PageFormat, error) { return pages.ParseFlags(flags) }

func (recovery) HeadSize() int { return redo.LinearStart }

func (recovery) ReadHead(head []byte) (redolog.Head, error) {
	l, err := redo.ParseLinear(head)
	if err != nil {
		return redolog.Head{}, err
	}
	return redolog.Head{FirstLSN: l.First, Checkpoint: l.First, Creator: l.Creator}, nil
}

func (recovery) Position(lsn format.LSN) (redolog.Position, bool) {
	p, ok := redo.PositionOf(lsn)
	return redolog.Position(p), ok
}

func (recovery) LSN(p redolog.Position) format.LSN { return redo.Position(p).LSN() }

// leftName: the server wants its log in a directory, and none under the name that
// the log of a backup has.
var leftName = redo.Directory + "/" + redo.FileName(0)

func (recovery) LeftName() string { return leftName }

func (recovery) LeftSize() int64 { return -1 }

// Leave makes a log that starts behind the end of the redo. What is kept, the server
// recovers when it starts.
func (recovery) Leave(end format.LSN, creator string, kept [][]byte) (redolog.Left, error) {
	start := redo.StartAfter(end)
	mtrs := make([][]byte, len(kept))
	for i, record := range kept {
		mtrs[i] = redo.AppendMTR(nil, record)
	}
	content, err := redo.EmptyLog(start, creator, mtrs)
	return redolog.Left{Name: leftName, Content: content, FlushLSN: start}, err
}

func (recovery) LeftEnd(head []byte) (format.LSN, bool) {
	h, err := redo.ParseHeader(head)
	return redo.StartAfter(h.Start), err == nil && h.UUID == redo.EmptyUUID
}

// packedUUID tells a log for a server's recovery from one that recovery left.
const packedUUID = redo.EmptyUUID + 1

// Keep returns a TABLE_DYNAMIC_META. Of the counters of a table the server takes that
// of the newest version, and the largest of these: two sessions may write theirs the
// wrong way round. It joins the lists of damaged indexes, so all of them are kept
// (InnoDB log0recv.cc, MetadataRecover::parseMetadataLog; dict0dict.cc, aggregate).
func (recovery) Keep(run []byte) (key uint64, rank redolog.Rank, record []byte, err error) {
	r, n, err := redo.Next(run)
	if err != nil {
		return 0, rank, nil, err
	}
	if counter, ok := r.AutoIncrement(); ok {
		return r.Table<<1 | 1, redolog.Rank{r.Version, counter}, run[:n], nil
	}
	h := fnv.New64a()
	h.Write(run[:n])
	return h.Sum64() &^ 1, rank, run[:n], nil
}

// RollsBack: InnoDB is the only engine that prepares, so that the server rolls back
// whatever no binary log says was committed (MySQL xa.cc, ha_recover).
func (recovery) RollsBack() bool { return true }

// errEncrypted: a log that is encrypted is never kept in this form.
var errEncrypted = errors.New("encrypted redo of MySQL")

// Next finds the runs: records for the same page one after the other, but a record
// that makes the page anew starts a run. What is for no page and no file is left
// out; it may follow the records of a run.
func (recovery) Next(s *redolog.Scan, b []byte, encrypted bool) error {
	if encrypted {
		return errEncrypted
	}
	m, err := redo.ScanMTR(b)
	if err != nil {
		return err
	}
	s.RecordsEnd, s.Size = len(m.Records), m.Size
	onPage := false
	var space format.SpaceID
	var page format.PageNo
	for at := 0; at < len(m.Records); {
		r, n, err := redo.Next(m.Records[at:])
		if err != nil {
			return err
		}
		switch kind := kindOf(&r); {
		case kind == nothing:
		case kind == forFile || kind == forLog:
			s.Starts, onPage = append(s.Starts, uint32(at)), false
		default:
			s.Records++
			if !onPage || makes(r.Type) || r.Space != space || r.Page != page {
				s.Starts = append(s.Starts, uint32(at))
			}
			onPage, space, page = true, r.Space, r.Page
		}
		at += n
	}
	return nil
}

// kind is what a record is for.
type kind int

const (
	forPage kind = iota
	forFile
	forLog // it must be in the log that the server starts from
	nothing
)

func kindOf(r *redo.Record) kind {
	switch r.Type {
	case redo.FileCreate, redo.FileRename, redo.FileDelete:
		return forFile
	case redo.TableDynamicMeta:
		return forLog
	case redo.FileExtend: // the header of the tablespace says it as well
		return nothing
	case redo.IndexLoad, redo.Test, redo.MultiEnd, redo.Dummy:
		return nothing
	}
	return forPage
}

// makes says whether what was in the page does not matter.
func makes(t redo.Type) bool { return t == redo.InitFilePage2 || t == redo.InitFilePage }

func (recovery) Frame(dst, records []byte) []byte { return redo.AppendMTR(dst, records) }

func (recovery) Run(run []byte) (redolog.Run, error) {
	r, _, err := redo.Next(run)
	if err != nil {
		return redolog.Run{}, err
	}
	out := redolog.Run{Space: r.Space, Page: r.Page}
	switch kind := kindOf(&r); {
	case kind == forFile:
		return redolog.Run{File: true}, nil
	case kind == forLog:
		return redolog.Run{Kind: redolog.Keeps}, nil
	case kind == nothing:
		return redolog.Run{}, fmt.Errorf("%v: %w", r.Type, redo.ErrMalformed)
	case makes(r.Type):
		out.Kind = redolog.Makes
	}
	return out, nil
}

// openPages keeps what recovered pages, whose buffers are large.
var openPages = sync.Pool{New: func() any { return new(openPage) }}

func (recovery) Open(page []byte, t redolog.Target) redolog.Page {
	p := openPages.Get().(*openPage)
	p.page.Reset(page, t)
	return p
}

// openPage implements redolog.Page.
type openPage struct{ page apply.Page }

func (p *openPage) Apply(run []byte) (int, error) { return p.page.Run(run) }

func (p *openPage) Close() error {
	err := p.page.Finish()
	p.page.Reset(nil, redolog.Target{})
	openPages.Put(p)
	return err
}

func (recovery) MakesPage(run []byte) bool {
	r, _, err := redo.Next(run)
	return err == nil && makes(r.Type)
}

// Replaces is false always: the LSN of a page can be newer than all redo for it,
// as a mini-transaction marks pages as changed that it only holds (InnoDB
// log0recv.cc, recv_recover_page_func: the LSN decides for each record).
func (recovery) Replaces([]byte) bool { return false }

// ops are the file records in the words of recovery.
var ops = map[redo.Type]redolog.FileOp{
	redo.FileCreate: redolog.FileCreated, redo.FileDelete: redolog.FileDeleted, redo.FileRename: redolog.FileRenamed,
}

func (recovery) File(run []byte) (redolog.FileRecord, error) {
	r, _, err := redo.Next(run)
	if err != nil {
		return redolog.FileRecord{}, err
	}
	f, err := r.ParseFile()
	op, ok := ops[f.Type]
	if err == nil && !ok {
		err = redo.ErrMalformed
	}
	return redolog.FileRecord{Op: op, Space: f.Space, Name: f.Name, NewName: f.NewName}, err
}

func (d recovery) Files(records []byte) (files []redolog.FileRecord, err error) {
	for len(records) > 0 {
		r, n, err := redo.Next(records)
		if err != nil {
			return files, err
		}
		if kindOf(&r) == forFile {
			f, err := d.File(records)
			if err != nil {
				return files, err
			}
			files = append(files, f)
		}
		records = records[n:]
	}
	return files, nil
}

// errHide: no record of MySQL can be turned into one of the same length that a
// server passes over.
var errHide = errors.New("hide redo of tablespaces from MySQL: not implemented")

func (recovery) Hide(records []byte, hidden func(format.SpaceID) bool) (changed bool, err error) {
	for len(records) > 0 {
		r, n, err := redo.Next(records)
		if err != nil {
			return false, err
		}
		if kindOf(&r) <= forFile && hidden(r.Space) {
			return false, errHide
		}
		records = records[n:]
	}
	return false, nil
}

func (recovery) Traces() redolog.Traces { return noTraces{} }

// noTraces are those of an encrypted log, of which there is none.
type noTraces struct{}

func (noTraces) Add([]byte, format.LSN, format.LSN) error { return errEncrypted }

func (noTraces) Deleted() bool { return false }

func (noTraces) Imported(format.SpaceID, string, func(format.LSN) (innodb.Age, error)) (format.LSN, bool, error) {
	return 0, false, nil
}
