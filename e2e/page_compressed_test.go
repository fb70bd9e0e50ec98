package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/xbstream/xbstream/internal/servertest"
)

// P1 (G6): page_compressed tables take the same disk space in the copy as at the
// source, within a tenth, whatever redo touched, and the server goes on with
// them.
func TestPageCompressedTables(t *testing.T) {
	for _, c := range []struct {
		sum  string
		size int
	}{{"full_crc32", 16}, {"crc32", 16}, {"full_crc32", 64}} {
		t.Run(fmt.Sprintf("%s, %d KiB a page", c.sum, c.size), func(t *testing.T) {
			compressedSource(t, c.sum, c.size<<10).test(t)
		})
	}
}

// compressed is a server with a page_compressed table for each algorithm, and
// one that lost most of its rows.
type compressed struct {
	source *servertest.Server
	sum    string
	args   []string
	tables []string
}

func compressedSource(t *testing.T, sum string, pageSize int) *compressed {
	c := &compressed{sum: sum}
	// Nothing is written back but at a checkpoint: so redo touches it all.
	c.args = append(providers(""), "--innodb-max-dirty-pages-pct=99", "--innodb-max-dirty-pages-pct-lwm=0", "--innodb-checksum-algorithm="+sum, "--innodb-purge-threads=1")
	c.source = servertest.New(t, servertest.Options{PageSize: pageSize, LogFileSize: 256 << 20, Args: append(c.args, "--innodb-buffer-pool-size=128M")})
	c.exec(t, "CREATE DATABASE pages")
	for _, a := range append([]string{"zlib"}, algorithms...) {
		c.exec(t, "SET GLOBAL innodb_compression_algorithm="+a)
		c.table(t, "pages_"+a)
	}
	c.exec(t, "SET GLOBAL innodb_compression_algorithm=zlib")
	c.table(t, "freed")
	return c
}

func (c *compressed) exec(t *testing.T, statements ...string) {
	t.Helper()
	check(t, c.source.Exec(t.Context(), statements...))
}

// table makes one of some 2 MB; names and numbers compress to a third or so.
func (c *compressed) table(t *testing.T, name string) {
	t.Helper()
	c.tables = append(c.tables, name)
	c.exec(t, "CREATE TABLE pages."+name+" (a INT PRIMARY KEY, b VARCHAR(500), c INT, KEY (c)) ENGINE=InnoDB PAGE_COMPRESSED=1",
		"INSERT INTO pages."+name+" SELECT seq, CONCAT(MD5(seq), ' name of customer ', seq % 97, REPEAT(' a street of a city', 10)), seq * 7919 % 10000 FROM pages.seq_1_to_5000",
		// What is compressed is written with the algorithm of that moment.
		"FLUSH TABLES pages."+name+" FOR EXPORT", "UNLOCK TABLES")
}

// dirty makes redo for every page that the files do not have.
func (c *compressed) dirty(t *testing.T) {
	t.Helper()
	c.exec(t, "SET GLOBAL innodb_log_checkpoint_now=1")
	for _, name := range c.tables[:len(c.tables)-1] {
		c.exec(t, "UPDATE pages."+name+" SET b = CONCAT(REVERSE(LEFT(b, 20)), SUBSTR(b, 21))")
	}
	c.exec(t, "DELETE FROM pages.freed WHERE a % 100 <> 0", "SET GLOBAL innodb_max_purge_lag_wait=0")
}

// settle lets the source write all pages of a table.
func (c *compressed) settle(t *testing.T) {
	t.Helper()
	for _, name := range c.tables {
		c.exec(t, "FLUSH TABLES pages."+name+" FOR EXPORT", "UNLOCK TABLES")
	}
}

