package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
	mariadb "github.com/xbstream/xbstream/internal/mariadb/redo"
)

// P3 when the machine fails while tables go to another disk: whenever that is,
// and whatever of the writes not yet synced reaches either disk, the target is
// complete and so is the other directory, or a new run says what is unfinished
// and clears both.
func TestCrashWhileExtractingMapped(t *testing.T) {
	base := t.TempDir()
	m := &mappedCrash{t: t, archive: filepath.Join(t.TempDir(), "small.xb"), seen: map[string]bool{}, tally: map[string]int{}}
	archiveWithFarTables(t, m.archive)
	for _, dir := range twoDisks {
		check(t, os.Mkdir(filepath.Join(base, dir), 0o700))
	}
	m.disk = newDisk(t, base)
	for _, dir := range twoDisks {
		m.disk.mounts = append(m.disk.mounts, filepath.Join(base, dir))
	}
	calls := record(t, m.args(base)...)
	m.want = m.digests(base)
	for i, call := range calls {
		if m.disk.do(call) {
			m.check(i+1, call.String())
		}
	}
	for what, l := range m.lucks(len(calls)) {
		if state, err := m.state(l); state != "complete" || err != nil {
			t.Errorf("after exit 0, %s of what was not synced is left: %s, %v", what, state, err)
		}
	}
	for _, state := range []string{"staging", "beside the target", "both", "complete"} {
		if m.tally[state] == 0 {
			t.Errorf("states seen: %v; not %q", m.tally, state)
		}
	}
	t.Logf("%d calls; states after a crash: %v; %d cleared", len(calls), m.tally, len(m.seen))
}

// twoDisks are the target and the directory of the mapping.
var twoDisks = []string{"data", "far"}

// mappedCrash looks at what crashes leave of one extraction to two disks.
type mappedCrash struct {
	t       *testing.T
	disk    *disk
	archive string
	want    map[string]digest
	seen    map[string]bool
	tally   map[string]int
}

// archiveWithFarTables makes an archive that is the backup of a server but for
// the pages in it: to move files it takes no more.
func archiveWithFarTables(t *testing.T, name string) {
	t.Helper()
	out, err := os.Create(name)
	check(t, err)
	defer out.Close()
	w, err := format.NewWriter(out, format.WriterOptions{})
	check(t, err)
	const first, redo = 15000, "redo"
	m := &format.Manifest{Tool: "test", Backup: &format.Backup{Type: "full-backuped",
		Server: format.Server{Dialect: "mariadb", Version: "10.11.19", PageSize: 16384, DataFilePath: "ibdata1:12M:autoextend"},
		Redo:   format.Redo{Format: mariadb.FormatName, CheckpointLSN: first, CheckpointEndLSN: first, EndLSN: first + format.LSN(len(redo)), LastCheckpointLSN: first}}}
	for i, path := range []string{"ibdata1", "one/far.ibd", "one/near.ibd", "two/far.ibd", "two/far.frm"} {
		f := format.File{Path: path, Kind: format.KindTablespace, Size: int64(len(path)), Mode: 0o660, Space: &format.Space{ID: format.SpaceID(i), PageSize: 16384}}
		switch {
		case path == "ibdata1":
			f.Kind = format.KindSystem
		case filepath.Ext(path) == ".frm":
			f.Kind, f.Space = format.KindFile, nil
		case filepath.Base(path) == "far.ibd":
			f.Source = "/disk/" + path
		}
		f.No, err = w.BeginFile(f)
		check(t, err)
		b := format.GetBuffer()
		b.SetLen(copy(b.Space(), path))
		check(t, errors.Join(w.WriteData(f.No, 0, b), w.EndFile(f.No, f.Size)))
		m.Files = append(m.Files, f)
	}
	check(t, w.WriteRedo(first, []byte(redo)))
	_, err = w.Close(m)
	check(t, err)
}

// args are those of the extraction to the two disks below base.
func (m *mappedCrash) args(base string, more ...string) []string {
	return append([]string{"-x", "-q", "-C", base + "/data", "--tablespace-mapping=/disk=" + base + "/far", m.archive}, more...)
}

func (m *mappedCrash) digests(base string) map[string]digest {
	return map[string]digest{"data": digestOf(m.t, base+"/data"), "far": digestOf(m.t, base+"/far")}
}

