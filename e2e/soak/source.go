package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

// source is a server that is backed up a few times.
type source struct {
	number  int
	options servertest.Options
	sets    []string // global variables, once the tables of the load are there
	load    servertest.LoadOptions
	server  *servertest.Server
}

// roundsPerSource is how many rounds a server is kept for.
const roundsPerSource = 6

// The account that takes backups; it may do what the manual page demands.
const backupUser = "backup"

func (s *source) String() string {
	return fmt.Sprintf("%d KiB pages, %d MiB log, %s %s, %d MiB of bulk", s.options.PageSize>>10, s.options.LogFileSize>>20,
		strings.Join(s.options.Args, " "), strings.Join(s.sets, " "), s.load.BulkBytes>>20)
}

// one picks one of several.
func one[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func (s *soak) openSource(ctx context.Context, round int) error {
	number := (round - 1) / roundsPerSource
	if s.source != nil && s.source.number == number && s.source.server.Pid() != 0 {
		return nil
	}
	if err := s.closeSource(); err != nil {
		return err
	}
	s.source = s.chooseSource(number)
	return s.source.start(ctx)
}

func (s *soak) closeSource() error {
	if s.source == nil || s.source.server == nil {
		return nil
	}
	return s.source.server.Close()
}

func (s *soak) chooseSource(number int) *source {
	r := s.random(number, 1)
	src := &source{number: number, options: servertest.Options{
		LogBin: true, TCP: true,
		LogFileSize: one[int64](r, 8, 8, 16, 32, 96) << 20,
		PageSize:    one(r, 16, 16, 16, 4, 8, 32, 64) << 10,
	}}
	o := &src.options
	undo := one(r, 0, 2, 3)
	if undo > 0 {
		o.Install = append(o.Install, "--innodb-undo-tablespaces="+strconv.Itoa(undo))
	}
	if undo > 1 && r.IntN(2) == 0 {
		o.Args = append(o.Args, "--innodb-undo-log-truncate=ON", "--innodb-max-undo-log-size=10M", "--innodb-purge-rseg-truncate-frequency=1")
	}
	if r.IntN(4) == 0 {
		o.Install = append(o.Install, "--innodb-data-file-path=ibdata1:12M;ibdata2:10M:autoextend")
	}
	o.Args = append(o.Args, "--innodb-checksum-algorithm="+one(r, "full_crc32", "full_crc32", "crc32", "strict_full_crc32"))
	src.sets = append(src.sets, "innodb_default_row_format="+one(r, "dynamic", "compact", "redundant"))
	if r.IntN(3) == 0 {
		src.sets = append(src.sets, "innodb_max_dirty_pages_pct=0", "innodb_max_dirty_pages_pct_lwm=0")
	}
	if r.IntN(4) == 0 {
		src.sets = append(src.sets, "innodb_file_per_table=OFF")
	}
	o.Args = append(o.Args, o.Install...)
	src.load = servertest.LoadOptions{Seed: r.Uint64(), BulkBytes: int64(r.IntN(24)) << 20}
	return src
}

func (s *source) start(ctx context.Context) (err error) {
	if s.server, err = servertest.Start(ctx, s.options); err != nil {
		return fmt.Errorf("%v: %w", s, err)
	}
	account := backupUser + "@localhost"
	if err := s.server.Exec(ctx, "CREATE USER "+account, "GRANT RELOAD, PROCESS, BINLOG MONITOR ON *.* TO "+account); err != nil {
		return err
	}
	if err := s.server.CreateSchema(ctx, s.load); err != nil {
		return fmt.Errorf("%v: %w", s, err)
	}
	return s.set(ctx)
}

// set sets the global variables, which a restart forgets.
func (s *source) set(ctx context.Context) error {
	for _, set := range s.sets {
		if err := s.server.Exec(ctx, "SET GLOBAL "+set); err != nil {
			return err
		}
	}
	return nil
}

// copied are the options of a server on a copy: what a statement of the source
// does must be the same there.
func (s *source) copied() servertest.Options {
	// It repairs nothing on its own: a table that was copied in use must be seen.
	args := []string{"--myisam-recover-options=OFF", "--aria-recover-options=OFF"}
	for _, set := range s.sets {
		args = append(args, "--"+strings.ReplaceAll(set, "_", "-"))
	}
	return servertest.Options{ServerID: 2, Args: args}
}

// The kinds of load.
var loads = []string{"idle", "rows", "rows flat out", "DDL storm", "DDL storm", "bulk"}

// pressure is what writes to a source during a round.
type pressure struct {
	stops []func() error
	once  sync.Once
	err   error
}

// press begins a load of this kind.
func (s *source) press(ctx context.Context, kind string, seed uint64) (*pressure, error) {
	p := &pressure{}
	if kind == "idle" {
		return p, nil
	}
	o := s.load
	o.Seed, o.Rate = seed, 200
	if kind == "rows flat out" {
		o.Rate = 0
	}
	load, err := s.server.StartLoad(ctx, o)
	if err != nil {
		return nil, err
	}
	p.stops = append(p.stops, func() error { _, err := load.Stop(); return err })
	switch kind {
	case "DDL storm":
		storm, err := s.server.StartStorm(ctx, seed)
		if err != nil {
			return nil, errors.Join(err, p.stop())
		}
		p.stops = append(p.stops, storm.Stop)
	case "bulk":
		p.stops = append(p.stops, s.bulk(ctx, seed))
	}
	return p, nil
}

// stop ends all writers. It waits for them: a statement under way is finished.
func (p *pressure) stop() error {
	p.once.Do(func() {
		for _, stop := range p.stops {
			p.err = errors.Join(p.err, stop())
		}
	})
	return p.err
}

// bulk writes megabytes in one statement, again and again, but no more redo than
// a slow pipe takes: a backup through it would not end.
func (s *source) bulk(ctx context.Context, seed uint64) (stop func() error) {
	r := rand.New(rand.NewPCG(seed, 2))
	more, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		err := s.server.Exec(ctx, "CREATE TABLE IF NOT EXISTS `load`.heap (id INT NOT NULL PRIMARY KEY, b VARCHAR(6000), KEY b (b(20))) ENGINE=InnoDB")
		for more.Err() == nil && err == nil {
			from := r.IntN(10000)
			err = s.server.Exec(ctx, "USE `load`", fmt.Sprintf(
				"REPLACE INTO heap SELECT seq, REPEAT(MD5(seq + %d), %d) FROM seq_%d_to_%d", r.IntN(100), 20+r.IntN(150), from, from+500+r.IntN(1500)))
			time.Sleep(time.Duration(300+r.IntN(700)) * time.Millisecond)
		}
		done <- err
	}()
	return func() error {
		cancel()
		return <-done
	}
}
