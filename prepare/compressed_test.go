package prepare

import (
	"os"
	"syscall"
	"testing"
)

// allocated returns how many bytes of the disk a file takes.
func allocated(t *testing.T, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Sys().(*syscall.Stat_t).Blocks * 512
}
