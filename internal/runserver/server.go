package runserver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
)

// Server is a server that was started.
type Server struct {
	cmd     *exec.Cmd
	socket  string
	log     string
	done    chan struct{} // closed after the process ended
	exitErr error         // valid after done
}

// Bounds of waiting for a server.
const (
	pollServer = 50 * time.Millisecond
	// stopWait is generous: a shutdown writes the whole buffer pool.
	stopWait = 10 * time.Minute
	killWait = 30 * time.Second
)

// PID is the number of the server's process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Ended says whether the process has ended.
func (s *Server) Ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// ErrHopeless is wrapped by what a ready of Use returns if the server will never be.
var ErrHopeless = errors.New("the server cannot recover")

// Use asks the server by ready, again and again, until that returns nil: the server
// answers, and has recovered. Then it calls work once and returns its error. Both
// get a context that ends after wait. If the server ends before it is ready, or the
// context does, or ready says ErrHopeless, that is an error. The server is left
// running.
func (s *Server) Use(ctx context.Context, wait time.Duration, ready, work func(context.Context, *sql.DB) error) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	conf := mysql.NewConfig()
	conf.User, conf.Net, conf.Addr = "root", "unix", s.socket
	conf.Logger = &mysql.NopLogger{}
	connector, err := mysql.NewConnector(conf)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	for {
		err := ready(ctx, db)
		if err == nil {
			return work(ctx, db)
		}
		if errors.Is(err, ErrHopeless) {
			return err
		}
		select {
		case <-s.done:
			return fmt.Errorf("server ended during recovery: %w", exitCause(s.exitErr))
		case <-ctx.Done():
			return fmt.Errorf("wait for recovery: %w (last answer: %w)", ctx.Err(), err)
		case <-time.After(pollServer):
		}
	}
}

func exitCause(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// Stop ends the server. A clean end is waited for, as it writes all pages then; else
// it is killed, so that what failed can be tried again on what is there. The error is
// nil only if it ended cleanly.
func (s *Server) Stop(clean bool) error {
	if clean {
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			clean = false
		}
	}
	if clean {
		select {
		case <-s.done:
			if s.exitErr != nil {
				return fmt.Errorf("server shutdown: %w", s.exitErr)
			}
			return nil
		case <-time.After(stopWait):
		}
	}
	_ = s.cmd.Process.Kill() // it may have ended already
	select {
	case <-s.done:
		return errors.New("server was killed: it did not stop by itself")
	case <-time.After(killWait):
		return fmt.Errorf("server with pid %d does not end", s.cmd.Process.Pid)
	}
}

// Log returns what the server has written to its log so far.
func (s *Server) Log() ([]byte, error) { return os.ReadFile(s.log) }

// lastLines is how much of a server's log goes into an error.
const lastLines = 8

// errorLine is an error behind its time.
var errorLine = regexp.MustCompile(`\d{4}-\d\d-\d\d[ T]\d[^\[]*\[ERROR\].*`)

// LastWords returns the end of the server's log for an error, each line behind
// "\nserver log: ", lines that say nothing of a failure left out when there are
// others. It is empty if the log is.
func (s *Server) LastWords() string {
	text, err := s.Log()
	if err != nil || len(text) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if bad := slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return !strings.Contains(l, "[ERROR]") }); len(bad) > 0 {
		lines = bad
	}
	for i, l := range lines {
		// A dump of a page may stand before it in the line.
		if at := errorLine.FindStringIndex(l); at != nil {
			lines[i] = l[at[0]:]
		}
	}
	if len(lines) > lastLines {
		lines = lines[len(lines)-lastLines:]
	}
	return "\nserver log: " + strings.Join(lines, "\nserver log: ")
}
