package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Exit codes, as the manual pages have them.
const (
	exitDamaged  = 3
	exitNoKey    = 4
	exitServer   = 5
	exitRedoLost = 6
	exitIO       = 8
	exitPrepare  = 10
	killed       = -1
)

// fault is one way to disturb a backup.
type fault struct {
	name   string
	weight int
	// choose prepares the round for it, begin what surrounds the commands, and
	// strike happens while they run.
	choose func(r *round, c *rand.Rand)
	begin  func(ctx context.Context, r *round) (end func() error, err error)
	strike func(ctx context.Context, r *round) error
	// send and receive are the exit codes when it ended the backup; none: it
	// must not.
	send, receive []int
	sure          bool // it cannot come too late
	server        bool // the server does not survive, nor do those who write
	again         bool // it is started again
}

func allFaults() []fault {
	var all []fault
	for _, s := range []struct {
		signal syscall.Signal
		code   int
	}{{syscall.SIGKILL, killed}, {syscall.SIGTERM, 143}, {syscall.SIGINT, 130}, {syscall.SIGHUP, 129}} {
		all = append(all,
			fault{name: fmt.Sprintf("xbsend: %v", s.signal), weight: 3, choose: inThePipe, send: []int{s.code}, receive: []int{exitDamaged},
				strike: func(_ context.Context, r *round) error { return r.sender.kill(s.signal) }},
			fault{name: fmt.Sprintf("xbstream: %v", s.signal), weight: 3, send: []int{exitIO}, receive: []int{s.code},
				strike: func(_ context.Context, r *round) error { return r.receiver.kill(s.signal) }})
	}
	for _, s := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		all = append(all, fault{name: fmt.Sprintf("server: %v", s), weight: 1, choose: inThePipe, send: []int{exitServer}, receive: []int{exitDamaged}, server: true,
			strike: func(_ context.Context, r *round) error { return syscall.Kill(r.soak.source.server.Pid(), s) }})
	}
	return append(all,
		fault{name: "server restarted", weight: 2, choose: inThePipe, strike: restart, send: []int{exitServer}, receive: []int{exitDamaged}, server: true, again: true},
		fault{name: "connections killed", weight: 4, choose: inThePipe, strike: killConnections, send: []int{exitServer}, receive: []int{exitDamaged}},
		fault{name: "tables locked", weight: 2, choose: shortLocks, begin: lockTable, send: []int{exitServer}, receive: []int{exitDamaged}, sure: true},
		fault{name: "tables locked for a while", weight: 2, choose: shortLocksAgain, begin: lockTableAWhile},
		fault{name: "disk full", weight: 4, begin: smallDisk, send: []int{exitIO}, receive: []int{exitIO}, sure: true},
		fault{name: "pipe broken", weight: 3, choose: brokenPipe, send: []int{exitIO}, receive: []int{exitDamaged}},
		fault{name: "rest lost", weight: 4, choose: lostRest, receive: []int{exitDamaged}},
		fault{name: "bit flipped", weight: 4, choose: flippedBit, send: []int{exitIO}, receive: []int{exitDamaged}},
		fault{name: "spool too small", weight: 2, choose: smallSpool, send: []int{exitRedoLost}, receive: []int{exitDamaged}},
		fault{name: "spool's disk full", weight: 2, choose: bulkThroughPipe, begin: smallSpoolDisk, send: []int{exitIO}, receive: []int{exitDamaged}},
		fault{name: "xbstream hangs", weight: 2, choose: shortIdle, strike: hang, send: []int{exitIO}, receive: []int{exitDamaged}},
		fault{name: "xbstream stopped for a while", weight: 3, strike: func(_ context.Context, r *round) error { return r.receiver.pause() }},
		fault{name: "xbsend stopped for a while", weight: 2, choose: inThePipe, strike: func(_ context.Context, r *round) error { return r.sender.pause() },
			send: []int{exitRedoLost, exitServer}, receive: []int{exitDamaged}},
	)
}

// inThePipe is for faults of the sending side: with a file it would have ended.
func inThePipe(r *round, _ *rand.Rand) { r.file = false }

func brokenPipe(r *round, c *rand.Rand) {
	r.file, r.relay.broken = false, r.somewhere(c)
}

func lostRest(r *round, c *rand.Rand) { r.relay.cut = r.somewhere(c) }

