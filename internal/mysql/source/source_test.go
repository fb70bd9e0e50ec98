package source

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/servertest"
	"github.com/xbstream/xbstream/server"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

func TestVersions(t *testing.T) {
	for text, ok := range map[string]bool{
		"8.0.30": true, "8.0.29": false, "8.0.30-22": true, "8.4.0": true, "9.7.4-2": true, "10.0.1": true, "5.7.44-log": false, "nine": false, "99999999999999999999.1.1": false,
	} {
		_, err := Dialect{}.Attach(t.Context(), &server.Session{Identity: server.Identity{Version: text}})
		if (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
		if err != nil && (!errors.Is(err, server.ErrUnsupported) || !strings.Contains(err.Error(), text)) {
			t.Errorf("%s: %v does not refuse it by name", text, err)
		}
	}
}

func TestLayoutOfOddPaths(t *testing.T) {
	l, err := layoutOf(map[string]string{
		"datadir": "/srv/mysql/", "innodb_data_home_dir": "inno", "innodb_data_file_path": "ibdata1:12M;/fast/ibdata2:1G:autoextend",
		"innodb_undo_directory": "/undo/", "innodb_log_group_home_dir": "./", "innodb_temp_data_file_path": "ibtmp1:12M:autoextend", "log_error": "stderr",
		"tmpdir": "/tmp:/var/tmp/", "innodb_page_size": "16384", "server_uuid": "u", "lower_case_table_names": "1", "log_bin": "ON", "log_bin_basename": "/logs/binlog",
	})
	if err != nil {
		t.Fatal(err)
	}
	if i := l.InnoDB; l.DataDir != "/srv/mysql" || i.DataHome != "/srv/mysql/inno" || i.UndoDir != "/undo" || i.LogDir != "/srv/mysql" || i.DataFiles[0].Path != "/srv/mysql/inno/ibdata1" || i.DataFiles[1].Path != "/fast/ibdata2" {
		t.Errorf("%+v", l)
	}
	if l.LogError != "" || !slices.Equal(l.TmpDirs, []string{"/tmp", "/var/tmp"}) || l.LowerCaseTableNames != 1 || l.BinlogBase != "/logs/binlog" || !l.BinlogOn {
		t.Errorf("%+v", l)
	}
	for _, vars := range []map[string]string{
		{"datadir": "data"}, {"datadir": "/d"}, {"datadir": "/d", "innodb_data_file_path": "ibdata1:12Mraw"},
		{"datadir": "/d", "innodb_data_file_path": "ibdata1:12M", "port": "x"},
	} {
		if _, err := layoutOf(vars); !errors.Is(err, server.ErrUnsupported) {
			t.Errorf("%v: %v", vars, err)
		}
	}
}

// What SHOW GRANTS of 9.7.4 prints.
func TestPrivileges(t *testing.T) {
	row := func(lines ...string) (rows []map[string]string) {
		for _, l := range lines {
			rows = append(rows, map[string]string{"Grants for b@%": l})
		}
		return rows
	}
	p := privilegesOf(row(
		"GRANT PROCESS, REPLICATION CLIENT ON *.* TO `b`@`%`",
		"GRANT BACKUP_ADMIN,CLONE_ADMIN ON *.* TO `b`@`%` WITH GRANT OPTION",
		"GRANT SELECT ON `performance_schema`.* TO `b`@`%`",
		"GRANT SELECT, LOCK TABLES ON `shop``s`.`a.b` TO `b`@`%`",
		"GRANT `role`@`%` TO `b`@`%`",
	))
	for name, want := range map[string]bool{"PROCESS": true, "REPLICATION CLIENT": true, "BACKUP_ADMIN": true, "CLONE_ADMIN": true, "SELECT": false, "LOCK TABLES": false} {
		if p.global[name] != want {
			t.Errorf("%s: %v", name, p.global[name])
		}
	}
	if !p.on("SELECT", "performance_schema", "log_status") || !p.on("LOCK TABLES", "shop`s", "a.b") || p.on("LOCK TABLES", "shop`s", "c") {
		t.Errorf("%+v", p.object)
	}
	if p.revoked {
		t.Error("something was revoked")
	}
	// With sql_mode=ANSI_QUOTES, and with partial_revokes=ON.
	p = privilegesOf(row(`GRANT SELECT ON *.* TO "b"@"%"`, `GRANT SELECT ON "performance_schema"."log_status" TO "b"@"%"`, `GRANT LOCK TABLES ON "a""b".* TO "b"@"%"`,
		"REVOKE SELECT ON `secret`.* FROM `b`@`%`"))
	if !p.revoked || !p.object["performance_schema.log_status"]["SELECT"] || !p.on("LOCK TABLES", `a"b`, "c") {
		t.Errorf("%+v", p)
	}
}

func TestStatus(t *testing.T) {
	var p server.Position
	row := map[string]string{
		"LOCAL":           `{"gtid_executed": "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,\n4e11fa47-71ca-11e1-9e33-c80aa9429562:1", "binary_log_file": "binlog.000002", "binary_log_position": 157}`,
		"STORAGE_ENGINES": `{"InnoDB": {"LSN": 19419404, "LSN_checkpoint": 19409761}}`,
	}
	if err := parseStatus(&p, row); err != nil {
		t.Fatal(err)
	}
	if p.LSN != 19419404 || p.Binlog == nil || *p.Binlog != (format.BinlogPosition{File: "binlog.000002", Position: 157}) ||
		p.GTID != "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,4e11fa47-71ca-11e1-9e33-c80aa9429562:1" {
		t.Errorf("%+v", p)
	}
	p = server.Position{}
	row["LOCAL"] = `{"gtid_executed": ""}` // the binary log is off
	if err := parseStatus(&p, row); err != nil || p.Binlog != nil || p.GTID != "" {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range []map[string]string{
		{"LOCAL": "{", "STORAGE_ENGINES": `{"InnoDB": {"LSN": 1}}`}, {"LOCAL": "{}", "STORAGE_ENGINES": "{}"}, {"LOCAL": "{}", "STORAGE_ENGINES": `{"InnoDB": {"LSN": -1}}`},
	} {
		if err := parseStatus(&p, bad); !errors.Is(err, server.ErrUnsupported) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestSources(t *testing.T) {
	row := map[string]string{"Channel_Name": "east", "Source_Host": "db1", "Source_Port": "3306", "Relay_Source_Log_File": "binlog.000007", "Exec_Source_Log_Pos": "4", "Auto_Position": "1"}
	own := map[string]string{"Channel_Name": "group_replication_applier"}
	got, err := sourcesOf([]map[string]string{row, own})
	want := []format.ReplicationSource{{Connection: "east", Host: "db1", Port: 3306, File: "binlog.000007", Position: 4, GTID: true}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, column := range []string{"Source_Port", "Exec_Source_Log_Pos"} {
		bad := map[string]string{}
		for k, v := range row {
			bad[k] = v
		}
		bad[column] = "x"
		if _, err := sourcesOf([]map[string]string{bad}); !errors.Is(err, server.ErrUnsupported) {
			t.Errorf("%s: %v", column, err)
		}
	}
}
