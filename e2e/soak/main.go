// Command soak takes backups for hours, each under another load, of a server with
// other options, with other flags, through another pipe, and disturbs two of
// three: a process killed, a disk full, an archive damaged. Undisturbed, the copy
// is started, follows its source as a replica, and is compared with it; disturbed,
// a backup is whole all the same, or fails with the right exit code and leaves
// nothing behind. A command that does not end prints the stacks of its goroutines.
// At the end there is a tally.
//
// All that is chosen depends on the seed, which it prints, and the number of the
// round; only time is not repeated.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"filippo.io/age"

	"github.com/xbstream/xbstream/internal/servertest"
)

func main() {
	s := &soak{tally: newTally(), usual: map[bool]int64{false: 12 << 20, true: 3 << 20}}
	flag.StringVar(&s.bin, "bin", "bin", "directory of xbsend and xbstream")
	flag.DurationVar(&s.length, "for", 10*time.Minute, "begin no round after this `time`")
	flag.Uint64Var(&s.seed, "seed", uint64(time.Now().UnixNano()), "choose the same as a run with this `seed`")
	flag.IntVar(&s.only, "round", 0, "this round of the seed only")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := s.run(ctx)
	stop()
	err = errors.Join(err, servertest.Cleanup())
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// soak is one run of the command.
type soak struct {
	bin    string
	length time.Duration
	seed   uint64
	only   int

	key        string // file of the secret key that sealed archives open with
	public     string
	recipients string // file of public keys, that of key and another
	source     *source
	tally      *tally
	// usual is how many bytes the last whole archive had, compressed or not:
	// faults are spread over that.
	usual map[bool]int64
}

// roundLimit ends a round whose waits did not end by themselves.
const roundLimit = 8 * time.Minute

func (s *soak) run(ctx context.Context) error {
	if err := s.makeKeys(); err != nil {
		return err
	}
	fmt.Printf("soak for %v, seed %d\n", s.length, s.seed)
	began := time.Now()
	for n := max(1, s.only); ctx.Err() == nil && time.Since(began) < s.length; n++ {
		if err := s.round(ctx, n); err != nil {
			return fmt.Errorf("round %d: %w", n, err)
		}
		if s.only != 0 {
			break
		}
	}
	err := s.closeSource()
	s.tally.print(time.Since(began), s.seed)
	return errors.Join(err, s.tally.failure())
}

func (s *soak) makeKeys() error {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	dir, err := servertest.TempDir("key")
	if err != nil {
		return err
	}
	s.key, s.public, s.recipients = filepath.Join(dir, "key"), id.Recipient().String(), filepath.Join(dir, "keys")
	if err := os.WriteFile(s.recipients, []byte("# operators\n"+other.Recipient().String()+"\n"+s.public+"\n"), 0o600); err != nil {
		return err
	}
	return os.WriteFile(s.key, []byte(id.String()+"\n"), 0o600)
}

// random is the source of chance for one purpose of one number.
func (s *soak) random(n int, purpose uint64) *rand.Rand {
	return rand.New(rand.NewPCG(s.seed, uint64(n)<<8|purpose))
}

// round makes one backup. What goes wrong with it is in the tally; an error says
// that the soak itself cannot go on.
func (s *soak) round(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, roundLimit)
	defer cancel()
	if err := s.openSource(ctx, n); err != nil {
		return err
	}
	r, err := s.newRound(n)
	if err != nil {
		return err
	}
	defer os.RemoveAll(r.dir)
	began := time.Now()
	r.run(ctx)
	if context.Cause(ctx) == context.Canceled { // by a signal
		return nil
	}
	s.tally.add(r)
	fmt.Printf("#%d %v: %s (%.1fs)\n", n, r, r.outcome(), time.Since(began).Seconds())
	for _, p := range r.problems {
		fmt.Printf("  PROBLEM: %s\n", p)
	}
	if len(r.problems) > 0 {
		fmt.Printf("  again: -seed %d -round %d; source: %v\n%s\n", s.seed, n, s.source, r.log())
	}
	return nil
}
