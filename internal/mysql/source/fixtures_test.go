package source

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/internal/mysql/mysqltest"
	"github.com/xbstream/xbstream/server"
)

// answers reads what an 8.0.30 server said: the statement, a header, rows.
func answers(t *testing.T, name string) (rows []map[string]string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(mysqltest.Fixtures(t), "sql", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	header := strings.Split(lines[1], "\t")
	for _, line := range lines[2:] {
		row := map[string]string{}
		for i, cell := range strings.Split(line, "\t") {
			row[header[i]] = cell
		}
		rows = append(rows, row)
	}
	return rows
}

func TestAnswersOfAnOldServer(t *testing.T) {
	vars := map[string]string{}
	for _, row := range answers(t, "variables") {
		vars[row["Variable_name"]] = row["Value"]
	}
	l, err := layoutOf(vars)
	if err != nil {
		t.Fatal(err)
	}
	if i := l.InnoDB; l.DataDir != "/var/lib/mysql" || i.PageSize != 16384 || i.LogDir != "/var/lib/mysql" || i.UndoDir != "/var/lib/mysql" || i.LogFileSize == 0 || len(i.DataFiles) != 1 || !l.BinlogOn || l.ServerUUID == "" {
		t.Errorf("%+v", l)
	}
	var p server.Position
	if err := parseStatus(&p, answers(t, "log_status")[0]); err != nil || p.LSN != 16998298 || p.Binlog.Position != 613370 || !strings.HasSuffix(p.GTID, ":1-52") {
		t.Errorf("%+v, %v", p, err)
	}
	status := map[string]bool{}
	for _, row := range answers(t, "status_innodb") {
		status[row["Variable_name"]] = true
	}
	for _, name := range []string{currentLSN, flushedLSN, checkpointLSN, "Innodb_redo_log_enabled"} {
		if !status[name] {
			t.Errorf("the server has no %s", name)
		}
	}
	b, err := os.ReadFile(filepath.Join(mysqltest.Fixtures(t), "sql", "grants_minimal.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var grants []map[string]string
	for line := range strings.Lines(string(b)) {
		grants = append(grants, map[string]string{"Grants": strings.TrimSpace(line)})
	}
	have := privilegesOf(grants)
	for _, p := range needed(server.Wanted{Replication: true}) {
		if !have.global[p] {
			t.Errorf("%s is not seen in %v", p, grants)
		}
	}
	if !have.on("SELECT", "performance_schema", "log_status") {
		t.Error("SELECT on log_status is not seen")
	}
}
