package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

// judge says what is wrong with what came of the commands.
func (r *round) judge(ctx context.Context, p *pressure) {
	r.nothingLeft()
	if r.received == 0 {
		r.judgeWhole(ctx, p)
		return
	}
	r.judgeCodes()
	r.nothingPublished(ctx, p)
	if r.fault.server && !r.fault.again {
		r.serverEnds(ctx)
		return
	}
	r.unlocked(ctx)
}

// judgeWhole expects a copy that holds what its source holds.
func (r *round) judgeWhole(ctx context.Context, p *pressure) {
	if r.fault.sure {
		r.problem("a backup was made in spite of the fault")
		return
	}
	if r.sent != 0 && !slices.Contains(r.fault.send, r.sent) {
		r.problem("xbsend ended with %d: %s", r.sent, r.sender.log.last())
	}
	if r.damaged() {
		r.problem("a damaged archive was taken for a whole one")
	}
	if r.sent == 0 && !r.damaged() {
		r.soak.usual[r.compressed()] = r.relay.passed.Load()
	}
	if r.fault.server && !r.fault.again {
		r.serverEnds(ctx)
		return
	}
	if err := r.follow(ctx, p); err != nil {
		r.difference("%v", err)
	}
}

// damaged says whether the relay harmed the archive.
func (r *round) damaged() bool {
	size := r.relay.passed.Load()
	return r.relay.flip != never && r.relay.flip < size || r.relay.cut != never && r.relay.cut < size
}

// follow starts the copy, lets it follow its source, and compares.
func (r *round) follow(ctx context.Context, p *pressure) error {
	source := r.soak.source.server
	if err := r.owners(); err != nil {
		return err
	}
	gtid, err := servertest.RecordedGTID(r.target)
	if err != nil {
		return err
	}
	copied, err := servertest.StartOn(ctx, r.target, r.soak.source.copied())
	if err != nil {
		return err
	}
	defer copied.Close()
	if err := copied.DropTwins(ctx); err != nil {
		return err
	}
	_, complaints, err := copied.CheckTables(ctx)
	if err != nil {
		return err
	}
	if err := copied.AttachReplica(ctx, source, gtid); err != nil {
		return err
	}
	time.Sleep(300 * time.Millisecond) // the load goes on while the copy follows
	if err := r.stop(p); err != nil && !r.fault.server {
		return fmt.Errorf("load: %w", err)
	}
	if err := source.Exec(ctx, "SET GLOBAL event_scheduler = OFF"); err != nil {
		return err
	}
	if err := copied.WaitCaughtUp(ctx, source); err != nil {
		return err
	}
	if r.compared, err = servertest.Compare(ctx, source, copied); err != nil {
		return err
	}
	for _, d := range r.compared.Differences {
		r.difference("%s", d)
	}
	r.whole = true
	_, more, err := copied.CheckTables(ctx)
	if err != nil {
		return err
	}
	return r.checkTables(ctx, source, append(complaints, more...))
}

// owners looks whether all files belong to whom they are meant for, and the
// target if it was not there before.
func (r *round) owners() error {
	if !r.owned {
		return nil
	}
	return filepath.WalkDir(r.target, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() == foreignFile || r.foreign && p == r.target {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		if s := st.Sys().(*syscall.Stat_t); s.Uid != owner || s.Gid != owner {
			r.problem("%s belongs to %d:%d", p, s.Uid, s.Gid)
		}
		return nil
	})
}

// checkTables reports what CHECK TABLE said of the copy, but for what it says of
// the source as well.
func (r *round) checkTables(ctx context.Context, source *servertest.Server, complaints []string) error {
	if len(complaints) == 0 {
		return nil
	}
	_, own, err := source.CheckTables(ctx)
	for _, c := range complaints {
		if slices.Contains(own, c) {
			fmt.Println("  the source says so too:", c)
			continue
		}
		r.difference("%s", c)
	}
	return err
}

// judgeCodes compares the exit codes with those of the fault.
func (r *round) judgeCodes() {
	if r.sent != 0 && !r.sender.endedBy(r.fault.send) {
		r.problem("xbsend ended with %d, want 0 or one of %v: %s", r.sent, r.fault.send, r.sender.log.last())
	}
	if !r.receiver.endedBy(r.fault.receive) {
		r.problem("xbstream ended with %d, want one of %v: %s", r.received, r.fault.receive, r.receiver.log.last())
	}
	for _, c := range []*command{r.sender, r.receiver} {
		if c.code > 0 && !c.log.endsWithError() {
			r.problem("%s ended with %d, and its last words are %q", c, c.code, c.log.last())
		}
	}
}

