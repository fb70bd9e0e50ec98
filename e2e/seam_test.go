package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/xbstream/xbstream/internal/servertest"
)

// C5: the binaries that ship have no test seam: they do not hold its name, and a
// command in the environment is not run.
func TestReleasedBinariesHaveNoTestSeam(t *testing.T) {
	const name = "XB_TEST_HOOK"
	dir := t.TempDir()
	if out, err := exec.Command("make", "-C", "..", "build", "BIN="+dir).CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	for _, binary := range []string{"xbsend", "xbstream"} {
		code, err := os.ReadFile(filepath.Join(dir, binary))
		check(t, err)
		if bytes.Contains(code, []byte(name)) {
			t.Errorf("the released %s knows %s", binary, name)
		}
	}
	// That the search finds it where it is, the binary under test shows.
	seamed, _ := binaries(t)
	code, err := os.ReadFile(seamed)
	check(t, err)
	if !bytes.Contains(code, []byte(name)) {
		t.Fatalf("the xbsend under test does not hold %s", name)
	}

	source := servertest.New(t, servertest.Options{})
	for binary, wantRun := range map[string]bool{filepath.Join(dir, "xbsend"): false, seamed: true} {
		mark := filepath.Join(t.TempDir(), "ran")
		cmd := exec.Command(binary, "--no-defaults", "--user=root", "--socket="+source.Socket())
		cmd.Env = append(os.Environ(), name+"=touch "+mark+"; true")
		var said bytes.Buffer
		cmd.Stderr = &said
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v\n%s", binary, err, &said)
		}
		if _, err := os.Stat(mark); (err == nil) != wantRun {
			t.Errorf("%s with %s: command run: %v, want %v", binary, name, err == nil, wantRun)
		}
	}
}
