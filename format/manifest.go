package format

import "time"

// Manifest says what an archive claims to hold. It travels as JSON (SPEC.md
// §5) near the end of the archive, because only then names and sizes are
// final, and stays in a restored directory as xbstream_manifest.json.
type Manifest struct {
	// Format is the version of the manifest itself, 1.
	Format int `json:"format"`
	// ArchiveID is the id in the archive header, in hexadecimal.
	ArchiveID string `json:"archive_id"`
	// Tool names the writer and its version, as "xbsend 1.0.0".
	Tool string `json:"tool"`
	// Command is the writer's command line, secrets left out.
	Command string `json:"command,omitempty"`
	// Started and Finished are wall clock times of the sender.
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
	// Backup is nil in an archive of ordinary files.
	Backup *Backup `json:"backup,omitempty"`
	// Discarded counts files that were sent and then superseded: dropped
	// tables, tables copied again. Their numbers are absent from Files.
	Discarded int `json:"discarded_files,omitempty"`
	// Partial says that Files names only a part of what was backed up. No
	// archive says so of itself; a reader that kept only some files does.
	Partial bool `json:"partial,omitempty"`
	// Files has one entry for each file and each directory of the tree. It
	// is left nil by streaming readers, which hand out entries one by one.
	Files []File `json:"-"`
}

// Backup is what the manifest says of the server and of the moment.
type Backup struct {
	// Type is TypeFull.
	Type string `json:"type"`
	// Filter is nil in a backup of the whole server.
	Filter *Filter `json:"filter,omitempty"`
	Server Server  `json:"server"`
	Redo   Redo    `json:"redo"`
	// Binlog is nil when the binary log is off.
	Binlog *BinlogPosition `json:"binlog,omitempty"`
	// GTID is the GTID position of the last change in the backup.
	GTID string `json:"gtid,omitempty"`
	// Replication lists the servers that the source is a replica of, if
	// that was asked for, and GTIDReplicated is how far it had come.
	Replication    []ReplicationSource `json:"replication,omitempty"`
	GTIDReplicated string              `json:"gtid_slave_pos,omitempty"`
	// Galera is the position in the cluster, if that was asked for.
	Galera *GaleraPosition `json:"galera,omitempty"`
	// Stages lists what was locked and for how long, in order.
	Stages []Stage `json:"stages,omitempty"`
	// LockSeconds is the time from BLOCK_DDL granted to END, of all attempts
	// together.
	LockSeconds float64 `json:"lock_seconds"`
}

// Filter says what a partial backup is of: the values of the flags of the
// same names. What it left out of InnoDB is among the files, as KindLeftOut.
type Filter struct {
	Databases        string `json:"databases,omitempty"`
	DatabasesExclude string `json:"databases_exclude,omitempty"`
	DatabasesFile    string `json:"databases_file,omitempty"`
	Tables           string `json:"tables,omitempty"`
	TablesExclude    string `json:"tables_exclude,omitempty"`
	TablesFile       string `json:"tables_file,omitempty"`
}

// The families of servers.
const (
	DialectMariaDB = "mariadb"
	DialectMySQL   = "mysql"
)

// Server describes the source server as far as a restore needs it.
type Server struct {
	// Dialect is the family: DialectMariaDB or DialectMySQL.
	Dialect string `json:"dialect"`
	Version string `json:"version"`
	Comment string `json:"version_comment,omitempty"`
	// PageSize is innodb_page_size in bytes.
	PageSize int `json:"innodb_page_size"`
	// DataFilePath is innodb_data_file_path for the restored directory; see
	// SystemFiles.
	DataFilePath string `json:"innodb_data_file_path"`
	// UndoTablespaces is the number of undo tablespace files copied.
	UndoTablespaces int `json:"innodb_undo_tablespaces"`
	// ChecksumAlgorithm is innodb_checksum_algorithm.
	ChecksumAlgorithm string `json:"innodb_checksum_algorithm,omitempty"`
	// LogFileSize is innodb_log_file_size in bytes.
	LogFileSize int64 `json:"innodb_log_file_size,omitempty"`
	// CompressionLevel is innodb_compression_level.
	CompressionLevel int `json:"innodb_compression_level,omitempty"`
	// LowerCaseTableNames is lower_case_table_names.
	LowerCaseTableNames int `json:"lower_case_table_names"`
	// ServerUUID is the server's identity where it has one.
	ServerUUID string `json:"server_uuid,omitempty"`
	// ServerID is server_id.
	ServerID uint32 `json:"server_id,omitempty"`
}

