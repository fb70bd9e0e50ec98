package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

// P2, P3: a receiving side that ends, cannot begin, or meets the limits of its
// system says so, and the sender sees that it ended.
func TestFaultReceiver(t *testing.T) {
	seed := killSeed(t)
	random := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d (XB_SEED repeats it)", seed)
	src := newKillSource(t, seed)
	// A backup is as long as the redo since the last checkpoint, more or less.
	undisturbed, err := os.Stat(src.archive(t))
	check(t, err)
	for n := range times(3, 20) {
		after := random.Int64N(undisturbed.Size() / 2)
		t.Run(fmt.Sprintf("pipe closed/%d after %d bytes", n, after), func(t *testing.T) {
			o := src.try(t, trial{kind: "pipe closed", between: closing(after)})
			o.mustFail(receiverEnded, senderEnded)
		})
	}
	t.Run("read-only target", func(t *testing.T) {
		o := src.try(t, trial{kind: "read-only target", dir: tmpfs(t, "size=1m,ro")})
		o.mustFail(receiverEnded, says("read-only file system", exitIO, exitTarget))
	})
	t.Run("no identity", func(t *testing.T) {
		key, err := age.GenerateX25519Identity()
		check(t, err)
		o := src.try(t, trial{kind: "no identity", sender: []string{"-r", key.Recipient().String()}})
		o.mustFail(receiverEnded, says("no key opens the archive", exitNoKey))
	})
	for n := range times(4, 40) {
		kib := 256 + random.IntN(44<<10)
		if n%2 == 1 { // about as much as the copy needs: it may arrive, and not be prepared
			kib = 44<<10 + random.IntN(8<<10)
		}
		t.Run(fmt.Sprintf("disk full/%d of %d KiB", n, kib), func(t *testing.T) { fullDisk(t, src, kib) })
	}
}

// fullDisk gives the receiver a file system of a certain size.
func fullDisk(t *testing.T, src *faultSource, kib int) {
	dir := tmpfs(t, fmt.Sprintf("size=%dk", kib))
	o := src.try(t, trial{kind: "receiver's disk full", dir: dir})
	if o.received.code == exitDone {
		// It was large enough; a server needs room of its own.
		check(t, exec.Command("mount", "-o", "remount,size=1g", dir).Run())
		o.mustSucceed()
		return
	}
	sent := receiverEnded
	if o.sent.code == exitDone { // all had been sent before the disk was full
		sent = says("", exitDone)
	}
	o.mustFail(sent, says("no space left on device", exitIO, exitPrepare))
	if last := lastLine(o.logs[1].String()); !strings.Contains(last, filepath.Base(dir)) {
		t.Errorf("it does not say where: %s", last)
	}
}

// P9: with few files or little memory a backup succeeds or says what it lacks.
func TestFaultLimits(t *testing.T) {
	src := newKillSource(t, killSeed(t))
	files, memory := []int{64, 12}, []int{1200, 400}
	if longFaults() {
		files, memory = []int{64, 48, 32, 24, 20, 16, 12, 10}, []int{4000, 2000, 1500, 1200, 1000, 900, 800, 400, 100}
	}
	for side, name := range []string{"xbsend", "xbstream"} {
		for _, n := range files {
			t.Run(fmt.Sprintf("%s with %d files", name, n), func(t *testing.T) {
				tr := trial{kind: fmt.Sprintf("ulimit -n of %s", name)}
				tr.wrap[side] = fmt.Sprintf("ulimit -n %d", n)
				fewFiles(src.try(t, tr), side)
			})
		}
		for _, mib := range memory {
			t.Run(fmt.Sprintf("%s with %d MiB", name, mib), func(t *testing.T) {
				tr := trial{kind: fmt.Sprintf("ulimit -v of %s", name)}
				tr.wrap[side] = fmt.Sprintf("ulimit -v %d", mib<<10)
				littleMemory(src.try(t, tr), side)
			})
		}
	}
}

func fewFiles(o *outcome, side int) {
	o.t.Helper()
	const why = "too many open files"
	switch {
	case o.received.code == exitDone:
		o.mustSucceed()
	case side == 0:
		o.mustFail(says(why, exitIO, exitServer), senderEnded)
	default:
		o.mustFail(receiverEnded, says(why, exitIO))
	}
}

// littleMemory checks no exit code: where a program runs out of memory its
// runtime ends it, and a staging directory may be left.
func littleMemory(o *outcome, side int) {
	o.t.Helper()
	if o.received.code == exitDone {
		o.mustSucceed()
		return
	}
	defer o.count()
	if log := o.logs[side].String(); !strings.Contains(log, "memory") && !strings.Contains(log, "fatal error") {
		o.t.Errorf("it does not say that memory is short:\n%.500s", log)
	}
	o.mustBeFree()
	o.mustNotLookWhole(side == 1)
}
