package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/internal/servertest"
)

// E6: a backup that will not fit is refused before it is written.
func TestDiskTooSmall(t *testing.T) {
	source := servertest.New(t, servertest.Options{})
	check(t, source.Exec(t.Context(), "CREATE DATABASE IF NOT EXISTS shop", "USE shop", "CREATE TABLE shop.large (id INT PRIMARY KEY, c LONGBLOB)",
		"INSERT INTO shop.large SELECT seq, REPEAT(UUID(), 30000) FROM seq_1_to_110"))
	xbsend, xbstream := binaries(t)
	archive, err := exec.Command(xbsend, "--no-defaults", "-uroot", "-S"+source.Socket()).Output()
	check(t, err)
	small := tmpfs(t, "size=16m")
	cmd := exec.Command(xbstream, "-x", "-C", small)
	cmd.Stdin = bytes.NewReader(archive)
	log, err := cmd.CombinedOutput()
	last := lastLine(string(log))
	if exitCode(t, err) != exitIO || !strings.Contains(last, small+" has 16 MiB free, and the files of the backup take about 1") {
		t.Errorf("%v\n%s", err, log)
	}
	if left, err := os.ReadDir(small); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}
