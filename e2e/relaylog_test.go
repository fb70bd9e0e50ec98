package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/internal/servertest"
	"github.com/xbstream/xbstream/server"
)

// P1, G1: a replica that goes by file and position has committed more than it has
// noted, as parallel appliers do that wait for the backup lock: the position that
// is recorded is where the last committed transaction ends, whatever binary log
// and relay log that is in.
//
// The appliers are stopped, and the table that belongs to the transactions is set
// as they would have left it: which of them are between commit and note cannot be
// chosen.
func TestFilePositionOfWhatIsCommitted(t *testing.T) {
	for _, release := range servertest.Releases(t) {
		t.Run(release.String(), func(t *testing.T) { filePosition(t, release) })
	}
}

func filePosition(t *testing.T, release servertest.Release) {
	const connection = "by file"
	ctx := t.Context()
	source := servertest.New(t, servertest.Options{Release: release, LogBin: true, TCP: true, ServerID: 2, Args: []string{"--gtid-domain-id=1"}})
	check(t, source.Exec(ctx, "CREATE DATABASE d", "CREATE TABLE d.t (a INT PRIMARY KEY, b INT) ENGINE=InnoDB"))
	replica := servertest.New(t, servertest.Options{Release: release, ServerID: 5, LogBin: true, Args: []string{"--log-slave-updates"}})
	check(t, replica.Exec(ctx, "SET SESSION sql_log_bin=0", "DROP USER repl@127.0.0.1")) // it comes from the source
	check(t, replica.Exec(ctx, servertest.ChangeMaster(connection, source, "MASTER_USE_GTID=no, MASTER_LOG_FILE='binlog.000001', MASTER_LOG_POS=4"), "START ALL SLAVES"))
	check(t, replica.WaitCaughtUp(ctx, source))
	check(t, replica.Exec(ctx, "STOP SLAVE '"+connection+"' SQL_THREAD"))

	// end is where a transaction ends, and the number of its GTID.
	type end struct{ position, seq string }
	var ends []end
	note := func() {
		gtid, err := source.String(ctx, "SELECT @@gtid_binlog_pos")
		check(t, err)
		var file, pos, do, ignore string
		check(t, source.DB().QueryRowContext(ctx, "SHOW MASTER STATUS").Scan(&file, &pos, &do, &ignore))
		ends = append(ends, end{fmt.Sprintf("MASTER_LOG_FILE='%s', MASTER_LOG_POS=%s", file, pos), strings.TrimPrefix(gtid, "1-2-")})
	}
	note()
	insert := func(n int) { check(t, source.Exec(ctx, fmt.Sprintf("INSERT INTO d.t VALUES (%d, 0)", n))); note() }
	for n := range 3 {
		insert(n)
	}
	check(t, source.Exec(ctx, "CREATE TABLE d.u (a INT)"))
	note()
	check(t, source.Exec(ctx, "FLUSH BINARY LOGS"))
	// Not before the source has noted that the old log is not needed any more: that
	// event comes when it likes, and no transaction ends behind it.
	await(t, "binlog checkpoint", func() bool {
		rows, err := server.Rows(ctx, source.DB(), "SHOW BINLOG EVENTS IN 'binlog.000002'")
		check(t, err)
		last := rows[len(rows)-1]
		return last["Event_type"] == "Binlog_checkpoint" && last["Info"] == "binlog.000002"
	})
	insert(10)
	received := func() {
		await(t, "events of the source", func() bool {
			rows, err := server.Rows(ctx, replica.DB(), "SHOW ALL SLAVES STATUS")
			check(t, err)
			return fmt.Sprintf("MASTER_LOG_FILE='%s', MASTER_LOG_POS=%s", rows[0]["Master_Log_File"], rows[0]["Read_Master_Log_Pos"]) == ends[len(ends)-1].position
		})
	}
	received()
	check(t, replica.Exec(ctx, "FLUSH RELAY LOGS"))
	insert(11)
	insert(12)
	received()

	for i, e := range ends {
		if i > 0 { // the row of the transaction before is not always kept
			check(t, replica.Exec(ctx, "SET SESSION sql_log_bin=0",
				"DELETE FROM mysql.gtid_slave_pos WHERE domain_id=1",
				fmt.Sprintf("INSERT INTO mysql.gtid_slave_pos VALUES (1, %d, 2, %s)", 1000+i, e.seq)))
		}
		dir := filepath.Join(t.TempDir(), "copy")
		pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + replica.Socket(), "--slave-info"},
			[]string{"xbstream", "-x", "-C", dir})
		recorded, err := os.ReadFile(filepath.Join(dir, "xtrabackup_slave_info"))
		check(t, err)
		if !strings.Contains(string(recorded), e.position) {
			t.Errorf("transaction %d: recorded %q, committed up to %q", i, recorded, e.position)
		}
	}
}
