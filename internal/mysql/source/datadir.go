package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xbstream/xbstream/internal/pause"
	files "github.com/xbstream/xbstream/internal/source"
	"github.com/xbstream/xbstream/server"
)

// A directory is proved by what the server does in it on demand. A statement whose
// intermediate result is too large for memory writes it to a session temporary
// tablespace, a file of the pool in innodb_temp_tablespaces_dir, which is in the
// data directory unless it was moved. The server says which file it is and how
// large it has become, and cuts it back when the session ends (InnoDB
// srv0tmp.cc). It takes no privilege but PROCESS, and changes nothing else. The
// size is made by chance, and more than once: no copy of the directory and no
// other server has the same file of the same size at the same moments.

const (
	// provenAfter is how many rounds must agree, refutedAfter how many must not.
	provenAfter  = 2
	refutedAfter = 3
	// A result has so many rows, and each about 1 KiB: several extents.
	fewestRows, mostRows = 1000, 20_000
	// settleTime is how long the file may take to show what the server says of it.
	settleTime = 2 * time.Second
	settleStep = 10 * time.Millisecond
)

// CheckDataDir compares auto.cnf first, which tells most other servers, and then
// looks at the work of the server in its temporary tablespaces. Where these are
// kept elsewhere, auto.cnf must do.
func (m *mysql) CheckDataDir(ctx context.Context, dir string) error {
	vars, err := m.variables(ctx)
	if err != nil {
		return err
	}
	id, err := serverUUID(dir)
	if err != nil {
		return err
	}
	if id != vars["server_uuid"] {
		return foreign(dir, fmt.Sprintf("its auto.cnf has server_uuid %q, and the server has %q", id, vars["server_uuid"]))
	}
	temp := vars["innodb_temp_tablespaces_dir"]
	if filepath.IsAbs(temp) {
		rel, err := filepath.Rel(vars["datadir"], temp)
		if err != nil || !filepath.IsLocal(rel) {
			m.s.Log.Warn("only its auto.cnf says that the directory is the server's, because temporary tablespaces are elsewhere", "directory", dir, "innodb_temp_tablespaces_dir", temp)
			return nil
		}
		temp = rel
	}
	for good, bad := 0, 0; good < provenAfter; {
		saw, err := m.round(ctx, filepath.Join(dir, temp), rand.IntN(mostRows-fewestRows)+fewestRows)
		if err != nil {
			return err
		}
		if saw {
			good++
			continue
		}
		if good, bad = 0, bad+1; bad == refutedAfter {
			return foreign(dir, "temporary tables of the server do not appear there")
		}
	}
	return nil
}

func foreign(dir, why string) error {
	return &server.Error{Kind: server.ErrForeignDir, Err: fmt.Errorf("%s is not the data directory of this server: %s", dir, why)}
}

// serverUUID reads auto.cnf, empty where there is none.
func serverUUID(dir string) (string, error) {
	name := filepath.Join(dir, "auto.cnf")
	fd, _, err := files.NewRoot(dir).Open(name, true)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	const most = 4096
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return "", err
	}
	for line := range bytes.Lines(b) {
		if key, value, ok := bytes.Cut(line, []byte("=")); ok && string(bytes.TrimSpace(key)) == "server-uuid" {
			return string(bytes.TrimSpace(value)), nil
		}
	}
	return "", nil
}

// tempQuery is the session's temporary tablespace for intermediate results.
const tempQuery = "SELECT PATH, SIZE FROM information_schema.INNODB_SESSION_TEMP_TABLESPACES WHERE ID = CONNECTION_ID() AND PURPOSE = 'INTRINSIC'"

// round says whether a temporary tablespace of a new session appeared in temp, as
// large as the server says, and went back when the session had ended.
func (m *mysql) round(ctx context.Context, temp string, rows int) (seen bool, err error) {
	const op = "prove the data directory"
	conn, err := m.s.DB.Conn(ctx)
	if err != nil {
		return false, m.s.Fail(op, err)
	}
	ended := false
	defer func() {
		if !ended {
			end(conn)
		}
	}()
	before, err := sizes(temp)
	if err != nil {
		return false, err
	}
	for _, q := range []string{
		// A temporary table larger than this goes to disk.
		"SET SESSION tmp_table_size=1024",
		"SET SESSION max_heap_table_size=16384",
		"SET SESSION max_execution_time=0",
		"SET SESSION sql_big_selects=1",
	} {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			return false, m.s.Fail(op, err)
		}
	}
	// COLLATIONS has more than 200 rows on all servers.
	if _, err := server.Rows(ctx, conn, fmt.Sprintf(`SELECT COUNT(*) FROM (SELECT DISTINCT CONCAT(a.ID, '-', b.ID) k, REPEAT('x', 250) filler
		FROM information_schema.COLLATIONS a, information_schema.COLLATIONS b LIMIT %d) t`, rows)); err != nil {
		return false, m.s.Fail(op, err)
	}
	found, err := server.Rows(ctx, conn, tempQuery)
	if err != nil {
		return false, m.s.Fail(op, err)
	}
	if len(found) != 1 {
		return false, nil
	}
	size, err := strconv.ParseInt(found[0]["SIZE"], 10, 64)
	if err != nil {
		return false, server.Unsupported("%s: size %q", op, found[0]["SIZE"])
	}
	name := filepath.Base(found[0]["PATH"])
	if grown, err := becomes(ctx, temp, func(now map[string]int64) bool { return now[name] == size && before[name] != size }); err != nil || !grown {
		return false, err
	}
	ended = true
	end(conn)
	return becomes(ctx, temp, func(now map[string]int64) bool { return now[name] != size })
}

// becomes waits, for a moment only, for the files in a directory to be as wanted.
func becomes(ctx context.Context, dir string, wanted func(map[string]int64) bool) (bool, error) {
	for limit := time.Now().Add(settleTime); ; {
		now, err := sizes(dir)
		if err != nil || wanted(now) {
			return err == nil, err
		}
		if time.Now().After(limit) {
			return false, nil
		}
		if err := pause.For(ctx, settleStep); err != nil {
			return false, err
		}
	}
}

// sizes returns the sizes of the files in a directory by name; one that is not there
// has none.
func sizes(dir string) (map[string]int64, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("temporary tablespaces: %w", err)
	}
	list := make(map[string]int64, len(entries))
	for _, e := range entries {
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(dir, e.Name()), &st) == nil { // or it is gone
			list[e.Name()] = st.Size
		}
	}
	return list, nil
}
