package servertest

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"
)

// scratch is the one temporary directory of the process: everything this
// package creates is below it, so that one removal leaves nothing behind.
var scratch struct {
	sync.Mutex
	dir string
	// servers that were started and not yet closed.
	servers map[*Server]struct{}
}

// scratchDir creates a new directory below the process's temporary directory.
// Its path is short, because a unix socket's path has at most 107 bytes.
func scratchDir(name string) (string, error) {
	scratch.Lock()
	defer scratch.Unlock()
	if scratch.dir == "" {
		dir, err := os.MkdirTemp("", "xbtest-")
		if err != nil {
			return "", fmt.Errorf("create scratch directory: %w", err)
		}
		scratch.dir = dir
	}
	dir, err := os.MkdirTemp(scratch.dir, name+"-")
	if err != nil {
		return "", fmt.Errorf("create scratch directory: %w", err)
	}
	return dir, nil
}

// TempDir returns a new empty directory that Cleanup removes.
func TempDir(name string) (string, error) { return scratchDir(name) }

// register remembers a running server for Cleanup.
func register(s *Server) {
	scratch.Lock()
	defer scratch.Unlock()
	if scratch.servers == nil {
		scratch.servers = make(map[*Server]struct{})
	}
	scratch.servers[s] = struct{}{}
}

func unregister(s *Server) {
	scratch.Lock()
	defer scratch.Unlock()
	delete(scratch.servers, s)
}

// Cleanup kills every server that still runs and removes everything this
// package created. The process ends its main function or TestMain with it.
func Cleanup() error {
	scratch.Lock()
	left := make([]*Server, 0, len(scratch.servers))
	for s := range scratch.servers {
		left = append(left, s)
	}
	dir := scratch.dir
	scratch.dir = ""
	scratch.Unlock()
	for _, s := range left {
		s.Kill()
	}
	forgetTemplates()
	if dir == "" {
		return nil
	}
	return os.RemoveAll(dir)
}

// Main runs the tests of a package and cleans up after them, also when SIGINT
// or SIGTERM ends them early. Use it as os.Exit(servertest.Main(m)).
func Main(m *testing.M) int {
	if err := choose(); err != nil {
		fmt.Fprintln(os.Stderr, "servertest:", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	done := make(chan int, 1)
	go func() { done <- m.Run() }()
	code := 130
	select {
	case code = <-done:
	case <-ctx.Done():
	}
	if err := Cleanup(); err != nil {
		fmt.Fprintln(os.Stderr, "servertest: clean up:", err)
		code = max(code, 1)
	}
	return code
}
