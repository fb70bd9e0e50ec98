package mysql_test

import (
	"context"
	"os"
	"testing"

	"github.com/xbstream/xbstream/internal/family/familytest"
	"github.com/xbstream/xbstream/internal/mysql"
	"github.com/xbstream/xbstream/internal/servertest"
	"github.com/xbstream/xbstream/server"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

// live adds to a test server what the suite asks for.
type live struct{ *servertest.Server }

func (l live) IDs(ctx context.Context, query string) (ids []int64, err error) {
	rows, err := l.DB().QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// The contract of package family.
func TestContract(t *testing.T) {
	for _, release := range servertest.MySQLReleases(t) {
		t.Run(release.String(), func(t *testing.T) {
			familytest.Suite{
				Family: mysql.Family{},
				Start: func(t *testing.T) familytest.Live {
					return live{servertest.New(t, servertest.Options{Release: release, LogBin: true})}
				},
				User:     "root",
				Kill:     "KILL %d",
				Sessions: "SELECT id FROM information_schema.PROCESSLIST WHERE user = 'root' AND id <> CONNECTION_ID()",
				ByTable:  true,
				Recognised: []server.Identity{
					{Version: "9.7.4-2", Comment: "(Debian)"}, {Version: "8.0.30", Comment: "MySQL Community Server - GPL"}, {Version: "8.0.36-28", Comment: "Percona Server (GPL)"}, {Version: "8.4.0-debug", Comment: "Source distribution"},
				},
				TooOld: []server.Identity{{Version: "8.0.29", Comment: "MySQL Community Server - GPL"}, {Version: "5.7.44-log", Comment: "x"}},
				Others: []server.Identity{{Version: "10.11.19-MariaDB-0+deb12u1-log", Comment: "Debian 12"}, {Version: "8.0.11-TiDB-v7.5.0", Comment: "TiDB Server"}, {Version: "unknown", Comment: "x"}},
			}.Run(t)
		})
	}
}
