package e2e

import (
	"os/exec"
	"regexp"
	"testing"
)

// A fuzz target whose seeds moved away finds nothing, and nobody notices.
func TestFuzzTargetsHaveSeeds(t *testing.T) {
	c := exec.CommandContext(t.Context(), "go", "test", "-v", "-run", "^Fuzz", "./...")
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
