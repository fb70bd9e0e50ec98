package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// hooked makes every xbsend that the test starts call happen at the events of
// the test seam, and wait for it. An error of happen ends the backup. Of files,
// only those are told whose db/table is like the pattern: each costs a process.
func hooked(t *testing.T, pattern string, happen func(event, table string) error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed: the test is over
			}
			go answer(c, happen)
		}
	}()
	// The shell's end of the connection tells it when the test has gone.
	script := filepath.Join(t.TempDir(), "hook")
	_, port, err := net.SplitHostPort(l.Addr().String())
	check(t, err)
	check(t, os.WriteFile(script, []byte(`exec 3<>/dev/tcp/127.0.0.1/`+port+` || exit
echo "$1 $2" >&3
read -r answer <&3
[ "$answer" = done ] || { echo "$answer" >&2; exit 1; }
`), 0o644))
	t.Setenv("XB_TEST_HOOK", "exec bash "+script)
	t.Setenv("XB_TEST_HOOK_TABLES", pattern)
}

func answer(c net.Conn, happen func(event, table string) error) {
	defer c.Close()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return
	}
	event, table, _ := strings.Cut(strings.TrimSpace(line), " ")
	if err := happen(event, table); err != nil {
		fmt.Fprintf(c, "%v\n", err)
		return
	}
	fmt.Fprintln(c, "done")
}
