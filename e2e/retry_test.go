package e2e

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/servertest"
)

// P1, P6: locks that are held up in each stage are given up and asked for again,
// under load, and tables are made, changed and dropped in between.
func TestLocksAreAskedForAgain(t *testing.T) {
	ctx := t.Context()
	source := servertest.New(t, servertest.Options{LogBin: true, TCP: true})
	options := servertest.LoadOptions{Seed: 7, Rate: 300}
	check(t, source.CreateSchema(ctx, options))
	check(t, source.Exec(ctx, "CREATE DATABASE again",
		"CREATE TABLE again.busy (a INT) ENGINE=InnoDB",
		"CREATE TABLE again.inno (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB",
		"CREATE TABLE again.drops (a INT) ENGINE=InnoDB",
		"CREATE TABLE again.isam (a INT) ENGINE=MyISAM",
		"CREATE TABLE again.aria (a INT) ENGINE=Aria",
		"INSERT INTO again.inno SELECT seq, REPEAT('x', 500) FROM again.seq_1_to_2000",
		"INSERT INTO again.isam SELECT seq FROM again.seq_1_to_1000",
		"INSERT INTO again.aria SELECT seq FROM again.seq_1_to_1000"))
	load, err := source.StartLoad(ctx, options)
	check(t, err)

	b := &blockers{t: t, source: source, held: map[string]bool{}}
	b.another()
	hooked(t, "nothing", b.event)
	dir := filepath.Join(t.TempDir(), "copy")
	pipeline(t, []string{"xbsend", "--no-defaults", "-uroot", "-S" + source.Socket(), "--lock-timeout=500ms", "--lock-retries=50"},
		[]string{"xbstream", "-x", "--prepare", "-C", dir})

	b.letGo.Wait()
	notGranted := map[string]int{}
	text, err := os.ReadFile(filepath.Join(dir, "xbstream_manifest.json"))
	check(t, err)
	m, err := format.DecodeManifest(strings.NewReader(string(text)), func(*format.File) error { return nil })
	check(t, err)
	for _, s := range m.Backup.Stages {
		if s.GaveUp {
			notGranted[s.Name]++
			if s.Waited < 0.5 || s.Held != 0 {
				t.Errorf("a lock that was not granted: %+v", s)
			}
		}
	}
	for _, name := range []string{"START", "BLOCK_DDL", "BLOCK_COMMIT"} {
		if notGranted[name] == 0 {
			t.Errorf("%s was always granted: %+v", name, m.Backup.Stages)
		}
	}
	if m.Backup.LockSeconds < 0.5 { // BLOCK_DDL was held while BLOCK_COMMIT was not granted
		t.Errorf("%.2f lock seconds", m.Backup.LockSeconds)
	}
	check(t, unlocked(source))

	gtid, err := servertest.RecordedGTID(dir)
	check(t, err)
	copied := startCopy(t, dir)
	check(t, copied.AttachReplica(ctx, source, gtid))
	_, err = load.Stop()
	check(t, err)
	compareCopy(t, source, copied, "")
}

// blockers hold up each lock of a backup once, and let it go when the backup has
// given up.
type blockers struct {
	t      *testing.T
	source *servertest.Server

	held  map[string]bool
	letGo sync.WaitGroup

	mu      sync.Mutex // one change after the other
	changes int
}

// hold lets go, with do, when the backup has waited for its next lock and waits no
// longer, and then changes what it must notice.
func (b *blockers) hold(do func() error) {
	const waits = "INFO LIKE 'BACKUP STAGE %' AND STATE = 'Waiting for backup lock'"
	b.letGo.Go(func() {
		for !b.running(waits) && b.t.Context().Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		for b.running(waits) {
			time.Sleep(10 * time.Millisecond)
		}
		if err := do(); err != nil {
			b.t.Error(err)
		}
		if err := b.change(); err != nil {
			b.t.Error(err)
		}
	})
}

// another backup holds up START.
func (b *blockers) another() {
	conn := b.session()
	_, err := conn.ExecContext(b.t.Context(), "BACKUP STAGE START")
	check(b.t, err)
	b.hold(func() error {
		_, err := conn.ExecContext(b.t.Context(), "BACKUP STAGE END")
		return errors.Join(err, conn.Close())
	})
}

// event is called by the backup.
func (b *blockers) event(event, _ string) error {
	if b.held[event] {
		return nil
	}
	b.held[event] = true
	switch event {
	case "stage-flush":
		conn := b.session()
		if _, err := conn.ExecContext(b.t.Context(), "LOCK TABLES again.busy WRITE"); err != nil {
			return err
		}
		b.hold(func() error {
			_, err := conn.ExecContext(b.t.Context(), "UNLOCK TABLES")
			return errors.Join(err, conn.Close())
		})
	case "stage-block-ddl":
		return b.write()
	}
	return nil
}

// write begins to write a table of the server itself, which only BLOCK_COMMIT
// waits for.
func (b *blockers) write() error {
	conn := b.session()
	var id int
	if err := conn.QueryRowContext(b.t.Context(), "SELECT CONNECTION_ID()").Scan(&id); err != nil {
		return err
	}
	const q = "UPDATE mysql.proc SET comment = comment WHERE SLEEP(600) = 0"
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn.ExecContext(context.Background(), q) // it is killed
		conn.Close()
	}()
	b.hold(func() error {
		err := b.source.Exec(b.t.Context(), fmt.Sprintf("KILL CONNECTION %d", id))
		<-ended
		return err
	})
	for !b.running("INFO = '"+q+"'") && b.t.Context().Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// change does between two attempts what a copy must notice.
func (b *blockers) change() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changes++
	return b.source.Exec(b.t.Context(),
		fmt.Sprintf("CREATE TABLE again.made%d ENGINE=InnoDB AS SELECT seq FROM again.seq_1_to_1000", b.changes),
		fmt.Sprintf("ALTER TABLE again.inno ADD COLUMN c%d INT DEFAULT 1, ALGORITHM=INPLACE, FORCE", b.changes),
		"DROP TABLE again.drops", "CREATE TABLE again.drops (a INT) ENGINE=InnoDB", "INSERT INTO again.drops VALUES (1), (2)",
		"RENAME TABLE again.isam TO again.t, again.aria TO again.isam, again.t TO again.aria",
		"INSERT INTO again.isam VALUES (0)", "INSERT INTO again.aria VALUES (0)",
		fmt.Sprintf("CREATE DATABASE again%d", b.changes),
		fmt.Sprintf("CREATE TABLE again%d.t AS SELECT * FROM again.inno", b.changes))
}

// running says whether there is a session like that.
func (b *blockers) running(like string) bool {
	n, err := b.source.String(b.t.Context(), "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE "+like)
	return err == nil && n != "0"
}

func (b *blockers) session() *sql.Conn {
	conn, err := b.source.DB().Conn(b.t.Context())
	if err != nil {
		b.t.Error(err)
	}
	return conn
}
