package chunker_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	mariadb "github.com/xbstream/xbstream/internal/mariadb/files"
	"github.com/xbstream/xbstream/internal/servertest"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

const pageSize = 16 << 10

func discoverer(s *servertest.Server) *mariadb.Discoverer {
	return mariadb.New(chunker.Layout{
		DataDir: s.Datadir(), PageSize: pageSize,
		DataFiles: []chunker.DataFile{{Name: "ibdata1", Autoextend: true}},
	})
}

func mustExec(t *testing.T, s *servertest.Server, statements ...string) {
	t.Helper()
	if err := s.Exec(t.Context(), statements...); err != nil {
		t.Fatal(err)
	}
}

// spaces lists the tablespaces of a server with their ids.
func spaces(t *testing.T, s *servertest.Server) []chunker.File {
	t.Helper()
	files, err := discoverer(s).InnoDB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if files, err = chunker.ReadSpaces(t.Context(), files); err != nil {
		t.Fatal(err)
	}
	return files
}

func serverLSN(t *testing.T, s *servertest.Server) format.LSN {
	t.Helper()
	text, err := s.String(t.Context(), "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME='Innodb_lsn_current'")
	if err != nil {
		t.Fatal(err)
	}
	lsn, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return format.LSN(lsn)
}

// writers change the tables of a database until stop is called, and count their
// statements.
func writers(t *testing.T, s *servertest.Server, tables []string) (count *atomic.Int64, stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	count = new(atomic.Int64)
	for w := range 3 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				table := tables[(i+w)%len(tables)]
				for _, q := range []string{
					"INSERT IGNORE INTO d.%s SELECT seq, REPEAT(MD5(RAND()), 1 + seq MOD 9), REPEAT('b', seq MOD 2000) FROM d.seq_%d_to_%d",
					"UPDATE d.%s SET b = REPEAT(MD5(RAND()), 8) WHERE a BETWEEN %d AND %d",
					"DELETE FROM d.%s WHERE a BETWEEN %d AND %d AND a MOD 3 = 0",
				} {
					from := (i * 97) % 20000
					// Deadlocks are part of the load.
					if s.Exec(ctx, fmt.Sprintf(q, table, from, from+150)) == nil {
						count.Add(1)
					}
				}
			}
		})
	}
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return count, stop
}

// TestCopyUnderLoad copies a server that is written to and checks every page of
// the copy, and that none is newer than the server's log.
func TestCopyUnderLoad(t *testing.T) {
	s := servertest.New(t, servertest.Options{LogFileSize: 8 << 20, Args: []string{"--innodb-max-dirty-pages-pct=0"}})
	mustExec(t, s, "CREATE DATABASE d")
	kinds := map[string]string{
		"dynamic": "ROW_FORMAT=DYNAMIC", "redundant": "ROW_FORMAT=REDUNDANT", "compressed": "PAGE_COMPRESSED=1",
		"zip4": "ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4", "parts": "PARTITION BY HASH(a) PARTITIONS 4",
	}
	var tables []string
	for name, options := range kinds {
		mustExec(t, s, "CREATE TABLE d."+name+" (a INT PRIMARY KEY, b VARCHAR(400), c BLOB, KEY(b(30))) ENGINE=InnoDB "+options,
			"INSERT INTO d."+name+" SELECT seq, REPEAT(MD5(seq), 8), REPEAT(MD5(seq+1), 60) FROM d.seq_1_to_4000")
		tables = append(tables, name)
	}
	ran, stop := writers(t, s, tables)
	// Once more where the disk is so busy that hardly a statement ran meanwhile.
	deadline := time.Now().Add(2 * time.Minute)
	for round := 0; round < 2 || ran.Load() < 10 && time.Now().Before(deadline); round++ {
		workers := []int{1, 8}[round%2]
		sink := newDirSink(t)
		// Slow enough for pages to be written meanwhile.
		c := &chunker.Copier{Sink: sink, PageSize: pageSize, Parallel: workers, Rate: 40 << 20}
		files := spaces(t, s)
		results, err := c.CopyInnoDB(t.Context(), files)
		if err != nil {
			t.Fatal(err)
		}
		limit := serverLSN(t, s)
		pages := 0
		for _, r := range results {
			pages += checkCopy(t, sink, r, limit)
		}
		if left := sink.unended(); left != nil || len(results) != len(files) || pages < 1000 {
			t.Errorf("%d results of %d files, %d pages, not ended: %v", len(results), len(files), pages, left)
		}
		t.Logf("%d workers: %d files, %d pages, %d bytes of data, %d of holes", workers, len(files), pages, sink.data, sink.holes)
	}
	if n := ran.Load(); n < 10 {
		t.Errorf("only %d statements ran meanwhile", n)
	}
	stop()
}

