package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/internal/servertest"
)

// P9: few open files are enough for many tables, whatever the number of
// workers.
func TestFewOpenFiles(t *testing.T) {
	ctx := t.Context()
	source := servertest.New(t, servertest.Options{LogBin: true, Args: []string{"--innodb-flush-method=nosync", "--sync-frm=0"}})
	var statements []string
	for i := range 150 {
		engine := []string{"InnoDB", "InnoDB", "Aria", "MyISAM"}[i%4]
		statements = append(statements, fmt.Sprintf("CREATE TABLE many.t%d (a INT PRIMARY KEY, b TEXT) ENGINE=%s", i, engine),
			fmt.Sprintf("INSERT INTO many.t%d SELECT seq, REPEAT('x', 500) FROM many.seq_1_to_100", i))
	}
	check(t, source.Exec(ctx, append([]string{"CREATE DATABASE many"}, statements...)...))
	xbsend, xbstream := binaries(t)
	for _, workers := range []int{2, 24} {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			tmp := t.TempDir()
			dir, archive := filepath.Join(tmp, "copy"), filepath.Join(tmp, "archive")
			for _, command := range []string{
				fmt.Sprintf("%s --no-defaults -uroot -S %s -j %d > %s", xbsend, source.Socket(), workers, archive),
				fmt.Sprintf("cat %s | %s -x --prepare -C %s -j %d", archive, xbstream, dir, workers),
				fmt.Sprintf("%s verify %s -j %d", xbstream, dir, workers),
				fmt.Sprintf("%s verify %s", xbstream, archive),
				fmt.Sprintf("%s -x -C %s.later -j %d %s", xbstream, dir, workers, archive),
				fmt.Sprintf("%s prepare %s.later -j %d", xbstream, dir, workers),
				// Not all of it: a name that extraction itself uses is refused.
				fmt.Sprintf("cd %s && %s -c -j %d many mysql > /dev/null", dir, xbstream, workers),
			} {
				out, err := exec.Command("sh", "-c", "ulimit -n 64; "+command).CombinedOutput()
				if err != nil {
					t.Errorf("%s: %v\n%s", command, err, out)
				}
			}
		})
	}

	// Where it is too few all the same, it is said what helps.
	small := filepath.Join(t.TempDir(), "small")
	check(t, os.WriteFile(small, smallArchive(t), 0o600))
	for _, files := range []int{14, 17, 20} {
		for _, command := range []string{
			fmt.Sprintf("%s --no-defaults -uroot -S %s > /dev/null", xbsend, source.Socket()),
			fmt.Sprintf("%s create -C .. format server > /dev/null", xbstream),
			fmt.Sprintf("%s -x -C %s %s", xbstream, filepath.Join(t.TempDir(), "copy"), small),
		} {
			out, err := exec.Command("bash", "-c", fmt.Sprintf("ulimit -n %d; %s", files, command)).CombinedOutput()
			if code := exitCode(t, err); code != 0 && (code != exitIO || !strings.Contains(string(out), "ulimit -n")) {
				t.Errorf("with %d files, %s: exit code %d\n%s", files, command, code, out)
			}
		}
	}
}
