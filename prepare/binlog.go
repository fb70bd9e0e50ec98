package prepare

import "github.com/xbstream/xbstream/format"

// The ids under which MariaDB 12.3 and later write redo of the two open files of
// the binary log, with binlog_storage_engine=innodb. No file record names them
// (mtr0log.h, LOG_BINLOG_ID_0 and LOG_BINLOG_ID_1).
const (
	binlogSpace0 format.SpaceID = 0xFFFFFFF0
	binlogSpace1 format.SpaceID = 0xFFFFFFF1
)

// inBinlog says whether redo for the space is of the binary log in InnoDB.
func inBinlog(id format.SpaceID) bool { return id == binlogSpace0 || id == binlogSpace1 }
