package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

// newest are the options of a server that uses what 11.8 has and 10.11 has not, or
// has by default: three undo tablespaces that are truncated, a mapped redo log, a
// system tablespace that shrinks, page compression by plugins.
var newest = []string{
	"--innodb-undo-log-truncate=ON", "--innodb-max-undo-log-size=10M", "--innodb-log-file-mmap=ON",
	"--innodb-data-file-path=ibdata1:12M:autoextend:autoshrink",
	"--plugin-load-add=provider_lz4", "--plugin-load-add=provider_snappy", "--innodb-compression-algorithm=lz4",
}

// P1, P2: what is new in 11.8, while it is used.
func TestWhatIsNewIn118(t *testing.T) {
	ctx := t.Context()
	source := servertest.New(t, servertest.Options{Release: servertest.MariaDB118, LogBin: true, TCP: true, LogFileSize: 512 << 20, Args: newest})
	check(t, source.Exec(ctx,
		"CREATE DATABASE `größe` COLLATE utf8mb4_uca1400_german2_ai_ci", "USE `größe`",
		"CREATE TABLE vectors (id INT PRIMARY KEY AUTO_INCREMENT, e VECTOR(8) NOT NULL, VECTOR INDEX (e)) ENGINE=InnoDB",
		"CREATE TABLE `online` (id INT PRIMARY KEY AUTO_INCREMENT, a INT, b VARCHAR(100) COLLATE utf8mb4_uca1400_ai_ci) ENGINE=InnoDB",
		"CREATE TABLE parts (id INT PRIMARY KEY, a INT) ENGINE=InnoDB PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (1000), PARTITION p1 VALUES LESS THAN (2000))",
		"INSERT INTO parts SELECT seq, seq FROM mysql.seq_0_to_1999",
		"CREATE TABLE pressed (id INT PRIMARY KEY AUTO_INCREMENT, b BLOB) ENGINE=InnoDB PAGE_COMPRESSED=1",
		"CREATE TABLE big (id INT PRIMARY KEY, b VARCHAR(400)) ENGINE=InnoDB",
		"INSERT INTO big SELECT seq, REPEAT('u', 300) FROM mysql.seq_1_to_20000",
	))
	load := startNewest(t, source)
	for n := range 2 {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "copy")
			from := load.count("undo")
			await(t, "changes of every kind", func() bool { return load.least() > 1 && load.count("undo") > from })
			pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + source.Socket()}, []string{"xbstream", "-x", "--prepare", "-C", dir})
			gtid, err := servertest.RecordedGTID(dir)
			check(t, err)
			copied := startCopyOn(t, servertest.MariaDB118, dir, newest...)
			check(t, copied.AttachReplica(ctx, source, gtid))
			if n == 1 {
				load.stop()
			} else {
				load.gate.Lock()
				defer load.gate.Unlock()
			}
			check(t, copied.WaitCaughtUp(ctx, source))
			c, err := servertest.Compare(ctx, source, copied)
			check(t, err)
			for _, d := range c.Differences {
				t.Error(d)
			}
			near, err := copied.String(ctx, "SELECT id FROM `größe`.vectors ORDER BY VEC_DISTANCE_EUCLIDEAN(e, VEC_FromText('[0,0,0,0,0,0,0,0]')) LIMIT 1")
			if err != nil || near == "" {
				t.Errorf("search by vector: %q, %v", near, err)
			}
			noComplaints(t, copied)
			check(t, copied.Close())
		})
	}
	truncated := strings.Count(source.ErrorLog(), "Truncating .")
	if truncated == 0 {
		t.Error("no undo tablespace was truncated")
	}
	t.Logf("%v; %d undo tablespaces truncated", load.done, truncated)
}

// newestLoad changes the tables until it is stopped.
type newestLoad struct {
	gate sync.RWMutex // held for reading by each change
	mu   sync.Mutex
	done map[string]int
	stop func()
}

func (l *newestLoad) count(kind string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done[kind]
}

func (l *newestLoad) least() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.done["vectors"]
	for _, m := range l.done {
		n = min(n, m)
	}
	return n
}

func startNewest(t *testing.T, s *servertest.Server) *newestLoad {
	l := &newestLoad{done: map[string]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	l.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(l.stop)
	random := func() string {
		var v []string
		for range 8 {
			v = append(v, fmt.Sprint(rand.IntN(1000)))
		}
		return strings.Join(v, ",")
	}
	for kind, statements := range map[string]func() []string{
		"vectors": func() []string {
			return []string{fmt.Sprintf("INSERT INTO vectors (e) VALUES (VEC_FromText('[%s]')), (VEC_FromText('[%s]'))", random(), random()),
				"DELETE FROM vectors WHERE id % 7 = 0 LIMIT 1", "DO SLEEP(0.01)"}
		},
		"online, rows": func() []string {
			return []string{fmt.Sprintf("INSERT INTO `online` (a, b) VALUES (%d, REPEAT('x', %d))", rand.IntN(1000), rand.IntN(100)),
				fmt.Sprintf("UPDATE `online` SET a = a + 1 WHERE id %% 50 = %d", rand.IntN(50))}
		},
		"online, copy": func() []string {
			return []string{"ALTER TABLE `online` ADD COLUMN c INT DEFAULT 5, ALGORITHM=COPY, LOCK=NONE", "ALTER TABLE `online` DROP COLUMN c, ALGORITHM=COPY, LOCK=NONE", "DO SLEEP(0.05)"}
		},
		"convert": func() []string {
			return []string{"ALTER TABLE parts CONVERT PARTITION p1 TO TABLE once_p1", "UPDATE once_p1 SET a = a + 1 WHERE id % 10 = 3",
				"ALTER TABLE parts CONVERT TABLE once_p1 TO PARTITION p1 VALUES LESS THAN (2000)"}
		},
		"pressed": func() []string {
			return []string{fmt.Sprintf("INSERT INTO pressed (b) VALUES (REPEAT('%d', 7000))", rand.IntN(100)), "UPDATE pressed SET b = REVERSE(b) ORDER BY id DESC LIMIT 3",
				fmt.Sprintf("SET GLOBAL innodb_compression_algorithm=%s", []string{"lz4", "snappy", "zlib"}[rand.IntN(3)])}
		},
		"undo": func() []string {
			return []string{fmt.Sprintf("UPDATE big SET b = REPEAT('%c', %d)", 'a'+rune(rand.IntN(26)), 200+rand.IntN(200)), "DO SLEEP(0.2)"}
		},
	} {
		wg.Go(func() {
			for ctx.Err() == nil {
				l.gate.RLock()
				err := s.Exec(context.WithoutCancel(ctx), append([]string{"USE `größe`"}, statements()...)...)
				l.gate.RUnlock()
				if err != nil && !refused(err) {
					t.Errorf("%s: %v", kind, err)
					return
				}
				l.mu.Lock()
				l.done[kind]++
				l.mu.Unlock()
				time.Sleep(time.Millisecond)
			}
		})
	}
	return l
}
