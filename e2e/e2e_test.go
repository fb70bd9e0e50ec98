// Package e2e tests both commands as users run them: the built binaries,
// between real servers.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/xbstream/xbstream/internal/servertest"
)

func TestMain(m *testing.M) {
	code := servertest.Main(m)
	if longFaults() {
		printTally(os.Stdout)
	}
	os.Exit(code)
}

// built holds the binaries of this test run: they are built once, by the first
// test that needs them.
var built = sync.OnceValues(buildBinaries)

func buildBinaries() (dir string, err error) {
	if dir, err = servertest.TempDir("bin"); err != nil {
		return "", err
	}
	// With the test seam, which the binaries of "make build" lack.
	build := exec.Command("go", "build", "-tags", "xbtest", "-trimpath", "-ldflags", "-X main.version=e2e", "-o", dir+"/", "./cmd/xbsend", "./cmd/xbstream")
	build.Dir = ".." // the module's root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the commands: %w\n%s", err, out)
	}
	// Tests run xbsend as other users; they must get at it.
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// binaries are the paths of the commands under test.
func binaries(t testing.TB) (xbsend, xbstream string) {
	t.Helper()
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "xbsend"), filepath.Join(dir, "xbstream")
}
