package e2e

import (
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// call is a system call of a recorded run that succeeded.
type call struct {
	name   string
	args   []string // as strace prints them; strings are hexadecimal
	result int64
}

// changing are the calls that can change a file system or make it durable, of
// those that a Go program might use: the disk must know each, or refuse it.
const changing = "%file,write,pwrite64,writev,pwritev,pwritev2,ftruncate,fallocate,fsync,fdatasync,sync,syncfs," +
	"sync_file_range,copy_file_range,sendfile,splice,mmap,io_uring_setup"

// record runs xbstream under strace and returns its calls, in the order in which
// they came back; but a sync stands where it began, because it covers no more
// than what was done by then.
func record(t *testing.T, args ...string) []call {
	t.Helper()
	_, xbstream := binaries(t)
	trace := filepath.Join(t.TempDir(), "trace")
	c := exec.CommandContext(t.Context(), "strace", slices.Concat([]string{
		"--seccomp-bpf", "-f", "-qq", "-y", "-xx", "-s", "4194304", "-e", "signal=none", "-e", "trace=" + changing, "-o", trace, xbstream}, args)...)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", c.Args, err, out)
	}
	text, err := os.ReadFile(trace)
	check(t, err)
	var calls []call
	begun := map[string]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		pid, what, _ := strings.Cut(line, " ")
		if strings.TrimSpace(what) == "???( <detached ...>" {
			continue // a thread that the process's end met outside of any call
		}
		if what, ok := strings.CutSuffix(line, " <unfinished ...>"); ok {
			if !strings.Contains(what[:min(len(what), 30)], "sync") {
				begun[pid] = what
				continue
			}
			line, begun[pid] = what+") = 0", ""
		}
		if _, rest, ok := strings.Cut(what, " resumed>"); ok && strings.HasPrefix(strings.TrimSpace(what), "<...") {
			if begun[pid] == "" {
				continue
			}
			line = begun[pid] + rest
		}
		if c, ok := parseCall(t, line); ok {
			calls = append(calls, c)
		}
	}
	return calls
}

// parseCall reads one line of strace; ok is false for a call that failed. Lines
// are long: only their ends are looked at.
func parseCall(t *testing.T, line string) (c call, ok bool) {
	t.Helper()
	open, end := strings.Index(line, "("), strings.LastIndex(line, ") ")
	if open < 0 || end < open {
		t.Fatalf("strace said %.300q", line)
	}
	name := line[strings.LastIndex(line[:open], " ")+1 : open]
	result, _, _ := strings.Cut(strings.TrimLeft(line[end+1:], " ="), " ")
	result, _, _ = strings.Cut(result, "<")
	if result == "?" || strings.HasPrefix(result, "-") {
		if strings.Contains(name, "sync") && result != "?" {
			t.Fatalf("a sync failed: %.300q", line)
		}
		return c, false
	}
	n, err := strconv.ParseInt(result, 0, 64)
	check(t, err)
	return call{name: name, args: strings.Split(line[open+1:end], ", "), result: n}, true
}

// bytes is a string argument.
func (c call) bytes(t *testing.T, i int) []byte {
	t.Helper()
	s := strings.Trim(c.args[i], `"`)
	b, err := hex.DecodeString(strings.ReplaceAll(s, `\x`, ""))
	if err != nil {
		t.Fatalf("%s: argument %d: %v in %.100q", c.name, i, err, c.args[i])
	}
	return b
}

func (c call) number(t *testing.T, i int) int64 {
	t.Helper()
	n, err := strconv.ParseInt(c.args[i], 0, 64)
	check(t, err)
	return n
}

// file is the path behind a descriptor, empty for one that is no file.
func (c call) file(t *testing.T, i int) string {
	t.Helper()
	_, rest, ok := strings.Cut(c.args[i], "<")
	path, end, ok2 := strings.Cut(rest, ">")
	if !ok || !ok2 || end != "" { // after the end: (deleted)
		return ""
	}
	b, err := hex.DecodeString(strings.ReplaceAll(path, `\x`, ""))
	if err != nil {
		return "" // pipe:[1234]
	}
	return string(b)
}

// at is the path that a directory's descriptor at i and the name after it mean.
func (c call) at(t *testing.T, i int) string {
	t.Helper()
	name := string(c.bytes(t, i+1))
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(c.file(t, i), name)
}

func (c call) String() string {
	return fmt.Sprintf("%.60s(%.120s)", c.name, strings.Join(c.args, ", "))
}

// changes says whether a call can make a difference to a disk.
func (c call) changes() bool {
	switch c.name {
	case "openat":
		return strings.Contains(c.args[2], "O_CREAT") || strings.Contains(c.args[2], "O_TRUNC")
	case "mkdirat", "unlinkat", "renameat", "pwrite64", "write", "ftruncate", "fsync", "fdatasync", "syncfs":
		return true
	}
	return false
}
