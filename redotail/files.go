package redotail

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/xbstream/xbstream/format"
)

// FileOp is what the log says happened to a tablespace's file.
type FileOp string

// The operations.
const (
	FileCreated FileOp = "created"
	FileRenamed FileOp = "renamed"
	FileDeleted FileOp = "deleted"
	// FileModified says that pages of the tablespace are about to change.
	// Alone it is no news, but after FileDeleted it means that the file is
	// back under the same space id: DISCARD and IMPORT TABLESPACE.
	FileModified FileOp = "modified"
	// FileLoaded says that pages of the tablespace were written otherwise than the
	// redo tells, and are on disk now: an index that was built, or MySQL has decrypted
	// all and thrown away the key. It has no name.
	FileLoaded FileOp = "loaded"
)

// FileRecord is one record of the log about a tablespace's file.
type FileRecord struct {
	Op FileOp
	// LSN is the start of the mini-transaction that holds the record.
	LSN   format.LSN
	Space format.SpaceID
	// Name is the file's name as the server wrote it, after the operation
	// (of a deleted one: before). It is not to be trusted as a path.
	Name string
	// OldName is the name before FileRenamed.
	OldName string
}

// FileChange is what the redo read so far says of one tablespace: the last
// record, and whether the tablespace began within that redo.
type FileChange struct {
	FileRecord
	// Created is the LSN of the FileCreated record, 0 if there was none.
	Created format.LSN
	// Loaded is when the last FileLoaded was read, zero if there was none: a copy
	// that was begun before that lacks pages.
	Loaded time.Time
}

// fileChanges keeps one FileChange a tablespace: its size grows with the
// tablespaces that DDL touches, not with the redo.
type fileChanges map[format.SpaceID]FileChange

func (c fileChanges) add(r FileRecord) {
	last, known := c[r.Space]
	if r.Op == FileLoaded {
		last.Loaded = time.Now()
		if !known {
			last.FileRecord = r
		}
		c[r.Space] = last
		return
	}
	if r.Op == FileModified && (!known || last.Op != FileDeleted && last.Op != FileModified) {
		// Every checkpoint repeats these for all tablespaces in use.
		return
	}
	if r.Op == FileCreated {
		last.Created = r.LSN
	}
	last.FileRecord = r
	c[r.Space] = last
}

// list returns the changes in the order of their last records.
func (c fileChanges) list() []FileChange {
	return slices.SortedFunc(maps.Values(c), func(a, b FileChange) int {
		return cmp.Or(cmp.Compare(a.LSN, b.LSN), cmp.Compare(a.Space, b.Space))
	})
}
