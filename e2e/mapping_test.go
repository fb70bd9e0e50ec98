package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/internal/servertest"
)

// mappedDirectories are two directories of tables, each restored to another one.
var mappedDirectories = layout{
	name:    "data directories mapped",
	fill:    farTables,
	ready:   changeFar,
	prepare: func(dir string) []string { return mapping(dir, "new") },
	except:  "tables: ", // it lists DATA DIRECTORY
	look: func(t *testing.T, at *laidOut) {
		at.mustBeMapped(t, at.target, "new", farFiles)
		if n, err := at.copied.String(t.Context(), "SELECT COUNT(*) FROM information_schema.INNODB_SYS_TABLESPACES WHERE FILENAME LIKE '"+at.dir+"/new%/load/%'"); n != "4" || err != nil {
			t.Errorf("the copy uses %s files of the new directories, want 4: %v", n, err)
		}
		for _, want := range []string{
			"restored 3 tablespaces from " + at.dir + "/far to " + at.dir + "/new\n",
			"restored 1 tablespaces from " + at.dir + "/far2 to " + at.dir + "/new2\n",
			"restored 4 files from outside the data directory into " + at.target, // of MyISAM and Aria
		} {
			if !strings.Contains(at.received, want) {
				t.Errorf("the report does not say %q: %s", want, at.received)
			}
		}
	},
}

// farTables has tables of all engines that can be told where to be, outside of
// the data directory.
func farTables(t *testing.T, s *servertest.Server, dir string) {
	in := func(name string) string {
		far := filepath.Join(dir, name)
		check(t, os.MkdirAll(far, 0o700))
		return "DATA DIRECTORY='" + far + "'"
	}
	far, far2, index := in("far"), in("far2"), " INDEX DIRECTORY='"+dir+"/far'"
	check(t, s.Exec(t.Context(),
		"CREATE TABLE `load`.far"+rows+"ENGINE=InnoDB "+far,
		"CREATE TABLE `load`.far_compressed"+rows+"ENGINE=InnoDB PAGE_COMPRESSED=1 "+far,
		"CREATE TABLE `load`.`far ä`"+rows+"ENGINE=InnoDB PARTITION BY RANGE (a) (PARTITION `p 0` VALUES LESS THAN (1000) "+far+", PARTITION p1 VALUES LESS THAN (2000) "+far2+", PARTITION p2 VALUES LESS THAN MAXVALUE)",
		"CREATE TABLE `load`.far_myisam"+rows+"ENGINE=MyISAM "+far+index,
		"CREATE TABLE `load`.far_aria"+rows+"ENGINE=Aria "+far+index,
		rowsFrom("`load`.far"), rowsFrom("`load`.far_compressed"), rowsFrom("`load`.`far ä`"), rowsFrom("`load`.far_myisam"), rowsFrom("`load`.far_aria")))
}

// changeFar leaves redo of the tables in other directories, and pages that are
// only in memory.
func changeFar(t *testing.T, s *servertest.Server) {
	check(t, s.Exec(t.Context(), "SET GLOBAL innodb_log_checkpoint_now=1",
		"UPDATE `load`.far SET b = CONCAT('x', LEFT(b, 300))", "UPDATE `load`.far_compressed SET b = CONCAT('x', LEFT(b, 300))", "UPDATE `load`.`far ä` SET b = CONCAT('x', LEFT(b, 300))"))
}

// mapping are the flags that put dir/far below dir/NAME and dir/far2 below
// dir/NAME2.
func mapping(dir, name string) []string {
	return []string{"--tablespace-mapping=" + dir + "/far=" + dir + "/" + name, "--tablespace-mapping=" + dir + "/far2/=" + dir + "/" + name + "2"}
}

// farFiles are the tables' files below the directories, by the number of the
// directory's name.
var farFiles = map[string][]string{
	"":  {"load/far.ibd", "load/far_compressed.ibd", "load/far@0020@0k#P#p@00200.ibd"},
	"2": {"load/far@0020@0k#P#p1.ibd"},
}

