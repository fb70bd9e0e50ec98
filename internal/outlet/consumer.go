package outlet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/xbstream/xbstream/internal/cli"
)

// This file runs the command of --exec, which gets the archive instead of
// standard output. An uploader takes the end of its input, and often SIGTERM
// too, for the end of the object: it stores what it has, which looks like any
// other backup. So the input of the command ends only when the archive is
// complete; in every other case all its processes are killed first.

// target is where the archive goes: standard output, or the command of --exec.
type target struct {
	*cli.Pipe
	run *consumer // nil: standard output
	log *slog.Logger

	over   chan struct{} // closed when an end of the command is no surprise
	watch  sync.WaitGroup
	closed bool
}

// openTarget opens standard output, or starts the command of --exec. When that
// ends although the archive is not complete, fail gets the reason.
func openTarget(ctx context.Context, opt Options, fail func(error)) (*target, error) {
	o := &target{log: opt.Log, over: make(chan struct{})}
	to := opt.Out
	if opt.Exec != "" {
		var err error
		if o.run, err = startConsumer(opt.Exec, opt.Err); err != nil {
			return nil, fmt.Errorf("--exec: %w", err)
		}
		to = o.run.in
		o.watch.Go(func() {
			select {
			case <-o.run.ended:
				fail(o.run.early())
			case <-o.over:
			}
		})
	}
	var err error
	o.Pipe, err = cli.OpenOutput(ctx, to, cli.PipeOptions{Idle: opt.Idle, Log: opt.Log})
	if err != nil {
		o.stop()
		return nil, err
	}
	return o, nil
}

// complete says that the archive is complete, and waits for the command.
func (o *target) complete(ctx context.Context) error {
	if o.run == nil {
		return nil
	}
	close(o.over)
	o.watch.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx) // and Close kills the command
	}
	o.closed = true
	return errors.Join(o.Pipe.Close(), o.run.finish(ctx))
}

// Close kills the command unless the archive was complete.
func (o *target) Close() error {
	if o.closed {
		return nil
	}
	o.closed = true
	o.stop()
	return o.Pipe.Close()
}

func (o *target) stop() {
	if o.run == nil {
		return
	}
	o.run.kill()
	o.watch.Wait() // before the rest is closed: it may be about to do the same
	o.run.close()
	if o.run.outlived() {
		o.log.Warn("processes of the command of --exec run as another user and could not be killed: what they leave behind may look complete")
	}
}

// consumer is the command of --exec while it runs.
type consumer struct {
	cmd *exec.Cmd
	// in is where the archive goes, out the other end, which the command has as
	// its standard input. It is open here too: what the command left in the pipe
	// can be seen, and a write never meets a pipe without a reader, so that the
	// end of the command is noticed in one place only.
	in, out *os.File
	guard   *guard
	// ended is closed when the shell has ended. It is not reaped then, so that
	// the id of its process group is not given to others.
	ended chan struct{}
	mu    sync.Mutex // held to kill and to reap, so that nothing is killed after it was reaped
}

const shell = "/bin/sh"

// waitScript runs the command, but not before there is somebody who kills it when
// xbsend dies.
const waitScript = `read -r go <&3 && exec ` + shell + ` -c "$1" 3<&-`

// startConsumer starts the command. What it prints goes to stderr. It gets a
// session of its own, which makes its processes one process group, and keeps
// from it what the terminal sends when somebody types Ctrl-C.
func startConsumer(command string, stderr *os.File) (*consumer, error) {
	c := &consumer{ended: make(chan struct{})}
	var err error
	if c.out, c.in, err = os.Pipe(); err != nil {
		return nil, err
	}
	wait, start, err := os.Pipe()
	if err != nil {
		c.close()
		return nil, err
	}
	defer start.Close()
	c.cmd = exec.Command(shell, "-c", waitScript, "sh", command)
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = c.out, stderr, stderr
	c.cmd.ExtraFiles = []*os.File{wait}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	c.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MYSQL_PWD=") })
	err = c.cmd.Start()
	wait.Close()
	if err != nil {
		c.close()
		return nil, err
	}
	go func() {
		awaitEnd(c.cmd.Process.Pid)
		close(c.ended)
	}()
	if c.guard, err = startGuard(c.cmd.Process.Pid, c.in); err == nil {
		_, err = start.WriteString("go\n")
	}
	if err != nil {
		c.kill()
		c.close()
		return nil, err
	}
	return c, nil
}

