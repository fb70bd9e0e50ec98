package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/xbstream/xbstream/internal/servertest"
)

// justMade starts a server that makes its system and undo tablespaces when it
// starts. It has not written their first pages: they are in redo only.
func justMade(t *testing.T, args ...string) *servertest.Server {
	t.Helper()
	s := servertest.New(t, servertest.Options{LogFileSize: 96 << 20, Args: args, Arrange: func(datadir string) error {
		var errs []error
		for _, pattern := range []string{"ib*", "undo*", "mysql/innodb_*", "mysql/gtid_slave_pos*", "mysql/transaction_registry*"} {
			files, err := filepath.Glob(filepath.Join(datadir, pattern))
			errs = append(errs, err)
			for _, f := range files {
				errs = append(errs, os.Remove(f))
			}
		}
		return errors.Join(errs...)
	}})
	check(t, s.Exec(t.Context(), "CREATE DATABASE d", "CREATE TABLE d.t"+rows+"ENGINE=InnoDB", "INSERT INTO d.t SELECT seq, REPEAT(seq % 9, 300) FROM d.seq_1_to_3000"))
	files, err := filepath.Glob(filepath.Join(s.Datadir(), "undo*"))
	check(t, err)
	for _, name := range append(files, filepath.Join(s.Datadir(), "ibdata1")) {
		if hasPage0(t, name) {
			t.Fatalf("page 0 of %s was written: there is nothing to test", name)
		}
	}
	return s
}

// hasPage0 says whether a file has a page 0.
func hasPage0(t *testing.T, name string) bool {
	t.Helper()
	page := make([]byte, 4096)
	f, err := os.Open(name)
	check(t, err)
	_, err = f.ReadAt(page, 0)
	check(t, errors.Join(err, f.Close()))
	return [4096]byte(page) != [4096]byte{}
}

// mustCopy backs a server up and compares the copy.
func mustCopy(t *testing.T, source *servertest.Server, prepare []string, args ...string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "copy")
	pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + source.Socket()}, append([]string{"xbstream", "-x", "--prepare", "--verify", "-C", dir}, prepare...))
	receive(t, "verify", dir)
	copied := startCopy(t, dir, args...)
	if got, want := checksum(t, copied, "d.t"), checksum(t, source, "d.t"); got != want {
		t.Errorf("checksum %s, want %s", got, want)
	}
}

// G7, P1: a backup of such a server is made from redo alone.
func TestSystemTablespaceJustMade(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name          string
		args, prepare []string
	}{
		{"one file", nil, nil},
		{"undo tablespaces", []string{"--innodb-undo-tablespaces=3"}, nil},
		{"two files", []string{"--innodb-data-file-path=ibdata1:12M;ibdata2:12M:autoextend"}, nil},
		{"old checksums", []string{"--innodb-checksum-algorithm=crc32", "--innodb-undo-tablespaces=3"}, nil},
		{"4k pages", []string{"--innodb-page-size=4k"}, nil},
		{"64k pages, two files", []string{"--innodb-page-size=64k", "--innodb-data-file-path=ibdata1:12M;ibdata2:12M:autoextend"}, nil},
		{"redo in many parts", []string{"--innodb-undo-tablespaces=3"}, []string{"--memory=1M"}},
	} {
		t.Run(row.name, func(t *testing.T) { mustCopy(t, justMade(t, row.args...), row.prepare, row.args...) })
	}
}

// G7: the server writes the first pages between the moment at which the files are
// listed and the moment at which they are read.
func TestSystemTablespaceIsWrittenWhileItIsCopied(t *testing.T) {
	for _, event := range []string{"tablespaces-listed", "stage-flush", "reconcile"} {
		t.Run(event, func(t *testing.T) {
			args := []string{"--innodb-data-file-path=ibdata1:12M;ibdata2:12M:autoextend", "--innodb-undo-tablespaces=3"}
			source := justMade(t, args...)
			hooked(t, "none", func(e, _ string) error {
				if e != event {
					return nil
				}
				return source.Exec(t.Context(), writePages, "UPDATE d.t SET b = REVERSE(b) WHERE a % 7 = 0")
			})
			mustCopy(t, source, nil, args...)
			if !hasPage0(t, filepath.Join(source.Datadir(), "ibdata1")) {
				t.Error("page 0 was not written: nothing was tested")
			}
		})
	}
}
