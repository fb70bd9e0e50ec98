package source_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/mariadb/source"
	"github.com/xbstream/xbstream/server"
)

func asMySQL(err error, e **mysql.MySQLError) bool { return errors.As(err, e) }

func TestLayoutIsTheServers(t *testing.T) {
	l, err := open(t, real(t).backupAccount(t)).Layout(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if age := time.Since(l.Started); age < 0 || age > time.Hour {
		t.Errorf("started %s ago", age)
	}
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"Dialect", l.Dialect, "mariadb"},
		{"Version", l.Version, real(t).text(t, "SELECT VERSION()")},
		{"Comment", l.Comment, real(t).text(t, "SELECT @@version_comment")},
		{"Hostname", l.Hostname, real(t).text(t, "SELECT @@hostname")},
		{"Port", l.Port, real(t).port},
		{"Socket", l.Socket, real(t).path("sock")},
		{"ServerID", l.ServerID, uint32(7)},
		{"ServerUUID", l.ServerUUID, real(t).text(t, "SELECT @@server_uid")},
		{"DataDir", l.DataDir, real(t).path("data")},
		{"LowerCaseTableNames", l.LowerCaseTableNames, 0},
		{"TmpDirs", fmt.Sprint(l.TmpDirs), fmt.Sprint([]string{"/tmp", real(t).dir})},
		{"PidFile", l.PidFile, real(t).path("pid")},
		{"LogError", l.LogError, real(t).path("log.err")},
		{"GeneralLog", l.GeneralLog, real(t).path("data/queries.log")},
		{"SlowLog", l.SlowLog, real(t).path("data/" + real(t).text(t, "SELECT @@slow_query_log_file"))},
		{"AriaLogDir", l.AriaLogDir, real(t).path("aria")},
		{"MyISAMMmap", l.MyISAMMmap, false},
		{"BinlogOn", l.BinlogOn, true},
		{"BinlogBase", l.BinlogBase, real(t).path("data/bin")},
		{"BinlogIndex", l.BinlogIndex, real(t).path("data/bin.index")},
		{"RelayBase", l.RelayBase, real(t).path("data/pid-relay-bin")},
		{"DataHome", l.InnoDB.DataHome, real(t).path("home")},
		{"DataFilePath", l.InnoDB.DataFilePath, "ibdata1:12M;sys/ibdata2:4M:autoextend:max:1G"},
		{"DataFiles", fmt.Sprint(l.InnoDB.DataFiles), fmt.Sprint([]server.DataFile{
			{Path: real(t).path("home/ibdata1"), Size: 12 << 20},
			{Path: real(t).path("home/sys/ibdata2"), Size: 4 << 20, Autoextend: true, Max: 1 << 30},
		})},
		{"TempFiles", fmt.Sprint(l.InnoDB.TempFiles), fmt.Sprint([]server.DataFile{
			{Path: real(t).path("home/ibtmp1"), Size: 12 << 20, Autoextend: true},
		})},
		{"UndoDir", l.InnoDB.UndoDir, real(t).path("undo")},
		{"UndoTablespaces", l.InnoDB.UndoTablespaces, 3},
		{"LogDir", l.InnoDB.LogDir, real(t).path("redo")},
		{"LogFileSize", l.InnoDB.LogFileSize, int64(8 << 20)},
		{"PageSize", l.InnoDB.PageSize, 16384},
		{"ChecksumAlgorithm", l.InnoDB.ChecksumAlgorithm, "full_crc32"},
		{"CompressionLevel", l.InnoDB.CompressionLevel, 6},
		{"FlushLogAtTrxCommit", l.InnoDB.FlushLogAtTrxCommit, 1},
		{"FlushLogTimeout", l.InnoDB.FlushLogTimeout, time.Second},
		{"EncryptLog", l.InnoDB.EncryptLog, false},
		{"LogArchive", l.InnoDB.LogArchive, false},
		{"Variables", l.Variables["innodb_buffer_pool_size"], "16777216"},
	} {
		if c.got != c.want {
			t.Errorf("%s is %v, want %v", c.name, c.got, c.want)
		}
	}
	for _, f := range []string{l.InnoDB.DataFiles[1].Path, l.InnoDB.LogDir + "/ib_logfile0", l.InnoDB.UndoDir + "/undo003", l.AriaLogDir + "/aria_log_control", l.BinlogIndex, l.PidFile} {
		if _, err := os.Stat(f); err != nil {
			t.Errorf("not where the layout says: %v", err)
		}
	}
}

