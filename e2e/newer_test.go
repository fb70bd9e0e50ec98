package e2e

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/internal/servertest"
)

// pretend makes a server look like another version, with these variables. It
// returns the socket of the one that lies.
func pretend(t *testing.T, s *servertest.Server, version string, variables map[string]string) (socket string) {
	t.Helper()
	return s.Relay(t, func(query string, a *servertest.Answer) {
		switch {
		case strings.HasPrefix(query, "SELECT @@version,"):
			a.Rows[0][0].String = version
		case query == "SHOW GLOBAL VARIABLES":
			for name, value := range variables {
				a.Set(name, value)
			}
		}
	})
}

// G4, P10: what a newer server may have switched on is refused by name, before
// anything is copied; without that it is backed up, with one warning.
func TestNewerServers(t *testing.T) {
	t.Parallel()
	source := servertest.New(t, servertest.Options{LogBin: true})
	args := func(socket string, more ...string) []string {
		return append([]string{"--no-defaults", "--user=root", "--socket=" + socket}, more...)
	}
	const warning = "newer than any that this program was tested with"
	for _, c := range []struct {
		name, version string
		variables     map[string]string
		warned        bool
		refused       string // empty: it is backed up
	}{
		{"the last series tested", "11.8.9-MariaDB", nil, false, ""},
		{"between two series tested", "11.4.2-MariaDB-log", nil, false, ""},
		{"newer", "12.3.1-MariaDB-log", map[string]string{"binlog_storage_engine": ""}, true, ""},
		{"newer, binary log in InnoDB", "12.3.1-MariaDB-log", map[string]string{"binlog_storage_engine": "InnoDB"}, true, "binlog_storage_engine=InnoDB"},
		{"newer, redo log archived", "13.0.1-MariaDB-log", map[string]string{"innodb_log_archive": "ON"}, true, "innodb_log_archive=ON"},
	} {
		t.Run(c.name, func(t *testing.T) {
			socket := pretend(t, source, c.version, c.variables)
			for _, more := range [][]string{nil, {"--dry-run"}} {
				archive, said, code := xbsendOf(t, args(socket, more...)...)
				if n := strings.Count(said, warning); c.warned != (n == 1) || n > 1 || c.warned && !strings.Contains(said, "11.8.9") {
					t.Errorf("warned %d times, want %t\n%s", n, c.warned, said)
				}
				if c.refused == "" && code != exitDone {
					t.Errorf("exit code %d\n%s", code, said)
				}
				if c.refused != "" && (code != exitServer || len(archive) > 0 || !strings.Contains(lastLine(said), c.refused)) {
					t.Errorf("exit code %d, want %d, %d bytes of an archive\n%s", code, exitServer, len(archive), said)
				}
			}
		})
	}
	// What the relay carried is a backup as any other.
	dir := filepath.Join(t.TempDir(), "copy")
	pipeline(t, append([]string{"xbsend"}, args(pretend(t, source, "12.0.2-MariaDB", nil))...), []string{"xbstream", "-x", "--prepare", "-C", dir})
	startCopy(t, dir)
}

// G5: a table of an engine that cannot be copied stops only the backups that it
// would be part of, and the message says how to leave it out.
func TestStrangeEngineThatIsLeftOut(t *testing.T) {
	t.Parallel()
	source := servertest.New(t, servertest.Options{})
	check(t, source.Exec(t.Context(), "CREATE DATABASE d", "CREATE TABLE d.rocks (a INT) ENGINE=MyISAM", "CREATE TABLE d.inno (a INT) ENGINE=InnoDB"))
	text := func(words ...string) (row []sql.NullString) {
		for _, w := range words {
			row = append(row, sql.NullString{String: w, Valid: true})
		}
		return row
	}
	socket := source.Relay(t, func(query string, a *servertest.Answer) {
		switch {
		case strings.Contains(query, "information_schema.ENGINES"):
			a.Rows = append(a.Rows, text("ROCKSDB"))
		case strings.Contains(query, "information_schema.TABLES WHERE ENGINE='ROCKSDB'"):
			a.Rows = append(a.Rows, text("d", "rocks", "d", "rocks")[:len(a.Columns)])
		}
	})
	for _, c := range []struct {
		flag string
		code int
	}{
		{"--tables-exclude=^d[.]rocks$", exitDone},
		{"--tables-exclude=^d[.]inno$", exitServer},
		{"--databases-exclude=d", exitDone},
		{"--databases=mysql d.inno", exitDone},
		{"--databases=d", exitServer},
		{"--parallel=2", exitServer},
	} {
		_, said, code := xbsendOf(t, "--no-defaults", "--user=root", "--socket="+socket, c.flag)
		if code != c.code || code != exitDone && (!strings.Contains(said, "`d`.`rocks`") || !strings.Contains(said, "--tables-exclude")) {
			t.Errorf("%s: exit code %d, want %d\n%s", c.flag, code, c.code, said)
		}
	}
}
