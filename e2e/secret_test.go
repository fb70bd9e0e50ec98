package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

// P7: a password given as an argument is gone from the process title before the
// server is asked for anything.
func TestPasswordLeavesTheProcessTitle(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Fatalf("%s is not known to let a process change its title", runtime.GOOS)
	}
	for name, arg := range map[string]string{"short": "-pgeheim", "long": "--password=geheim", "last of several": "-vpgeheim"} {
		t.Run(name, func(t *testing.T) {
			// A server that accepts and says nothing.
			dir, err := servertest.TempDir("mute") // a socket's path must be short
			check(t, err)
			socket := filepath.Join(dir, "sock")
			l, err := net.Listen("unix", socket)
			check(t, err)
			defer l.Close()
			check(t, l.(*net.UnixListener).SetDeadline(time.Now().Add(killWait)))
			xbsend, _ := binaries(t)
			cmd := exec.Command(xbsend, "--no-defaults", "-uroot", arg, "--socket="+socket, "--rate=7M")
			cmd.Stdout, err = os.Create(filepath.Join(t.TempDir(), "archive"))
			check(t, err)
			check(t, cmd.Start())
			defer func() {
				cmd.Process.Kill()
				cmd.Wait()
			}()
			conn, err := l.Accept()
			check(t, err)
			defer conn.Close()
			title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
			check(t, err)
			if strings.Contains(string(title), "eheim") {
				t.Errorf("the process title is %q", title)
			}
			if !strings.Contains(string(title), "-uroot") || !strings.Contains(string(title), "--rate=7M") {
				t.Errorf("the process title %q has lost more than the password", title)
			}
		})
	}
}

// P7: neither the archive nor a message holds the password the backup was taken
// with.
func TestPasswordIsNowhere(t *testing.T) {
	servers, err := scriptServers()
	check(t, err)
	const password = "Ge!heim-0815"
	check(t, servers.usual.Exec(t.Context(), "CREATE OR REPLACE USER secretive@localhost IDENTIFIED BY '"+password+"'",
		"GRANT RELOAD, PROCESS, BINLOG MONITOR ON *.* TO secretive@localhost"))
	archive := filepath.Join(t.TempDir(), "archive")
	f, err := os.Create(archive)
	check(t, err)
	defer f.Close()
	code, log := bounded(t, nil, f, "xbsend", "--no-defaults", "-usecretive", "-p"+password, "-v", "--log-format=json", "-S"+servers.usual.Socket())
	if code != 0 || strings.Contains(log, password) {
		t.Errorf("exit code %d\n%s", code, log)
	}
	_, xbstream := binaries(t)
	info, err := exec.Command(xbstream, "info", "--json", archive).Output()
	check(t, err)
	if !strings.Contains(string(info), "-usecretive") || strings.Contains(string(info), password) {
		t.Errorf("the manifest:\n%s", info)
	}
}
