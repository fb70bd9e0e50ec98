package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/internal/servertest"
)

// P3 when the machine fails: whenever that is, and whatever of the writes not
// yet synced reaches the disk, the target is empty, or says that it is
// unfinished and can be cleared, or is complete; and after exit 0 it is complete.
func TestCrashWhileExtracting(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "small.xb")
	archiveOfBusyServer(t, archive)
	t.Run("into a directory", func(t *testing.T) { crashExtract(t, archive, true) })
	t.Run("into a new directory, prepared", func(t *testing.T) { crashExtract(t, archive, false, "--prepare") })
}

// crashes is after how many calls of a preparation the machine fails: XB_CRASHES,
// or a few.
func crashes(t *testing.T) int {
	s := os.Getenv("XB_CRASHES")
	if s == "" {
		return 6
	}
	n, err := strconv.Atoi(s)
	check(t, err)
	return n
}

// lastCalls is how many calls of a preparation are those of its end: data are
// synced, the log is replaced.
const lastCalls = 60

// Preparing in place can be done again after the machine failed. If only what
// was synced is left, or all of it, the result is the same; if pages are torn
// because blocks were written out in any order, it is the same or the damage is
// reported. A directory that says it is prepared is.
func TestCrashWhilePreparing(t *testing.T) {
	seed := killSeed(t)
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d (XB_SEED repeats it)", seed)
	archive := filepath.Join(t.TempDir(), "small.xb")
	archiveOfBusyServer(t, archive)
	base := t.TempDir()
	dir := filepath.Join(base, "data")
	receive(t, "-x", "-C", dir, archive)
	d := newDisk(t, base)
	calls := record(t, "prepare", "-j2", dir)
	c := &aftermath{t: t, disk: d, want: digestOf(t, dir), tally: map[string]int{}}
	var changes []int
	for i, call := range calls {
		if call.changes() {
			changes = append(changes, i)
		}
	}
	at := map[int]bool{} // half of them among the last
	for len(at) < min(crashes(t), len(changes)) {
		from := len(changes) - 1 - lastCalls
		if len(at)%2 == 0 || from < 0 || len(at) > lastCalls {
			from = 0
		}
		at[changes[from+random.IntN(len(changes)-from)]] = true
	}
	for i, call := range calls {
		if d.do(call); at[i] {
			c.prepareAgain(i, call)
		}
	}
	if got := c.after(nothing); !maps.Equal(got, c.want) {
		t.Errorf("after exit 0: %v", differ(got, c.want))
	}
	t.Logf("%d calls; prepared again after a crash: %v", len(calls), c.tally)
}

// prepareAgain prepares what is left of a crash after one call.
func (c *aftermath) prepareAgain(at int, after call) {
	c.t.Helper()
	_, xbstream := binaries(c.t)
	for what, l := range c.lucks(at) {
		dir := filepath.Join(c.t.TempDir(), "data")
		c.target(l).put(c.t, l, dir)
		out, err := exec.Command(xbstream, "prepare", "-j2", dir).CombinedOutput()
		code := exitCode(c.t, err)
		got := digestOf(c.t, dir)
		maps.DeleteFunc(got, func(p string, _ [32]byte) bool { return strings.HasSuffix(p, ".xbstream-tmp") })
		same := maps.Equal(got, c.want)
		check(c.t, os.RemoveAll(dir))
		torn := what == "some"
		switch {
		case code == 0 && same:
			c.tally["the same"]++
		case code == exitPrepare && torn && strings.Contains(string(out), "damaged"):
			c.tally["torn pages reported"]++
		default:
			c.t.Fatalf("prepared again after a crash after call %d, %v; %s of what was not synced is left: exit code %d, %s\n%s",
				at, after, what, code, differ(got, c.want), out)
		}
	}
}

// archiveOfBusyServer takes a backup of a server with all kinds of tables and
// little in them.
func archiveOfBusyServer(t *testing.T, name string) {
	t.Helper()
	ctx := t.Context()
	source := servertest.New(t, servertest.Options{LogBin: true})
	options := servertest.LoadOptions{Seed: 1, MaxRowsPerTable: 40}
	check(t, source.CreateSchema(ctx, options))
	load, err := source.StartLoad(ctx, options)
	check(t, err)
	check(t, load.Await(ctx, 300))
	sendTo(t, name, source)
	_, err = load.Stop()
	check(t, err)
}

func crashExtract(t *testing.T, archive string, made bool, prepare ...string) {
	base := t.TempDir()
	target := filepath.Join(base, "data")
	if made {
		check(t, os.Mkdir(target, 0o700))
	}
	d := newDisk(t, base)
	calls := record(t, append([]string{"-x", "-q", "-C", target, archive}, prepare...)...)
	c := &aftermath{t: t, disk: d, want: digestOf(t, target), seen: map[string]bool{}, tally: map[string]int{}}
	if !made {
		c.check(0, "before")
	}
	for i, call := range calls {
		if d.do(call) {
			c.check(i+1, call.String())
		}
	}
	if got := c.after(everything); !maps.Equal(got, c.want) {
		t.Fatalf("what was recorded is not what was done: %v", differ(got, c.want))
	}
	for what, l := range c.lucks(len(calls)) {
		if got := c.after(l); !maps.Equal(got, c.want) {
			t.Errorf("after exit 0, %s of what was not synced: %v", what, differ(got, c.want))
		}
	}
	if c.tally["complete"] == 0 || c.tally["staging"] == 0 || c.tally["publishing"] == 0 {
		t.Errorf("states seen: %v", c.tally)
	}
	t.Logf("%d calls; states after a crash: %v; %d cleared", len(calls), c.tally, len(c.seen))
}

