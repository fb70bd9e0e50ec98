package redo

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/xbstream/xbstream/format"
)

// Directory is where the log files are, in innodb_log_group_home_dir.
const Directory = "#innodb_redo"

const (
	filePrefix  = "#ib_redo"
	spareSuffix = "_tmp"
)

// FileName returns the name of a log file.
func FileName(id uint64) string { return filePrefix + strconv.FormatUint(id, 10) }

// ParseFileName reads the name of a log file. A spare one holds nothing yet, or
// what it held in an earlier life (InnoDB log0files_io.cc, log_file_name).
func ParseFileName(name string) (id uint64, spare, ok bool) {
	digits, ok := strings.CutPrefix(name, filePrefix)
	if !ok {
		return 0, false, false
	}
	digits, spare = strings.CutSuffix(digits, spareSuffix)
	id, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || strconv.FormatUint(id, 10) != digits {
		return 0, false, false
	}
	return id, spare, true
}

// File is a log file that is in use.
type File struct {
	ID     uint64
	Size   int64
	Header Header
	// Checkpoints are those of its two blocks, 0 for none.
	Checkpoints [2]format.LSN
	// Encrypted says that the file holds a key.
	Encrypted bool
	// Blocks is where it is read.
	Blocks io.ReaderAt
}

// ReadFile reads the head of a log file.
func ReadFile(r io.ReaderAt, id uint64, size int64) (File, error) {
	head := make([]byte, StartOffset)
	if n, err := r.ReadAt(head, 0); n < len(head) {
		return File{}, fmt.Errorf("%s: read header: %w", FileName(id), err)
	}
	h, err := ParseHeader(head)
	if err != nil {
		return File{}, fmt.Errorf("%s: %w", FileName(id), err)
	}
	f := File{ID: id, Size: size, Header: h, Encrypted: Encrypted(head), Blocks: r}
	for i, at := range []int{Checkpoint1, Checkpoint2} {
		if lsn, ok := ParseCheckpoint(head[at:]); ok {
			f.Checkpoints[i] = lsn
		}
	}
	return f, nil
}

// End is the LSN after the last block that the file has room for (InnoDB
// log0files_dict.cc, log_file_compute_end_lsn).
func (f File) End() format.LSN { return f.Header.Start + format.LSN(max(f.Size-StartOffset, 0)) }

// Contains says whether the file has room for an LSN.
func (f File) Contains(lsn format.LSN) bool { return lsn >= f.Header.Start && lsn < f.End() }

// Offset is where in the file an LSN stands that it contains.
func (f File) Offset(lsn format.LSN) int64 { return StartOffset + int64(lsn-f.Header.Start) }

// Log is the log files of an instance in order.
type Log []File

// NewLog puts files in order and keeps those that form the chain which ends with
// the newest: each starts where the one before it ends, and has the next id. A
// copy of a directory in use may have older ones that do not belong to it.
func NewLog(files []File) Log {
	l := slices.Clone(files)
	slices.SortFunc(l, func(a, b File) int { return cmp.Compare(a.ID, b.ID) })
	for i := len(l) - 1; i > 0; i-- {
		if a, b := l[i-1], l[i]; a.ID+1 != b.ID || a.End() != b.Header.Start || a.Header.UUID != b.Header.UUID {
			return l[i:]
		}
	}
	return l
}

// Flags are those of the newest file, which are the ones that count.
func (l Log) Flags() Flags {
	if len(l) == 0 {
		return 0
	}
	return l[len(l)-1].Header.Flags
}

// Checkpoint returns the newest checkpoint: the greatest of those that lie in
// the file which holds them. Files keep older ones (InnoDB log0recv.cc,
// recv_find_max_checkpoint). The error is ErrNoCheckpoint.
func (l Log) Checkpoint() (format.LSN, error) {
	var newest format.LSN
	for _, f := range l {
		for _, lsn := range f.Checkpoints {
			if f.Contains(lsn) {
				newest = max(newest, lsn)
			}
		}
	}
	if newest == 0 {
		return 0, ErrNoCheckpoint
	}
	return newest, nil
}

// file returns the one that contains an LSN.
func (l Log) file(lsn format.LSN) (File, bool) {
	for _, f := range slices.Backward(l) {
		if f.Contains(lsn) {
			return f, true
		}
	}
	return File{}, false
}