// checkCopy checks all pages of a copied file and returns their number.
func checkCopy(t *testing.T, sink *dirSink, r chunker.Result, limit format.LSN) int {
	t.Helper()
	data, err := os.ReadFile(sink.path(r.Entry.No))
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(data)) != r.Entry.Size || r.Foreign {
		t.Errorf("%s: %d bytes of %d, foreign %v", r.Entry.Path, len(data), r.Entry.Size, r.Foreign)
	}
	info := r.Entry.Space
	if info.Rebuild {
		return 0
	}
	f, err := innodb.ParseFlags(info.Flags)
	if err != nil || f.Physical != info.PageSize {
		t.Fatalf("%s: %+v, %v", r.Entry.Path, f, err)
	}
	var newest format.LSN
	n := len(data) / f.Physical
	for no := range n {
		page := data[no*f.Physical:][:f.Physical]
		if err := f.Verify(page, info.FirstPage+format.PageNo(no)); err != nil {
			t.Fatalf("%s: %v", r.Entry.Path, err)
		}
		newest = max(newest, innodb.LSN(page))
	}
	if newest != r.MaxLSN || newest > limit {
		t.Errorf("%s: newest page %d, reported %d, log ends at %d", r.Entry.Path, newest, r.MaxLSN, limit)
	}
	return n
}

// TestReconcileAfterDDL changes tables in every way between a copy and the
// moment DDL is blocked.
func TestReconcileAfterDDL(t *testing.T) {
	s := servertest.New(t, servertest.Options{})
	mustExec(t, s, "CREATE DATABASE d", "CREATE DATABASE e")
	for _, name := range []string{"same", "renamed", "moved", "swap1", "swap2", "truncated", "dropped", "rebuilt", "recreated", "tä ble"} {
		mustExec(t, s, fmt.Sprintf("CREATE TABLE d.`%s` (a INT PRIMARY KEY, b VARCHAR(100)) ENGINE=InnoDB", name),
			fmt.Sprintf("INSERT INTO d.`%s` SELECT seq, '%s' FROM d.seq_1_to_100", name, name))
	}
	flush := func() {
		t.Helper()
		names, err := s.String(t.Context(), "SELECT GROUP_CONCAT('`', TABLE_SCHEMA, '`.`', TABLE_NAME, '`') FROM information_schema.TABLES WHERE TABLE_SCHEMA IN ('d', 'e') AND TABLE_TYPE = 'BASE TABLE'")
		if err != nil {
			t.Fatal(err)
		}
		mustExec(t, s, "FLUSH TABLES "+names+" FOR EXPORT", "UNLOCK TABLES")
	}
	flush()
	sink := newDirSink(t)
	c := &chunker.Copier{Sink: sink, PageSize: pageSize}
	before := spaces(t, s)
	listed := append(slices.Clone(before), chunker.File{Abs: filepath.Join(s.Datadir(), "d", "gone.ibd"), Rel: "d/gone.ibd", Kind: format.KindTablespace, Table: "d.gone"})
	copied, err := c.CopyInnoDB(t.Context(), listed)
	if err != nil {
		t.Fatal(err)
	}

	mustExec(t, s,
		"RENAME TABLE d.renamed TO d.`näw`", "RENAME TABLE d.moved TO e.moved",
		"RENAME TABLE d.swap1 TO d.x, d.swap2 TO d.swap1, d.x TO d.swap2",
		"TRUNCATE TABLE d.truncated", "DROP TABLE d.dropped", "ALTER TABLE d.rebuilt FORCE",
		"DROP TABLE d.recreated", "CREATE TABLE d.recreated (a INT PRIMARY KEY) ENGINE=InnoDB",
		"CREATE TABLE d.created (a INT PRIMARY KEY) ENGINE=InnoDB",
		"UPDATE d.same SET b = 'written'",
	)
	flush()
	mustExec(t, s, "BACKUP STAGE START", "BACKUP STAGE BLOCK_DDL") // ends with the connection; no DDL comes
	now := spaces(t, s)
	plan := chunker.Reconcile(copied, now, nil, nil)

	var again []string
	for _, f := range plan.Copy {
		again = append(again, f.Rel)
	}
	slices.Sort(again)
	if want := []string{"d/created.ibd", "d/rebuilt.ibd", "d/recreated.ibd", "d/truncated.ibd"}; !slices.Equal(again, want) {
		t.Errorf("to copy: %v, want %v", again, want)
	}
	if len(plan.Discard) != 4 { // truncated, dropped, rebuilt, recreated
		t.Errorf("discarded: %v", plan.Discard)
	}
	second, err := c.CopyInnoDB(t.Context(), plan.Copy)
	if err != nil {
		t.Fatal(err)
	}
	checkAgainstDisk(t, s, sink, slices.Concat(plan.Keep, second), now)
	if i := slices.IndexFunc(now, func(f chunker.File) bool { return strings.HasPrefix(f.Rel, "d/n@") }); i < 0 || now[i].Table != "d.näw" {
		t.Errorf("no table d.näw in %v", now)
	}
}

