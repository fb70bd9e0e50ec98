package tail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/servertest"
	"github.com/xbstream/xbstream/redotail"
)

// P5: a live server with the smallest log, which is resized meanwhile, under load
// and DDL. Every mini-transaction is read, whole and in order, up to the very LSN of
// log_status.
func TestFollowsAServer(t *testing.T) {
	for _, r := range servertest.MySQLReleases(t) {
		t.Run(r.String(), func(t *testing.T) { followsAServer(t, r) })
	}
}

func lsn(t *testing.T, s *servertest.Server, query string) (n format.LSN) {
	t.Helper()
	check(t, s.DB().QueryRowContext(t.Context(), query).Scan(&n))
	return n
}

// hold makes the server keep what was not read: the race detector is slow.
func hold(t *testing.T, s *servertest.Server, tailer *redotail.Tailer) (release func()) {
	t.Helper()
	conn, err := s.DB().Conn(t.Context())
	check(t, err)
	_, err = conn.ExecContext(t.Context(), "DO innodb_redo_log_consumer_register()")
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			at := tailer.Position()
			_, _ = conn.ExecContext(t.Context(), fmt.Sprintf("DO innodb_redo_log_consumer_advance(%d)", at-at%512))
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return func() {
		cancel()
		<-done
		_, err := conn.ExecContext(t.Context(), "DO innodb_redo_log_consumer_unregister()")
		check(t, errors.Join(err, conn.Close()))
	}
}

func followsAServer(t *testing.T, r servertest.Release) {
	s := servertest.New(t, servertest.Options{Release: r, LogBin: true, LogFileSize: 8 << 20})
	check(t, s.Exec(t.Context(), "CREATE DATABASE d"))
	ctx, cancel := context.WithCancel(t.Context())
	var loads []chan error
	for i := range 3 {
		done := make(chan error, 1)
		loads = append(loads, done)
		go func() {
			err := s.Exec(ctx, fmt.Sprintf("CREATE TABLE d.t%d (a INT PRIMARY KEY AUTO_INCREMENT, b LONGTEXT, KEY (b(100)))", i))
			for n := 0; err == nil && ctx.Err() == nil; n++ {
				err = s.Exec(ctx,
					fmt.Sprintf("INSERT INTO d.t%d (b) SELECT REPEAT('%d', 200 + %d) FROM information_schema.COLLATIONS LIMIT 200", i, n, n%7*1500),
					fmt.Sprintf("DELETE FROM d.t%d ORDER BY a LIMIT 190", i))
				if n%4 == 3 {
					err = errors.Join(err, s.Exec(ctx, fmt.Sprintf("CREATE TABLE d.x%d (a INT)", i), fmt.Sprintf("DROP TABLE d.x%d", i), fmt.Sprintf("ALTER TABLE d.t%d FORCE", i)))
				}
			}
			if ctx.Err() != nil {
				err = nil
			}
			done <- err
		}()
	}
	for round, size := range []int{8, 64, 8, 16} {
		log, err := Open(t.Context(), s.Datadir())
		check(t, err)
		first := log.file.ID
		tailer := redotail.New(log, redotail.Options{SpoolDir: t.TempDir()})
		ran := make(chan error, 1)
		go func() { ran <- tailer.Run(t.Context()) }()
		release := hold(t, s, tailer)
		check(t, s.Exec(t.Context(), fmt.Sprintf("SET GLOBAL innodb_redo_log_capacity = %d", size<<20)))
		time.Sleep(3 * time.Second)
		end := lsn(t, s, "SELECT STORAGE_ENGINES->>'$.InnoDB.LSN' FROM performance_schema.log_status")
		tailer.StopAt(end)
		tailer.Written(lsn(t, s, "SELECT VARIABLE_VALUE FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Innodb_redo_log_flushed_to_disk_lsn'"))
		next, read := log.Start().CheckpointLSN, 0
		for {
			p, err := tailer.Next(t.Context())
			if err == io.EOF {
				break
			}
			check(t, err)
			if p.LSN != next {
				t.Fatalf("a piece at %v, want %v", p.LSN, next)
			}
			next, read = p.End(), read+len(p.Data)
		}
		check(t, <-ran)
		release()
		if got, _ := tailer.EndLSN(); got != end || next != end {
			t.Errorf("round %d: redo ends at %v, log_status says %v", round, got, end)
		}
		if at := log.Checkpoint(); at > lsn(t, s, "SELECT VARIABLE_VALUE FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Innodb_redo_log_checkpoint_lsn'") {
			t.Errorf("checkpoint %v is newer than the server's", at)
		}
		var kinds []string
		for _, f := range tailer.Files() {
			kinds = append(kinds, string(f.Op))
			if !f.Loaded.IsZero() {
				kinds = append(kinds, string(redotail.FileLoaded))
			}
		}
		all := strings.Join(kinds, " ")
		t.Logf("round %d: %d bytes, %d files, %d tablespaces changed (created, deleted, loaded: %v %v %v)", round, read, log.file.ID-first, len(kinds),
			strings.Contains(all, string(redotail.FileCreated)), strings.Contains(all, string(redotail.FileDeleted)), strings.Contains(all, string(redotail.FileLoaded)))
		check(t, errors.Join(tailer.Close(), log.Close()))
	}
	cancel()
	for _, done := range loads {
		check(t, <-done)
	}
}
