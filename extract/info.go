package extract

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/xbstream/xbstream/format"
)

// infoFile is one of the small files that scripts around mariabackup and
// xtrabackup read; names and keys are theirs.
type infoFile struct{ name, text string }

// Names of the files infoFiles makes.
const (
	checkpointsName = "xtrabackup_checkpoints"
	infoName        = "xtrabackup_info"
	binlogName      = "xtrabackup_binlog_info"
	slaveName       = "xtrabackup_slave_info"
	galeraName      = "xtrabackup_galera_info"
	configName      = "backup-my.cnf"
)

var infoNames = []string{checkpointsName, infoName, binlogName, slaveName, galeraName, configName}

// infoFiles describes the backup in the words of its manifest.
func infoFiles(m *format.Manifest) []infoFile {
	files := []infoFile{
		{checkpointsName, checkpoints(m.Backup)},
		{infoName, info(m)},
		{configName, config(&m.Backup.Server)},
	}
	if p := m.Backup.Binlog; p != nil {
		files = append(files, infoFile{binlogName, fmt.Sprintf("%s\t%d\t%s\n", p.File, p.Position, m.Backup.GTID)})
	}
	if s := SlaveStatements(m.Backup); len(s) > 0 {
		files = append(files, infoFile{slaveName, strings.Join(s, "\n") + "\n"})
	}
	if g := m.Backup.Galera; g != nil {
		files = append(files, infoFile{galeraName, fmt.Sprintf("%s:%d %d\n", g.StateUUID, g.SeqNo, g.DomainID)})
	}
	return files
}

// SlaveStatements are what lets the restored server replicate from where the
// source of the backup did, as mariabackup writes it to xtrabackup_slave_info:
// the GTID position, if one is in use, and a line for each connection.
func SlaveStatements(b *format.Backup) []string {
	if b.Server.Dialect == format.DialectMySQL {
		return replicaStatements(b)
	}
	var lines []string
	for _, s := range b.Replication {
		name := ""
		if s.Connection != "" {
			name = quoted(s.Connection) + " "
		}
		if !s.GTID {
			lines = append(lines, fmt.Sprintf("CHANGE MASTER %sTO MASTER_LOG_FILE=%s, MASTER_LOG_POS=%d;", name, quoted(s.File), s.Position))
			continue
		}
		lines = append(lines, "CHANGE MASTER "+name+"TO master_use_gtid = slave_pos;")
	}
	if slices.ContainsFunc(b.Replication, func(s format.ReplicationSource) bool { return s.GTID }) {
		lines = slices.Insert(lines, 0, "SET GLOBAL gtid_slave_pos = "+quoted(b.GTIDReplicated)+";")
	}
	return lines
}

