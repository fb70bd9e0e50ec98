package redo

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/xbstream/xbstream/format"
)

// FileOp is the kind of a file record (InnoDB mtr0types.h).
type FileOp byte

// The kinds of file records.
const (
	FileCreate     FileOp = 0x80
	FileDelete     FileOp = 0x90
	FileRename     FileOp = 0xA0
	FileModify     FileOp = 0xB0
	FileCheckpoint FileOp = 0xF0
)

// String names the record as InnoDB does.
func (o FileOp) String() string {
	switch o {
	case FileCreate:
		return "FILE_CREATE"
	case FileDelete:
		return "FILE_DELETE"
	case FileRename:
		return "FILE_RENAME"
	case FileModify:
		return "FILE_MODIFY"
	case FileCheckpoint:
		return "FILE_CHECKPOINT"
	}
	return fmt.Sprintf("file record 0x%02x", byte(o))
}

// FileRecord is a record about a tablespace's file, or a FILE_CHECKPOINT
// (InnoDB log0recv.cc, recv_sys_t::parse).
type FileRecord struct {
	Op FileOp
	// Space is not 0, except in a FILE_CHECKPOINT.
	Space format.SpaceID
	// Name is the file's name as the server wrote it: "./db/t.ibd", or an
	// absolute path for a table with a DATA DIRECTORY. In a FILE_RENAME it
	// is the old one. It always ends in ".ibd"; it is not to be trusted any
	// further.
	Name string
	// NewName is the new name in a FILE_RENAME.
	NewName string
	// Checkpoint is the checkpoint a FILE_CHECKPOINT belongs to; 0 in one
	// that only pads.
	Checkpoint format.LSN
}

// ParseFile parses a file record. The error is ErrMalformed.
func (r *Record) ParseFile() (FileRecord, error) {
	f := FileRecord{Op: r.Op, Space: r.Space}
	if !r.File || r.Page != 0 {
		return f, ErrMalformed
	}
	switch r.Op {
	case FileCheckpoint:
		return f, f.parseCheckpoint(r.Payload)
	case FileCreate, FileDelete, FileModify:
		f.Name = string(r.Payload)
	case FileRename:
		from, to, ok := bytes.Cut(r.Payload, []byte{0})
		if !ok || !tablespaceName(string(to)) {
			return f, ErrMalformed
		}
		f.Name, f.NewName = string(from), string(to)
	default:
		return f, ErrMalformed
	}
	if f.Space == 0 || !tablespaceName(f.Name) {
		return f, ErrMalformed
	}
	return f, nil
}

// parseCheckpoint reads the payload of a FILE_CHECKPOINT. Zeros of any length
// are padding.
func (f *FileRecord) parseCheckpoint(payload []byte) error {
	if f.Space != 0 {
		return ErrMalformed
	}
	if len(bytes.TrimLeft(payload, "\x00")) == 0 {
		return nil
	}
	if len(payload) != 8 {
		return ErrMalformed
	}
	f.Checkpoint = format.LSN(binary.BigEndian.Uint64(payload))
	return nil
}

// tablespaceName says whether a name can be that of a tablespace's file.
func tablespaceName(s string) bool {
	return len(s) > len(".ibd") && strings.HasSuffix(s, ".ibd") && !strings.Contains(s, "\x00")
}

// AppendFileRecord appends a file record.
func AppendFileRecord(dst []byte, f FileRecord) []byte {
	body := AppendVarint(nil, uint32(f.Space))
	body = AppendVarint(body, 0)
	switch f.Op {
	case FileCheckpoint:
		body = binary.BigEndian.AppendUint64(body, uint64(f.Checkpoint))
	case FileRename:
		body = append(append(append(body, f.Name...), 0), f.NewName...)
	default:
		body = append(body, f.Name...)
	}
	return AppendRecord(dst, byte(f.Op), body)
}

// FileRecords returns the file records of a mini-transaction of a plain log.
// It stops at the first page record: none follow after it (InnoDB
// log0recv.cc: bit 7 would mean "same page"). The error is ErrMalformed.
func FileRecords(records []byte) ([]FileRecord, error) {
	if len(records) == 0 || records[0]&bitSame == 0 {
		return nil, nil
	}
	var files []FileRecord
	walk := NewRecords(records)
	for walk.Next() && walk.Record().File {
		f, err := walk.Record().ParseFile()
		if err != nil {
			return files, err
		}
		files = append(files, f)
	}
	return files, walk.Err()
}
