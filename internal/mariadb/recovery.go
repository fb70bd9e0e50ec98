package mariadb

import (
	"errors"
	"io"
	"slices"
	"strconv"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
	"github.com/xbstream/xbstream/internal/mariadb/apply"
	"github.com/xbstream/xbstream/internal/mariadb/redo"
)

// Redo returns what recovery must know of the redo log.
func (Family) Redo() redolog.Dialect { return recovery{} }

// recovery implements redolog.Dialect.
type recovery struct{}

func (recovery) Family() string { return format.DialectMariaDB }

func (recovery) Server() redolog.Server {
	return redolog.Server{
		Programs: []string{"mariadbd", "mysqld"},
		Foreign:  func(string) bool { return false },
		LSN:      "Innodb_lsn_current",
		Args: func(s *format.Server) []string {
			return []string{"--innodb-undo-tablespaces=" + strconv.Itoa(s.UndoTablespaces)}
		},
		Traces: []string{"ibtmp1", "ib_buffer_pool", "ddl_recovery.log", "ddl_recovery-backup.log", "multi-master.info", "tc.log", "ib_logfile101", "undo_trunc.log"},
	}
}

func (recovery) ForServer(func(string) (io.Writer, error), redolog.Head, format.LSN) (redolog.LogWriter, error) {
	return nil, nil
}

func (recovery) ParseFlags(flags uint32) (innodb.PageFormat, error) { return innodb.ParseFlags(flags) }

func (recovery) HeadSize() int { return redo.StartOffset }

func (recovery) ReadHead(head []byte) (redolog.Head, error) {
	h, err := redo.ParseHeader(head)
	if err != nil {
		return redolog.Head{}, err
	}
	start, err := redo.NewestCheckpoint(head, h.FirstLSN)
	if err != nil {
		return redolog.Head{}, err
	}
	return redolog.Head{FirstLSN: h.FirstLSN, Checkpoint: start.LSN, CheckpointEnd: start.EndLSN, Encrypted: h.Encrypted(), Creator: h.Creator}, nil
}

func (recovery) Position(lsn format.LSN) (redolog.Position, bool) { return redolog.Position(lsn), true }

func (recovery) LSN(p redolog.Position) format.LSN { return format.LSN(p) }

// emptySize is the size of a FILE_CHECKPOINT.
const emptySize = 16

// logName is that of the server's log.
const logName = "ib_logfile0"

func (recovery) LeftName() string { return logName }

func (recovery) LeftSize() int64 { return emptySize }

func (recovery) Leave(end format.LSN, creator string, _ [][]byte) (redolog.Left, error) {
	return redolog.Left{Name: logName, Content: redo.MinimalLog(end-emptySize, redo.BackupCreator(creator))}, nil
}

// LeftEnd is not asked for: the log keeps its name.
func (recovery) LeftEnd([]byte) (format.LSN, bool) { return 0, false }

var errKeep = errors.New("no redo of MariaDB must be kept")

func (recovery) Keep([]byte) (key uint64, rank redolog.Rank, record []byte, err error) {
	return 0, rank, nil, errKeep
}

func (recovery) RollsBack() bool { return false }

// errMarker is what the redo of a backup does not have: all its markers are 1.
var errMarker = errors.New("end marker is not 1")

func (recovery) Next(s *redolog.Scan, b []byte, encrypted bool) error {
	marker, err := redo.ScanRuns(s, b, encrypted)
	if err == nil && marker != 1 {
		return errMarker
	}
	return err
}

func (recovery) Frame(dst, records []byte) []byte { return redo.AppendMTR(dst, records, 1) }

func (recovery) Run(run []byte) (redolog.Run, error) {
	first, body, _, err := redo.NextRecord(run)
	if err != nil || first&0x80 != 0 {
		return redolog.Run{File: true}, err
	}
	space, page, payload, err := redo.PageID(body)
	r := redolog.Run{Space: space, Page: page}
	switch kind := redo.RecordType(first & 0x70); {
	case kind == redo.FreePage:
		r.Kind = redolog.Frees
	case kind == redo.InitPage:
		r.Kind = redolog.Makes
	case kind == redo.Extended && apply.TrimPages(payload):
		r.Kind = redolog.Trims
	}
	return r, err
}

func (recovery) Open(page []byte, t redolog.Target) redolog.Page { return &openPage{page, t} }

// openPage implements redolog.Page.
type openPage struct {
	page   []byte
	target redolog.Target
}

func (p *openPage) Apply(run []byte) (int, error) { return apply.Apply(p.page, p.target, run) }

func (p *openPage) Close() error { return nil }

func (recovery) MakesPage(run []byte) bool { return redo.RecordType(run[0]&0x70) == redo.InitPage }

func (d recovery) Replaces(run []byte) bool { return d.MakesPage(run) }

func (recovery) File(run []byte) (redolog.FileRecord, error) {
	walk := redo.NewRecords(run)
	if !walk.Next() {
		return redolog.FileRecord{}, walk.Err()
	}
	f, err := walk.Record().ParseFile()
	return shared(f), err
}

func (recovery) Files(records []byte) ([]redolog.FileRecord, error) {
	list, err := redo.FileRecords(records)
	var files []redolog.FileRecord
	for _, f := range list {
		files = append(files, shared(f))
	}
	return files, err
}

// ops are the file records in the words of recovery.
var ops = map[redo.FileOp]redolog.FileOp{
	redo.FileCreate: redolog.FileCreated, redo.FileDelete: redolog.FileDeleted, redo.FileRename: redolog.FileRenamed,
	redo.FileModify: redolog.FileModified, redo.FileCheckpoint: redolog.FileCheckpoint,
}

func shared(f redo.FileRecord) redolog.FileRecord {
	return redolog.FileRecord{Op: ops[f.Op], Space: f.Space, Name: f.Name, NewName: f.NewName, Checkpoint: f.Checkpoint}
}

func (recovery) Hide(records []byte, hidden func(format.SpaceID) bool) (changed bool, err error) {
	walk := redo.NewRecords(records)
	for start := 0; walk.Next(); start = len(records) - walk.Rest() {
		r := walk.Record()
		switch {
		case !hidden(r.Space):
		case !r.File:
			redo.HideRecord(records[start:], r.Payload)
			changed = true
		case r.Op == redo.FileDelete:
			redo.HideFileDelete(records[start:])
			changed = true
		}
	}
	return changed, walk.Err()
}

func (recovery) Traces() redolog.Traces { return &traces{} }

// traces collects redo.Trace.
type traces struct {
	list []redo.Trace
	all  *redo.Traces // of the list, once it is asked
}

func (t *traces) Add(records []byte, at, end format.LSN) (err error) {
	t.list, err = redo.AppendTraces(t.list, records, at, end)
	return err
}

func (t *traces) Deleted() bool {
	return slices.ContainsFunc(t.list, func(r redo.Trace) bool { return r.Op == redo.FileDelete })
}

func (t *traces) Imported(id format.SpaceID, name string, age func(floor format.LSN) (innodb.Age, error)) (at format.LSN, may bool, err error) {
	if t.all == nil {
		t.all = redo.NewTraces(t.list)
	}
	return t.all.Imported(id, name, age)
}