// replicaStatements are those of MySQL. A copy has GTIDs already, so that gtid_purged
// cannot be set before a reset; without a set of the backup, those that the copy has
// are right. It also has the names of relay logs that it lacks: START REPLICA fails
// until RESET REPLICA, which keeps the source's address and account.
func replicaStatements(b *format.Backup) []string {
	var lines []string
	if len(b.Replication) > 0 && b.GTIDReplicated != "" {
		lines = append(lines, resetGTIDs(b)+";", "SET GLOBAL gtid_purged = "+quoted(b.GTIDReplicated)+";")
	}
	for _, s := range b.Replication {
		channel := " FOR CHANNEL " + quoted(s.Connection)
		lines = append(lines, "RESET REPLICA"+channel+";")
		if s.GTID {
			lines = append(lines, "CHANGE REPLICATION SOURCE TO SOURCE_AUTO_POSITION=1"+channel+";")
		} else {
			lines = append(lines, fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE=%s, SOURCE_LOG_POS=%d%s;", quoted(s.File), s.Position, channel))
		}
	}
	return lines
}

// resetGTIDs is the statement that empties gtid_executed.
func resetGTIDs(b *format.Backup) string {
	if strings.HasPrefix(b.Server.Version, "8.0.") || strings.HasPrefix(b.Server.Version, "8.1.") {
		return "RESET MASTER"
	}
	return "RESET BINARY LOGS AND GTIDS"
}

// ReplicaStatements are what makes the restored server a replica of the source of the
// backup, by GTID: to be pasted, with the source's address and account filled in. It
// may have been a replica itself.
func ReplicaStatements(b *format.Backup) string {
	if b.Server.Dialect == format.DialectMySQL {
		return resetGTIDs(b) + "; SET GLOBAL gtid_purged=" + quoted(b.GTID) + "; RESET REPLICA ALL; " +
			"CHANGE REPLICATION SOURCE TO SOURCE_HOST='…', SOURCE_USER='…', SOURCE_AUTO_POSITION=1, SOURCE_SSL=1; START REPLICA;"
	}
	return "SET GLOBAL gtid_slave_pos=" + quoted(b.GTID) + "; CHANGE MASTER TO MASTER_HOST='…', MASTER_USER='…', MASTER_USE_GTID=slave_pos; START SLAVE;"
}

// quoted is a string in a statement, in every sql_mode: a backslash in front of a
// quote does not protect it under NO_BACKSLASH_ESCAPES, a second quote does.
func quoted(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", "''").Replace(s) + "'"
}

// checkpoints is the state file, in mariabackup's words: it calls a full backup
// that is not prepared full-backuped.
func checkpoints(b *format.Backup) string {
	return fmt.Sprintf("backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = %d\nlast_lsn = %d\nrecover_binlog_info = 0\n",
		b.Redo.LastCheckpointLSN, b.Redo.EndLSN)
}

func info(m *format.Manifest) string {
	b := m.Backup
	tool, version, _ := strings.Cut(m.Tool, " ")
	position := ""
	if b.Binlog != nil {
		position = fmt.Sprintf("filename '%s', position '%d', GTID of the last change '%s'", b.Binlog.File, b.Binlog.Position, b.GTID)
	}
	var s strings.Builder
	line := func(key string, value any) { fmt.Fprintf(&s, "%s = %v\n", key, value) }
	line("uuid", m.ArchiveID)
	line("name", "")
	line("tool_name", tool)
	line("tool_command", m.Command)
	line("tool_version", version)
	line("ibbackup_version", version)
	line("server_version", b.Server.Version)
	line("start_time", m.Started.Local().Format(time.DateTime))
	line("end_time", m.Finished.Local().Format(time.DateTime))
	line("lock_time", int64(b.LockSeconds+0.5))
	line("binlog_pos", position)
	line("innodb_from_lsn", 0)
	line("innodb_to_lsn", b.Redo.LastCheckpointLSN)
	line("partial", yes(b.Filter != nil || m.Partial))
	line("incremental", "N")
	line("format", "file")
	line("compressed", "N")
	return s.String()
}

func yes(v bool) string {
	if v {
		return "Y"
	}
	return "N"
}

// config holds what a server started on the directory must agree with. All
// files are below the target, wherever they lay at the source.
func config(s *format.Server) string {
	var c strings.Builder
	c.WriteString("# What the files of this directory demand of the server that uses them.\n\n[mysqld]\n")
	line := func(key string, value any) { fmt.Fprintf(&c, "%s=%v\n", key, value) }
	if s.ChecksumAlgorithm != "" {
		line("innodb_checksum_algorithm", s.ChecksumAlgorithm)
	}
	// The names are those of the files that were restored: Entries has compared
	// them. What is written is what was understood, not what was read.
	if files, err := s.SystemFiles(); err == nil {
		line("innodb_data_file_path", format.FormatDataFiles(files))
	}
	mysql := s.Dialect == format.DialectMySQL // its log has no size that files depend on, and 9 knows no such variables
	if s.LogFileSize > 0 && !mysql {
		line("innodb_log_file_size", s.LogFileSize)
	}
	line("innodb_page_size", s.PageSize)
	line("innodb_undo_directory", "./")
	if !mysql {
		line("innodb_undo_tablespaces", s.UndoTablespaces)
	}
	if s.CompressionLevel > 0 {
		line("innodb_compression_level", s.CompressionLevel)
	}
	if s.LowerCaseTableNames != 0 {
		line("lower_case_table_names", s.LowerCaseTableNames)
	}
	return c.String()
}
