package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

// benchMySQL measures the same of MySQL. Peers are the server itself: its clone
// plugin, which copies the InnoDB tables to a directory, and its recovery.
func benchMySQL(ctx context.Context, c config) error {
	r := servertest.MySQL97
	for _, part := range []func(context.Context, config, servertest.Release) error{mysqlWhole, mysqlPrepare, mysqlLocks} {
		if err := part(ctx, c, r); err != nil {
			return err
		}
	}
	return nil
}

func startMySQL(ctx context.Context, c config, r servertest.Release, redoMB int64, args ...string) (*servertest.Server, error) {
	s, err := servertest.Start(ctx, servertest.Options{Release: r, LogFileSize: redoMB << 20, LogBin: true,
		Args: append([]string{"--innodb-buffer-pool-size=1G"}, args...)})
	if err != nil {
		return nil, err
	}
	if err := s.CreateSchema(ctx, servertest.LoadOptions{BulkBytes: c.dataMB << 20}); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// xbsendTo is the command line of xbsend for a server.
func (c config) xbsendTo(s *servertest.Server) []string {
	return []string{filepath.Join(c.bin, "xbsend"), "--no-defaults", "--user=root", "--socket=" + s.Socket()}
}

// mysqlWhole compares the whole way with CLONE LOCAL, which also leaves synced files
// that a server can start from.
func mysqlWhole(ctx context.Context, c config, r servertest.Release) error {
	s, err := startMySQL(ctx, c, r, 96, "--plugin-load-add=mysql_clone.so")
	if err != nil {
		return err
	}
	defer s.Close()
	if err := settle(ctx, s); err != nil {
		return err
	}
	dir, err := servertest.TempDir("bench-mysql")
	if err != nil {
		return err
	}
	target := filepath.Join(dir, "target")
	fresh := func() error {
		if err := os.RemoveAll(target); err != nil {
			return err
		}
		return readAll(s.Datadir())
	}
	clone := inServer{s, "CLONE LOCAL DATA DIRECTORY = '" + target + "'"}
	ours := pipeline{c.xbsendTo(s), {filepath.Join(c.bin, "xbstream"), "-x", "--prepare", "-C", target}}
	if err := compare(ctx, c, "MySQL: backup, extract, prepare, synced (peer: CLONE LOCAL)", fresh, clone, ours); err != nil {
		return err
	}
	archive := filepath.Join(dir, "archive")
	there := pipeline{{"sh", "-c", `exec "$@" >` + archive, "sh"}}
	there[0] = append(there[0], c.xbsendTo(s)...)
	return compare(ctx, c, "MySQL: backup into a file (peer: CLONE LOCAL)", fresh, clone, there)
}

// mysqlPrepare compares recovery with mysqld's own of the same directory, which
// starts from the same log in the server's form: the peer's figures have the time in
// which xbstream writes that, a small part.
func mysqlPrepare(ctx context.Context, c config, r servertest.Release) error {
	s, err := startMySQL(ctx, config{dataMB: 64}, r, 3*c.redoMB+64, "--innodb-flush-log-at-trx-commit=0",
		"--innodb-max-dirty-pages-pct=99", "--innodb-max-dirty-pages-pct-lwm=0", "--innodb-adaptive-flushing=OFF", "--innodb-buffer-pool-size=2G")
	if err != nil {
		return err
	}
	defer s.Close()
	if err := fillRedo(ctx, s, c.redoMB<<20); err != nil {
		return err
	}
	dir, err := servertest.TempDir("bench-mysql-prepare")
	if err != nil {
		return err
	}
	backup, work := filepath.Join(dir, "backup"), filepath.Join(dir, "work")
	extract := pipeline{c.xbsendTo(s), {filepath.Join(c.bin, "xbstream"), "-x", "-C", backup}}
	if _, err := extract.run(ctx); err != nil {
		return err
	}
	fresh := func() error {
		if err := os.RemoveAll(work); err != nil {
			return err
		}
		if err := plain(ctx, "cp", "-a", backup, work); err != nil {
			return err
		}
		return plain(ctx, "sync", "-f", work)
	}
	ours := []string{filepath.Join(c.bin, "xbstream"), "prepare", work}
	peer := append(slices.Clone(ours), "--memory=1G", "--with-server="+r.Command("mysqld"))
	name := fmt.Sprintf("MySQL: prepare, %s of redo (peer: mysqld, 1G)", sizeOf(filepath.Join(backup, "ib_logfile0")))
	return compare(ctx, c, name, fresh, pipeline{peer}.then(pipeline{{"sync", "-f", work}}), pipeline{ours})
}

// mysqlLocks measures how long DDL waits, and writes to tables that are not InnoDB, on
// a server with many idle tables. There is no peer here: XtraBackup holds the instance
// lock while it copies, so the whole backup stands in its place.
func mysqlLocks(ctx context.Context, c config, r servertest.Release) error {
	const myisam, innodb = 1000, 5000
	s, err := servertest.Start(ctx, servertest.Options{Release: r, LogFileSize: 512 << 20, LogBin: true,
		Args: []string{"--innodb-buffer-pool-size=1G", "--innodb-flush-log-at-trx-commit=0", "--open-files-limit=65000", "--log-output=TABLE", "--general-log=OFF"}})
	if err != nil {
		return err
	}
	defer s.Close()
	if err := makeIdleTables(ctx, s, myisam, innodb); err != nil {
		return err
	}
	// Tables that are not InnoDB are locked if they changed while they were copied.
	for i := range 20 {
		if err := s.Exec(ctx, fmt.Sprintf("INSERT INTO idle_myisam.t%d VALUES (3, 3)", i)); err != nil {
			return err
		}
	}
	var whole, instance, tables []time.Duration
	for n := range c.runs + 1 {
		if err := s.Exec(ctx, "TRUNCATE TABLE mysql.general_log", "SET GLOBAL general_log = ON"); err != nil {
			return err
		}
		got, err := pipeline{c.xbsendTo(s), away}.run(ctx)
		if err != nil {
			return err
		}
		if err := s.Exec(ctx, "SET GLOBAL general_log = OFF"); err != nil {
			return err
		}
		held, err := between(ctx, s, "LOCK INSTANCE FOR BACKUP", "UNLOCK %")
		if err != nil {
			return err
		}
		locked, err := between(ctx, s, "FLUSH TABLES %WITH READ LOCK", "UNLOCK %")
		if err != nil {
			return err
		}
		if n > 0 {
			whole, instance, tables = append(whole, got.wall), append(instance, held), append(tables, locked)
		}
	}
	for _, v := range [][]time.Duration{whole, instance, tables} {
		slices.Sort(v)
	}
	w, m := whole[c.runs/2], c.runs/2
	for _, row := range []struct {
		what string
		held time.Duration
	}{{"DDL blocked", instance[m]}, {"writes to tables not of InnoDB blocked", tables[m]}} {
		fmt.Printf("| MySQL, %d MyISAM and %d InnoDB tables (beside: the whole backup) | %s | %.0f ms | %.0f ms | **%.2f** |\n",
			myisam, innodb, row.what, ms(w), ms(row.held), ms(row.held)/ms(w))
	}
	return nil
}

// between is the time between two statements in the general log, 0 if the first was
// not needed.
func between(ctx context.Context, s *servertest.Server, from, to string) (time.Duration, error) {
	at := "(SELECT %s(event_time) FROM mysql.general_log WHERE command_type = 'Query' AND CONVERT(argument USING utf8mb4) LIKE '%s')"
	text, err := s.String(ctx, "SELECT COALESCE(TIMESTAMPDIFF(MICROSECOND, "+fmt.Sprintf(at, "MIN", from)+", "+fmt.Sprintf(at, "MAX", to)+"), 0)")
	if err != nil {
		return 0, err
	}
	us, err := strconv.ParseInt(text, 10, 64)
	return time.Duration(us) * time.Microsecond, err
}

// inServer is work that a statement has the server do. Its cost is that of the server.
type inServer struct {
	s         *servertest.Server
	statement string
}

func (w inServer) run(ctx context.Context) (cost, error) {
	before, err := cpuOf(w.s.PID())
	if err != nil {
		return cost{}, err
	}
	start := time.Now()
	if err := w.s.Exec(ctx, w.statement); err != nil {
		return cost{}, err
	}
	wall := time.Since(start)
	after, err := cpuOf(w.s.PID())
	return cost{wall: wall, cpu: after - before, rss: highWater(w.s.PID())}, err
}

// cpuOf is the time that a process has used so far (proc(5), stat: utime and stime, in
// hundredths of a second).
func cpuOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat is %q", pid, b)
	}
	var sum int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return time.Duration(sum) * 10 * time.Millisecond, nil
}
