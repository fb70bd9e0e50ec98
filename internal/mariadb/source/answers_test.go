package source

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// FuzzAnswers: whatever a server says of itself, it is understood or refused,
// and paths are absolute.
func FuzzAnswers(f *testing.F) {
	f.Add("10.11.19-MariaDB-log", "innodb_data_file_path", "ibdata1:12M;ibdata2:1M:autoextend:max:5M", "GRANT RELOAD, PROCESS ON *.* TO `u`@`h`", "0-1-5,7-2-9", "7-1-10")
	f.Add("5.5.5-11.8.9-MariaDB", "port", "-1", "GRANT ALL PRIVILEGES ON *.* TO `u`@`h` WITH GRANT OPTION", "", "")
	f.Add("8.0", "tmpdir", "/a::b:../c", "GRANT  ON *.* TO ", "0-1", "0-1-99999999999999999999")
	f.Add("99999999999999999999.1.", "datadir", "../x", "GRANT SELECT ON `*.* TO`.* TO ``", ",,-,--", "--")
	f.Fuzz(func(t *testing.T, version, name, value, grant, noted, committed string) {
		if v, err := parseVersion(version); err == nil && v.before(v) {
			t.Errorf("%v is before itself", v)
		}
		testLayout(t, map[string]string{"datadir": "/data/", "innodb_data_file_path": "ibdata1:12M:autoextend", name: value})

		rows := []map[string]string{{"Master_Port": value, "Exec_Master_Log_Pos": noted, "Using_Gtid": "No"}}
		if list, err := sources(rows); err == nil && len(list) != 1 {
			t.Errorf("%d sources of one row", len(list))
		}

		part := append(strings.Split(committed, "-"), "", "", "")
		table := []map[string]string{{"domain_id": part[0], "server_id": part[1], "seq_no": part[2]}}
		if got := committedPosition(noted, nil); got != noted {
			t.Errorf("%q became %q by an empty table", noted, got)
		}
		got := strings.Split(committedPosition(noted, table), ",")
		for i, gtid := range strings.Split(noted, ",") {
			if !strings.Contains(committed, ",") && got[i] != gtid && got[i] != strings.Join(part[:3], "-") {
				t.Errorf("%q of %q became %q by %q", gtid, noted, got[i], table)
			}
		}

		testRelay(t, noted, committed, value)

		have := globalPrivileges([]map[string]string{{"Grants": grant}})
		if !strings.Contains(grant, " ON *.* TO ") && have != nil {
			t.Errorf("%q gives %q", grant, have)
		}
		if len(missingFrom([]privilege{{name: "RELOAD"}}, have)) == 0 && !slices.Contains(have, "RELOAD") && !slices.Contains(have, "ALL PRIVILEGES") {
			t.Errorf("%q is taken for RELOAD", have)
		}
	})
}

func testLayout(t *testing.T, vars map[string]string) {
	t.Helper()
	l, err := layoutOf(vars)
	if err != nil {
		return
	}
	paths := []string{l.DataDir, l.AriaLogDir, l.InnoDB.DataHome, l.InnoDB.UndoDir, l.InnoDB.LogDir}
	for _, d := range append(l.InnoDB.DataFiles, l.InnoDB.TempFiles...) {
		paths = append(paths, d.Path)
		if d.Size < 0 || d.Max < 0 {
			t.Errorf("%+v of %q", d, vars)
		}
	}
	for _, p := range paths {
		if !filepath.IsAbs(p) || filepath.Clean(p) != p {
			t.Errorf("path %q of %q", p, vars)
		}
	}
}

// testRelay reads events that say anything: where it ends is where one of them ends.
func testRelay(t *testing.T, a, b, c string) {
	t.Helper()
	r := relayReader{base: "relay-bin", file: a}
	for _, info := range []string{"BEGIN GTID " + a, "GTID " + b, "BEGIN GTID " + c, "BEGIN GTID 0-1-7"} {
		for _, row := range []map[string]string{
			{"Event_type": "Gtid", "Info": info}, {"Event_type": "Xid", "End_log_pos": c},
			{"Event_type": "Rotate", "Info": b}, {"Event_type": "Query", "End_log_pos": "99"},
		} {
			if next, err := r.add(row); err == nil && next != "" && relayBaseName(next) != r.base {
				t.Errorf("%q is the next relay log", next)
			}
		}
	}
	if _, ok := r.last(committedGTIDs{}); ok {
		t.Error("nothing was committed, and a position was found")
	}
	if g, ok := r.last(committedGTIDs{{0, 1}: 7}); ok && g.end < 99 {
		t.Errorf("it ends at %d", g.end)
	}
}

// P1, G1: the position goes on to the end of the last transaction that was
// committed, and over none that was not.
func TestRelayReader(t *testing.T) {
	group := func(gtid, end string) []map[string]string {
		return []map[string]string{
			{"Event_type": "Gtid", "Info": "BEGIN GTID " + gtid, "End_log_pos": "1"}, {"Event_type": "Table_map", "End_log_pos": "2"},
			{"Event_type": "Xid", "End_log_pos": end}, {"Event_type": "Binlog_checkpoint", "End_log_pos": "999999"},
		}
	}
	rotate := []map[string]string{{"Event_type": "Rotate", "Info": "binlog.000008;pos=4"}}
	for _, c := range []struct {
		name      string
		events    [][]map[string]string
		committed committedGTIDs
		want      string
	}{
		{"nothing received", nil, committedGTIDs{{1, 2}: 9}, ""},
		{"nothing committed", [][]map[string]string{group("1-2-10", "500")}, committedGTIDs{{1, 2}: 9}, ""},
		{"one", [][]map[string]string{group("1-2-10", "500"), group("1-2-11", "600")}, committedGTIDs{{1, 2}: 10}, "binlog.000007:500"},
		{"all", [][]map[string]string{group("1-2-10", "500"), group("1-2-11", "600")}, committedGTIDs{{1, 2}: 11}, "binlog.000007:600"},
		{"in the next file", [][]map[string]string{group("1-2-10", "500"), rotate, group("1-2-11", "300")}, committedGTIDs{{1, 2}: 11}, "binlog.000008:300"},
		{"from a chain, whose rows are gone", [][]map[string]string{group("1-3-10", "500"), group("1-2-11", "600")}, committedGTIDs{{1, 2}: 11}, "binlog.000007:600"},
		{"another domain is behind", [][]map[string]string{group("1-2-10", "500"), group("5-2-3", "550"), group("1-2-11", "600")}, committedGTIDs{{1, 2}: 11, {5, 2}: 2}, "binlog.000007:500"},
		{"the same number of another server", [][]map[string]string{group("1-2-10", "500")}, committedGTIDs{{1, 3}: 50}, ""},
		{"the rest of one that was executed", [][]map[string]string{{{"Event_type": "Xid", "End_log_pos": "400"}}, group("1-2-10", "500")}, committedGTIDs{{1, 2}: 9}, ""},
	} {
		r := relayReader{base: "relay-bin", file: "binlog.000007"}
		for _, row := range slices.Concat(c.events...) {
			if _, err := r.add(row); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		got := ""
		if g, ok := r.last(c.committed); ok {
			got = fmt.Sprintf("%s:%d", g.file, g.end)
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
