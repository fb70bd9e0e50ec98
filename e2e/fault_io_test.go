package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// failing is a shell command under which certain system calls of a program fail;
// of those, if only is not empty, that are about the file.
func failing(calls, errno, only string) string {
	command := fmt.Sprintf("exec strace --seccomp-bpf -f -qq -o /dev/null -e signal=none -e trace=%s -e inject=%s:error=%s", calls, calls, errno)
	if only != "" {
		command += " -P '" + only + "'"
	}
	return command + ` "$0" "$@"`
}

// P2, P3: a disk that fails, a quota, a system out of files: exit 8, the path and
// the cause, nothing left.
func TestFaultSystemCallFails(t *testing.T) {
	src := newKillSource(t, killSeed(t))
	const table = "load/bulk_1.ibd"
	file := filepath.Join(src.server.Datadir(), table)
	for _, c := range []struct {
		side              int // 0: xbsend, 1: xbstream
		calls, errno, why string
		long              bool
	}{
		{0, "pread64", "EIO", "input/output error", false},
		{0, "openat2", "ENFILE", "too many open files in system", false},
		{1, "pwrite64", "EIO", "input/output error", false},
		{1, "pwrite64", "EDQUOT", "disk quota exceeded", false},
		{1, "fsync,fdatasync,syncfs", "EIO", "input/output error", false},
		{1, "renameat,renameat2", "EIO", "input/output error", true},
		{1, "mkdirat", "EDQUOT", "disk quota exceeded", true},
	} {
		if c.long && !longFaults() {
			continue
		}
		who := []string{"xbsend", "xbstream"}[c.side]
		t.Run(fmt.Sprintf("%s of %s in %s", c.errno, c.calls, who), func(t *testing.T) {
			for range times(1, 3) {
				tr := trial{kind: fmt.Sprintf("%s of %s in %s", c.errno, c.calls, who)}
				if c.side == 0 {
					only := file
					if c.calls == "openat2" {
						only = table // opened from the data directory
					}
					tr.wrap[0] = failing(c.calls, c.errno, only)
				} else {
					tr.wrap[1] = failing(c.calls, c.errno, "")
				}
				o := src.try(t, tr)
				place := "/" + filepath.Base(o.dir)
				if c.side == 0 {
					o.mustFail(says(c.why, exitIO), senderEnded)
					place = table
				} else {
					o.mustFail(says("", exitIO, exitDone), says(c.why, exitIO))
				}
				if last := lastLine(o.logs[c.side].String()); !strings.Contains(last, place) {
					t.Errorf("it does not say where: %s", last)
				}
			}
		})
	}
}
