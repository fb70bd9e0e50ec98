package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

// benchLocks measures how long DDL is blocked, on a server with many idle
// tables. For both sides it is the server that says when each stage was asked
// for, in its general log.
func benchLocks(ctx context.Context, c config) error {
	const myisam, innodb = 1000, 5000
	s, err := servertest.Start(ctx, servertest.Options{LogFileSize: 512 << 20, LogBin: true,
		Args: []string{"--innodb-buffer-pool-size=1G", "--innodb-flush-log-at-trx-commit=0", "--open-files-limit=65000", "--table-open-cache=30000",
			"--log-output=TABLE", "--general-log=OFF"}})
	if err != nil {
		return err
	}
	defer s.Close()
	if err := makeIdleTables(ctx, s, myisam, innodb); err != nil {
		return err
	}
	peer := pipeline{{"sh", "-c", `ulimit -n $(ulimit -Hn); exec "$@"`, "sh", "mariabackup", "--no-defaults", "--backup", "--stream=xbstream",
		"--user=root", "--socket=" + s.Socket(), "--target-dir=/tmp"}, {"wc", "-c"}}
	ours := pipeline{{filepath.Join(c.bin, "xbsend"), "--no-defaults", "--user=root", "--socket=" + s.Socket()}, {"wc", "-c"}}
	return compareLocks(ctx, c, s, fmt.Sprintf("DDL blocked, %d MyISAM and %d InnoDB tables", myisam, innodb), peer, ours)
}

// makeIdleTables makes tables that nobody uses, each with two rows.
func makeIdleTables(ctx context.Context, s *servertest.Server, myisam, innodb int) error {
	for db, kind := range map[string]struct {
		engine string
		tables int
	}{"idle_myisam": {"MyISAM", myisam}, "idle_innodb": {"InnoDB", innodb}} {
		statements := []string{"CREATE DATABASE " + db, "USE " + db}
		for i := range kind.tables {
			statements = append(statements,
				fmt.Sprintf("CREATE TABLE t%d (id INT PRIMARY KEY, a INT) ENGINE=%s", i, kind.engine),
				fmt.Sprintf("INSERT INTO t%d VALUES (1, 1), (2, 2)", i))
		}
		if err := s.Exec(ctx, statements...); err != nil {
			return err
		}
	}
	return settle(ctx, s)
}

func compareLocks(ctx context.Context, c config, s *servertest.Server, name string, peer, ours pipeline) error {
	var held [2][]time.Duration
	for n := range c.runs + 1 {
		for i, p := range []pipeline{peer, ours} {
			d, err := blocked(ctx, s, p)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if n > 0 {
				held[i] = append(held[i], d)
			}
		}
	}
	for i := range held {
		slices.Sort(held[i])
	}
	p, o := held[0][c.runs/2], held[1][c.runs/2]
	fmt.Printf("| %s | BLOCK_DDL to END | %.0f ms | %.0f ms | **%.2f** |\n", name, ms(p), ms(o), ms(o)/ms(p))
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// blocked runs a backup and returns the time from BACKUP STAGE BLOCK_DDL to
// BACKUP STAGE END, as the server saw the statements come.
func blocked(ctx context.Context, s *servertest.Server, p pipeline) (time.Duration, error) {
	if err := s.Exec(ctx, "TRUNCATE TABLE mysql.general_log", "SET GLOBAL general_log = ON"); err != nil {
		return 0, err
	}
	if _, err := p.run(ctx); err != nil {
		return 0, err
	}
	if err := s.Exec(ctx, "SET GLOBAL general_log = OFF"); err != nil {
		return 0, err
	}
	at := "(SELECT MIN(event_time) FROM mysql.general_log WHERE argument = 'BACKUP STAGE %s')"
	text, err := s.String(ctx, "SELECT TIMESTAMPDIFF(MICROSECOND, "+fmt.Sprintf(at, "BLOCK_DDL")+", "+fmt.Sprintf(at, "END")+")")
	if err != nil {
		return 0, err
	}
	us, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the general log does not have the stages: %w", err)
	}
	return time.Duration(us) * time.Microsecond, nil
}
