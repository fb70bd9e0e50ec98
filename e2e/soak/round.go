package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

// round is one backup.
type round struct {
	soak     *soak
	number   int
	load     string
	warmUp   time.Duration   // of the load, before the backup begins
	send     []string        // flags of xbsend
	receive  []string        // flags of xbstream -x
	prepare  []string        // flags of a preparation of its own, nil: xbstream -x --prepare
	killed   []time.Duration // kills that preparation after this time and does it again
	file     bool            // the archive goes to a file first
	sealed   bool
	owned    bool // by owner, and not by whoever runs this
	foreign  bool // the target holds a file of somebody else
	fault    fault
	delay    time.Duration // of the fault, after the relay's trigger
	relay    *relay
	dir      string // holds all that follows
	target   string
	tmp      string // TMPDIR of the commands
	archive  string
	commands []*command
	sender   *command
	receiver *command
	started  chan struct{} // closed when receiver is set

	sent, received int  // exit codes
	whole          bool // the copy was compared
	compared       servertest.Comparison
	problems       []string
	// differences and hangs are how many of the problems are such.
	differences, hangs int
}

func (r *round) problem(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

func (r *round) hang(format string, args ...any) {
	r.hangs++
	r.problem(format, args...)
}

func (r *round) difference(format string, args ...any) {
	r.differences++
	r.problem(format, args...)
}

func (r *round) String() string {
	how := "pipe"
	if r.file {
		how = "file"
	}
	if r.relay.rate > 0 {
		how += fmt.Sprintf(" of %d MB/s", r.relay.rate>>20)
	}
	for _, d := range r.relay.stalls {
		how += fmt.Sprintf(", stalls %.1fs", time.Duration(d).Seconds())
	}
	s := fmt.Sprintf("%s; xbsend %s | %s | xbstream -x %s", r.load, strings.Join(r.send, " "), how, strings.Join(r.receive, " "))
	if r.prepare != nil {
		s += "; prepare " + strings.Join(r.prepare, " ")
	}
	if r.killed != nil {
		s += fmt.Sprintf(" (killed after %v)", r.killed)
	}
	if r.fault.name != "" {
		s += "; FAULT " + r.fault.name
	}
	return strings.NewReplacer(r.soak.public, "KEY", r.soak.key, "KEY", r.soak.recipients, "KEYS", r.tmp, "TMPDIR").Replace(s)
}

// outcome says what came of it.
func (r *round) outcome() string {
	s := fmt.Sprintf("%d and %d, %.1f MB", r.sent, r.received, float64(r.relay.passed.Load())/1e6)
	if r.whole {
		s += fmt.Sprintf(", %d tables and %d rows compared, %d differences", r.compared.Tables, r.compared.Rows, r.differences)
	}
	return s
}

// newRound chooses everything.
func (s *soak) newRound(n int) (*round, error) {
	c := s.random(n, 2)
	r := &round{soak: s, number: n, relay: newRelay(), started: make(chan struct{})}
	var err error
	if r.dir, err = servertest.TempDir("round"); err != nil {
		return nil, err
	}
	r.target, r.tmp, r.archive = filepath.Join(r.dir, "copy"), filepath.Join(r.dir, "tmp"), filepath.Join(r.dir, "archive.xb")
	if err := os.Mkdir(r.tmp, 0o700); err != nil {
		return nil, err
	}
	r.load = one(c, loads...)
	r.warmUp = time.Duration(c.IntN(1500)) * time.Millisecond
	r.chooseFlags(c)
	r.choosePipe(c)
	r.chooseFault(c)
	return r, nil
}

// owner is the user and the group of a copy that is not to belong to root.
const owner = 65534

// foreignFile lies in a target that is not empty.
const foreignFile = "operators.log"

func (r *round) chooseFlags(c *rand.Rand) {
	r.send, r.receive = r.common(c), r.common(c)
	r.send = append(r.send, maybe(c, 2, one(c, "--compress", "--compress=fast", "--compress=better", "--compress=best"))...)
	r.send = append(r.send, maybe(c, 4, one(c, "--rate=20M", "--rate=60M"))...)
	r.send = append(r.send, maybe(c, 4, "--spool-dir="+r.tmp)...)
	r.send = append(r.send, maybe(c, 4, "--spool-limit=256M")...)
	r.send = append(r.send, maybe(c, 4, "--lock-retries=3")...)
	if r.sealed = c.IntN(3) == 0; r.sealed {
		r.send = append(r.send, one(c, []string{"-r", r.soak.public}, []string{"-R", r.soak.recipients})...)
		r.receive = append(r.receive, "-i", r.soak.key)
	}
	if r.owned = os.Getuid() == 0 && c.IntN(4) == 0; r.owned {
		r.receive = append(r.receive, fmt.Sprintf("--chown=%d:%d", owner, owner))
	}
	if r.foreign = c.IntN(6) == 0; r.foreign {
		r.receive = append(r.receive, "--into-non-empty")
	}
	r.choosePrepare(c)
}

// common are the flags that both commands have.
func (r *round) common(c *rand.Rand) []string {
	flags := []string{fmt.Sprintf("-j%d", one(c, 1, 2, 4, 8))}
	flags = append(flags, maybe(c, 4, one(c, "-v", "-q"))...)
	flags = append(flags, maybe(c, 4, "--log-format=json")...)
	return append(flags, maybe(c, 4, one(c, "--progress=plain", "--progress=json", "--progress=bar"))...)
}

func (r *round) choosePrepare(c *rand.Rand) {
	prepare := append(maybe(c, 2, one(c, "--memory=8M", "--memory=16M", "--memory=64M")), maybe(c, 4, "--verify")...)
	if c.IntN(5) == 0 {
		prepare = []string{"--with-server"}
	}
	prepare = append(prepare, maybe(c, 8, "--export")...)
	if c.IntN(3) > 0 {
		r.receive = append(append(r.receive, "--prepare"), prepare...)
		return
	}
	r.prepare = append(prepare, r.common(c)...)
	for range one(c, 0, 0, 1, 1, 3) {
		r.killed = append(r.killed, time.Duration(1+c.IntN(300))*time.Millisecond)
	}
}

// maybe is a flag once in so many times.
func maybe(c *rand.Rand, odds int, flag string) []string {
	if c.IntN(odds) > 0 {
		return nil
	}
	return []string{flag}
}

func (r *round) choosePipe(c *rand.Rand) {
	r.file = c.IntN(4) == 0
	if c.IntN(2) == 0 {
		r.relay.rate = one[int64](c, 8, 20, 40) << 20
	}
	if r.relay.rate > 0 && r.load == "bulk" {
		r.relay.rate = 40 << 20
	}
	for range one(c, 0, 0, 0, 1, 2) {
		r.relay.stalls[r.somewhere(c)] = pause(300+c.IntN(3000)) * pause(time.Millisecond)
	}
}

func (r *round) chooseFault(c *rand.Rand) {
	faults := allFaults()
	all := 0
	for _, f := range faults {
		all += f.weight
	}
	n := c.IntN(all * 3 / 2) // every third round is undisturbed
	for _, f := range faults {
		if n -= f.weight; n < 0 {
			r.fault = f
			break
		}
	}
	r.relay.trigger = r.somewhere(c)
	r.delay = time.Duration(max(0, c.IntN(600)-300)) * time.Millisecond
	if r.fault.choose != nil {
		r.fault.choose(r, c)
	}
}

// compressed says whether the archive is.
func (r *round) compressed() bool {
	return slices.ContainsFunc(r.send, func(f string) bool { return strings.HasPrefix(f, "--compress") })
}

// somewhere is a place in the archive, as far as its length can be told.
func (r *round) somewhere(c *rand.Rand) int64 { return c.Int64N(r.soak.usual[r.compressed()]) }

// run makes the backup and judges what came of it.
func (r *round) run(ctx context.Context) {
	p, err := r.soak.source.press(ctx, r.load, uint64(r.number))
	if err != nil {
		r.problem("load: %v", err)
		return
	}
	defer r.release(p)
	time.Sleep(r.warmUp)
	end := func() error { return nil }
	if r.fault.begin != nil {
		if end, err = r.fault.begin(ctx, r); err != nil {
			r.problem("%s: %v", r.fault.name, err)
			return
		}
	}
	defer func() {
		if err := end(); err != nil {
			r.problem("%s: %v", r.fault.name, err)
		}
	}()
	if err := r.makeTarget(); err != nil {
		r.problem("%v", err)
		return
	}
	if err := r.backup(ctx); err != nil {
		r.problem("%v", err)
		return
	}
	r.judge(ctx, p)
}

// makeTarget puts a file there first, if it is not to be empty.
func (r *round) makeTarget() error {
	if !r.foreign {
		return nil
	}
	if err := os.MkdirAll(r.target, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.target, foreignFile), []byte("a line\n"), 0o600)
}

