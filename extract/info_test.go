package extract

import (
	"slices"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
)

// The statements are for the server that the backup is of.
func TestStatementsOfMySQL(t *testing.T) {
	b := &format.Backup{
		Server: format.Server{Dialect: format.DialectMySQL, Version: "9.7.4", PageSize: 16384, LogFileSize: 8 << 20, UndoTablespaces: 2},
		GTID:   "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5", GTIDReplicated: "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5",
		Replication: []format.ReplicationSource{{GTID: true}, {Connection: "o'ther", File: "binlog.000007", Position: 157}},
	}
	want := []string{
		"RESET BINARY LOGS AND GTIDS;", "SET GLOBAL gtid_purged = '3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5';",
		"RESET REPLICA FOR CHANNEL '';", "CHANGE REPLICATION SOURCE TO SOURCE_AUTO_POSITION=1 FOR CHANNEL '';",
		"RESET REPLICA FOR CHANNEL 'o''ther';",
		"CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='binlog.000007', SOURCE_LOG_POS=157 FOR CHANNEL 'o''ther';",
	}
	if got := SlaveStatements(b); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	// A set that is not known: the copy has its own.
	b.GTIDReplicated = ""
	if got := SlaveStatements(b); !slices.Equal(got, want[2:]) {
		t.Errorf("%q", got)
	}
	for version, reset := range map[string]string{"8.0.36": "RESET MASTER; ", "8.4.0": "RESET BINARY LOGS AND GTIDS; ", "9.7.4": "RESET BINARY LOGS AND GTIDS; "} {
		b.Server.Version = version
		if got := ReplicaStatements(b); !strings.HasPrefix(got, reset+"SET GLOBAL gtid_purged='3e11fa47-") {
			t.Errorf("%s: %s", version, got)
		}
	}
	// 9.7 does not start with variables that it does not know.
	if got := config(&b.Server); strings.Contains(got, "innodb_log_file_size") || strings.Contains(got, "innodb_undo_tablespaces") || !strings.Contains(got, "innodb_page_size=16384\n") {
		t.Errorf("%s", got)
	}
	b.Server.Dialect = format.DialectMariaDB
	if got := config(&b.Server); !strings.Contains(got, "innodb_log_file_size=8388608\n") || !strings.Contains(got, "innodb_undo_tablespaces=2\n") {
		t.Errorf("%s", got)
	}
}
