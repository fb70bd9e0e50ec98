package prepare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
	"github.com/xbstream/xbstream/internal/mariadb/redo"
	"github.com/xbstream/xbstream/internal/spaces"
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
	// B1: mariabackup's option file names a file somewhere else.
	t.Run("data file elsewhere", func(t *testing.T) {
		dir, evil := copyTree(t, backup), filepath.Join(t.TempDir(), "evil")
		conf := filepath.Join(dir, "backup-my.cnf")
		text, err := os.ReadFile(conf)
		if err != nil {
			t.Fatal(err)
		}
		text = regexp.MustCompile(`(?m)^innodb_data_file_path=.*$`).ReplaceAll(text, []byte("innodb_data_file_path=ibdata1:12M;"+evil+":10M:autoextend"))
		if err := os.WriteFile(conf, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := WithServer(context.Background(), dir, "", Options{}); !errors.Is(err, format.ErrDamaged) {
			t.Errorf("got %v, want ErrDamaged", err)
		}
		if _, err := os.Lstat(evil); err == nil {
			t.Errorf("the server made %s", evil)
		}
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
		if state, err := backupdir.Read(dir); err != nil || state.Prepared() {
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

// TestEncrypted: what only a server with the key can recover is refused by name,
// and recovered by such a server.
func TestEncrypted(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("1;"+strings.Repeat("a7", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	plugin := []string{"--plugin-load-add=file_key_management", "--file-key-management", "--file-key-management-filename=" + keys}
	for _, c := range []struct {
		name, place string
		args        []string
		tables      []tableKind
		during      func(*server) error
	}{
		{"tablespace", "d/secret.ibd", nil, []tableKind{{"secret", ", KEY(a)", "ENCRYPTED=YES"}}, flushSecret},
		{"redo", redoName, []string{"--innodb-encrypt-log=ON"}, tablesPlain[:1], nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			backup := takeBackup(t, peerCase{tables: c.tables, args: append(c.args, plugin...), setup: flushing, during: c.during})
			// mariabackup may have left a marker (secret.new) for the table;
			// putting such files in their places is no change of content.
			if err := spaces.NewTree(backup, 16384).SettleMarkers(); err != nil {
				t.Fatal(err)
			}
			before := copyTree(t, backup)
			_, err := Run(context.Background(), backup, Options{})
			if !errors.Is(err, ErrEncrypted) || !strings.Contains(err.Error(), c.place) || !strings.Contains(err.Error(), "--with-server") {
				t.Errorf("got %v, want ErrEncrypted that names %s and --with-server", err, c.place)
			}
			sameTree(t, backup, before)
			if _, err := WithServer(context.Background(), backup, "", Options{ServerArgs: append(c.args, plugin...)}); err != nil {
				t.Fatal(err)
			}
			checkStartsClean(t, backup, before, append(c.args, plugin...)...)
		})
	}
}

// flushSecret has the server write the encrypted table, page 0 too. Without it only
// redo knows of the encryption, and it is found when some of that was applied.
func flushSecret(s *server) error {
	ctx := context.Background()
	c, err := s.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, q := range []string{"FLUSH TABLES d.secret FOR EXPORT", "UNLOCK TABLES"} {
		if _, err := c.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	return nil
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
	m := l.scan(context.Background(), l.start(), l.start()+format.RedoPosition(l.payload*9/10))
	defer m.close()
	for err == nil {
		_, err = m.next()
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, redoName), redo.StartOffset+int64(m.position()-l.first)); err != nil {
		t.Fatal(err)
	}
}