// release ends the load, however the round ended; after the death of the server
// its errors say nothing.
func (r *round) release(p *pressure) {
	if err := r.stop(p); err != nil && !r.fault.server {
		r.problem("the backup disturbed the writers: %v", err)
	}
}

func (r *round) stop(p *pressure) error {
	done := make(chan error, 1)
	go func() { done <- p.stop() }()
	select {
	case err := <-done:
		return err
	case <-time.After(commandLimit):
		r.hang("the writers do not end")
		return nil
	}
}

// backup runs both commands to their ends, with the fault between.
func (r *round) backup(ctx context.Context) error {
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	args := append([]string{"--no-defaults", "--user=" + backupUser, "--socket=" + r.soak.source.server.Socket()}, r.send...)
	if r.sender, err = r.start(ctx, "xbsend", nil, out, args...); err != nil {
		in.Close()
		return err
	}
	over, struck := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(struck)
		r.strike(ctx, over)
	}()
	if r.file {
		err = r.throughFile(ctx, in)
	} else {
		err = r.throughPipe(ctx, in)
	}
	close(over)
	<-struck
	if err != nil || r.received != 0 {
		return err
	}
	return r.preparation(ctx)
}

func (r *round) throughPipe(ctx context.Context, in *os.File) error {
	from, to, err := os.Pipe()
	if err != nil {
		return err
	}
	if err := r.startReceiver(ctx, from); err != nil {
		return err
	}
	go r.relay.run(in, to)
	r.sent = r.wait(r.sender)
	r.received = r.wait(r.receiver)
	<-r.relay.done
	return nil
}