// checkAgainstDisk checks that the copies are the files that exist, under their
// names, and that each is of the tablespace that has the name now.
func checkAgainstDisk(t *testing.T, s *servertest.Server, sink *dirSink, final []chunker.Result, now []chunker.File) {
	t.Helper()
	if len(final) != len(now) {
		t.Errorf("%d files in the end, %d exist", len(final), len(now))
	}
	byPath := map[string]chunker.Result{}
	for _, r := range final {
		byPath[r.Entry.Path] = r
	}
	for _, f := range now {
		r, ok := byPath[f.Rel]
		if !ok {
			t.Errorf("%s is missing", f.Rel)
			continue
		}
		disk, err := os.ReadFile(f.Abs)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(sink.path(r.Entry.No))
		if err != nil {
			t.Fatal(err)
		}
		if innodb.FSPSpaceID(data) != innodb.FSPSpaceID(disk) || innodb.FSPSpaceID(data) != r.Entry.Space.ID {
			t.Errorf("%s: space %d, on disk %d, reported %d", f.Rel, innodb.FSPSpaceID(data), innodb.FSPSpaceID(disk), r.Entry.Space.ID)
		}
		if r.Entry.Source != f.Source {
			t.Errorf("%s: source %q", f.Rel, r.Entry.Source)
		}
	}
}

// TestImportIsCopiedAgain: DISCARD and IMPORT keep the space id and leave
// nothing of the new pages in the redo log.
func TestImportIsCopiedAgain(t *testing.T) {
	s := servertest.New(t, servertest.Options{})
	mustExec(t, s, "CREATE DATABASE d", "CREATE TABLE d.t (a INT PRIMARY KEY) ENGINE=InnoDB",
		"INSERT INTO d.t SELECT seq FROM d.seq_1_to_100")
	ibd := filepath.Join(s.Datadir(), "d", "t.ibd")
	var saved []byte
	withExport(t, s, func() {
		var err error
		if saved, err = os.ReadFile(ibd); err != nil {
			t.Fatal(err)
		}
	})
	c := &chunker.Copier{Sink: newDirSink(t), PageSize: pageSize}
	copied, err := c.CopyInnoDB(t.Context(), spaces(t, s))
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, s, "ALTER TABLE d.t DISCARD TABLESPACE")
	if err := os.WriteFile(ibd, saved, 0o660); err != nil {
		t.Fatal(err)
	}
	mustExec(t, s, "ALTER TABLE d.t IMPORT TABLESPACE")
	now := spaces(t, s)
	i := slices.IndexFunc(now, func(f chunker.File) bool { return f.Rel == "d/t.ibd" })
	plan := chunker.Reconcile(copied, now, map[format.SpaceID]bool{now[i].SpaceID: true}, nil)
	if len(plan.Copy) != 1 || plan.Copy[0].Rel != "d/t.ibd" || len(plan.Discard) != 1 {
		t.Errorf("copy %v, discard %v", plan.Copy, plan.Discard)
	}
}

