package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// D4: sha256sum accepts the digest with the archive as it left, and nothing else;
// a backup that fails leaves the digest of an older one.
func TestDigestFile(t *testing.T) {
	servers, err := scriptServers()
	check(t, err)
	dir := t.TempDir()
	archive, digest := filepath.Join(dir, "monday.xb.age"), filepath.Join(dir, "monday.xb.age.sha256")
	const key = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa"
	accepts := func() error {
		cmd := exec.Command("sha256sum", "-c", "--strict", filepath.Base(digest))
		cmd.Dir = dir
		return cmd.Run()
	}
	said := sendTo(t, archive, servers.usual, "-r", key, "--digest-file", digest)
	check(t, accepts())
	written, err := os.ReadFile(archive)
	check(t, err)
	line, err := os.ReadFile(digest)
	check(t, err)
	if sum, _, _ := strings.Cut(string(line), " "); !strings.Contains(said, fmt.Sprintf("archive bytes %d, sha256 %s", len(written), sum)) {
		t.Errorf("the summary of an archive of %d bytes says %s", len(written), said)
	}
	check(t, os.Truncate(archive, int64(len(written)-1)))
	if accepts() == nil {
		t.Error("sha256sum accepts an archive that was cut")
	}

	// In JSON, and of what a command gets.
	_, said, code := xbsendOf(t, "--no-defaults", "-uroot", "-S"+servers.usual.Socket(), "--log-format=json", "--digest-file", digest, "--exec", "cat > '"+archive+"'")
	check(t, accepts())
	if st, err := os.Stat(archive); err != nil || code != 0 || !strings.Contains(said, fmt.Sprintf(`"archive_bytes":%d,"sha256":"`, st.Size())) {
		t.Errorf("exit code %d, %v\n%s", code, err, said)
	}

	before, err := os.ReadFile(digest)
	check(t, err)
	t.Setenv("XB_TEST_HOOK", "false")
	if _, said, code := xbsendOf(t, "--no-defaults", "-uroot", "-S"+servers.usual.Socket(), "--digest-file", digest); code == 0 {
		t.Errorf("it did not fail\n%s", said)
	}
	t.Setenv("XB_TEST_HOOK", "")
	if after, err := os.ReadFile(digest); err != nil || string(after) != string(before) {
		t.Errorf("a backup that failed wrote %q: %v", after, err)
	}
	mustNotHold(t, dir, ".")
	if sent, said, code := xbsendOf(t, "--no-defaults", "-uroot", "-S"+servers.usual.Socket(), "--digest-file", filepath.Join(dir, "none", "x")); code != exitIO || len(sent) > 0 {
		t.Errorf("exit code %d, %d bytes sent\n%s", code, len(sent), said)
	}
	// Without the flag the size is said, and nothing is hashed.
	if said := sendTo(t, archive, servers.usual); !regexp.MustCompile(`archive bytes \d{6,}`).MatchString(said) || strings.Contains(said, "sha256") {
		t.Errorf("the summary says %s", said)
	}
}