// aftermath looks at what crashes leave of one extraction.
type aftermath struct {
	t     *testing.T
	disk  *disk
	want  digest // the complete tree
	seen  map[string]bool
	tally map[string]int
}

func (c *aftermath) lucks(seed int) map[string]luck {
	some := chance(uint64(seed))
	return map[string]luck{
		"nothing": nothing, "everything": everything, "the newest name": c.disk.newest(),
		"some": some, "all but some names": {some.name, everything.block},
	}
}

// target is the target after a crash, nil if there is none.
func (c *aftermath) target(l luck) *node { return c.disk.root.namesAfter(l)["data"] }

func (c *aftermath) after(l luck) digest {
	out := digest{}
	if n := c.target(l); n != nil {
		n.digest(l, "", out)
	}
	return out
}

const stagePrefix = ".xbstream-partial-"

// check looks at the crash after one call.
func (c *aftermath) check(at int, call string) {
	c.t.Helper()
	for what, l := range c.lucks(at) {
		state, err := c.state(l)
		if err != nil {
			c.t.Fatalf("crash after call %d, %s; %s of what was not synced is left: %v", at, call, what, err)
		}
		c.tally[state]++
	}
}

func (c *aftermath) state(l luck) (string, error) {
	n := c.target(l)
	if n == nil {
		return "none", nil
	}
	names := slices.Sorted(maps.Keys(n.namesAfter(l)))
	stages := slices.DeleteFunc(slices.Clone(names), func(s string) bool { return !strings.HasPrefix(s, stagePrefix) })
	switch {
	case len(names) == 0:
		return "empty", nil
	case len(names) == len(stages):
		return "staging", c.clears(l, names)
	case slices.Contains(names, "ibdata1"):
		return "complete", c.complete(l, stages)
	case len(stages) == 0:
		return "", fmt.Errorf("the target holds %q, and nothing says that it is unfinished", names)
	}
	return "publishing", c.clears(l, names)
}

// complete compares the target with the complete tree; a staging directory
// beside it is no loss.
func (c *aftermath) complete(l luck, stages []string) error {
	got := c.after(l)
	for path := range got {
		if top, _, _ := strings.Cut(path, "/"); slices.Contains(stages, top) {
			delete(got, path)
		}
	}
	if !maps.Equal(got, c.want) {
		return fmt.Errorf("the target looks complete and is not: %v", differ(got, c.want))
	}
	return nil
}

// clears lets a new run find what a crash left: it says so, and clears it when
// told to. Each state is tried once.
func (c *aftermath) clears(l luck, names []string) error {
	stage, publish := names[0], "" // they sort first
	n := c.target(l).namesAfter(l)
	if p := n[stage].namesAfter(l)["publish"]; p != nil {
		publish = string(p.contentAfter(l))
	}
	state := fmt.Sprint(names[1:], publish)
	if c.seen[state] {
		return nil
	}
	c.seen[state] = true
	dir := c.t.TempDir()
	for _, name := range names { // the names are what matters
		check(c.t, os.Mkdir(filepath.Join(dir, name), 0o700))
	}
	check(c.t, os.WriteFile(filepath.Join(dir, stage, "publish"), []byte(publish), 0o600))
	_, xbstream := binaries(c.t)
	out, err := exec.Command(xbstream, "-x", "-C", dir, c.tiny()).CombinedOutput()
	if code := exitCode(c.t, err); code != exitTarget || !strings.Contains(string(out), "--remove-partial") {
		return fmt.Errorf("a new run into what is left, %q: exit code %d\n%s", names, code, out)
	}
	if out, err = exec.Command(xbstream, "-x", "--remove-partial", "-C", dir, c.tiny()).CombinedOutput(); err != nil {
		return fmt.Errorf("a new run with --remove-partial into what is left, %q: %v\n%s", names, err, out)
	}
	if got := digestOf(c.t, dir); len(got) != 2 { // a file and the manifest
		return fmt.Errorf("of %q is left: %v", names, slices.Sorted(maps.Keys(got)))
	}
	return nil
}

// tiny is an archive of one file.
func (c *aftermath) tiny() string {
	c.t.Helper()
	name := filepath.Join(c.disk.base, "..", "tiny.xb")
	if _, err := os.Stat(name); err == nil {
		return name
	}
	_, xbstream := binaries(c.t)
	dir := c.t.TempDir()
	check(c.t, os.WriteFile(filepath.Join(dir, "one"), []byte("one"), 0o600))
	f, err := os.Create(name)
	check(c.t, err)
	defer f.Close()
	create := exec.Command(xbstream, "-c", "-q", "-C", dir, "one")
	create.Stdout = f
	check(c.t, create.Run())
	return name
}

// differ names a few of the paths that differ.
func differ(got, want digest) string {
	var s []string
	for p, sum := range want {
		if g, ok := got[p]; !ok {
			s = append(s, p+" is missing")
		} else if g != sum {
			s = append(s, p+" differs")
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			s = append(s, p+" is too many")
		}
	}
	slices.Sort(s)
	return fmt.Sprintf("%d differences: %.600q", len(s), s)
}
