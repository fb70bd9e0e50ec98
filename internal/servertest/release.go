package servertest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Release is a server's program of one version.
type Release struct {
	name string // of its directory, if it is not the system's
	dir  string // of its programs, if they are not where they were unpacked
}

// The releases that tests run on.
var (
	MariaDB1011 = Release{name: "mariadb-10.11"} // the one that the system has in its path
	MariaDB118  = Release{name: "mariadb-11.8"}
	MySQL97     = Release{name: "mysql-9.7"}
)

// chosen names, in the environment, the release that is the usual one. Its
// programs are then the first in the path.
const chosen = "XB_RELEASE"

// choose sets the path.
func choose() error {
	if os.Getenv(chosen) == "" || Usual() == MariaDB1011 {
		return nil
	}
	if err := Usual().check(); err != nil {
		return err
	}
	return os.Setenv("PATH", filepath.Dir(Usual().Command(Usual().program()))+string(os.PathListSeparator)+os.Getenv("PATH"))
}

// Usual is the release of tests that do not say on which they run.
func Usual() Release {
	if name := os.Getenv(chosen); name != "" {
		return Release{name: name}
	}
	return MariaDB1011
}

// Releases returns every release of MariaDB, oldest first, or the one that was
// chosen. One that is not there fails the test: a test that passes has run on all.
func Releases(t testing.TB) []Release {
	t.Helper()
	return present(t, MariaDB1011, MariaDB118)
}

// MySQLReleases does the same for MySQL.
func MySQLReleases(t testing.TB) []Release {
	t.Helper()
	return present(t, MySQL97)
}

func present(t testing.TB, all ...Release) []Release {
	t.Helper()
	if os.Getenv(chosen) != "" {
		if Usual().MySQL() != all[0].MySQL() {
			t.Skipf("%s is %s", chosen, Usual())
		}
		all = []Release{Usual()}
	}
	for _, r := range all {
		if err := r.check(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func (r Release) String() string { return r.name }

func (r Release) ofSystem() bool { return r == MariaDB1011 }

// MySQL says whether it is one of MySQL, and not of MariaDB.
func (r Release) MySQL() bool { return strings.HasPrefix(r.name, "mysql-") }

// program is the server's.
func (r Release) program() string {
	if r.MySQL() {
		return "mysqld"
	}
	return "mariadbd"
}

// check says whether the release is there.
func (r Release) check() error {
	if r.ofSystem() {
		if Usual() != MariaDB1011 {
			return fmt.Errorf("%s is not in the path: %s=%s", r, chosen, Usual())
		}
		return nil // looking for it in the path says the same
	}
	if _, err := os.Stat(r.Command(r.program())); err != nil {
		return fmt.Errorf("%s is not there (%w): run make setup", r, err)
	}
	return nil
}

// Command is what to run for a program of this release: mariadbd, mariadb,
// mariadb-backup or mariabackup; mysqld or mysql.
func (r Release) Command(program string) string {
	if r.ofSystem() {
		return program
	}
	return filepath.Join(r.root(), "commands", program)
}

// root is where scripts/unpack-server.sh unpacks a release.
func (r Release) root() string {
	if r.dir != "" {
		return r.dir
	}
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		cache = filepath.Join(os.Getenv("HOME"), ".cache")
	}
	return filepath.Join(cache, "xbstream", "servers", r.name)
}

// bootstrapSQL is what mariadb-install-db feeds to the server of an unpacked
// release. The script itself does not run there: it calls programs that need
// the release's own libraries.
func (r Release) bootstrapSQL() (string, error) {
	all := []string{"CREATE DATABASE IF NOT EXISTS mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n"}
	for _, name := range []string{
		"mariadb_system_tables.sql", "mariadb_performance_tables.sql", "mariadb_system_tables_data.sql",
		"fill_help_tables.sql", "maria_add_gis_sp_bootstrap.sql", "mariadb_sys_schema.sql",
	} {
		b, err := os.ReadFile(filepath.Join(r.root(), "usr/share/mariadb", name))
		if err != nil {
			return "", err
		}
		// As with --skip-name-resolve: no accounts of this machine's name.
		for line := range strings.Lines(string(b)) {
			if !strings.Contains(line, "@current_hostname") {
				all = append(all, line)
			}
		}
	}
	return strings.Join(all, ""), nil
}