func flippedBit(r *round, c *rand.Rand) {
	if r.relay.flip = r.somewhere(c); r.sealed && r.relay.flip < 1024 {
		r.fault.receive = []int{exitDamaged, exitNoKey} // the header that holds the key
	}
}

func smallSpool(r *round, c *rand.Rand) {
	bulkThroughPipe(r, c)
	r.send = append(r.send, "--spool-limit=1M")
}

// bulkThroughPipe holds the pipe up so that more redo must wait than memory takes.
func bulkThroughPipe(r *round, c *rand.Rand) {
	r.load, r.file = "bulk", false
	r.relay.stalls[c.Int64N(1<<20)] = pause(8 * time.Second)
}

func shortLocksAgain(r *round, _ *rand.Rand) {
	r.send = append(r.send, "--lock-timeout=1s", "--lock-retries=30")
}

func shortIdle(r *round, _ *rand.Rand) {
	r.file = false
	r.send = append(r.send, "--idle-timeout=1s")
}

// hang stops xbstream until xbsend has ended.
func hang(_ context.Context, r *round) error {
	_ = r.receiver.kill(syscall.SIGSTOP)
	r.sender.ended(time.Minute) // whether it has is judged later
	return r.receiver.kill(syscall.SIGCONT)
}

// restart stops the server in good order and starts it again.
func restart(ctx context.Context, r *round) error {
	if err := r.soak.source.server.Restart(ctx); err != nil {
		return err
	}
	return r.soak.source.set(ctx)
}

func shortLocks(r *round, _ *rand.Rand) { r.send = append(r.send, "--lock-timeout=1s") }

// pause stops a process and lets it go on.
func (c *command) pause() error {
	_ = c.kill(syscall.SIGSTOP)
	time.Sleep(time.Duration(500+rand.IntN(1500)) * time.Millisecond)
	return c.kill(syscall.SIGCONT)
}

// killConnections kills all that xbsend has.
func killConnections(ctx context.Context, r *round) error {
	rows, err := r.soak.source.server.DB().QueryContext(ctx, "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = ?", backupUser)
	if err != nil {
		return err
	}
	defer rows.Close()
	var ids []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return err
		}
		ids = append(ids, id)
	}
	for _, id := range ids {
		// It may have gone meanwhile.
		_, _ = r.soak.source.server.DB().ExecContext(ctx, fmt.Sprintf("KILL CONNECTION %d", id))
	}
	return rows.Err()
}

// lockTable locks a table, as a client does that forgot to let it go.
func lockTable(ctx context.Context, r *round) (end func() error, err error) {
	var conn *sql.Conn
	if conn, err = r.soak.source.server.DB().Conn(ctx); err != nil {
		return nil, err
	}
	if _, err := conn.ExecContext(ctx, "LOCK TABLES `load`.parent WRITE"); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return func() error {
		_, err := conn.ExecContext(context.WithoutCancel(ctx), "UNLOCK TABLES")
		return errors.Join(err, conn.Close())
	}, nil
}

// lockTableAWhile locks a table for less time than xbsend tries again.
func lockTableAWhile(ctx context.Context, r *round) (end func() error, err error) {
	unlock, err := lockTable(ctx, r)
	if err != nil {
		return nil, err
	}
	unlocked := make(chan error, 1)
	time.AfterFunc(3*time.Second+20*r.delay, func() { unlocked <- unlock() })
	return func() error { return <-unlocked }, nil
}

// smallDisk puts the target on a file system that is too small.
func smallDisk(_ context.Context, r *round) (end func() error, err error) {
	disk, end, err := r.mount(512 + r.soak.random(r.number, 3).IntN(4<<10))
	r.target = filepath.Join(disk, "copy")
	return end, err
}

// smallSpoolDisk gives redo too little room to wait in.
func smallSpoolDisk(_ context.Context, r *round) (end func() error, err error) {
	disk, end, err := r.mount(256 + r.soak.random(r.number, 3).IntN(1<<10))
	r.send = append(r.send, "--spool-dir="+disk)
	return end, err
}

// mount makes a file system of so many KiB.
func (r *round) mount(size int) (disk string, end func() error, err error) {
	disk = filepath.Join(r.dir, "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		return "", nil, err
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, fmt.Sprintf("size=%dk", size)); err != nil {
		return "", nil, fmt.Errorf("mount a small disk (needs root): %w", err)
	}
	return disk, func() error { return syscall.Unmount(disk, 0) }, nil
}
