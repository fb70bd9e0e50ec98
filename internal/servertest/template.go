package servertest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// templates holds one freshly installed data directory for each release and set
// of arguments: copying it takes a fraction of the time mariadb-install-db needs.
var templates struct {
	sync.Mutex
	dirs map[string]string
}

func forgetTemplates() {
	templates.Lock()
	defer templates.Unlock()
	templates.dirs = nil
}

// template returns a data directory of a release installed with these arguments.
func template(ctx context.Context, r Release, args ...string) (string, error) {
	templates.Lock()
	defer templates.Unlock()
	key := r.String() + " " + strings.Join(args, " ")
	if dir, ok := templates.dirs[key]; ok {
		return dir, nil
	}
	base, err := scratchDir("template")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "data")
	if err := install(ctx, r, dir, args); err != nil {
		return "", err
	}
	if templates.dirs == nil {
		templates.dirs = make(map[string]string)
	}
	templates.dirs[key] = dir
	return dir, nil
}

// install makes a data directory. The log is small there; a server that is told
// another size makes a new one when it starts.
func install(ctx context.Context, r Release, dir string, more []string) error {
	args := []string{"--no-defaults", "--datadir=" + dir, "--tmpdir=" + filepath.Dir(dir), "--skip-name-resolve", "--innodb-log-file-size=8M"}
	args = slices.Concat(args, asUser(), more)
	cmd := exec.CommandContext(ctx, "mariadb-install-db", append(args, "--auth-root-authentication-method=normal", "--skip-test-db")...)
	if !r.ofSystem() {
		if err := r.check(); err != nil {
			return err
		}
		sql, err := r.bootstrapSQL()
		if err != nil {
			return fmt.Errorf("install data directory %s: %w", dir, err)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fmt.Errorf("install data directory: %w", err)
		}
		cmd = exec.CommandContext(ctx, r.Command("mariadbd"), append(args, "--bootstrap", "--enforce-storage-engine=", "--max-allowed-packet=8M", "--net-buffer-length=16K")...)
		cmd.Stdin = strings.NewReader(sql)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("install data directory %s: %w\n%s", dir, err, out)
	}
	return nil
}

// asUser lets mariadbd run as root where the tests do.
func asUser() []string {
	if os.Getuid() == 0 {
		return []string{"--user=root"}
	}
	return nil
}

// copyTree copies a directory as cp does, sharing blocks where the file system
// can.
func copyTree(ctx context.Context, from, to string) error {
	out, err := exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", from, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy %s to %s: %w: %s", from, to, err, out)
	}
	return nil
}
