package prepare

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
	redo "github.com/xbstream/xbstream/internal/innodb/mariadb"
)

func TestWithServer(t *testing.T) {
	backup := takeBackup(t, peerCase{name: "server", tables: tablesPlain})

	t.Run("recovers", func(t *testing.T) {
		dir := copyTree(t, backup)
		rep, err := WithServer(context.Background(), dir, "", Options{Memory: 64 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if rep.EndLSN == 0 || rep.RedoBytes == 0 {
			t.Errorf("report is empty: %+v", rep)
		}
		again, err := WithServer(context.Background(), dir, "/nonexistent", Options{})
		if err != nil || !again.AlreadyPrepared {
			t.Errorf("second run: %+v, %v; want no-op", again, err)
		}
		for _, name := range []string{"ibtmp1", "ib_buffer_pool", "tc.log"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				t.Errorf("%s was left behind", name)
			}
		}
		checkStartsClean(t, dir, backup)
	})
	t.Run("redo cut short", func(t *testing.T) {
		dir := copyTree(t, backup)
		cutRedo(t, dir)
		_, err := WithServer(context.Background(), dir, "", Options{})
		if !errors.Is(err, ErrIncomplete) {
			t.Errorf("got %v, want ErrIncomplete", err)
		}
	})
	t.Run("server fails", func(t *testing.T) {
		dir := copyTree(t, backup)
		_, err := WithServer(context.Background(), dir, "", Options{ServerArgs: []string{"--innodb-page-size=4k"}})
		if !errors.Is(err, ErrServer) || !strings.Contains(err.Error(), "server log:") {
			t.Errorf("got %v, want ErrServer with the server's words", err)
		}
		if o, err := readOrigin(dir); err != nil || o.prepared() {
			t.Errorf("failed recovery left the directory marked as prepared (%v)", err)
		}
	})
	t.Run("no server", func(t *testing.T) {
		_, err := WithServer(context.Background(), copyTree(t, backup), "/nonexistent/mariadbd", Options{})
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, exec.ErrNotFound) {
			t.Errorf("got %v, want not found", err)
		}
	})
}

// cutRedo drops the log's last mini-transaction at least, at a boundary, as a
// backup whose tail was lost would have it.
func cutRedo(t *testing.T, dir string) {
	t.Helper()
	l, err := openRedo(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := l.scan(context.Background(), l.start.LSN, l.start.LSN+format.LSN(l.payload*9/10))
	defer m.close()
	for err == nil {
		_, err = m.next()
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, redoName), redo.StartOffset+int64(m.position()-l.header.FirstLSN)); err != nil {
		t.Fatal(err)
	}
}