// mustBeMapped makes sure that there is a file below the new directory, and a
// link file below the target.
func (at *laidOut) mustBeMapped(t *testing.T, target, name string, below map[string][]string) {
	t.Helper()
	for n, files := range below {
		for _, f := range files {
			want := filepath.Join(at.dir, name+n, f)
			if st, err := os.Lstat(want); err != nil || !st.Mode().IsRegular() {
				t.Errorf("not restored to its directory: %s, %v", want, err)
			}
			base := filepath.Join(target, strings.TrimSuffix(f, ".ibd"))
			if got, err := os.ReadFile(base + ".isl"); string(got) != want || err != nil {
				t.Errorf("%s.isl: %q, %v; want %q", base, got, err, want)
			}
			if _, err := os.Lstat(base + ".ibd"); err == nil {
				t.Errorf("%s.ibd is in the target, too", base)
			}
		}
	}
	for _, dir := range []string{target, filepath.Join(at.dir, name), filepath.Join(at.dir, name+"2")} {
		if left, _ := filepath.Glob(filepath.Join(dir, ".xbstream-*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// Tables in other directories come, go and change their names during a backup,
// which is extracted first and prepared afterwards.
func TestMappedTablesPreparedLater(t *testing.T) {
	ctx := t.Context()
	at := &laidOut{dir: t.TempDir(), source: servertest.New(t, servertest.Options{})}
	check(t, at.source.Exec(ctx, "CREATE DATABASE `load`"))
	farTables(t, at.source, at.dir)
	changeFar(t, at.source)
	check(t, at.source.Exec(ctx, "CREATE TABLE `load`.far_gone"+rows+"ENGINE=InnoDB DATA DIRECTORY='"+at.dir+"/far'", rowsFrom("`load`.far_gone")))
	hooked(t, "nothing", func(event, _ string) error {
		switch event {
		case "tablespaces-listed":
			return at.source.Exec(ctx, "RENAME TABLE `load`.far TO `load`.far_renamed", "DROP TABLE `load`.far_gone",
				"CREATE TABLE `load`.far_new"+rows+"ENGINE=InnoDB DATA DIRECTORY='"+at.dir+"/far2'", rowsFrom("`load`.far_new"))
		case "stage-flush":
			return at.source.Exec(ctx, "UPDATE `load`.far_new SET b = CONCAT(a, LEFT(b, 200))")
		}
		return nil
	})
	archive, target := filepath.Join(at.dir, "again.xb"), filepath.Join(at.dir, "again")
	sendTo(t, archive, at.source)
	receive(t, append([]string{"-x", "-C", target, archive}, mapping(at.dir, "later")...)...)
	at.mustBeMapped(t, target, "later", map[string][]string{
		"":  {"load/far_renamed.ibd", "load/far_compressed.ibd", "load/far@0020@0k#P#p@00200.ibd"},
		"2": {"load/far@0020@0k#P#p1.ibd", "load/far_new.ibd"},
	})
	receive(t, "verify", target)
	at.mustRefuse(t, archive, target)
	receive(t, "prepare", "--verify", target)
	receive(t, "verify", target)
	if out := receive(t, "prepare", target); !strings.Contains(out, "already prepared") {
		t.Errorf("second prepare: %s", out)
	}
	copied := startCopy(t, target)
	if n, err := copied.String(ctx, "SELECT COUNT(*) FROM information_schema.INNODB_SYS_TABLESPACES WHERE FILENAME LIKE '"+at.dir+"/later%/load/%'"); n != "5" || err != nil {
		t.Errorf("the copy uses %s files of the new directories, want 5: %v", n, err)
	}
	for _, table := range []string{"far_renamed", "far_compressed", "`far ä`", "far_new"} {
		sum := "SELECT CONCAT_WS(' ', COUNT(*), SUM(CRC32(CONCAT_WS(',', a, b)))) FROM `load`." + table
		want, err := at.source.String(ctx, sum)
		check(t, err)
		if got, err := copied.String(ctx, sum); got != want || err != nil || !strings.HasPrefix(got, "3000 ") {
			t.Errorf("%s: %s, want %s; %v", table, got, want, err)
		}
	}
}

// mustRefuse tries what must not work, with an archive, and with what was
// extracted from it and is not prepared.
func (at *laidOut) mustRefuse(t *testing.T, archive, extracted string) {
	_, xbstream := binaries(t)
	dir := at.dir
	target := dir + "/refused"
	extract := []string{"-x", "-C", target, archive}
	for _, c := range []struct {
		args []string
		code int
		why  string
	}{
		{append(extract, "--tablespace-mapping="+dir+"/fat="+dir+"/r"), 2, `no InnoDB table of the archive lay below "` + dir + `/fat" at the source; there are tables in ["` + dir + `/far" "` + dir + `/far2"]`},
		{append(extract, mapping(dir, "later")...), 9, "later\" is not empty"},
		{append(extract, "--tablespace-mapping="+dir+"/far="+target+"/in"), 9, "inside of the other"},
		{append(extract, "--tablespace-mapping="+dir+"/far="+dir+"/no/parent"), 9, "no such file"},
		{append(extract, "--tablespace-mapping="+dir+"/far="+dir+"/x/../y"), 2, "without . and .."},
		{append(extract, "--tablespace-mapping="+dir+"/far"), 2, "OLD=NEW"},
		{append(extract, "--prepare", "--export", "--tablespace-mapping="+dir+"/far="+dir+"/r"), 2, "--export"},
		{append(extract, "--prepare", "--with-server", "--tablespace-mapping="+dir+"/far="+dir+"/r"), 2, "--with-server"},
		{[]string{"prepare", "--with-server", extracted}, 10, "DATA DIRECTORY (" + dir + "/far"},
	} {
		out, err := exec.CommandContext(t.Context(), xbstream, c.args...).CombinedOutput()
		if code := exitCode(t, err); code != c.code || !strings.Contains(string(out), c.why) {
			t.Errorf("%v: exit code %d, want %d and %q\n%s", c.args, code, c.code, c.why, out)
		}
		for _, left := range []string{target, dir + "/r", dir + "/no"} {
			if _, err := os.Lstat(left); err == nil {
				t.Errorf("%v left %s", c.args, left)
			}
		}
	}
}
