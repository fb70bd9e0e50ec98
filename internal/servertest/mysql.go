package servertest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
)

// This file is what differs in how a server of MySQL is made and started.

// installMySQL makes a data directory, with a root account without a password.
func installMySQL(ctx context.Context, r Release, dir string, more []string) error {
	if err := r.check(); err != nil {
		return err
	}
	args := []string{
		"--no-defaults", "--initialize-insecure", "--datadir=" + dir, "--tmpdir=" + filepath.Dir(dir),
		"--innodb-redo-log-capacity=8M", "--skip-log-bin",
	}
	cmd := exec.CommandContext(ctx, r.Command(r.program()), slices.Concat(args, asUser(), more)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("install data directory %s: %w\n%s", dir, err, out)
	}
	return nil
}

// forgetIdentity makes the server take a new server_uuid, which all copies of a
// template would share.
func forgetIdentity(dir string) error {
	if err := os.Remove(filepath.Join(dir, "auto.cnf")); err != nil {
		return fmt.Errorf("new data directory: %w", err)
	}
	return nil
}

// createMySQLAccounts creates the account of replicas, as createAccounts does.
func (s *Server) createMySQLAccounts(ctx context.Context) error {
	return s.Exec(ctx,
		"SET SESSION sql_log_bin = 0",
		"CREATE USER "+replUser+"@'127.0.0.1' IDENTIFIED BY '"+replPassword+"'",
		"GRANT REPLICATION SLAVE ON *.* TO "+replUser+"@'127.0.0.1'",
	)
}

// mysqlArgs is args for MySQL.
func (s *Server) mysqlArgs() []string {
	a := []string{
		"--no-defaults",
		"--datadir=" + s.datadirArg(),
		"--socket=" + s.Socket(),
		"--pid-file=" + filepath.Join(s.dir, "pid"),
		"--tmpdir=" + s.dir,
		"--log-error=" + s.errorLogPath(),
		"--mysqlx=OFF",
		"--skip-name-resolve",
		"--innodb-page-size=" + strconv.Itoa(s.opts.PageSize),
		"--innodb-buffer-pool-size=128M",
		"--innodb-redo-log-capacity=" + strconv.FormatInt(s.opts.LogFileSize, 10),
		"--innodb-log-buffer-size=2M",
		"--key-buffer-size=8M",
		"--table-open-cache=500",
		// As for MariaDB: no commit waits for a disk.
		"--innodb-flush-log-at-trx-commit=2",
		"--sync-binlog=0",
		"--server-id=" + strconv.FormatUint(uint64(s.opts.ServerID), 10),
		"--gtid-mode=ON",
		"--enforce-gtid-consistency=ON",
	}
	a = append(a, asUser()...)
	if s.opts.LogBin {
		a = append(a, "--log-bin=binlog", "--log-bin-trust-function-creators=1")
	} else {
		a = append(a, "--skip-log-bin")
	}
	if s.opts.TCP {
		return append(a, "--bind-address=127.0.0.1", "--port="+strconv.Itoa(s.port))
	}
	return append(a, "--skip-networking")
}