func (m *mappedCrash) lucks(seed int) map[string]luck {
	some := chance(uint64(seed))
	return map[string]luck{
		"nothing": nothing, "everything": everything, "the newest name": m.disk.newest(),
		"some": some, "all but some names": {some.name, everything.block},
	}
}

// check looks at the crash after one call.
func (m *mappedCrash) check(at int, call string) {
	m.t.Helper()
	for what, l := range m.lucks(at) {
		state, err := m.state(l)
		if err != nil {
			m.t.Fatalf("crash after call %d, %s; %s of what was not synced is left: %v", at, call, what, err)
		}
		m.tally[state]++
	}
}

func (m *mappedCrash) state(l luck) (string, error) {
	moved := map[string]bool{}
	top := m.disk.root.namesAfter(l)
	left := 0
	for _, dir := range twoDisks {
		for name := range top[dir].namesAfter(l) {
			left++
			moved[dir] = moved[dir] || !strings.HasPrefix(name, stagePrefix)
		}
	}
	switch {
	case top["data"].namesAfter(l)["ibdata1"] != nil:
		return "complete", m.complete(l)
	case left == 0:
		return "empty", nil
	case moved["data"]:
		return "both", m.clears(l)
	case moved["far"]:
		return "beside the target", m.clears(l)
	}
	return "staging", m.clears(l)
}

// complete compares both directories with what they are to be; staging
// directories are no loss.
func (m *mappedCrash) complete(l luck) error {
	for _, dir := range twoDisks {
		got := digest{}
		m.disk.root.namesAfter(l)[dir].digest(l, "", got)
		maps.DeleteFunc(got, func(p string, _ [32]byte) bool { return strings.HasPrefix(p, stagePrefix) })
		if !maps.Equal(got, m.want[dir]) {
			return fmt.Errorf("the target looks complete, and %s is not: %v", dir, differ(got, m.want[dir]))
		}
	}
	return nil
}

// clears lets a new run find what a crash left: it says so, and clears it when
// told to. Each state is tried once.
func (m *mappedCrash) clears(l luck) error {
	base := m.t.TempDir()
	defer os.RemoveAll(base)
	state := m.put(l, base)
	if m.seen[state] {
		return nil
	}
	m.seen[state] = true
	_, xbstream := binaries(m.t)
	out, err := exec.Command(xbstream, m.args(base)...).CombinedOutput()
	if code := exitCode(m.t, err); code != exitTarget || !strings.Contains(string(out), "--remove-partial") {
		return fmt.Errorf("a new run into what is left, %s: exit code %d\n%s", state, code, out)
	}
	if out, err = exec.Command(xbstream, m.args(base, "--remove-partial")...).CombinedOutput(); err != nil {
		return fmt.Errorf("a new run with --remove-partial into what is left, %s: %v\n%s", state, err, out)
	}
	for dir, got := range m.digests(base) {
		names, want := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(m.want[dir]))
		if !slices.Equal(names, want) {
			return fmt.Errorf("after %s there are in %s %q, want %q", state, dir, names, want)
		}
	}
	return nil
}

// put makes what a crash left below base, as far as a new run looks at it: the
// names, and what staging directories say. It returns that in words.
func (m *mappedCrash) put(l luck, base string) string {
	var state []string
	for _, dir := range twoDisks {
		check(m.t, os.Mkdir(filepath.Join(base, dir), 0o700))
		for name, n := range m.disk.root.namesAfter(l)[dir].namesAfter(l) {
			at := filepath.Join(base, dir, name)
			check(m.t, os.Mkdir(at, 0o700))
			state = append(state, dir+"/"+name)
			if !strings.HasPrefix(name, stagePrefix) {
				continue
			}
			for _, note := range []string{"publish", "target"} {
				if p := n.namesAfter(l)[note]; p != nil {
					content := string(p.contentAfter(l))
					check(m.t, os.WriteFile(filepath.Join(at, note), []byte(strings.ReplaceAll(content, m.disk.base, base)), 0o600))
					state = append(state, dir+"/"+note+": "+content)
				}
			}
		}
	}
	slices.Sort(state)
	return fmt.Sprintf("%q", state)
}
