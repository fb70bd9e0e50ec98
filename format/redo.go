package format

// The formats of redo that archives hold, SPEC.md §4.5.
const (
	// RedoMariaDB is that of MariaDB since 10.8.
	RedoMariaDB = "mariadb-10.8"
	// RedoMySQL is that of MySQL since 8.0.30.
	RedoMySQL = "mysql-8.0.30"
)

// RedoPosition counts the bytes of redo as archives hold them, from a place that
// the format of the redo chooses. It grows with the LSN, which may count other
// bytes as well.
type RedoPosition uint64

// The blocks of MySQL's redo log (InnoDB log0constants.h), which are not part of an
// archive and count in LSNs.
const (
	redoBlock        = 512
	redoBlockHeader  = 12
	redoBlockTrailer = 4
	redoBlockPayload = redoBlock - redoBlockHeader - redoBlockTrailer
)

// Position returns the position of an LSN. ok is false if no redo of this format can
// begin or end there.
func (r *Redo) Position(lsn LSN) (p RedoPosition, ok bool) {
	if r.Format != RedoMySQL {
		return RedoPosition(lsn), true
	}
	in := lsn % redoBlock
	if in < redoBlockHeader || in >= redoBlock-redoBlockTrailer {
		return 0, false
	}
	return RedoPosition(lsn/redoBlock*redoBlockPayload + in - redoBlockHeader), true
}

// empty says whether the format may be of a log without redo: the server's newest
// checkpoint is then where the backup ends, and nothing marks it in the log.
func (r *Redo) empty() bool { return r.Format == RedoMySQL && r.CheckpointLSN == r.EndLSN }