// Redo describes the copied part of the redo log.
type Redo struct {
	// Format names framing and record encoding: RedoMariaDB, RedoMySQL.
	Format string `json:"format"`
	// Creator is the creator string of the source's log header.
	Creator string `json:"creator,omitempty"`
	// CheckpointLSN is where recovery starts and the first redo byte's LSN.
	CheckpointLSN LSN `json:"checkpoint_lsn"`
	// CheckpointEndLSN is where the FILE_CHECKPOINT mini-transactions of
	// that checkpoint start; between CheckpointLSN and EndLSN. In a log that has
	// none it is CheckpointLSN.
	CheckpointEndLSN LSN `json:"checkpoint_end_lsn"`
	// EndLSN is the LSN after the last byte: the state under the lock.
	EndLSN LSN `json:"end_lsn"`
	// LastCheckpointLSN is the server's newest checkpoint at the end of the
	// backup: the base of an incremental backup.
	LastCheckpointLSN LSN `json:"last_checkpoint_lsn"`
	// Encryption holds bytes 48..75 of the log header of an encrypted log,
	// in hexadecimal; empty for a plain one. They contain no key.
	Encryption string `json:"encryption,omitempty"`
}

// BinlogPosition is a position in the source's binary log.
type BinlogPosition struct {
	File     string `json:"file"`
	Position uint64 `json:"position"`
}

// ReplicationSource is a server that the source of the backup is a replica of.
type ReplicationSource struct {
	// Connection is the name of the connection, empty for the default one.
	Connection string `json:"connection"`
	Host       string `json:"host,omitempty"`
	Port       int    `json:"port,omitempty"`
	// File and Position are where in that server's binary log the next
	// change starts that is not in the backup.
	File     string `json:"file,omitempty"`
	Position uint64 `json:"position,omitempty"`
	// GTID says that the connection goes by GTIDs.
	GTID bool `json:"gtid,omitempty"`
}

// GaleraPosition is the last write set of a cluster that the backup holds.
type GaleraPosition struct {
	// StateUUID is the cluster's, SeqNo counts its write sets.
	StateUUID string `json:"state_uuid"`
	SeqNo     int64  `json:"seqno"`
	// DomainID is wsrep_gtid_domain_id.
	DomainID uint32 `json:"gtid_domain_id"`
}

// Stage is one lock of the backup and the seconds until the next one.
type Stage struct {
	Name string `json:"name"`
	// Waited is the time until the lock was granted, in seconds.
	Waited float64 `json:"waited"`
	// Held is the time from then to the next stage, in seconds.
	Held float64 `json:"held"`
	// GaveUp says that the lock was not granted in time: with it all before it
	// were released, and the stages that follow are those of another attempt.
	GaveUp bool `json:"gave_up,omitempty"`
}

// FileKind tells readers how a file is to be treated.
type FileKind string

// The kinds of SPEC.md §5.2.
const (
	KindDir        FileKind = "dir"        // directory; No is 0
	KindTablespace FileKind = "tablespace" // file-per-table tablespace
	KindSystem     FileKind = "system"     // file of the system tablespace
	KindUndo       FileKind = "undo"       // undo tablespace
	KindFile       FileKind = "file"       // any other file
	// KindLeftOut is a tablespace of one file per table that existed and is
	// not in the archive, because it was not asked for; No and Size are 0.
	KindLeftOut FileKind = "left-out"
)

// ofFile reports whether it is the kind of something that travels in frames.
func (k FileKind) ofFile() bool {
	switch k {
	case KindTablespace, KindSystem, KindUndo, KindFile:
		return true
	}
	return false
}

// Arrived reports whether the entry is of something that a complete archive, or
// the directory made of it, has: all but what was left out.
func (f *File) Arrived() bool { return f.Kind != KindLeftOut }

// File is one entry of the manifest.
type File struct {
	// No is the number used in the frames; 0 for a directory and what was left
	// out.
	No FileNo `json:"no,omitempty"`
	// Path is the final path below the target: relative, slash separated.
	Path string   `json:"path"`
	Kind FileKind `json:"kind"`
	// Size is the size in bytes as copied.
	Size int64 `json:"size"`
	// Mode holds the permission bits.
	Mode uint32 `json:"mode"`
	// ModTime is the source's modification time.
	ModTime time.Time `json:"mtime,omitzero"`
	// Space describes an InnoDB file; nil for others.
	Space *Space `json:"space,omitempty"`
	// Source is the absolute path at the source where it is not below the
	// data directory (DATA DIRECTORY, undo directory, …).
	Source string `json:"source,omitempty"`
}

// Space is what the manifest says of a file of a tablespace.
type Space struct {
	ID SpaceID `json:"id"`
	// Flags are FSP_SPACE_FLAGS of page 0 at the time of copying.
	Flags uint32 `json:"flags"`
	// PageSize is the physical page size in bytes.
	PageSize int `json:"page_size"`
	// FirstPage is the number of the file's first page: not 0 only in the
	// second and later files of the system tablespace.
	FirstPage PageNo `json:"first_page,omitempty"`
	// Encrypted says that page 0 carries encryption data.
	Encrypted bool `json:"encrypted,omitempty"`
	// Rebuild says that page 0 was not yet written when the file was copied:
	// the tablespace comes from redo alone.
	Rebuild bool `json:"rebuild,omitempty"`
}
