package runserver

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
)

// Runner starts a server on a directory, once or several times, one after the
// other.
type Runner struct {
	// Binary is the path of the server, Dir the absolute one of its data directory.
	Binary, Dir string

	private string
}

// New makes a private directory for a server with a data directory, whose path is
// absolute. The caller closes the Runner.
func New(binary, dir string) (*Runner, error) {
	// Unix socket paths end at about 100 bytes, so not below dir.
	private, err := os.MkdirTemp("", "xbstream-prepare-")
	if err != nil {
		return nil, err
	}
	return &Runner{Binary: binary, Dir: dir, private: private}, nil
}

// Close removes the private directory. The servers have ended.
func (r *Runner) Close() error { return os.RemoveAll(r.private) }

// Start starts the server with its own arguments and, behind them, the given ones.
// It does not wait for anything: Server.Use does. The caller stops the server.
func (r *Runner) Start(args []string) (*Server, error) {
	s := &Server{
		socket: filepath.Join(r.private, "socket"),
		log:    filepath.Join(r.private, "error.log"),
		done:   make(chan struct{}),
	}
	out, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	private, err := r.privateArgs(s.socket)
	if err != nil {
		return nil, err
	}
	// Not CommandContext: that would kill a server that may still be stopped
	// cleanly.
	s.cmd = exec.Command(r.Binary, append(private, args...)...)
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Dir = out, out, r.private
	s.cmd.SysProcAttr = dieWithParent()
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", r.Binary, err)
	}
	go func() {
		s.exitErr = s.cmd.Wait()
		close(s.done)
	}()
	return s, nil
}

// privateArgs are the arguments of a server to which nobody can connect but us,
// and of which nothing that it starts by itself runs.
func (r *Runner) privateArgs(socket string) ([]string, error) {
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	return []string{
		"--no-defaults", // only counts as the first
		"--datadir=" + r.Dir,
		"--tmpdir=" + r.private,
		"--socket=" + socket,
		"--pid-file=" + filepath.Join(r.private, "pid"),
		"--user=" + me.Username,
		"--skip-networking",
		"--skip-grant-tables",
		"--skip-log-bin",
		"--loose-skip-slave-start", // the families, and their versions, know one of
		"--loose-skip-replica-start",
		"--event-scheduler=OFF",
	}, nil
}
