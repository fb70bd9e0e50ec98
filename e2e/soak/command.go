package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// commandLimit is how long a command may take: far above what the largest load
// through the slowest pipe needs.
const commandLimit = 3 * time.Minute

// command is a process under test.
type command struct {
	cmd  *exec.Cmd
	log  log
	done chan struct{} // closed when it ended
	code int           // exit code, -1 after SIGKILL; valid after done
}

// log is what a command said; it may be read while the command runs.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// last is the last line, without the bar that was drawn there before.
func (l *log) last() string {
	said := strings.TrimSpace(l.String())
	return said[strings.LastIndexAny(said, "\r\n")+1:]
}

// endsWithError says whether the last line is an error, for people or as JSON.
func (l *log) endsWithError() bool {
	last := l.last()
	return strings.Contains(last, ": error: ") || strings.HasPrefix(last, "{") && strings.Contains(last, `"level":"ERROR"`)
}

// start runs xbsend or xbstream. Files given for in and out are closed here when
// the process has them.
func (r *round) start(ctx context.Context, program string, in, out *os.File, args ...string) (*command, error) {
	c := &command{cmd: exec.CommandContext(ctx, filepath.Join(r.soak.bin, program), args...), done: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), "TMPDIR="+r.tmp)
	c.cmd.Stderr = &c.log
	c.cmd.WaitDelay = 10 * time.Second
	if in != nil {
		c.cmd.Stdin = in
		defer in.Close()
	}
	if out != nil {
		c.cmd.Stdout = out
		defer out.Close()
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	r.commands = append(r.commands, c)
	go func() {
		_ = c.cmd.Wait() // the state tells
		c.code = c.cmd.ProcessState.ExitCode()
		close(c.done)
	}()
	return c, nil
}

// wait returns the exit code. When a command does not end, all that run are made
// to print the stacks of their goroutines: one may wait for the other.
func (r *round) wait(c *command) int {
	if c.ended(commandLimit) {
		return c.code
	}
	r.hang("%s did not end in %v", c, commandLimit)
	for _, other := range r.commands {
		if !other.ended(0) {
			_ = other.kill(syscall.SIGCONT)
			_ = other.kill(syscall.SIGQUIT)
		}
	}
	if !c.ended(10 * time.Second) {
		_ = c.kill(syscall.SIGKILL)
		<-c.done
	}
	return c.code
}

func (c *command) ended(limit time.Duration) bool {
	select {
	case <-c.done:
		return true
	default:
	}
	select {
	case <-c.done:
		return true
	case <-time.After(limit):
		return false
	}
}

// runs runs a command to its end and returns the exit code.
func (r *round) runs(ctx context.Context, args ...string) (int, *command) {
	c, err := r.start(ctx, "xbstream", nil, nil, args...)
	if err != nil {
		r.problem("%v", err)
		return -1, &command{cmd: exec.Command("xbstream", args...)}
	}
	return r.wait(c), c
}

func (c *command) String() string {
	return filepath.Base(c.cmd.Path) + " " + strings.Join(c.cmd.Args[1:], " ")
}

// kill sends a signal, if the process is still there.
func (c *command) kill(s syscall.Signal) error {
	_ = c.cmd.Process.Signal(s)
	return nil
}

// log is what all commands of the round said.
func (r *round) log() string {
	var s strings.Builder
	for _, c := range r.commands {
		fmt.Fprintf(&s, "  $ %s\n  exit code %d\n    %s\n", c, c.code, strings.ReplaceAll(strings.TrimSpace(c.log.String()), "\n", "\n    "))
	}
	return s.String()
}