// early is the error for a command that has ended too early.
func (c *consumer) early() error {
	c.kill() // what is left of it
	return &ConsumerError{"ended before the backup did", c.status()}
}

// finish ends the input of the command and returns when the command has ended.
func (c *consumer) finish(ctx context.Context) error {
	defer c.close()
	c.guard.release() // which has the pipe open too
	c.guard = nil
	c.in.Close()
	select {
	case <-ctx.Done():
		c.kill()
		return context.Cause(ctx)
	case <-c.ended:
	}
	left, err := unread(c.out)
	if err != nil {
		return fmt.Errorf("--exec: %w", err)
	}
	switch state := c.status(); {
	case !state.Success():
		return &ConsumerError{"failed after it had the whole archive", state}
	case left > 0:
		return &ConsumerError{fmt.Sprintf("did not read the last %d bytes of the archive", left), state}
	}
	return nil
}

// killWait bounds the wait for a process that was killed, and may be in the middle
// of a write to a dead disk.
const killWait = 10 * time.Second

// kill kills the process group of the command. Once that was done, none of its
// processes runs another instruction, whatever becomes of its input.
func (c *consumer) kill() {
	c.mu.Lock()
	if c.cmd.ProcessState == nil {
		syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
	}
	c.mu.Unlock()
	select {
	case <-c.ended:
	case <-time.After(killWait):
	}
}

// status reaps the shell, which has ended.
func (c *consumer) status() *os.ProcessState {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd.ProcessState == nil {
		c.cmd.Wait()
	}
	return c.cmd.ProcessState
}

// close frees what belongs to a command that has ended, or was killed.
func (c *consumer) close() {
	if c.guard != nil {
		c.guard.release()
	}
	c.in.Close()
	c.out.Close()
	select {
	case <-c.ended:
		c.status()
	default: // not started, or not to be killed; init reaps it
	}
}

// outlived says whether there are processes of the command that we may not kill.
// Signal 0 does nothing but find out.
func (c *consumer) outlived() bool {
	return c.cmd.ProcessState != nil && syscall.Kill(-c.cmd.Process.Pid, 0) == syscall.EPERM
}

// guard kills the command when xbsend dies without a chance to do it, as by
// SIGKILL. It is a process that has the input of the command open too: the kernel
// closes the files of a dead process before it tells anybody of the death, so a
// signal that comes with the death (PR_SET_PDEATHSIG) can be later than the end
// of the input, and it reaches one process and not those of a pipeline.
type guard struct {
	cmd  *exec.Cmd
	life *os.File // its other end is closed by our death, whatever its reason
}

// guardScript waits for a line. At the end of the file instead it kills a group.
const guardScript = `read -r over <&3 || kill -KILL "-$1"`

func startGuard(group int, in *os.File) (*guard, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	g := &guard{exec.Command(shell, "-c", guardScript, "xbsend-guard", fmt.Sprint(group)), w}
	g.cmd.ExtraFiles = []*os.File{r, in}
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := g.cmd.Start(); err != nil {
		w.Close()
		return nil, err
	}
	return g, nil
}

// release ends the guard. Nothing is killed.
func (g *guard) release() {
	g.life.WriteString("over\n")
	g.life.Close()
	g.cmd.Wait()
}

// ConsumerError says that the command of --exec did not take the archive.
type ConsumerError struct {
	what  string
	state *os.ProcessState
}

func (e *ConsumerError) Error() string {
	return fmt.Sprintf("the command of --exec %s (%v)", e.what, e.state)
}

// Code is the exit code: the command's own as a shell has it, or that of a failed
// write if the command says that nothing is wrong.
func (e *ConsumerError) Code() int {
	if w, ok := e.state.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	if code := e.state.ExitCode(); code > 0 {
		return code
	}
	return cli.ExitIO
}
