package source_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xbstream/xbstream/internal/mysql/source"
	"github.com/xbstream/xbstream/internal/servertest"
	"github.com/xbstream/xbstream/server"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eachRelease runs a test on a server of every release.
func eachRelease(t *testing.T, o servertest.Options, run func(*testing.T, *servertest.Server)) {
	for _, r := range servertest.MySQLReleases(t) {
		t.Run(r.String(), func(t *testing.T) {
			o.Release = r
			run(t, servertest.New(t, o))
		})
	}
}

func open(t *testing.T, c server.Config, log *slog.Logger) server.Server {
	t.Helper()
	s, err := server.Open(t.Context(), c, log, source.Dialect{})
	check(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func root(s *servertest.Server) server.Config {
	return server.Config{Socket: s.Socket(), User: "root", LockTimeout: 20 * time.Second}
}

const password = "It's a secret"

// An account needs little, and is told what it lacks by a statement that mends it.
func TestLeastPrivileges(t *testing.T) {
	eachRelease(t, servertest.Options{LogBin: true}, func(t *testing.T, s *servertest.Server) {
		check(t, s.Exec(t.Context(), "CREATE DATABASE `my shop`", "CREATE TABLE `my shop`.old (a INT) ENGINE=MyISAM"))
		locked := []server.TableName{{Database: "my shop", Table: "old"}}
		const logStatus = "SELECT ON performance_schema.log_status"
		for _, c := range []struct {
			name string
			want server.Wanted
			need []string
		}{
			{"usual", server.Wanted{}, []string{"PROCESS ON *.*", "BACKUP_ADMIN ON *.*", logStatus}},
			{"replica", server.Wanted{Replication: true}, []string{"PROCESS ON *.*", "BACKUP_ADMIN ON *.*", "REPLICATION CLIENT ON *.*", logStatus}},
			{"pause", server.Wanted{Pause: true}, []string{"PROCESS ON *.*", "BACKUP_ADMIN ON *.*", "REPLICATION CLIENT ON *.*", "REPLICATION_SLAVE_ADMIN ON *.*", logStatus}},
			{"tables", server.Wanted{NonTransactional: locked}, []string{"PROCESS ON *.*", "BACKUP_ADMIN ON *.*", "RELOAD ON *.*", "LOCK TABLES ON *.*", "SELECT ON *.*"}},
		} {
			t.Run(c.name, func(t *testing.T) {
				for lack := range len(c.need) + 1 {
					check(t, s.Exec(t.Context(), "DROP USER IF EXISTS b@localhost", "CREATE USER b@localhost IDENTIFIED BY "+quoted(password)))
					for i, p := range c.need {
						if i != lack {
							check(t, s.Exec(t.Context(), "GRANT "+p+" TO b@localhost"))
						}
					}
					config := root(s)
					config.User, config.Password = "b", password
					src := open(t, config, nil)
					err := src.Check(t.Context(), c.want)
					if lack < len(c.need) {
						if !errors.Is(err, server.ErrPrivilege) {
							t.Fatalf("without %s: %v", c.need[lack], err)
						}
						mend, _, _ := strings.Cut(err.Error(), " (`")
						_, mend, _ = strings.Cut(mend, "run: ")
						for statement := range strings.SplitSeq(mend, "; ") {
							check(t, s.Exec(t.Context(), statement))
						}
						src = open(t, config, nil) // global privileges are those of the login
						err = src.Check(t.Context(), c.want)
					}
					check(t, err)
					b := lock(t, src, c.want.NonTransactional)
					if p, err := b.Position(t.Context()); err != nil || p.LSN == 0 || p.Binlog == nil {
						t.Errorf("%+v, %v", p, err)
					}
					check(t, b.End(t.Context()))
					check(t, src.CheckDataDir(t.Context(), s.Datadir()))
					hold, err := src.HoldRedo(t.Context())
					check(t, err)
					check(t, hold.Close())
					src.Close()
				}
			})
		}
		anonymous := root(s)
		anonymous.User = "nobody"
		check(t, s.Exec(t.Context(), "CREATE USER ''@localhost"))
		if err := open(t, anonymous, nil).Check(t.Context(), server.Wanted{}); !errors.Is(err, server.ErrPrivilege) || !strings.Contains(err.Error(), "anonymous") {
			t.Errorf("an anonymous account: %v", err)
		}
	})
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// lock takes all locks.
func lock(t *testing.T, s server.Server, tables []server.TableName) server.Backup {
	t.Helper()
	b, err := s.Begin(t.Context())
	check(t, err)
	t.Cleanup(func() { b.Close() })
	check(t, b.Flush(t.Context()))
	check(t, b.BlockDDL(t.Context()))
	check(t, b.BlockCommit(t.Context(), tables))
	check(t, b.FlushLogs(t.Context()))
	return b
}

// G3: a copy of the directory has the same auto.cnf, and is not the server's.
func TestCopyOfTheDirectoryIsForeign(t *testing.T) {
	eachRelease(t, servertest.Options{}, func(t *testing.T, s *servertest.Server) {
		src := open(t, root(s), nil)
		check(t, src.CheckDataDir(t.Context(), s.Datadir()))
		dir := filepath.Join(t.TempDir(), "copy")
		if out, err := exec.Command("cp", "-a", s.Datadir(), dir).CombinedOutput(); err != nil {
			t.Logf("%s", out) // files come and go
		}
		if err := src.CheckDataDir(t.Context(), dir); !errors.Is(err, server.ErrForeignDir) {
			t.Errorf("a copy: %v", err)
		}
	})
}

// P6: statements that wait for the instance lock, and a backup that locks tables
// under it: writes to InnoDB go on, and those to a locked table wait for no longer
// than the lock. With FLUSH TABLES WITH READ LOCK all would stop for good.
func TestNothingFreezesBehindWaitingDDL(t *testing.T) {
	eachRelease(t, servertest.Options{LogBin: true}, func(t *testing.T, s *servertest.Server) {
		check(t, s.Exec(t.Context(), "CREATE DATABASE d", "CREATE TABLE d.inno (a INT PRIMARY KEY, b INT)", "INSERT INTO d.inno VALUES (1, 1)",
			"CREATE TABLE d.busy (a INT PRIMARY KEY, b INT)", "CREATE TABLE d.my (a INT) ENGINE=MyISAM", "CREATE TABLE d.`c-s` (a INT NOT NULL) ENGINE=CSV"))
		ctx, cancel := context.WithCancel(t.Context())
		var loads []chan time.Duration
		load := func(statement string) {
			longest := make(chan time.Duration, 1)
			loads = append(loads, longest)
			go func() {
				most := time.Duration(0)
				for ctx.Err() == nil {
					began := time.Now()
					_ = s.Exec(t.Context(), statement)
					most = max(most, time.Since(began))
				}
				longest <- most
			}()
		}
		load("UPDATE d.inno SET b = b + 1")
		load("INSERT INTO d.my VALUES (1)")
		for i := range 4 {
			load(fmt.Sprintf("ALTER TABLE d.busy ADD COLUMN c%d INT, ALGORITHM=COPY", i))
			load(fmt.Sprintf("ALTER TABLE d.busy DROP COLUMN c%d", i))
		}
		tables := []server.TableName{{Database: "d", Table: "c-s"}, {Database: "d", Table: "my"}, {Database: "d", Table: "stray"}}
		src := open(t, root(s), nil)
		check(t, src.Check(t.Context(), server.Wanted{NonTransactional: tables}))
		for range 5 {
			b := lock(t, src, tables)
			time.Sleep(100 * time.Millisecond) // DDL waits now
			began := time.Now()
			check(t, s.Exec(t.Context(), "UPDATE d.inno SET b = b + 1"))
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("a write waited for %v", took)
			}
			_, err := b.Position(t.Context())
			check(t, err)
			check(t, b.End(t.Context()))
		}
		cancel()
		for i, longest := range loads {
			if most := <-longest; i < 2 && most > 10*time.Second {
				t.Errorf("load %d: a statement took %v", i, most)
			}
		}
	})
}

// A lock that is not granted in time is given up, and all goes on.
// A statement with binary data in it does not keep the backup from seeing its lock,
// nor an account that needs no more than that.
func TestStatementsWithBinaryData(t *testing.T) {
	eachRelease(t, servertest.Options{}, func(t *testing.T, s *servertest.Server) {
		check(t, s.Exec(t.Context(), "CREATE USER b@localhost IDENTIFIED BY "+quoted(password), "GRANT PROCESS, BACKUP_ADMIN ON *.* TO b@localhost",
			"GRANT SELECT ON performance_schema.log_status TO b@localhost"))
		ended := make(chan error, 1)
		go func() { ended <- s.Exec(t.Context(), "SELECT SLEEP(8), _binary'\xE4\x94\xFD\xE4'") }()
		config := root(s)
		config.User, config.Password = "b", password
		b, err := open(t, config, nil).Begin(t.Context())
		check(t, err)
		defer b.Close()
		check(t, b.BlockDDL(t.Context()))
		select {
		case <-b.Lost():
			t.Errorf("it has lost its lock: %v", b.Err())
		case <-time.After(6 * time.Second): // longer than it lets the server refuse to answer
		}
		_, err = s.String(t.Context(), "SELECT COUNT(*) FROM information_schema.PROCESSLIST")
		t.Logf("information_schema.PROCESSLIST meanwhile: %v", err)
		check(t, b.End(t.Context()))
		check(t, <-ended)
	})
}

func TestLockBudget(t *testing.T) {
	eachRelease(t, servertest.Options{}, func(t *testing.T, s *servertest.Server) {
		check(t, s.Exec(t.Context(), "CREATE DATABASE d", "CREATE TABLE d.my (a INT) ENGINE=MyISAM"))
		held, err := s.DB().Conn(t.Context())
		check(t, err)
		defer held.Close()
		_, err = held.ExecContext(t.Context(), "LOCK TABLES d.my WRITE")
		check(t, err)
		c := root(s)
		c.LockTimeout = time.Second
		src := open(t, c, nil)
		tables := []server.TableName{{Database: "d", Table: "my"}}
		check(t, src.Check(t.Context(), server.Wanted{NonTransactional: tables}))
		b, err := src.Begin(t.Context())
		check(t, err)
		defer b.Close()
		check(t, b.BlockDDL(t.Context()))
		err = b.BlockCommit(t.Context(), tables)
		if !errors.Is(err, server.ErrLockTimeout) {
			t.Fatalf("got %v", err)
		}
		check(t, s.Exec(t.Context(), "CREATE TABLE d.t (a INT)"))
		_, err = held.ExecContext(t.Context(), "UNLOCK TABLES")
		check(t, err)
		if stages := b.Stages(); len(stages) != 1 || stages[0].Name != "INSTANCE" {
			t.Errorf("%+v", stages)
		}
	})
}

// One backup at a time has the server's word that it keeps redo. The other goes on
// without, and when the first has ended there is room again, however it ended.
func TestHoldRedo(t *testing.T) {
	eachRelease(t, servertest.Options{}, func(t *testing.T, s *servertest.Server) {
		var said strings.Builder
		src := open(t, root(s), slog.New(slog.NewTextHandler(&said, nil)))
		hold := func(ctx context.Context) server.RedoHold {
			t.Helper()
			h, err := src.HoldRedo(ctx)
			check(t, err)
			return h
		}
		ctx, cancel := context.WithCancel(t.Context())
		one := hold(ctx)
		if two := hold(t.Context()); two != nil || !strings.Contains(said.String(), "another backup") {
			t.Fatalf("a second hold: %v, said %q", two, said.String())
		}
		check(t, s.Exec(t.Context(), "CREATE DATABASE d", "CREATE TABLE d.t (a INT)", "INSERT INTO d.t VALUES (1)"))
		at, err := src.LSN(t.Context())
		check(t, err)
		for lsn := at - 2000; lsn <= at; lsn += 100 { // wherever it lies in a block
			check(t, one.Advance(t.Context(), lsn))
		}
		cancel()
		end := time.Now().Add(10 * time.Second)
		for {
			if three := hold(t.Context()); three != nil {
				check(t, three.Close())
				check(t, three.Close())
				if err := three.Advance(t.Context(), at+5000); err == nil {
					t.Error("a hold that was closed goes on")
				}
				return
			}
			if time.Now().After(end) {
				t.Fatal("the hold outlives its context")
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

// What pages may change without, or in a form that cannot be recovered, is refused.
func TestRefuses(t *testing.T) {
	eachRelease(t, servertest.Options{}, func(t *testing.T, s *servertest.Server) {
		src := open(t, root(s), nil)
		check(t, src.Check(t.Context(), server.Wanted{}))
		check(t, s.Exec(t.Context(), "ALTER INSTANCE DISABLE INNODB REDO_LOG"))
		if err := src.Check(t.Context(), server.Wanted{}); !errors.Is(err, server.ErrUnsupported) || !strings.Contains(err.Error(), "REDO_LOG") {
			t.Errorf("without redo: %v", err)
		}
		check(t, s.Exec(t.Context(), "ALTER INSTANCE ENABLE INNODB REDO_LOG", "SET GLOBAL innodb_log_checksums = OFF"))
		if err := src.Check(t.Context(), server.Wanted{}); !errors.Is(err, server.ErrUnsupported) || !strings.Contains(err.Error(), "innodb_log_checksums") {
			t.Errorf("without checksums: %v", err)
		}
		check(t, s.Exec(t.Context(), "SET GLOBAL innodb_log_checksums = ON"))
		// When the backup has begun, the last look is under the lock.
		check(t, src.Check(t.Context(), server.Wanted{}))
		b, err := src.Begin(t.Context())
		check(t, err)
		defer b.Close()
		check(t, s.Exec(t.Context(), "ALTER INSTANCE DISABLE INNODB REDO_LOG"))
		if err := b.BlockDDL(t.Context()); !errors.Is(err, server.ErrUnsupported) || !strings.Contains(err.Error(), "REDO_LOG") {
			t.Errorf("without redo, under the lock: %v", err)
		}
	})
}

// The dictionary: discarded tablespaces, files, names.
func TestDictionary(t *testing.T) {
	outside := t.TempDir()
	eachRelease(t, servertest.Options{Args: []string{"--innodb-directories=" + outside}}, func(t *testing.T, s *servertest.Server) {
		ctx := t.Context()
		check(t, s.Exec(ctx, "CREATE DATABASE `my-db`", "CREATE TABLE `my-db`.`gr-1` (a INT PRIMARY KEY, b TEXT, FULLTEXT (b))", "CREATE TABLE `my-db`.gone (a INT)",
			"CREATE TABLE `my-db`.far (a INT) DATA DIRECTORY='"+outside+"'", "CREATE TABLESPACE ts ADD DATAFILE 'ts.ibd'", "ALTER TABLE `my-db`.gone DISCARD TABLESPACE", "CREATE TEMPORARY TABLE `my-db`.tmp (a INT)"))
		src := open(t, root(s), nil)
		space, err := s.String(ctx, "SELECT SPACE FROM information_schema.INNODB_TABLESPACES WHERE STATE = 'discarded'")
		check(t, err)
		away, err := src.Discarded(ctx)
		if err != nil || len(away) != 1 {
			t.Errorf("%v, %v; want %s", away, err, space)
		}
		files, err := src.OpenFiles(ctx)
		check(t, err)
		for name, want := range map[string]bool{
			"mysql.ibd": true, "ibdata1": true, "undo_001": true, "ts.ibd": true, "my@002ddb/gr@002d1.ibd": true, filepath.Join(outside, "my@002ddb/far.ibd"): true,
			"my@002ddb/gone.ibd": false, "ibtmp1": false,
		} {
			if files[name] != want {
				t.Errorf("%s: %v", name, files[name])
			}
		}
		for name, want := range map[string]bool{"my@002ddb/gr@002d1": true, "ts": true, "my@002ddb/no": false} {
			if known, err := src.KnowsTable(ctx, name); err != nil || known != want {
				t.Errorf("%s: %v, %v", name, known, err)
			}
		}
		var id uint64
		check(t, s.DB().QueryRowContext(ctx, "SELECT TABLE_ID FROM information_schema.INNODB_TABLES WHERE NAME = 'my@002ddb/gr@002d1'").Scan(&id))
		if names, err := src.TableNames(ctx, []uint64{id, 1 << 40}); err != nil || len(names) != 1 || names[id] != "my@002ddb/gr@002d1" {
			t.Errorf("%v, %v", names, err)
		}
		if file, err := src.SpaceFile(ctx, 0xFFFFFFFE); err != nil || filepath.Clean(file) != "mysql.ibd" {
			t.Errorf("%q, %v", file, err)
		}
		if encrypted, err := src.EncryptedFiles(ctx); err != nil || len(encrypted) != 0 {
			t.Errorf("%v, %v", encrypted, err)
		}
	})
}

// caching_sha2_password: over the socket, with TLS, and not for everybody to read.
func TestPasswords(t *testing.T) {
	eachRelease(t, servertest.Options{TCP: true}, func(t *testing.T, s *servertest.Server) {
		tcp := server.Config{Host: "127.0.0.1", Port: s.Port(), User: "b", Password: password}
		socket := server.Config{Socket: s.Socket(), User: "b", Password: password}
		verified, bare, key := tcp, tcp, tcp
		verified.TLS = server.TLS{CA: filepath.Join(s.Datadir(), "ca.pem")}
		key.ServerPublicKeyPath = filepath.Join(s.Datadir(), "public_key.pem")
		check(t, s.Exec(t.Context(), "CREATE USER b@'%' IDENTIFIED BY "+quoted(password)))
		forget := func() { // the server remembers who has logged in
			check(t, s.Exec(t.Context(), "FLUSH PRIVILEGES"))
		}
		for name, c := range map[string]server.Config{"socket": socket, "TLS": verified, "key": key} {
			forget()
			src, err := server.Open(t.Context(), c, nil, source.Dialect{})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			_, err = src.LSN(t.Context())
			check(t, err)
			src.Close()
		}
		forget()
		if _, err := server.Open(t.Context(), bare, nil, source.Dialect{}); !errors.Is(err, server.ErrConnect) || !strings.Contains(err.Error(), "--ssl-ca") {
			t.Errorf("over TCP in the clear: %v", err)
		}
		bad := socket
		bad.Password = "wrong"
		if _, err := server.Open(t.Context(), bad, nil, source.Dialect{}); !errors.Is(err, server.ErrConnect) {
			t.Errorf("a wrong password: %v", err)
		}
	})
}

// A replica: its channels, and SQL threads that stop and start.
func TestReplica(t *testing.T) {
	eachRelease(t, servertest.Options{LogBin: true, TCP: true}, func(t *testing.T, s *servertest.Server) {
		ctx := t.Context()
		replica := servertest.New(t, servertest.Options{Release: s.Release(), ServerID: 2, LogBin: true})
		check(t, replica.Exec(ctx, fmt.Sprintf(
			"CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%d, SOURCE_USER='repl', SOURCE_PASSWORD='repl-secret', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1 FOR CHANNEL 'it''s'", s.Port()),
			"START REPLICA FOR CHANNEL 'it''s'"))
		check(t, s.Exec(ctx, "CREATE DATABASE d", "CREATE TABLE d.t (a INT)", "INSERT INTO d.t VALUES (1)"))
		set, err := s.String(ctx, "SELECT @@GLOBAL.gtid_executed")
		check(t, err)
		if done, err := replica.String(ctx, "SELECT WAIT_FOR_EXECUTED_GTID_SET(?, 60)", set); err != nil || done != "0" {
			t.Fatalf("the replica does not follow: %s, %v", done, err)
		}
		src := open(t, root(replica), nil)
		check(t, src.Check(ctx, server.Wanted{Replication: true, Pause: true}))
		resume, err := src.PauseReplication(ctx, time.Minute)
		check(t, err)
		check(t, s.Exec(ctx, "INSERT INTO d.t VALUES (2)"))
		b := lock(t, src, nil)
		p, err := b.Position(ctx)
		check(t, err)
		check(t, b.End(ctx))
		if len(p.Replication) != 1 || p.Replication[0].Connection != "it's" || !p.Replication[0].GTID || p.Replication[0].Port != s.Port() {
			t.Errorf("%+v", p.Replication)
		}
		own, err := replica.String(ctx, "SELECT @@GLOBAL.gtid_executed")
		if err != nil || !slices.Equal(strings.Fields(own), strings.Fields(strings.ReplaceAll(p.GTID, ",", ",\n"))) || p.GTIDReplicated != p.GTID {
			t.Errorf("position %q, and while it is paused the replica is at %q (%v)", p.GTID, own, err)
		}
		check(t, resume(ctx))
		set, err = s.String(ctx, "SELECT @@GLOBAL.gtid_executed")
		check(t, err)
		if done, err := replica.String(ctx, "SELECT WAIT_FOR_EXECUTED_GTID_SET(?, 60)", set); err != nil || done != "0" {
			t.Errorf("the replica does not go on: %s, %v", done, err)
		}
		if resume, err := open(t, root(s), nil).PauseReplication(ctx, time.Second); resume != nil || err != nil {
			t.Errorf("no replica: %v", err)
		}
	})
}
