package source

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/server"
)

func TestRecognises(t *testing.T) {
	for _, tt := range []struct {
		id   server.Identity
		want bool
	}{
		{server.Identity{Version: "10.11.19-MariaDB-0+deb12u1-log", Comment: "Debian 12"}, true},
		{server.Identity{Version: "11.4.2-MariaDB", Comment: "mariadb.org binary distribution"}, true},
		{server.Identity{Version: "8.4.2", Comment: "MySQL Community Server - GPL"}, false},
		{server.Identity{Version: "8.0.36-28", Comment: "Percona Server (GPL), Release 28"}, false},
		{server.Identity{Version: "5.6.51-log", Comment: "MySQL Community Server (GPL)"}, false},
	} {
		if got := (Dialect{}).Recognises(tt.id); got != tt.want {
			t.Errorf("%s: %t", tt.id, got)
		}
	}
}

func TestOldVersionsAreRefusedByName(t *testing.T) {
	for version, ok := range map[string]bool{
		"10.8.0-MariaDB": true, "10.11.19-MariaDB-log": true, "11.0.2-MariaDB": true, "12.3.1-MariaDB": true,
		"5.5.5-10.11.2-MariaDB": true,
		"10.7.8-MariaDB":        false, "10.5.1-MariaDB": false, "5.5.68-MariaDB": false, "MariaDB": false, "": false,
	} {
		_, err := Dialect{}.Attach(t.Context(), &server.Session{Identity: server.Identity{Version: version}})
		if ok != (err == nil) {
			t.Errorf("%q: %v", version, err)
		}
		if err != nil && (!errors.Is(err, server.ErrUnsupported) || !strings.Contains(err.Error(), version)) {
			t.Errorf("%q: %v is not an ErrUnsupported that names it", version, err)
		}
	}
}

func TestLogArchiveIsRefusedByName(t *testing.T) {
	vars := map[string]string{"datadir": "/d", "innodb_data_file_path": "ibdata1:12M", "innodb_log_archive": "ON"}
	l, err := layoutOf(vars)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkLog(l.InnoDB); !errors.Is(err, server.ErrUnsupported) || !strings.Contains(err.Error(), "innodb_log_archive") {
		t.Errorf("got %v", err)
	}
}

func TestLayoutOfStrangeVariables(t *testing.T) {
	good := func() map[string]string {
		return map[string]string{"datadir": "/d/", "innodb_data_file_path": "ibdata1:12M:autoextend"}
	}
	l, err := layoutOf(good())
	if err != nil || l.DataDir != "/d" || l.InnoDB.LogDir != "/d" || l.AriaLogDir != "/d" || l.InnoDB.DataFiles[0].Path != "/d/ibdata1" {
		t.Errorf("%+v, %v", l, err)
	}
	for name, value := range map[string]string{
		"datadir": "relative", "innodb_page_size": "16k", "innodb_data_file_path": "", "innodb_temp_data_file_path": "x",
	} {
		vars := good()
		vars[name] = value
		if _, err := layoutOf(vars); !errors.Is(err, server.ErrUnsupported) {
			t.Errorf("%s=%s: got %v, want ErrUnsupported", name, value, err)
		}
	}
}

func TestMessagesQuoteNoData(t *testing.T) {
	for info, want := range map[string]string{
		"":                                   "sleep",
		"SET PASSWORD=PASSWORD('hush')":      "SET PASSWORD",
		"ALTER TABLE t FORCE":                "ALTER TABLE",
		"/* hush */ SELECT 1":                "sleep",
		"CREATE USER u IDENTIFIED BY 'hush'": "CREATE USER",
		"INSERT `hush`":                      "INSERT",
	} {
		if got := doing(map[string]string{"INFO": info, "COMMAND": "Sleep"}); got != want {
			t.Errorf("%q: %q, want %q", info, got, want)
		}
	}
}

func TestGlobalPrivileges(t *testing.T) {
	var rows []map[string]string
	for _, line := range []string{
		"GRANT RELOAD, BINLOG MONITOR ON *.* TO `u`@`%` IDENTIFIED BY PASSWORD '*x'",
		"GRANT PROCESS ON `db`.* TO `u`@`%`",
		"GRANT SELECT ON *.* TO `role`",
		"GRANT `x ON *.* TO y` TO `u`@`%`",
		"GRANT PROXY ON ``@`%` TO `u`@`%`",
	} {
		rows = append(rows, map[string]string{"Grants for u": line})
	}
	got := globalPrivileges(rows)
	if slices.Contains(got, "PROCESS") || !slices.Contains(got, "RELOAD") || !slices.Contains(got, "BINLOG MONITOR") || !slices.Contains(got, "SELECT") {
		t.Errorf("got %q", got)
	}
}
