package tail

import (
	"errors"
	"fmt"

	"github.com/xbstream/xbstream/format"
	ondisk "github.com/xbstream/xbstream/internal/mariadb/redo"
	"github.com/xbstream/xbstream/redotail"
)

// startMark watches for the FILE_CHECKPOINT recovery will look for. It lies
// at the checkpoint's end LSN, after nothing but FILE_MODIFY records (InnoDB
// log0recv.cc, recv_sys_t::find_checkpoint and recv_scan_log).
type startMark struct {
	checkpoint ondisk.Checkpoint
	encrypted  bool
	end        format.LSN // LSN after the FILE_CHECKPOINT, 0 before it was seen
}

// errNoFileCheckpoint is what recovery would stop with.
var errNoFileCheckpoint = errors.New("FILE_CHECKPOINT is missing")

// pass looks at the mini-transaction from lsn to end.
func (s *startMark) pass(records []byte, lsn, end format.LSN) error {
	if s.end != 0 || end <= s.checkpoint.EndLSN {
		return nil
	}
	if lsn < s.checkpoint.EndLSN {
		return fmt.Errorf("no mini-transaction begins at the checkpoint's end LSN %v", s.checkpoint.EndLSN)
	}
	found, only := s.look(records)
	if found {
		s.end = end
		return nil
	}
	if !only {
		return fmt.Errorf("%w for checkpoint %v at LSN %v", errNoFileCheckpoint, s.checkpoint.LSN, s.checkpoint.EndLSN)
	}
	return nil
}

// look says whether a mini-transaction has the FILE_CHECKPOINT, and whether
// it holds only records that may come before it. In an encrypted log types are
// in clear but values are not.
func (s *startMark) look(rest []byte) (found, only bool) {
	for len(rest) > 0 {
		first, _, after, err := ondisk.NextRecord(rest)
		if err != nil {
			return false, false
		}
		switch ondisk.FileOp(first & 0xF0) {
		case ondisk.FileModify:
		case ondisk.FileCheckpoint:
			if s.encrypted {
				return true, true
			}
			files, err := ondisk.FileRecords(rest)
			if err == nil && len(files) > 0 && files[0].Checkpoint == s.checkpoint.LSN {
				return true, true
			}
		default:
			return false, false
		}
		rest = after
	}
	return false, true
}

// appendFiles appends the file records of the mini-transaction at lsn.
func appendFiles(dst []redotail.FileRecord, records []byte, lsn format.LSN) ([]redotail.FileRecord, error) {
	files, err := ondisk.FileRecords(records)
	if err != nil {
		return dst, fmt.Errorf("file record: %w", err)
	}
	for _, f := range files {
		r := redotail.FileRecord{LSN: lsn, Space: f.Space, Name: f.Name}
		switch f.Op {
		case ondisk.FileCreate:
			r.Op = redotail.FileCreated
		case ondisk.FileDelete:
			r.Op = redotail.FileDeleted
		case ondisk.FileRename:
			r.Op, r.Name, r.OldName = redotail.FileRenamed, f.NewName, f.Name
		case ondisk.FileModify:
			r.Op = redotail.FileModified
		default:
			continue
		}
		dst = append(dst, r)
	}
	return dst, nil
}
