package e2e

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
	_ "github.com/xbstream/xbstream/internal/families" // reads the flags of tablespaces
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
	"github.com/xbstream/xbstream/internal/servertest"
)

// P3 for MySQL: what prepare makes of a backup is, page by page, what mysqld's own
// recovery makes of it. XB_PEER_PAGES is the number of pages with redo after which it
// ends, as that of TestPeer.
func TestMySQLPeer(t *testing.T) {
	wanted, _ := strconv.Atoi(os.Getenv("XB_PEER_PAGES"))
	var sum mysqlTally
	for _, r := range servertest.MySQLReleases(t) {
		for round := 1; round == 1 || sum.redo < wanted && !t.Failed(); round++ {
			for _, size := range []int{16, 4, 8, 32, 64} {
				if size != 16 && wanted == 0 {
					continue
				}
				t.Run(fmt.Sprintf("%s, %dk, round %d", r, size, round), func(t *testing.T) {
					sum.add(compareWithMySQLd(t, r, size<<10, uint64(round), wanted > 0))
				})
			}
		}
	}
	t.Logf("in all: %s", sum)
}

// mysqlTally counts the pages of both.
type mysqlTally struct {
	redo                   int // pages that prepare wrote
	equal, later, lsns, no int
}

func (s *mysqlTally) add(o mysqlTally) {
	s.redo += o.redo
	s.equal += o.equal
	s.later += o.later
	s.lsns += o.lsns
	s.no += o.no
}

func (s mysqlTally) String() string {
	return fmt.Sprintf("%d pages with redo; %d pages equal, %d changed by the server after its recovery, %d with another LSN, %d unexplained", s.redo, s.equal, s.later, s.lsns, s.no)
}

func compareWithMySQLd(t *testing.T, r servertest.Release, pageSize int, seed uint64, long bool) (sum mysqlTally) {
	ctx := t.Context()
	source := servertest.New(t, servertest.Options{Release: r, LogBin: true, PageSize: pageSize, LogFileSize: 256 << 20})
	options := servertest.LoadOptions{Seed: seed, BulkBytes: 16 << 20}
	writes := 2000
	if long {
		options.MaxRowsPerTable, writes = 5000, 30000
	}
	check(t, source.CreateSchema(ctx, options))
	load, err := source.StartLoad(ctx, options)
	check(t, err)
	// Of a table that was imported meanwhile, the server's recovery loses rows.
	storm, err := source.StartStorm(ctx, seed, "innodb", "zip", "parts")
	check(t, err)
	check(t, load.Await(ctx, writes))
	archive, said, code := xbsendOf(t, "--no-defaults", "--user=root", "--socket="+source.Socket(), "-j2")
	if code != 0 {
		t.Fatalf("xbsend: %d\n%s", code, said)
	}
	_, err = load.Stop()
	check(t, err)
	check(t, storm.Stop())
	check(t, source.Stop())

	file := filepath.Join(t.TempDir(), "archive")
	check(t, os.WriteFile(file, archive, 0o600))
	ours, theirs := filepath.Join(t.TempDir(), "ours"), filepath.Join(t.TempDir(), "theirs")
	for _, dir := range []string{ours, theirs} {
		xbstreamOf(t, "-x", "-C", dir, file)
	}
	written := xbstreamOf(t, "prepare", "--log-format=json", ours)
	sum.redo = pagesWritten(t, written)
	// Without rollback and purge nothing but recovery changes pages, or hardly
	// anything.
	only := filepath.Join(t.TempDir(), "mysqld")
	check(t, os.WriteFile(only, []byte("#!/bin/sh\nexec "+r.Command("mysqld")+" \"$@\" --innodb-force-recovery=3\n"), 0o755))
	xbstreamOf(t, "prepare", "--with-server="+only, theirs)

	state, err := backupdir.Read(ours)
	check(t, err)
	end := state.EndLSN
	check(t, filepath.WalkDir(ours, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(ours, name)
		check(t, err)
		if base := filepath.Base(rel); strings.HasSuffix(base, ".ibd") || strings.HasPrefix(base, "undo_") || base == "ibdata1" {
			sum.add(comparePages(t, rel, filepath.Join(ours, rel), filepath.Join(theirs, rel), pageSize, end))
		}
		return nil
	}))
	t.Logf("%s", sum)
	if sum.redo == 0 || sum.equal < 1000 {
		t.Error("hardly anything was compared")
	}
	return sum
}

// comparePages compares all pages of a tablespace, but what says when and how a page
// was written.
func comparePages(t *testing.T, rel, ours, theirs string, pageSize int, end format.LSN) (sum mysqlTally) {
	x, err := os.ReadFile(ours)
	check(t, err)
	y, err := os.ReadFile(theirs)
	if err != nil {
		t.Errorf("%s: %v", rel, err)
		return sum
	}
	flags := binary.BigEndian.Uint32(x[54:])
	f, err := redolog.Named(format.DialectMySQL).ParseFlags(flags)
	check(t, err)
	system := rel == "ibdata1"
	if system {
		f.Logical, f.Physical = pageSize, pageSize
	}
	for at := 0; at < max(len(x), len(y)); at += f.Physical {
		no := at / f.Physical
		a, b := pageAt(t, f, x, at), pageAt(t, f, y, at)
		switch {
		case system && no >= 64 && no < 192: // the doublewrite area of old releases
		case sameBody(f, a, b, system && no == 0):
			sum.equal++
			if innodb.LSN(a) != innodb.LSN(b) {
				sum.lsns++
			}
		case innodb.LSN(b) > end:
			sum.later++
		default:
			if sum.no++; sum.no < 5 {
				t.Errorf("%s: page %d of type %d at LSN %v, the server has type %d at LSN %v: first difference at byte %d", rel, no, innodb.Type(a), innodb.LSN(a), innodb.Type(b), innodb.LSN(b), firstDifference(a, b))
			}
		}
	}
	return sum
}

// pageAt returns a page as it is in memory, of zeros if the file ends before it.
func pageAt(t *testing.T, f innodb.PageFormat, file []byte, at int) []byte {
	t.Helper()
	page := make([]byte, f.Physical)
	if at < len(file) {
		copy(page, file[at:])
	}
	if !f.Compressed(page) {
		return page
	}
	out := make([]byte, f.Logical)
	check(t, f.Decompress(out, page))
	return out
}

// sameBody leaves out checksums, LSNs, and in the first page of the system tablespace
// the LSN of the last clean stop.
func sameBody(f innodb.PageFormat, a, b []byte, flushed bool) bool {
	a, b = bytes.Clone(a), bytes.Clone(b)
	for _, p := range [][]byte{a, b} {
		clear(p[:4])
		clear(p[16:24])
		if flushed {
			clear(p[26:34])
		}
		if !f.Zip {
			clear(p[len(p)-8:])
		}
	}
	return bytes.Equal(a, b)
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if i >= 4 && (i < 16 || i >= 24) && (i >= len(b) || a[i] != b[i]) {
			return i
		}
	}
	return len(a)
}

// pagesWritten reads the report of prepare.
func pagesWritten(t *testing.T, said string) int {
	t.Helper()
	for line := range strings.Lines(said) {
		var of struct {
			Pages int `json:"pages_written"`
		}
		if json.Unmarshal([]byte(line), &of) == nil && of.Pages > 0 {
			return of.Pages
		}
	}
	t.Fatalf("prepare does not say how many pages it wrote:\n%s", said)
	return 0
}
