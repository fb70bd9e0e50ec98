package backupdir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
)

// foreignDir is a directory as mariabackup leaves one, as far as it is read first.
func foreignDir(t testing.TB, options string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		checkpointsNames[0]: "backup_type = full-backuped\nlast_lsn = 100\n", optionsName: "[mysqld]\n" + options + "\n",
		"ibdata1": strings.Repeat("\x00", 3<<20+16384), "ibdata2": strings.Repeat("\x00", 1<<20), "small": "x",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("ibdata1", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// B1: a server is told of files that are there, by their names and sizes.
func TestServersAreToldOfFilesThatAreThere(t *testing.T) {
	for options, want := range map[string]string{
		"innodb_data_file_path=ibdata1:2M:autoextend":                    "ibdata1:3M:autoextend",
		"innodb_data_file_path=ibdata1:2M:autoextend:max:1G:autoshrink":  "ibdata1:3M:autoextend",
		"innodb_data_file_path=/srv/a/ibdata1:3M;/srv/b/ibdata2:1M":      "ibdata1:3M;ibdata2:1M",
		"innodb_data_file_path = ibdata1:3M;ibdata2:1048576:autoextend ": "ibdata1:3M;ibdata2:1M:autoextend",
		"": "ibdata1:3M:autoextend",
	} {
		dir := foreignDir(t, options)
		s, err := Read(dir)
		if err != nil {
			t.Errorf("%q: %v", options, err)
			continue
		}
		if got, err := s.DataFiles(dir); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", options, got, err, want)
		}
	}
}

// B1: and of no others, whatever the option file says.
func TestHostileOptionFilesAreRefused(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "evil")
	for _, options := range []string{
		"innodb_data_file_path=ibdata1:3M;" + outside + ":10M:autoextend",
		"innodb_data_file_path=ibdata1:3M;evil:10M:autoextend",
		"innodb_data_file_path=ibdata1:3M;../evil:10M",
		"innodb_data_file_path=ibdata1:3M;link:3M",
		"innodb_data_file_path=ibdata1:3M;small:3M",
		"innodb_data_file_path=ibdata1:3M;.:3M",
		"innodb_data_file_path=ibdata1:3M;/a/ibdata1:3M",
		"innodb_data_file_path=ibdata1:3Mraw",
		"innodb_data_file_path=ibdata1:3Mnewraw",
		"innodb_data_file_path=/dev/sda:3Gnewraw",
		"innodb_data_file_path=ibdata1",
		"innodb_data_file_path=ibdata1:3M\x1b",
		"innodb_checksum_algorithm=crc32 --plugin-load-add=x",
		"innodb_page_size=0x4000",
		"innodb_page_size=5000",
		"innodb_undo_tablespaces=-1",
		"innodb_undo_tablespaces=1000000",
	} {
		dir := foreignDir(t, options)
		s, err := Read(dir)
		if err == nil {
			_, err = s.DataFiles(dir)
		}
		if !errors.Is(err, format.ErrDamaged) {
			t.Errorf("%q: error %v, want ErrDamaged", options, err)
		}
	}
	if _, err := os.Lstat(outside); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s was made", outside)
	}
}

// FuzzOptionFile reads an option file of anybody: what comes to a server holds no
// more than names of files in the directory.
func FuzzOptionFile(f *testing.F) {
	f.Add("innodb_data_file_path=ibdata1:2M:autoextend\ninnodb_page_size=16384")
	f.Add("innodb_data_file_path=ibdata1:3M;/tmp/evil:10M")
	f.Add("innodb_checksum_algorithm=crc32\ninnodb_undo_tablespaces=3")
	dir := foreignDir(f, "")
	f.Fuzz(func(t *testing.T, options string) {
		if err := os.WriteFile(filepath.Join(dir, optionsName), []byte(options), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Read(dir)
		if err != nil {
			return
		}
		got, err := s.DataFiles(dir)
		if err != nil {
			return
		}
		for part := range strings.SplitSeq(got, ";") {
			name, rest, _ := strings.Cut(part, ":")
			st, err := os.Lstat(filepath.Join(dir, name))
			if strings.Contains(name, "/") || err != nil || !st.Mode().IsRegular() || strings.Trim(strings.TrimSuffix(rest, ":autoextend"), "0123456789M") != "" {
				t.Errorf("%q: %q", options, got)
			}
		}
	})
}