func TestLSNGrows(t *testing.T) {
	s := open(t, real(t).backupAccount(t))
	before, err := s.LSN(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	real(t).exec(t, "CREATE TABLE mysql.xb_lsn (a INT) ENGINE=InnoDB", "DROP TABLE mysql.xb_lsn")
	after, err := s.LSN(t.Context())
	if err != nil || before == 0 || after <= before {
		t.Errorf("LSN %s, after a CREATE TABLE %s, %v", before, after, err)
	}
}

func TestMissingPrivilegesAreNamed(t *testing.T) {
	all, replica := server.Wanted{Replication: true, Pause: true}, server.Wanted{Replication: true}
	for _, tt := range []struct {
		have, missing string
		wanted        server.Wanted
	}{
		{"PROCESS, BINLOG MONITOR", "GRANT RELOAD ON", server.Wanted{}},
		{"RELOAD, BINLOG MONITOR", "GRANT PROCESS ON", server.Wanted{}},
		{"RELOAD, PROCESS", "GRANT BINLOG MONITOR ON", server.Wanted{}},
		{"SELECT", "GRANT RELOAD, PROCESS, BINLOG MONITOR ON", server.Wanted{}},
		{"RELOAD, PROCESS, BINLOG MONITOR", "", server.Wanted{}},
		{"SUPER, RELOAD, PROCESS", "", server.Wanted{}},
		{"ALL PRIVILEGES", "", server.Wanted{}},
		{"RELOAD, PROCESS, BINLOG MONITOR", "GRANT SLAVE MONITOR ON", replica},
		{"RELOAD, PROCESS, BINLOG MONITOR, SLAVE MONITOR", "run: GRANT SELECT ON mysql.gtid_slave_pos TO", replica},
		{"RELOAD, PROCESS, BINLOG MONITOR, SLAVE MONITOR, SELECT", "", replica},
		{"RELOAD, PROCESS, BINLOG MONITOR", "GRANT SLAVE MONITOR, REPLICATION SLAVE ADMIN ON", all},
		{"RELOAD, PROCESS, BINLOG MONITOR, SLAVE MONITOR, REPLICATION SLAVE ADMIN, SELECT", "", all},
		{"SUPER, RELOAD, PROCESS, SELECT", "", all},
	} {
		t.Run(fmt.Sprint(tt.have, tt.wanted), func(t *testing.T) {
			const name = "odd@na`me"
			c := real(t).account(t, "odd@na``me", tt.have)
			c.User = name
			s := open(t, c)
			err := s.Check(t.Context(), tt.wanted)
			if tt.missing == "" {
				if err != nil {
					t.Fatal(err)
				}
				if tt.wanted.Pause {
					if resume, err := s.PauseReplication(t.Context(), 0); err != nil || resume != nil {
						t.Errorf("pause of a server that is no replica: %v", err)
					}
				}
				return
			}
			if !errors.Is(err, server.ErrPrivilege) {
				t.Fatalf("got %v, want ErrPrivilege", err)
			}
			contains(t, err, tt.missing)
			// The statement is exact: with it, the check passes.
			_, statement, _ := strings.Cut(err.Error(), "run: ")
			real(t).exec(t, strings.Split(statement, "; ")...)
			if err := open(t, c).Check(t.Context(), tt.wanted); err != nil {
				t.Errorf("after %s: %v", statement, err)
			}
		})
	}
}

func TestPrivilegesOfARoleAndOfPublicCount(t *testing.T) {
	c := real(t).account(t, "xb", "PROCESS")
	real(t).exec(t, "CREATE ROLE backers", "GRANT RELOAD ON *.* TO backers", "GRANT backers TO xb@`%`",
		"SET DEFAULT ROLE backers FOR xb@`%`", "GRANT BINLOG MONITOR ON *.* TO PUBLIC")
	t.Cleanup(func() {
		real(t).root.Exec("DROP ROLE backers")
		real(t).root.Exec("REVOKE BINLOG MONITOR ON *.* FROM PUBLIC")
	})
	s := open(t, c)
	if err := s.Check(t.Context(), server.Wanted{}); err != nil {
		t.Error(err)
	}
	b := begin(t, s)
	if err := b.End(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestBeginWithoutPrivilege(t *testing.T) {
	s := open(t, real(t).account(t, "xb", "PROCESS"))
	if _, err := s.Begin(t.Context()); !errors.Is(err, server.ErrPrivilege) {
		t.Errorf("got %v, want ErrPrivilege", err)
	}
	real(t).free(t, s)
}

func TestRedoThatStaysInMemoryIsRefused(t *testing.T) {
	s := open(t, real(t).backupAccount(t))
	defer real(t).exec(t, "SET GLOBAL innodb_flush_log_at_trx_commit=1", "SET GLOBAL innodb_flush_log_at_timeout=1")
	real(t).exec(t, "SET GLOBAL innodb_flush_log_at_trx_commit=0", "SET GLOBAL innodb_flush_log_at_timeout=60")
	if err := s.Check(t.Context(), server.Wanted{}); err != nil {
		t.Errorf("timeout of 60 s: %v", err)
	}
	real(t).exec(t, "SET GLOBAL innodb_flush_log_at_timeout=61")
	err := s.Check(t.Context(), server.Wanted{})
	if !errors.Is(err, server.ErrUnsupported) {
		t.Fatalf("timeout of 61 s: got %v, want ErrUnsupported", err)
	}
	contains(t, err, "innodb_flush_log_at_trx_commit=0", "61")
}

func TestTablesOfStrangeEnginesAreRefusedByName(t *testing.T) {
	t.Cleanup(source.Strange("archive"))
	c := real(t).backupAccount(t)
	s := open(t, c)
	err := s.Check(t.Context(), server.Wanted{})
	if !errors.Is(err, server.ErrPrivilege) {
		t.Fatalf("without SELECT: got %v, want ErrPrivilege", err)
	}
	contains(t, err, "GRANT SELECT ON *.* TO `xb`@`%`")
	real(t).exec(t, "GRANT SELECT ON *.* TO xb")
	s = open(t, c)
	if err := s.Check(t.Context(), server.Wanted{}); err != nil {
		t.Errorf("without such a table: %v", err)
	}
	real(t).exec(t, "CREATE TABLE mysql.xb_odd (a INT) ENGINE=ARCHIVE")
	defer real(t).exec(t, "DROP TABLE mysql.xb_odd")
	err = s.Check(t.Context(), server.Wanted{})
	if !errors.Is(err, server.ErrUnsupported) {
		t.Fatalf("got %v, want ErrUnsupported", err)
	}
	contains(t, err, "engine ARCHIVE", "`mysql`.`xb_odd`", "--tables-exclude")
	// G5: what is left out of the backup is not judged.
	real(t).exec(t, "CREATE TABLE mysql.`xb odd 2` (a INT) ENGINE=ARCHIVE")
	defer real(t).exec(t, "DROP TABLE mysql.`xb odd 2`")
	var asked []server.TableName
	leaveOut := func(names ...string) server.Wanted {
		return server.Wanted{Table: func(n server.TableName) bool {
			asked = append(asked, n)
			return !slices.Contains(names, n.Table)
		}}
	}
	err = s.Check(t.Context(), leaveOut("xb_odd"))
	if !errors.Is(err, server.ErrUnsupported) {
		t.Fatalf("got %v, want ErrUnsupported", err)
	}
	contains(t, err, "`mysql`.`xb odd 2`")
	if err := s.Check(t.Context(), leaveOut("xb_odd", "xb odd 2")); err != nil {
		t.Errorf("all are left out: %v", err)
	}
	if want := (server.TableName{Database: "mysql", Table: "xb odd 2", FileDatabase: "mysql", FileTable: "xb@0020odd@00202"}); !slices.Contains(asked, want) {
		t.Errorf("asked about %v, want %v among them", asked, want)
	}
}

// The zero Config is the user who runs the process; the server knows by the
// socket.
func TestAccountByUnixSocket(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	own := scratch(t)
	own.exec(t, fmt.Sprintf("CREATE OR REPLACE USER `%s`@localhost IDENTIFIED VIA unix_socket", me.Username),
		fmt.Sprintf("GRANT ALL PRIVILEGES ON *.* TO `%s`@localhost", me.Username))
	if err := open(t, server.Config{Socket: own.path("sock")}).Check(t.Context(), server.Wanted{}); err != nil {
		t.Error(err)
	}
}

func TestConnectingFails(t *testing.T) {
	good := real(t).backupAccount(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	port := func(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }
	tcp := func(c *server.Config, port int) { c.Host, c.Port = "127.0.0.1", port }
	for name, tt := range map[string]struct {
		change func(*server.Config)
		say    []string
	}{
		"wrong password": {func(c *server.Config) { c.Password = "hush-wrong" }, []string{"access denied", "'xb'", real(t).path("sock")}},
		"wrong user":     {func(c *server.Config) { c.User = "nobody" }, []string{"access denied", "'nobody'"}},
		"no socket":      {func(c *server.Config) { c.Socket = real(t).path("none") }, []string{real(t).path("none"), "no such file or directory"}},
		"no port":        {func(c *server.Config) { tcp(c, port(closed)) }, []string{fmt.Sprint(port(closed)), "connection refused"}},
		"silent port": {func(c *server.Config) {
			tcp(c, port(silent))
			c.ConnectTimeout = 300 * time.Millisecond
		}, []string{fmt.Sprint(port(silent)), "no answer within 300ms"}},
		"no CA file": {func(c *server.Config) { c.TLS.CA = real(t).path("none") }, []string{real(t).path("none")}},
		"other CA": {func(c *server.Config) {
			tcp(c, real(t).port)
			c.TLS.CA = real(t).path("other.pem")
		}, []string{"certificate is not accepted"}},
		"other name": {func(c *server.Config) {
			tcp(c, real(t).port)
			c.TLS.CA, c.TLS.VerifyServerCert = real(t).path("ca.pem"), true
		}, []string{"certificate is not accepted", "127.0.0.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			tt.change(&c)
			_, err := server.Open(t.Context(), c, nil, source.Dialect{})
			if !errors.Is(err, server.ErrConnect) {
				t.Fatalf("got %v, want ErrConnect", err)
			}
			contains(t, err, tt.say...)
		})
	}
}

func TestTLS(t *testing.T) {
	c := real(t).backupAccount(t)
	real(t).exec(t, "ALTER USER xb REQUIRE SSL")
	if _, err := server.Open(t.Context(), c, nil, source.Dialect{}); !errors.Is(err, server.ErrConnect) {
		t.Errorf("without TLS: got %v, want ErrConnect", err)
	}
	c.Port, c.Protocol = real(t).port, "tcp"
	for name, tls := range map[string]server.TLS{
		"on":     {On: true},
		"CA":     {CA: real(t).path("ca.pem")},
		"verify": {CA: real(t).path("ca.pem"), VerifyServerCert: true},
	} {
		c.Host, c.TLS = "localhost", tls
		t.Run(name, func(t *testing.T) { open(t, c) })
	}
}

func TestUnknownFamilyIsRefusedByName(t *testing.T) {
	_, err := server.Open(t.Context(), real(t).backupAccount(t), nil)
	if !errors.Is(err, server.ErrUnsupported) {
		t.Fatalf("got %v, want ErrUnsupported", err)
	}
	contains(t, err, real(t).text(t, "SELECT VERSION()"))
}

func TestCancelledOpen(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := server.Open(ctx, real(t).backupAccount(t), nil, source.Dialect{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func TestPositionIsTheServers(t *testing.T) {
	c := real(t).backupAccount(t)
	s := open(t, c)
	real(t).exec(t, "CREATE OR REPLACE TABLE mysql.xb_pos (a INT) ENGINE=InnoDB", "INSERT INTO mysql.xb_pos VALUES (1)")
	defer real(t).exec(t, "DROP TABLE mysql.xb_pos")
	b := begin(t, s)
	all(t, b.Flush, b.BlockDDL, blockCommit(b), b.FlushLogs)
	p, err := b.Position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rows, err := server.Rows(t.Context(), real(t).root, "SHOW MASTER STATUS")
	if err != nil || len(rows) != 1 {
		t.Fatal(rows, err)
	}
	if p.Binlog == nil || p.Binlog.File != rows[0]["File"] || fmt.Sprint(p.Binlog.Position) != rows[0]["Position"] {
		t.Errorf("position %v, SHOW MASTER STATUS says %v", p.Binlog, rows[0])
	}
	if want := real(t).text(t, "SELECT @@gtid_binlog_pos"); p.GTID != want || want == "" {
		t.Errorf("GTID %q, the server says %q", p.GTID, want)
	}
	now, err := s.LSN(t.Context())
	if err != nil || p.LSN == 0 || p.LSN > now {
		t.Errorf("LSN %s, later %s, %v", p.LSN, now, err)
	}
	// The missing SLAVE MONITOR leaves the locks as they are.
	if p.Replication != nil || b.Err() != nil {
		t.Errorf("replication %v, lock %v", p.Replication, b.Err())
	}
	all(t, b.End)
	real(t).free(t, s)
}

// Without a binary log the position is that of the last change replicated, and
// no privilege is needed to ask for it.
func TestPositionOfAReplicaWithoutBinaryLog(t *testing.T) {
	own := scratch(t, "--skip-log-bin")
	own.exec(t, "SET GLOBAL gtid_slave_pos='0-1-5'", "CHANGE MASTER 'upstream' TO MASTER_HOST='127.0.0.1', MASTER_USER='nobody'")
	s := open(t, own.account(t, "xb", "RELOAD, PROCESS, SLAVE MONITOR"))
	if err := s.Check(t.Context(), server.Wanted{}); err != nil {
		t.Error(err)
	}
	l, err := s.Layout(t.Context())
	if err != nil || l.BinlogOn || l.BinlogBase != "" {
		t.Errorf("binary log %t at %q, %v", l.BinlogOn, l.BinlogBase, err)
	}
	if _, err := os.Stat(l.RelayBase + "-upstream.000001"); err != nil {
		t.Errorf("the relay log is not where the layout says: %v", err)
	}
	b := begin(t, s)
	all(t, b.Flush, b.BlockDDL, blockCommit(b))
	p, err := b.Position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p.Binlog != nil || p.GTID != "0-1-5" || p.GTIDReplicated != "0-1-5" {
		t.Errorf("position %+v", p)
	}
	if len(p.Replication) != 1 || p.Replication[0].Connection != "upstream" || p.Replication[0].Host != "127.0.0.1" {
		t.Errorf("replication %v", p.Replication)
	}
	all(t, b.End)
	own.free(t, s)
}

func all(t *testing.T, steps ...func(context.Context) error) {
	t.Helper()
	for _, step := range steps {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func names(stages []format.Stage) (list []string) {
	for _, s := range stages {
		list = append(list, s.Name)
	}
	return list
}

// G3: BACKUP STAGE START leaves its trace in the server's own directory only.
func TestDataDirIsProved(t *testing.T) {
	s := open(t, real(t).backupAccount(t))
	if err := s.CheckDataDir(t.Context(), real(t).path("data")); err != nil {
		t.Error(err)
	}
	for _, dir := range []string{real(t).path("home"), real(t).path("none")} {
		err := s.CheckDataDir(t.Context(), dir)
		if !errors.Is(err, server.ErrForeignDir) {
			t.Fatalf("%s: got %v, want ErrForeignDir", dir, err)
		}
		contains(t, err, dir)
	}
	real(t).free(t, s)
}

// G3: another backup is in the way: that is the lock's error, and no verdict.
func TestDataDirIsNotJudgedWithoutTheLock(t *testing.T) {
	c := real(t).backupAccount(t)
	b := begin(t, open(t, c))
	c.LockTimeout = 300 * time.Millisecond
	if err := open(t, c).CheckDataDir(t.Context(), real(t).path("data")); !errors.Is(err, server.ErrLockTimeout) {
		t.Errorf("got %v, want ErrLockTimeout", err)
	}
	all(t, b.End)
}

// G3: the checkpoint that the server tells is one that its log has.
func TestCheckpointIsToldByTheServer(t *testing.T) {
	s := open(t, real(t).backupAccount(t))
	real(t).exec(t, "SET GLOBAL innodb_log_checkpoint_now=1")
	at, err := s.Checkpoint(t.Context())
	now, err2 := s.LSN(t.Context())
	if err != nil || err2 != nil || at == 0 || at > now {
		t.Errorf("checkpoint %s, LSN %s, %v, %v", at, now, err, err2)
	}
}
