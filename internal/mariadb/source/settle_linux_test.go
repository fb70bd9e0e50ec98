package source_test

import (
	"testing"

	"github.com/xbstream/xbstream/internal/mariadb/source"
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
		busy := source.Unsettled([]map[string]string{{"ID": "7", "STATE": state}})
		if got := len(busy) == 0; got != want {
			t.Errorf("%q: settled %v, want %v", state, got, want)
		}
	}
}

// P1, G1: what the server has committed counts, not what it has noted already.
func TestCommittedPosition(t *testing.T) {
	row := func(domain, server, seq string) map[string]string {
		return map[string]string{"domain_id": domain, "server_id": server, "seq_no": seq}
	}
	for _, c := range []struct {
		noted string
		table []map[string]string
		want  string
	}{
		{"0-1-1610", []map[string]string{row("0", "1", "1611"), row("0", "1", "1612")}, "0-1-1612"},
		{"0-1-1612", []map[string]string{row("0", "1", "1611"), row("0", "1", "1612")}, "0-1-1612"},
		{"0-1-9,1-2-7", []map[string]string{row("1", "3", "8"), row("0", "1", "9")}, "0-1-9,1-3-8"},
		{"0-1-9", nil, "0-1-9"},
		{"0-1-9", []map[string]string{row("5", "1", "10")}, "0-1-9,5-1-10"},
		{"", []map[string]string{row("1", "2", "1")}, "1-2-1"},
		{"", nil, ""},
		// Rows of another engine's table are noted, and not in this one.
		{"0-1-9", []map[string]string{row("0", "1", "8")}, "0-1-9"},
	} {
		if got := source.CommittedPosition(c.noted, c.table); got != c.want {
			t.Errorf("%s and %v: %s, want %s", c.noted, c.table, got, c.want)
		}
	}
}
