package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/xbstream/xbstream/internal/servertest"
)

// Both commands as transcripts of a terminal: testdata/script/*.txtar. The
// scripts share one real server and find in their environment
//
//	SOCKET PORT    where it listens
//	VECTORS        archives of package format's tests
//	OLD ALIEN      sockets of servers of a version, and of a family, that is not supported
//
// and have three commands of their own:
//
//	fails CODE PROGRAM ARG...   it must end with that exit code, say nothing on
//	                            standard output and one line on standard error,
//	                            an error of its name, and leave no temporary file
//	exits CODE PROGRAM ARG...   it must end with that exit code
//	unlocked                    no session of xbsend is left on the server, and DDL runs
func TestScripts(t *testing.T) {
	servers, err := scriptServers()
	check(t, err)
	xbsend, _ := binaries(t)
	vectors, err := filepath.Abs("../format/testdata")
	check(t, err)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Dir(xbsend)+":"+e.Getenv("PATH"))
			e.Setenv("SOCKET", servers.usual.Socket())
			e.Setenv("VECTORS", vectors)
			e.Setenv("PORT", strconv.Itoa(servers.usual.Port()))
			e.Setenv("OLD", servers.old.Socket())
			e.Setenv("ALIEN", servers.alien.Socket())
			return nil
		},
		Condition: func(c string) (bool, error) {
			if c == "root" {
				return os.Getuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", c)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fails":    fails,
			"exits":    exits,
			"unlocked": func(ts *testscript.TestScript, _ bool, _ []string) { ts.Check(unlocked(servers.usual)) },
		},
	})
}

type scriptServersT struct{ usual, old, alien *servertest.Server }

// scriptServers starts the servers of the scripts once. servertest.Main ends
// them.
var scriptServers = sync.OnceValues(func() (s scriptServersT, err error) {
	ctx := context.Background()
	if s.usual, err = servertest.Start(ctx, servertest.Options{LogBin: true, TCP: true}); err != nil {
		return s, err
	}
	if err := s.usual.Exec(ctx,
		"CREATE USER plain@localhost IDENTIFIED BY 'right'",
		"CREATE USER backup@localhost IDENTIFIED BY 'right'",
		"CREATE USER backup@127.0.0.1 IDENTIFIED BY 'right'",
		"GRANT RELOAD, PROCESS, BINLOG MONITOR ON *.* TO backup@localhost",
		"GRANT RELOAD, PROCESS, BINLOG MONITOR ON *.* TO backup@127.0.0.1",
		"CREATE DATABASE shop",
		"CREATE TABLE shop.orders (id INT PRIMARY KEY, item VARCHAR(20)) ENGINE=InnoDB",
		"INSERT INTO shop.orders VALUES (1, 'bread'), (2, 'salt')",
	); err != nil {
		return s, err
	}
	// A real server says of itself what it is told to say.
	if s.old, err = servertest.Start(ctx, servertest.Options{Args: []string{"--version=10.4.34-MariaDB-log"}}); err != nil {
		return s, err
	}
	s.alien, err = servertest.Start(ctx, servertest.Options{Args: []string{"--version=5.5.62-log"}})
	return s, err
})

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%s: %v", args[1], err)
		}
		got = exit.ExitCode()
	}
	ts.Logf("[exit code %d]\n%s%s", got, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func fails(ts *testscript.TestScript, neg bool, args []string) {
	exits(ts, neg, args)
	program := args[1]
	if i := slices.IndexFunc(args, func(a string) bool { return a == "xbsend" || a == "xbstream" }); i > 0 {
		program = args[i]
	}
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("standard output is not empty: %.200q", out)
	}
	line := ts.ReadFile("stderr")
	if !strings.HasPrefix(line, program+": error: ") || strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") {
		ts.Fatalf("standard error is not one line that begins with %q", program+": error: ")
	}
	left, err := os.ReadDir(ts.Getenv("TMPDIR"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		ts.Check(err)
	}
	if len(left) > 0 {
		ts.Fatalf("left in the temporary directory: %v", left)
	}
}

// lockWait bounds how long a server may need to be free again; a lock that was
// left would be there for ever.
const lockWait = 2 * time.Minute

// unlocked says whether the server is as if no backup had been there.
func unlocked(s *servertest.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), lockWait)
	defer cancel()
	if s.Release().MySQL() {
		return mysqlUnlocked(ctx, s)
	}
	if err := s.Exec(ctx, "SET lock_wait_timeout = 60", // another script may be in the middle of its backup
		"BACKUP STAGE START", "BACKUP STAGE FLUSH", "BACKUP STAGE BLOCK_DDL", "BACKUP STAGE BLOCK_COMMIT", "BACKUP STAGE END",
		"CREATE DATABASE IF NOT EXISTS unlocked", "DROP DATABASE IF EXISTS unlocked"); err != nil {
		return fmt.Errorf("the backup left a lock: %w", err)
	}
	return nil
}

// commands are the commands that --help of a program names.
func commands(t *testing.T, program string) []string {
	t.Helper()
	out, err := exec.Command(program, "--help").Output()
	check(t, err)
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z]+)(?:,| |  ).*  `).FindAllStringSubmatch(string(out), -1) {
		names = append(names, m[1])
	}
	if !slices.Contains(names, "extract") || !slices.Contains(names, "info") {
		t.Fatalf("commands in --help of %s: %q", program, names)
	}
	return names
}

// A flag that is not documented, or documented and not there, is a lie.
func TestManualPagesListTheFlags(t *testing.T) {
	xbsend, xbstream := binaries(t)
	flags := func(text string) []string {
		found := regexp.MustCompile(`--[a-z][a-z-]*[a-z]`).FindAllString(text, -1)
		slices.Sort(found)
		return slices.Compact(found)
	}
	for _, c := range []struct {
		page, program string
		commands      []string
	}{
		{"../doc/xbsend.1", xbsend, []string{""}},
		{"../doc/xbstream.1", xbstream, append(commands(t, xbstream), "")},
	} {
		page, err := os.ReadFile(c.page)
		check(t, err)
		documented := flags(strings.ReplaceAll(string(page), `\-`, "-"))
		var listed []string
		for _, name := range c.commands {
			out, err := exec.Command(c.program, strings.Fields(name+" --help")...).Output()
			check(t, err)
			listed = append(listed, flags(string(out))...)
		}
		// pflag adds --help itself and does not list it.
		listed = append(listed, "--help")
		if len(documented) < 10 {
			t.Errorf("%s: only %d flags found", c.page, len(documented))
		}
		for _, f := range listed {
			if !slices.Contains(documented, f) {
				t.Errorf("%s does not document %s", c.page, f)
			}
		}
		for _, f := range documented {
			if !slices.Contains(listed, f) {
				t.Errorf("%s documents %s, which no --help lists", c.page, f)
			}
		}
	}
}
