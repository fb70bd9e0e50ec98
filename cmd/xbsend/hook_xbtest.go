//go:build xbtest

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
)

// hook is the test seam: with XB_TEST_HOOK in the environment, xbsend runs that
// command at certain events and waits for it. A test can so make things happen
// between two steps that would otherwise need luck. The zero value does nothing.
type hook struct {
	command string
	// tables is a pattern: the command runs only for files whose db/table
	// matches. Empty means all; starting a process for each file takes time.
	tables string
}

func hookFromEnvironment() func(ctx context.Context, event, table string) error {
	return hook{os.Getenv("XB_TEST_HOOK"), os.Getenv("XB_TEST_HOOK_TABLES")}.run
}

// run runs "COMMAND EVENT [DB/TABLE]" through the shell.
func (h hook) run(ctx context.Context, event, table string) error {
	if h.command == "" {
		return nil
	}
	if wanted, err := path.Match(h.tables, table); err != nil || !wanted && h.tables != "" && table != "" {
		return err
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", h.command+` "$@"`, "sh", event)
	if table != "" {
		cmd.Args = append(cmd.Args, table)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("test hook at %s: %w", event, err)
	}
	return nil
}
