package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

// serverWithKeys starts a server that can encrypt, with a database d and a table d.near
// whose pages are in its file. It returns what a server on a copy needs, too.
func serverWithKeys(t *testing.T, more ...string) (source *servertest.Server, keys []string) {
	t.Helper()
	l, dir := encrypted("", "", more...), t.TempDir()
	source = servertest.New(t, l.options(dir))
	check(t, source.Exec(t.Context(), "CREATE DATABASE d", "CREATE TABLE d.near"+rows+"ENGINE=InnoDB",
		"INSERT INTO d.near SELECT seq, REPEAT(seq % 9, 300) FROM d.seq_1_to_3000", writePages))
	return source, l.copyArgs(dir)
}

// writePages makes the server write all pages that were changed.
const writePages = "SET GLOBAL innodb_log_checkpoint_now=1"

// rotate lets the server's threads encrypt all tables in place, and waits until
// they are done with d.near.
func rotate(ctx context.Context, s *servertest.Server) error {
	if err := s.Exec(ctx, "SET GLOBAL innodb_encryption_rotation_iops=100000", "SET GLOBAL innodb_encrypt_tables=ON", "SET GLOBAL innodb_encryption_threads=2"); err != nil {
		return err
	}
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		n, err := s.String(ctx, "SELECT COUNT(*) FROM information_schema.INNODB_TABLESPACES_ENCRYPTION WHERE NAME='d/near' AND MIN_KEY_VERSION > 0")
		if err != nil || n == "1" {
			return err
		}
	}
	return fmt.Errorf("d.near was not encrypted within %v", patience)
}

// P1: when encryption and a DATA DIRECTORY meet only while the backup goes on, it
// is refused at its end as it would be at its start, and the archive has no end.
func TestEncryptionMeetsDataDirectory(t *testing.T) {
	ctx := t.Context()
	encryptedLog := []string{"--innodb-encrypt-log=ON"}
	for _, c := range []struct {
		name      string
		options   []string
		before    string // the backup, and
		event     string // of it at which
		during    string // happens
		encrypted string // is said to be so
	}{
		{"a table comes elsewhere", nil, "CREATE TABLE d.secret (a INT) ENGINE=InnoDB ENCRYPTED=YES", "stage-flush", "$far", `d\.secret`},
		{"a table comes elsewhere, the log is encrypted", encryptedLog, "DO 0", "stage-flush", "$far", "the redo log"},
		{"a table is encrypted, and not written yet", nil, "$far", "stage-flush", "ALTER TABLE d.near ENCRYPTED=YES", `d\.near`},
		{"a table is encrypted and written", nil, "$far", "tablespaces-listed", "ALTER TABLE d.near ENCRYPTED=YES; " + writePages, `d\.near`},
		{"the table elsewhere is encrypted", nil, "$far", "stage-flush", "ALTER TABLE d.far ENCRYPTED=YES", `d\.far`},
		{"a table is encrypted in place", nil, "$far", "before-copy d/near", "$rotate", `\S+`},
	} {
		t.Run(c.name, func(t *testing.T) {
			source, _ := serverWithKeys(t, c.options...)
			dir := t.TempDir()
			far := "CREATE TABLE d.far (a INT) ENGINE=InnoDB DATA DIRECTORY='" + dir + "'"
			do := func(statements string) error {
				if statements == "$rotate" {
					return rotate(ctx, source)
				}
				return source.Exec(ctx, strings.Split(strings.ReplaceAll(statements, "$far", far), "; ")...)
			}
			check(t, do(c.before))
			hooked(t, "d/near", func(event, table string) error {
				if strings.TrimSpace(event+" "+table) == c.event {
					return do(c.during)
				}
				return nil
			})
			archive := filepath.Join(dir, "archive.xb")
			mustEndWithout(t, archive, source, `d\.far has a DATA DIRECTORY \(`+dir+`/d/far\.ibd\), and `+c.encrypted+` is encrypted`)
		})
	}
}

// mustEndWithout makes a backup that is refused once something was sent.
func mustEndWithout(t *testing.T, archive string, source *servertest.Server, refused string) {
	t.Helper()
	xbsend, xbstream := binaries(t)
	f, err := os.Create(archive)
	check(t, err)
	defer f.Close()
	var log strings.Builder
	send := exec.CommandContext(t.Context(), xbsend, "--no-defaults", "--user=root", "--socket="+source.Socket())
	send.Stdout, send.Stderr = f, &log
	if err := send.Run(); exitCode(t, err) != exitServer || !regexp.MustCompile(refused).MatchString(lastLine(log.String())) {
		t.Errorf("xbsend: %v, want exit code %d and %q\n%s", err, exitServer, refused, &log)
	}
	st, err := f.Stat()
	check(t, err)
	out, err := exec.CommandContext(t.Context(), xbstream, "verify", archive).CombinedOutput()
	if st.Size() < 1<<20 || exitCode(t, err) != exitDamaged {
		t.Errorf("of %d bytes verify says %v, want exit code %d\n%s", st.Size(), err, exitDamaged, out)
	}
}

// P1: what is encrypted in place after it was copied, needs no server: the redo has
// the pages as they were.
func TestEncryptedInPlaceAfterItsCopy(t *testing.T) {
	ctx := t.Context()
	source, keys := serverWithKeys(t)
	dir := t.TempDir()
	check(t, source.Exec(ctx, "CREATE TABLE d.far"+rows+"ENGINE=InnoDB DATA DIRECTORY='"+dir+"'", "INSERT INTO d.far VALUES (1, 'x')", writePages))
	hooked(t, "none", func(event, _ string) error {
		if event != "stage-flush" { // all tablespaces were copied once
			return nil
		}
		if err := rotate(ctx, source); err != nil {
			return err
		}
		return source.Exec(ctx, "UPDATE d.near SET b = REVERSE(a) WHERE a % 5 = 0")
	})
	archive, target := filepath.Join(dir, "archive.xb"), filepath.Join(dir, "copy")
	sendTo(t, archive, source)
	receive(t, "-x", "--prepare", "-C", target, archive)
	copied := startCopy(t, target, keys...)
	c, err := servertest.Compare(ctx, source, copied)
	check(t, err)
	for _, d := range c.Differences {
		if !strings.HasPrefix(d, "tables: ") { // it lists DATA DIRECTORY
			t.Error(d)
		}
	}
	if c.Rows < 3001 {
		t.Errorf("only %d rows compared", c.Rows)
	}
}
