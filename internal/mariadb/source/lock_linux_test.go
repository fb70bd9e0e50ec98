package source_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/xbstream/xbstream/internal/mariadb/source"
	"github.com/xbstream/xbstream/server"
)

func blockCommit(b server.Backup) func(context.Context) error {
	return func(ctx context.Context) error { return b.BlockCommit(ctx, nil) }
}

// steps are the stages in order, by the names the server has for them.
func steps(b server.Backup) []struct {
	name string
	take func(context.Context) error
} {
	return []struct {
		name string
		take func(context.Context) error
	}{
		{"START", func(context.Context) error { return nil }},
		{"FLUSH", b.Flush},
		{"BLOCK_DDL", b.BlockDDL},
		{"BLOCK_COMMIT", blockCommit(b)},
	}
}

// P6: the stages block what they say, from when they are granted until End.
func TestStagesLock(t *testing.T) {
	s := open(t, real(t).backupAccount(t))
	b := begin(t, s)
	real(t).exec(t, "CREATE OR REPLACE TABLE mysql.xb_my (a INT) ENGINE=MyISAM",
		"CREATE OR REPLACE TABLE mysql.xb_inno (a INT) ENGINE=InnoDB")
	other := real(t).session(t)
	statements := []string{
		"INSERT INTO mysql.xb_my VALUES (1)",
		"CREATE OR REPLACE TABLE mysql.xb_ddl (a INT)",
		"INSERT INTO mysql.xb_inno VALUES (1)",
	}
	want := map[string]string{
		"START": "[false false false]", "FLUSH": "[true false false]",
		"BLOCK_DDL": "[true true false]", "BLOCK_COMMIT": "[true true true]",
	}
	for _, s := range steps(b) {
		all(t, s.take)
		var got []bool
		for _, q := range statements {
			got = append(got, blocked(t, other, q))
		}
		if fmt.Sprint(got) != want[s.name] {
			t.Errorf("in stage %s: blocked are %v, want %s", s.name, got, want[s.name])
		}
	}
	all(t, b.FlushLogs, b.End)
	for _, q := range statements {
		if blocked(t, other, q) {
			t.Errorf("after End: %s is blocked", q)
		}
	}
	real(t).exec(t, "DROP TABLE mysql.xb_my, mysql.xb_inno, mysql.xb_ddl")
	if got := fmt.Sprint(names(b.Stages())); got != "[START FLUSH BLOCK_DDL BLOCK_COMMIT]" {
		t.Errorf("stages are %s", got)
	}
	held := b.Stages()[2].Held + b.Stages()[3].Held
	if got := b.LockSeconds(); got <= 0 || got-held > 1e-6 || held-got > 1e-6 {
		t.Errorf("LockSeconds is %v, the stages' sum %v", got, held)
	}
	if b.Err() != nil {
		t.Error(b.Err())
	}
	if err := b.Flush(t.Context()); err == nil {
		t.Error("a stage was granted after End")
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	real(t).free(t, s)
}

// P6: a killed lock connection ends the backup, whatever stage it is in.
func TestKilledLockConnectionIsNoticed(t *testing.T) {
	for at, stage := range []string{"START", "FLUSH", "BLOCK_DDL", "BLOCK_COMMIT"} {
		t.Run(stage, func(t *testing.T) {
			s := open(t, real(t).backupAccount(t))
			b := begin(t, s)
			for _, s := range steps(b)[:at+1] {
				all(t, s.take)
			}
			real(t).exec(t, "KILL CONNECTION "+holder(t))
			err := lostSoon(t, b)
			if !errors.Is(err, server.ErrLockLost) {
				t.Fatalf("got %v, want ErrLockLost", err)
			}
			// G9: it says what happened.
			contains(t, err, "in stage "+stage, "killed", "released the locks")
			for name, step := range map[string]func(context.Context) error{"BlockCommit": blockCommit(b), "FlushLogs": b.FlushLogs, "End": b.End} {
				if got := step(t.Context()); got != err {
					t.Errorf("%s after the loss: %v", name, got)
				}
			}
			if _, got := b.Position(t.Context()); got != err {
				t.Errorf("Position after the loss: %v", got)
			}
			real(t).free(t, s)
		})
	}
}

// holder is the number of the lock connection: the one that the watching
// connection asks for from now on, by the server's general log.
func holder(t *testing.T) string {
	t.Helper()
	log := real(t).path("data/queries.log")
	st, err := os.Stat(log)
	if err != nil {
		t.Fatal(err)
	}
	asked := regexp.MustCompile(`PROCESSLIST WHERE ID=(\d+)\n`)
	var found [][]byte
	eventually(t, "the lock connection is looked for", func() bool {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		found = asked.FindSubmatch(text[st.Size():])
		return found != nil
	})
	return string(found[1])
}

// The first of End and the watch to see a dead connection fails the backup.
func TestEndProvesTheLock(t *testing.T) {
	s := open(t, real(t).backupAccount(t))
	b := begin(t, s)
	all(t, b.Flush)
	id := holder(t)
	all(t, b.BlockDDL)
	real(t).exec(t, "KILL CONNECTION "+id)
	if err := b.End(t.Context()); !errors.Is(err, server.ErrLockLost) {
		t.Errorf("got %v, want ErrLockLost", err)
	}
	real(t).free(t, s)
}

// P6: a lock that is not granted is given up, with all that was held.
func TestLockTimeout(t *testing.T) {
	real(t).exec(t, "CREATE OR REPLACE TABLE mysql.xb_busy (a INT) ENGINE=InnoDB", "INSERT INTO mysql.xb_busy VALUES (1)")
	defer real(t).exec(t, "DROP TABLE mysql.xb_busy")
	for name, tt := range map[string]struct {
		block  func(t *testing.T)
		blames string
	}{
		"lock tables": {func(t *testing.T) { run(t, real(t).session(t), "LOCK TABLES mysql.xb_busy WRITE") }, "no statement is running, so an idle session"},
		"plugin":      {lockWithPlugin, "held up by connection"},
		"running DDL": {runningDDL, "CREATE TABLE"},
	} {
		for _, stage := range []string{"START", "BLOCK_DDL"} {
			t.Run(name+" at "+stage, func(t *testing.T) {
				c := real(t).backupAccount(t)
				c.LockTimeout = time.Second
				s := open(t, c)
				// t of the subtest: the blocking sessions end with it.
				t.Run("blocked", func(t *testing.T) {
					began := time.Now()
					b, err := blockedAt(t, s, stage, tt.block)
					if !errors.Is(err, server.ErrLockTimeout) {
						t.Fatalf("got %v after %s, want ErrLockTimeout", err, time.Since(began))
					}
					contains(t, err, "BACKUP STAGE "+stage, "not granted within 1s", tt.blames)
					if b == nil {
						return
					}
					if got := b.End(t.Context()); got != err {
						t.Errorf("End says %v", got)
					}
					if lost := lostSoon(t, b); lost != err {
						t.Errorf("Err says %v", lost)
					}
				})
				real(t).free(t, s)
			})
		}
	}
}

func blockedAt(t *testing.T, s server.Server, stage string, block func(*testing.T)) (server.Backup, error) {
	t.Helper()
	if stage == "START" {
		block(t)
		_, err := s.Begin(t.Context())
		return nil, err
	}
	b := granted(t, s, server.Backup.Flush)
	block(t)
	return b, b.BlockDDL(t.Context())
}

// lockWithPlugin lets the server tell who holds metadata locks.
func lockWithPlugin(t *testing.T) {
	t.Helper()
	real(t).exec(t, "INSTALL SONAME 'metadata_lock_info'")
	t.Cleanup(func() {
		if _, err := real(t).root.Exec("UNINSTALL SONAME 'metadata_lock_info'"); err != nil {
			t.Error(err)
		}
	})
	run(t, real(t).session(t), "LOCK TABLES mysql.xb_busy WRITE")
}

// runningDDL leaves a CREATE TABLE that takes long. (A statement that waits for
// a table, or an ALTER TABLE that copies one, lets backups pass.)
func runningDDL(t *testing.T) {
	t.Helper()
	ddl := real(t).session(t)
	const q = "CREATE TABLE mysql.xb_long AS SELECT SLEEP(60)"
	done := make(chan struct{})
	go func() {
		defer close(done)
		ddl.ExecContext(context.Background(), q)
	}()
	id := real(t).waiting(t, q)
	t.Cleanup(func() {
		real(t).root.Exec("KILL CONNECTION " + id)
		<-done
		eventually(t, q+" is over", func() bool {
			var n int
			err := real(t).root.QueryRow("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID=" + id).Scan(&n)
			return err == nil && n == 0
		})
	})
}

func TestSecondBackupWaitsItsTurn(t *testing.T) {
	c := real(t).backupAccount(t)
	c.LockTimeout = time.Second
	s := open(t, c)
	first := granted(t, s, server.Backup.Flush)
	if _, err := s.Begin(t.Context()); !errors.Is(err, server.ErrLockTimeout) {
		t.Fatalf("got %v, want ErrLockTimeout", err)
	}
	all(t, first.End)
	real(t).free(t, s)
}

// P6: whatever ends a backup, waiting or not, the locks are released.
func TestEveryEndReleases(t *testing.T) {
	for _, which := range []string{"step waits", "begin waits", "begin idle", "close idle", "close waits", "interrupted waits", "killed waits"} {
		t.Run(which, func(t *testing.T) {
			c := real(t).backupAccount(t)
			s := open(t, c)
			life, endLife := context.WithCancel(t.Context())
			defer endLife()
			b, err := s.Begin(life)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			all(t, b.Flush)
			step, endStep := context.WithCancel(t.Context())
			defer endStep()
			done := make(chan error, 1)
			unblock, drop := func() {}, func() {}
			if strings.HasSuffix(which, "waits") {
				real(t).exec(t, "CREATE OR REPLACE TABLE mysql.xb_busy (a INT)")
				busy := real(t).session(t)
				run(t, busy, "LOCK TABLES mysql.xb_busy WRITE")
				unblock = func() { run(t, busy, "UNLOCK TABLES") }
				drop = func() { real(t).exec(t, "DROP TABLE mysql.xb_busy") }
				go func() { done <- b.BlockDDL(step) }()
				id := real(t).waiting(t, "BACKUP STAGE BLOCK_DDL")
				switch which {
				case "interrupted waits":
					real(t).exec(t, "KILL QUERY "+id)
				case "killed waits":
					real(t).exec(t, "KILL CONNECTION "+id)
				}
			} else {
				all(t, b.BlockDDL)
				close(done)
			}
			switch strings.Fields(which)[0] {
			case "step":
				endStep()
			case "begin":
				endLife()
			case "close":
				b.Close()
			}
			lost := lostSoon(t, b)
			if err := <-done; strings.HasSuffix(which, "waits") && (err == nil || err != lost) {
				t.Errorf("the step says %v, Err %v", err, lost)
			}
			if want := map[string]error{
				"step": context.Canceled, "begin": context.Canceled, "interrupted": server.ErrLockLost, "killed": server.ErrLockLost,
			}[strings.Fields(which)[0]]; want != nil && !errors.Is(lost, want) {
				t.Errorf("Err is %v, want %v", lost, want)
			}
			b.Close()
			unblock()
			real(t).free(t, s)
			drop()
		})
	}
}

// A server that dies is a lost lock.
func TestServerGone(t *testing.T) {
	own := scratch(t)
	s := open(t, server.Config{Socket: own.path("sock"), User: "root"})
	b := begin(t, s)
	all(t, b.Flush, b.BlockDDL)
	own.cmd.Process.Kill()
	<-own.exited
	lost := lostSoon(t, b)
	if !errors.Is(lost, server.ErrLockLost) {
		t.Fatalf("got %v, want ErrLockLost", lost)
	}
	contains(t, lost, "in stage BLOCK_DDL")
	if err := b.End(t.Context()); err != lost {
		t.Errorf("End says %v", err)
	}
	if _, err := s.LSN(t.Context()); !errors.Is(err, server.ErrConnect) {
		t.Errorf("LSN says %v, want ErrConnect", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// holdEnv makes the test binary a process that takes the locks at the socket it
// names and waits to be killed.
const holdEnv = "XB_TEST_HOLD"

func hold(socket string) int {
	ctx := context.Background()
	s, err := server.Open(ctx, server.Config{Socket: socket, User: "xb", Password: "hush-hush"}, nil, source.Dialect{})
	if err != nil {
		return complain(err)
	}
	b, err := s.Begin(ctx)
	if err != nil {
		return complain(err)
	}
	if err := b.Flush(ctx); err != nil {
		return complain(err)
	}
	fmt.Println("FLUSH")
	var word string
	fmt.Scanln(&word)
	if err := b.BlockDDL(ctx); err != nil {
		return complain(err)
	}
	fmt.Println("BLOCK_DDL")
	<-b.Lost()
	return complain(b.Err())
}

// P6: the death of the process releases the locks, also those it holds while it
// waits for another: the server looks for a closed socket then.
func TestKilledProcessReleases(t *testing.T) {
	for _, waits := range []bool{false, true} {
		t.Run(fmt.Sprintf("waits %t", waits), func(t *testing.T) {
			s := open(t, real(t).backupAccount(t))
			real(t).exec(t, "CREATE OR REPLACE TABLE mysql.xb_busy (a INT)", "CREATE OR REPLACE TABLE mysql.xb_my (a INT) ENGINE=MyISAM")
			other, busy := real(t).session(t), real(t).session(t)
			kill, step := holding(t)
			step("FLUSH")
			if waits {
				run(t, busy, "LOCK TABLES mysql.xb_busy WRITE")
				step("")
				real(t).waiting(t, "BACKUP STAGE BLOCK_DDL")
			} else {
				step("")
				step("BLOCK_DDL")
			}
			if !blocked(t, other, "INSERT INTO mysql.xb_my VALUES (1)") {
				t.Error("nothing is locked")
			}
			kill()
			eventually(t, "the locks are released", func() bool { return !blocked(t, other, "INSERT INTO mysql.xb_my VALUES (1)") })
			run(t, busy, "UNLOCK TABLES")
			real(t).free(t, s)
			real(t).exec(t, "DROP TABLE mysql.xb_busy, mysql.xb_my")
		})
	}
}

// holding starts a process that runs hold. step waits for a word of it, or sends
// an empty line.
func holding(t *testing.T) (kill func(), step func(word string)) {
	t.Helper()
	p := exec.CommandContext(t.Context(), os.Args[0])
	p.Env = append(os.Environ(), holdEnv+"="+real(t).path("sock"))
	p.Stderr = os.Stderr
	in, err := p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		p.Process.Kill()
		p.Wait()
	})
	t.Cleanup(kill)
	lines := bufio.NewReader(out)
	return kill, func(word string) {
		t.Helper()
		if word == "" {
			io.WriteString(in, "go\n")
			return
		}
		// A process that gives up ends the wait: its locks have a budget.
		if line, err := lines.ReadString('\n'); line != word+"\n" {
			t.Fatalf("the process says %q, %v; want %s", line, err, word)
		}
	}
}

// A server that hangs does not hang the backup: neither a lock's budget nor the
// giving up needs its answer.
func TestServerHangs(t *testing.T) {
	own := scratch(t)
	s := open(t, server.Config{Socket: own.path("sock"), User: "root", LockTimeout: time.Second})
	b := begin(t, s)
	if err := own.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- b.Flush(t.Context()) }()
	select {
	case err := <-done:
		if !errors.Is(err, server.ErrLockTimeout) {
			t.Errorf("got %v, want ErrLockTimeout", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the step hangs")
	}
}