// TestImportOfADiscardedTableIsCopiedAgain: where DISCARD was before the backup
// and the file already lay in its place, nothing on disk tells the table before
// IMPORT from the one after it: same id, same inode. The dictionary does.
func TestImportOfADiscardedTableIsCopiedAgain(t *testing.T) {
	s := servertest.New(t, servertest.Options{})
	mustExec(t, s, "CREATE DATABASE d", "CREATE TABLE d.t (a INT PRIMARY KEY) ENGINE=InnoDB",
		"INSERT INTO d.t SELECT seq FROM d.seq_1_to_100")
	ibd := filepath.Join(s.Datadir(), "d", "t.ibd")
	withExport(t, s, func() {
		if err := os.Link(ibd, ibd+".kept"); err != nil {
			t.Fatal(err)
		}
	})
	mustExec(t, s, "ALTER TABLE d.t DISCARD TABLESPACE")
	if err := os.Rename(ibd+".kept", ibd); err != nil {
		t.Fatal(err)
	}
	const discarded = "SELECT GROUP_CONCAT(SPACE) FROM information_schema.INNODB_SYS_TABLES WHERE SPACE <> 0 AND SPACE NOT IN (SELECT SPACE FROM information_schema.INNODB_SYS_TABLESPACES)"
	ids, err := s.String(t.Context(), discarded)
	if err != nil {
		t.Fatal(err)
	}
	id, err := strconv.ParseUint(ids, 10, 32)
	if err != nil {
		t.Fatalf("tables without tablespace: %q", ids)
	}
	c := &chunker.Copier{Sink: newDirSink(t), PageSize: pageSize}
	copied, err := c.CopyInnoDB(t.Context(), spaces(t, s))
	if err != nil {
		t.Fatal(err)
	}
	lsn, err := s.String(t.Context(), "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'Innodb_lsn_current'")
	if err != nil {
		t.Fatal(err)
	}
	start, err := strconv.ParseUint(lsn, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	ruledOut := func(when string, want bool) {
		t.Helper()
		for _, f := range spaces(t, s) {
			if f.Rel == "d/t.ibd" && f.NotImportedSince(format.LSN(start)) != want {
				t.Errorf("%s: page 0 has LSN %v, the server was at %v: an import is ruled out: %v", when, f.HeadLSN, start, !want)
			}
		}
	}
	ruledOut("before the import", true)
	mustExec(t, s, "ALTER TABLE d.t IMPORT TABLESPACE")
	ruledOut("after the import", false)
	now := spaces(t, s)
	if p := chunker.Reconcile(copied, now, nil, nil); len(p.Copy) != 0 {
		t.Errorf("the files alone tell the import: %v; the query is not needed", p.Copy)
	}
	p := chunker.Reconcile(copied, now, map[format.SpaceID]bool{format.SpaceID(id): true}, nil)
	if len(p.Copy) != 1 || p.Copy[0].Rel != "d/t.ibd" {
		t.Errorf("to copy: %v", p.Copy)
	}
}

func withExport(t *testing.T, s *servertest.Server, fn func()) {
	t.Helper()
	conn, err := s.DB().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i, q := range []string{"FLUSH TABLES d.t FOR EXPORT", "UNLOCK TABLES"} {
		if _, err := conn.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			fn()
		}
	}
}

// TestCopyOtherFiles copies what is not InnoDB and finds by signature what was
// written since.
func TestCopyOtherFiles(t *testing.T) {
	s := servertest.New(t, servertest.Options{})
	mustExec(t, s, "CREATE DATABASE d", "CREATE TABLE d.m (a INT) ENGINE=MyISAM", "CREATE TABLE d.n (a INT) ENGINE=MyISAM",
		"INSERT INTO d.m SELECT seq FROM d.seq_1_to_100000", "FLUSH TABLES")
	find := func() []chunker.File {
		t.Helper()
		files, err := discoverer(s).Others(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if files, err = chunker.ReadSignatures(t.Context(), files); err != nil {
			t.Fatal(err)
		}
		return files
	}
	files := find()
	// What was just made cannot be told from what is being made.
	age(t, files)
	sink := newDirSink(t)
	var total atomic.Int64
	c := &chunker.Copier{Sink: sink, Progress: func(n int64) { total.Add(n) }}
	results, err := c.CopyFiles(t.Context(), find())
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, s, "INSERT INTO d.n VALUES (1)", "FLUSH TABLES")
	now := map[string]chunker.Signature{}
	for _, f := range find() {
		now[f.Rel] = f.Signature
	}
	var size int64
	for _, r := range results {
		size += r.Entry.Size
		if strings.HasPrefix(r.File.Rel, "aria_log") {
			continue // written or not, at the server's will
		}
		written := strings.HasPrefix(r.File.Rel, "d/n.MY")
		if got := r.Unchanged(now[r.File.Rel]); got == written {
			t.Errorf("%s: unchanged is %v", r.File.Rel, got)
		}
		if written {
			continue
		}
		disk, err := os.ReadFile(r.File.Abs)
		if err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(sink.path(r.Entry.No)); err != nil || string(data) != string(disk) {
			t.Errorf("%s: the copy is not the file (%v)", r.File.Rel, err)
		}
	}
	if total.Load() != size {
		t.Errorf("progress of %d bytes in %d", total.Load(), size)
	}
}

// age waits until the files have not been written for long enough that a copy
// of them can be trusted. The change time of a file cannot be set.
func age(t *testing.T, files []chunker.File) {
	t.Helper()
	var newest int64
	for _, f := range files {
		newest = max(newest, f.Signature.Ctime, f.Signature.Mtime)
	}
	time.Sleep(time.Until(time.Unix(0, newest).Add(2100 * time.Millisecond)))
}

func BenchmarkReadSpaces(b *testing.B) {
	dir := b.TempDir()
	files := make([]chunker.File, 20000)
	page := make([]byte, pageSize)
	for i := range files {
		page[37], page[36], page[35] = byte(i+1), byte((i+1)>>8), byte((i+1)>>16)
		copy(page[38:], page[34:38])
		files[i].Abs = filepath.Join(dir, strconv.Itoa(i)+".ibd")
		if err := os.WriteFile(files[i].Abs, page, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		now, err := chunker.ReadSpaces(b.Context(), files)
		if err != nil || len(now) != len(files) || now[19999].SpaceID != 20000 {
			b.Fatal(len(now), err)
		}
	}
}
