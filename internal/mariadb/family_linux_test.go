package mariadb_test

import (
	"context"
	"os"
	"testing"

	"github.com/xbstream/xbstream/internal/family/familytest"
	"github.com/xbstream/xbstream/internal/mariadb"
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
	for _, release := range servertest.Releases(t) {
		t.Run(release.String(), func(t *testing.T) {
			familytest.Suite{
				Family: mariadb.Family{},
				Start: func(t *testing.T) familytest.Live {
					return live{servertest.New(t, servertest.Options{Release: release, LogBin: true})}
				},
				User:     "root",
				Kill:     "KILL %d",
				Sessions: "SELECT id FROM information_schema.PROCESSLIST WHERE user = 'root' AND id <> CONNECTION_ID()",
				Recognised: []server.Identity{
					{Version: "10.11.19-MariaDB-0+deb12u1-log", Comment: "Debian 12"}, {Version: "5.5.5-10.8.3-MariaDB", Comment: "x"}, {Version: "11.8.9-MariaDB-log", Comment: "mariadb.org binary distribution"},
				},
				TooOld: []server.Identity{{Version: "10.5.29-MariaDB", Comment: "x"}, {Version: "10.7.8-MariaDB-log", Comment: "x"}},
				Others: []server.Identity{{Version: "8.0.36", Comment: "MySQL Community Server - GPL"}, {Version: "8.0.36-28", Comment: "Percona Server (GPL)"}, {Version: "9.7.4", Comment: "x"}},
			}.Run(t)
		})
	}
}
