package mariadb_test

import (
	"testing"

	"github.com/xbstream/xbstream/server/mariadb"
)

// P1, G1: which replication threads may have committed what they have not noted.
func TestUnsettledThreads(t *testing.T) {
	for state, want := range map[string]bool{
		"Waiting for backup lock":                                true,
		"Waiting for prior transaction to commit":                true,
		"Waiting for prior transaction to start commit":          true,
		"Waiting for work from SQL thread":                       true,
		"Waiting until MASTER_DELAY seconds after master":        true,
		"Slave has read all relay log; waiting for more updates": true,
		"closing tables":                       false,
		"Commit":                               false,
		"Waiting for semi-sync ACK from slave": false,
		"Write_rows_log_event::write_row(-1) on table `t`": false,
		"": false,
	} {
		busy := mariadb.Unsettled([]map[string]string{{"ID": "7", "STATE": state}})
		if got := len(busy) == 0; got != want {
			t.Errorf("%q: settled %v, want %v", state, got, want)
		}
	}
}

// P1, G1: a connection with an open transaction is found in what the server says,
// and no other one.
func TestOpenTransactions(t *testing.T) {
	own := scratch(t)
	own.exec(t, "CREATE TABLE mysql.o (a INT PRIMARY KEY) ENGINE=InnoDB", "INSERT INTO mysql.o VALUES (1)")
	session := func(statements ...string) (id string) {
		conn, err := own.root.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		for _, q := range statements {
			if _, err := conn.ExecContext(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		if err := conn.QueryRowContext(t.Context(), "SELECT CONNECTION_ID()").Scan(&id); err != nil {
			t.Fatal(err)
		}
		return id
	}
	idle := session("SELECT 1")
	committed := session("BEGIN", "INSERT INTO mysql.o VALUES (2)", "COMMIT")
	prepared := session("XA START 'one'", "INSERT INTO mysql.o VALUES (3)", "XA END 'one'")
	writing := session("BEGIN", "UPDATE mysql.o SET a = a + 10 WHERE a = 1")
	var kind, name, status string
	if err := own.root.QueryRowContext(t.Context(), "SHOW ENGINE INNODB STATUS").Scan(&kind, &name, &status); err != nil {
		t.Fatal(err)
	}
	open := mariadb.OpenTransactions(status)
	for id, want := range map[string]bool{idle: false, committed: false, prepared: true, writing: true} {
		if open[id] != want {
			t.Errorf("connection %s: open %v, want %v, of %v", id, open[id], want, open)
		}
	}
}
