package e2e

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// fuzzed are the packages of the module that have fuzz targets. The others are
// left alone: some start a server whatever test they are asked for.
func fuzzed(t *testing.T) (packages []string) {
	t.Helper()
	module := os.DirFS("..")
	check(t, fs.WalkDir(module, ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := fs.ReadFile(module, name)
		if bytes.Contains(text, []byte("\nfunc Fuzz")) {
			packages = append(packages, "./"+path.Dir(name))
		}
		return err
	}))
	slices.Sort(packages)
	return slices.Compact(packages)
}

// A fuzz target whose seeds moved away finds nothing, and nobody notices.
func TestFuzzTargetsHaveSeeds(t *testing.T) {
	c := exec.CommandContext(t.Context(), "go", append([]string{"test", "-v", "-run", "^Fuzz"}, fuzzed(t)...)...)
	c.Dir = ".."
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("go test -run ^Fuzz: %v\n%s", err, out)
	}
	targets := regexp.MustCompile(`(?m)^=== RUN +(Fuzz\w+)$`).FindAllSubmatch(out, -1)
	for _, m := range targets {
		if !regexp.MustCompile(`(?m)^=== RUN +` + string(m[1]) + `/`).Match(out) {
			t.Errorf("%s has no seeds", m[1])
		}
	}
	if len(targets) < 10 {
		t.Errorf("only %d fuzz targets found", len(targets))
	}
	t.Logf("%d fuzz targets", len(targets))
}