func (r *round) throughFile(ctx context.Context, in *os.File) error {
	f, err := os.Create(r.archive)
	if err != nil {
		return err
	}
	r.relay.run(in, f)
	r.sent = r.wait(r.sender)
	r.verifyArchive(ctx)
	if f, err = os.Open(r.archive); err != nil {
		return err
	}
	if err := r.startReceiver(ctx, f); err != nil {
		return err
	}
	r.received = r.wait(r.receiver)
	return nil
}

func (r *round) startReceiver(ctx context.Context, in *os.File) (err error) {
	defer close(r.started)
	r.receiver, err = r.start(ctx, "xbstream", in, nil, append([]string{"-x", "-C", r.target}, r.receive...)...)
	return err
}

// strike waits for the moment of the fault, or until all is over.
func (r *round) strike(ctx context.Context, over <-chan struct{}) {
	if r.fault.strike == nil {
		return
	}
	for _, moment := range []<-chan struct{}{r.relay.reached, r.started} {
		select {
		case <-moment: // with a file, xbstream starts when xbsend has ended
		case <-over:
			return
		}
	}
	time.Sleep(r.delay)
	if err := r.fault.strike(ctx, r); err != nil {
		r.problem("%s: %v", r.fault.name, err)
	}
}

// preparation prepares an extracted copy, perhaps twice because it was killed.
func (r *round) preparation(ctx context.Context) error {
	if r.prepare == nil {
		return nil
	}
	args := append(append([]string{"prepare"}, r.prepare...), r.target)
	for _, after := range r.killed {
		c, err := r.start(ctx, "xbstream", nil, nil, args...)
		if err != nil {
			return err
		}
		time.Sleep(after)
		_ = c.cmd.Process.Kill()
		r.wait(c)
	}
	if code, c := r.runs(ctx, args...); code != 0 {
		r.difference("an extracted backup cannot be prepared: exit code %d: %s", code, c.log.last())
	}
	return nil
}
