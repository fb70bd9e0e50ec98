package runserver

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// places are where packages put the server when PATH does not name it.
var places = []string{"/usr/sbin", "/usr/libexec", "/usr/local/sbin", "/usr/local/bin", "/usr/local/mysql/bin", "/usr/bin"}

// Find returns the path of a server: that of binary, or, if that is empty, that of
// the first of the programs that this machine has. An error for a named one wraps
// that of exec.LookPath.
func Find(binary string, programs ...string) (string, error) {
	if binary != "" {
		path, err := exec.LookPath(binary)
		if err != nil {
			return "", fmt.Errorf("find server: %w", err)
		}
		return path, nil
	}
	for _, name := range programs {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
		for _, place := range places {
			if path, err := exec.LookPath(filepath.Join(place, name)); err == nil {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("find server: no %s in PATH or %s", strings.Join(programs, " or "), strings.Join(places, ", "))
}
