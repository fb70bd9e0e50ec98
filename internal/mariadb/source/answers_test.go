package source

import (
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