// endedBy says whether the exit code is one of these. A signal kills a process
// that has not begun to run its own code yet.
func (c *command) endedBy(codes []int) bool {
	early := c.code == killed && c.log.String() == "" && slices.Max(append(codes, 0)) > 128
	return slices.Contains(codes, c.code) || early
}

// nothingLeft looks for temporary files. Only a killed preparation by a server
// leaves some: the server's own.
func (r *round) nothingLeft() {
	entries, err := os.ReadDir(r.tmp)
	if err != nil {
		r.problem("%v", err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "xbstream-prepare-") {
			r.problem("%s was left in TMPDIR", e.Name())
		}
	}
}

// nothingPublished looks at the target of a backup that failed. Only a receiver
// killed by SIGKILL leaves something, and that says what it is.
func (r *round) nothingPublished(ctx context.Context, p *pressure) {
	entries, err := os.ReadDir(r.target)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.problem("%v", err)
	}
	var names []string
	for _, e := range entries {
		if !r.foreign || e.Name() != foreignFile {
			names = append(names, e.Name())
		}
	}
	if r.foreign && len(entries) == len(names) {
		r.problem("xbstream failed, and %s is gone", foreignFile)
	}
	partial := slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, ".xbstream-partial-") })
	switch {
	case len(names) == 0:
	case r.received != killed:
		r.problem("xbstream failed and left %q", names)
	case slices.Contains(names, "ibdata1"):
		// Killed between the last rename and its end: it is what it looks like.
		if err := r.follow(ctx, p); err != nil {
			r.difference("%v", err)
		}
	case !partial:
		r.problem("the target holds %q and does not say that it is unfinished", names)
	default:
		r.again(ctx, p)
	}
}

// again makes a second backup into what a killed extraction left.
func (r *round) again(ctx context.Context, p *pressure) {
	next := *r
	next.fault, next.relay, next.started, next.file, next.problems = fault{}, newRelay(), make(chan struct{}), false, nil
	if err := next.backup(ctx); err != nil {
		r.problem("%v", err)
		return
	}
	if next.received != 9 {
		r.problem("a target with a leftover was not refused: exit code %d", next.received)
	}
	r.commands = next.commands
	next.relay, next.started = newRelay(), make(chan struct{})
	next.receive = append(slices.Clone(r.receive), "--remove-partial")
	if err := next.backup(ctx); err != nil {
		r.problem("%v", err)
		return
	}
	if next.judge(ctx, p); !next.whole {
		next.problem("no copy was made into the target that held a leftover")
	}
	r.whole, r.compared, r.commands = next.whole, next.compared, next.commands
	r.problems = append(r.problems, next.problems...)
	r.differences, r.hangs = next.differences, next.hangs
}

// unlockWait bounds the wait for locks that a backup may have left.
const unlockWait = time.Minute

// unlocked takes every lock a backup takes, and makes a database.
func (r *round) unlocked(ctx context.Context) {
	if r.fault.name == "tables locked" {
		return // by the fault itself
	}
	ctx, cancel := context.WithTimeout(ctx, unlockWait)
	defer cancel()
	if err := r.soak.source.server.Exec(ctx, "SET lock_wait_timeout = 40",
		"BACKUP STAGE START", "BACKUP STAGE FLUSH", "BACKUP STAGE BLOCK_DDL", "BACKUP STAGE BLOCK_COMMIT", "BACKUP STAGE END",
		"CREATE DATABASE unlocked", "DROP DATABASE unlocked"); err != nil {
		r.problem("the backup left a lock: %v", err)
	}
}

// serverEnds waits until the server that was killed is gone; the next round
// starts another.
func (r *round) serverEnds(ctx context.Context) {
	for r.soak.source.server.Pid() != 0 {
		select {
		case <-ctx.Done():
			r.hang("the server does not end")
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// verifyArchive lets xbstream verify say of an archive in a file whether it is
// whole.
func (r *round) verifyArchive(ctx context.Context) {
	args := []string{"verify"}
	if r.sealed {
		args = append(args, "-i", r.soak.key)
	}
	code, c := r.runs(ctx, append(args, r.archive)...)
	switch {
	case r.sent == 0 && !r.damaged():
		if code != 0 {
			r.difference("verify of a whole archive: exit code %d: %s", code, c.log.last())
		}
	case code != exitDamaged && !(r.sealed && code == exitNoKey):
		r.problem("verify of a damaged archive: exit code %d: %s", code, c.log.last())
	}
}
