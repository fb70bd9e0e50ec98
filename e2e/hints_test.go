package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/internal/servertest"
)

// E10: the message of a backup that fails says what to do.
func TestFailuresSayWhatToDo(t *testing.T) {
	ctx := t.Context()
	source := servertest.New(t, servertest.Options{})
	check(t, source.Exec(ctx, "CREATE DATABASE IF NOT EXISTS shop", "CREATE TABLE shop.good (id INT PRIMARY KEY)", "CREATE TABLE shop.bad (id INT PRIMARY KEY)",
		"INSERT INTO shop.bad VALUES (1)", "CREATE OR REPLACE USER ''@'localhost'"))
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	check(t, err)
	defer null.Close()
	send := func(args ...string) (code int, last string) {
		code, log := bounded(t, nil, null, "xbsend", append([]string{"--no-defaults"}, args...)...)
		return code, lastLine(log)
	}

	// A mistyped user, whom the server takes for the anonymous account.
	code, last := send("-umistyped", "-S"+source.Socket())
	if code != exitServer || !strings.Contains(last, "anonymous account") || !strings.Contains(last, "--user") || strings.Contains(last, "GRANT") {
		t.Errorf("exit code %d: %s", code, last)
	}

	// No server.
	code, last = send("-uroot", "-S"+filepath.Join(t.TempDir(), "sock"))
	if code != exitServer || !strings.HasSuffix(last, "is the server running?") {
		t.Errorf("exit code %d: %s", code, last)
	}
	code, last = send("-uroot", "-h127.0.0.1", "-P1")
	if code != exitServer || !strings.HasSuffix(last, "is the server running?") {
		t.Errorf("exit code %d: %s", code, last)
	}

	// A damaged page: the hint works as it is written.
	check(t, source.Restart(ctx))
	f, err := os.OpenFile(filepath.Join(source.Datadir(), "shop", "bad.ibd"), os.O_WRONLY, 0)
	check(t, err)
	_, err = f.WriteAt([]byte("damage"), 3*16384+100)
	check(t, err)
	check(t, f.Close())
	code, last = send("-uroot", "-S"+source.Socket())
	hint := regexp.MustCompile(`--tables-exclude='([^']*)'$`).FindStringSubmatch(last)
	if code != 7 || hint == nil {
		t.Fatalf("exit code %d: %s", code, last)
	}
	if code, last = send("-uroot", "-S"+source.Socket(), "--tables-exclude="+hint[1]); code != 0 {
		t.Errorf("exit code %d: %s", code, last)
	}
}
