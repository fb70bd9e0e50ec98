package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"

	"github.com/xbstream/xbstream/chunker"
)

// hook is the test seam: with XB_TEST_HOOK in the environment, xbsend runs that
// command at certain events and waits for it, so that a test can make happen
// between two steps what otherwise only luck brings. Empty, it does nothing.
type hook string

func hookFromEnvironment() hook { return hook(os.Getenv("XB_TEST_HOOK")) }

// run runs "COMMAND EVENT [DB/TABLE]" through the shell.
func (h hook) run(ctx context.Context, event, table string) error {
	if h == "" {
		return nil
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", string(h)+` "$@"`, "sh", event)
	if table != "" {
		cmd.Args = append(cmd.Args, table)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("test hook at %s: %w", event, err)
	}
	return nil
}

func (h hook) before(f chunker.File) error {
	return h.run(context.Background(), "before-copy", tableOf(f.Rel))
}

func (h hook) after(f chunker.File) error {
	return h.run(context.Background(), "after-copy", tableOf(f.Rel))
}

// tableOf is a file's db/table, in the letters of its file name.
func tableOf(rel string) string { return strings.TrimSuffix(rel, path.Ext(rel)) }