func (c *compressed) test(t *testing.T) {
	dir := t.TempDir()
	send := []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + c.source.Socket()}
	c.settle(t)
	at := filepath.Join(dir, "extracted")
	pipeline(t, send, []string{"xbstream", "-x", "-C", at})
	c.compareSpace(t, "extracted", at, false)

	classic := filepath.Join(dir, "classic.xb")
	c.mariabackup(t, classic)
	at = filepath.Join(dir, "classic extracted")
	c.xbstream(t, "-x", "-C", at, classic)
	c.compareSpace(t, "classic, extracted", at, false)

	c.dirty(t)
	prepared, old := filepath.Join(dir, "prepared"), filepath.Join(dir, "classic prepared")
	pipeline(t, send, []string{"xbstream", "-x", "--prepare", "-C", prepared})
	c.mariabackup(t, classic)
	c.xbstream(t, "-x", "-C", old, classic)
	c.xbstream(t, "prepare", old) // in place, with a journal
	c.settle(t)
	c.xbstream(t, "verify", prepared)
	for name, at := range map[string]string{"prepared": prepared, "classic, prepared": old} {
		c.compareSpace(t, name, at, true)
		before := c.space(t, at)
		c.xbstream(t, "prepare", at)
		if after := c.space(t, at); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("%s: prepared again, the tables take %v, before %v", name, after, before)
		}
		c.goOn(t, name, at)
	}
}

func (c *compressed) mariabackup(t *testing.T, archive string) {
	t.Helper()
	out, err := os.Create(archive)
	check(t, err)
	defer out.Close()
	var log strings.Builder
	cmd := exec.CommandContext(t.Context(), "mariabackup", "--no-defaults", "--backup", "--stream=xbstream", "--user=root", "--socket="+c.source.Socket(), "--target-dir="+t.TempDir())
	cmd.Stdout, cmd.Stderr = out, &log
	if err := cmd.Run(); err != nil {
		t.Fatalf("mariabackup: %v\n%s", err, &log)
	}
}

func (c *compressed) xbstream(t *testing.T, args ...string) {
	t.Helper()
	_, xbstream := binaries(t)
	if out, err := exec.CommandContext(t.Context(), xbstream, args...).CombinedOutput(); err != nil {
		t.Fatalf("xbstream %v: %v\n%s", args, err, out)
	}
}

// space returns how many bytes of the disk each table takes.
func (c *compressed) space(t *testing.T, datadir string) map[string]int64 {
	t.Helper()
	space := map[string]int64{}
	for _, name := range c.tables {
		path := filepath.Join(datadir, "pages", name+".ibd")
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		check(t, err)
		check(t, f.Sync()) // some file systems allocate when they write
		st, err := f.Stat()
		check(t, err)
		check(t, f.Close())
		space[name] = st.Sys().(*syscall.Stat_t).Blocks * 512
	}
	return space
}

// onlyPlain are the algorithms whose pages prepare writes plain in the format of
// full_crc32, where the tablespace has one algorithm.
var onlyPlain = []string{"pages_lzo", "pages_bzip2"}

func (c *compressed) compareSpace(t *testing.T, what, copied string, prepared bool) {
	t.Helper()
	source, got := c.space(t, c.source.Datadir()), c.space(t, copied)
	for _, name := range c.tables {
		t.Logf("%s, %s: %d KiB, at the source %d KiB", what, name, got[name]>>10, source[name]>>10)
		if prepared && c.sum == "full_crc32" && slices.Contains(onlyPlain, name) {
			continue
		}
		if float64(got[name]) > 1.1*float64(source[name]) {
			t.Errorf("%s: %s takes %d bytes, at the source %d", what, name, got[name], source[name])
		}
	}
}

// goOn starts a server on the copy, compares rows, writes, and looks again after
// a restart, when all pages are read from the files.
func (c *compressed) goOn(t *testing.T, what, dir string) {
	t.Helper()
	copied := startCopy(t, dir, c.args...)
	for _, name := range c.tables {
		if a, b := checksum(t, c.source, "pages."+name), checksum(t, copied, "pages."+name); a != b {
			t.Errorf("%s: %s has checksum %s, at the source %s", what, name, b, a)
		}
		check(t, copied.Exec(t.Context(), "UPDATE pages."+name+" SET b = REVERSE(b), c = c + 1 WHERE a % 3 = 0",
			"INSERT INTO pages."+name+" SELECT a + 100000, b, c FROM pages."+name+" WHERE a % 7 = 0"))
	}
	want := map[string]string{}
	for _, name := range c.tables {
		want[name] = checksum(t, copied, "pages."+name)
	}
	check(t, copied.Restart(t.Context()))
	noComplaints(t, copied)
	for name, sum := range want {
		if got := checksum(t, copied, "pages."+name); got != sum {
			t.Errorf("%s: %s has checksum %s after a restart, before %s", what, name, got, sum)
		}
	}
	check(t, copied.Stop())
}
