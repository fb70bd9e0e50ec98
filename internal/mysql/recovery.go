package mysql

import (
	"errors"
	"fmt"
	"sync"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
	"github.com/xbstream/xbstream/internal/mysql/apply"
	"github.com/xbstream/xbstream/internal/mysql/redo"
)

// Redo returns what recovery must know of the redo log.
func Redo() redolog.Dialect { return recovery{} }

// recovery implements redolog.Dialect.
type recovery struct{}

func (recovery) HeadSize() int { return redo.LinearStart }

func (recovery) ReadHead(head []byte) (redolog.Head, error) {
	l, err := redo.ParseLinear(head)
	if err != nil {
		return redolog.Head{}, err
	}
	return redolog.Head{FirstLSN: l.First, Checkpoint: l.First, Creator: l.Creator}, nil
}

func (recovery) EmptySize() int64 { return int64(len(emptyLog(redo.FirstLSN, ""))) - redo.StartOffset }

func (recovery) EmptyLog(end format.LSN, creator string) []byte { return emptyLog(end, creator) }

func emptyLog(end format.LSN, creator string) []byte {
	b, err := redo.EmptyLog(redo.StartAfter(end), creator, nil)
	if err != nil {
		panic(err) // StartAfter returns what EmptyLog takes
	}
	return b
}

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

// pages keeps what recovered pages, whose buffers are large.
var pages = sync.Pool{New: func() any { return new(openPage) }}

func (recovery) Open(page []byte, t redolog.Target) redolog.Page {
	p := pages.Get().(*openPage)
	p.page.Reset(page, t)
	return p
}

// openPage implements redolog.Page.
type openPage struct{ page apply.Page }

func (p *openPage) Apply(run []byte) (int, error) { return p.page.Run(run) }

func (p *openPage) Close() error {
	err := p.page.Finish()
	p.page.Reset(nil, redolog.Target{})
	pages.Put(p)
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
