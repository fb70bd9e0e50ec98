package innodb_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/servertest"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

var algorithms = []string{"zlib", "lz4", "lzo", "lzma", "bzip2", "snappy"}

// TestPagesOfServers has real servers write tablespaces of every kind and
// checks every page of every file.
func TestPagesOfServers(t *testing.T) {
	for _, size := range []int{4, 8, 16, 32, 64} {
		t.Run(fmt.Sprintf("%dK", size), func(t *testing.T) { testPages(t, size<<10, "full_crc32") })
	}
}

// TestPagesOfAnOldSystemTablespace does the same where the system tablespace
// and the undo tablespaces have the format before full_crc32.
func TestPagesOfAnOldSystemTablespace(t *testing.T) { testPages(t, 16<<10, "crc32") }

func testPages(t *testing.T, pageSize int, sum string) {
	dir := install(t, pageSize, sum)
	s := servertest.NewOn(t, dir, servertest.Options{PageSize: pageSize, Args: cryptArgs(t)})
	if f := readFormat(t, filepath.Join(dir, "ibdata1")); f.FullCRC32 != (sum == "full_crc32") || f.Physical != pageSize {
		t.Fatalf("the system tablespace has format %+v", f)
	}
	checkServer(t, s, pageSize)
}

// install makes a data directory with undo tablespaces.
func install(t *testing.T, pageSize int, sum string) string {
	dir := filepath.Join(t.TempDir(), "data")
	args := []string{"--no-defaults", "--datadir=" + dir, "--tmpdir=" + t.TempDir(), "--auth-root-authentication-method=normal", "--skip-test-db",
		"--innodb-log-file-size=8M", "--innodb-undo-tablespaces=3", "--innodb-page-size=" + strconv.Itoa(pageSize), "--innodb-checksum-algorithm=" + sum}
	if os.Getuid() == 0 {
		args = append(args, "--user=root")
	}
	if out, err := exec.CommandContext(t.Context(), "mariadb-install-db", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// cryptArgs loads the key file plugin and the compression providers.
func cryptArgs(t *testing.T) []string {
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("1;"+strings.Repeat("a1b2c3d4", 8)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--innodb-undo-tablespaces=3", "--plugin-load-add=file_key_management", "--loose-file-key-management-filename=" + keys}
	for _, a := range algorithms[1:] {
		args = append(args, "--plugin-load-add=provider_"+a)
	}
	return args
}

func checkServer(t *testing.T, s *servertest.Server, pageSize int) {
	makeTables(t, s, pageSize)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	tally := map[string]int{}
	for _, path := range innodbFiles(t, s.Datadir()) {
		checkFile(t, path, tally)
	}
	t.Logf("pages: %v", tally)
	checkBlocks(t, pageSize, tally)
	for _, kind := range wantKinds(pageSize) {
		if tally[kind] == 0 {
			t.Errorf("no page of kind %q was seen", kind)
		}
	}
}

// wantKinds lists what the tally must have, lest the test pass for want of
// pages.
func wantKinds(pageSize int) []string {
	kinds := []string{"full plain", "old plain", "full encrypted", "old encrypted", "full compressed encrypted", "old compressed encrypted"}
	for _, a := range []string{"zlib", "lz4", "lzo", "lzma", "bzip2", "snappy"} {
		kinds = append(kinds, "full compressed "+a, "old compressed "+a)
	}
	if pageSize <= 16<<10 {
		kinds = append(kinds, "zip plain", "zip encrypted")
	}
	return kinds
}

// makeTables creates one table of each kind in each checksum format.
func makeTables(t *testing.T, s *servertest.Server, pageSize int) {
	ctx := t.Context()
	exec := func(format string, args ...any) {
		t.Helper()
		if err := s.Exec(ctx, fmt.Sprintf(format, args...)); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE DATABASE d")
	table := func(name, options string) {
		t.Helper()
		exec("CREATE TABLE d.%s (a INT PRIMARY KEY, b VARCHAR(300), c BLOB, KEY(b(20))) ENGINE=InnoDB %s", name, options)
		exec("INSERT INTO d.%s SELECT seq, CONCAT(MD5(seq), REPEAT('x', seq MOD 250)), IF(seq MOD 50 = 0, REPEAT(MD5(seq), 500), NULL) FROM d.seq_1_to_1500", name)
		exec("DELETE FROM d.%s WHERE a MOD 7 = 0", name)
		// Pages are compressed when they are written, with the algorithm of
		// that moment.
		if err := s.Exec(ctx, "FLUSH TABLES d."+name+" FOR EXPORT", "UNLOCK TABLES"); err != nil {
			t.Fatal(err)
		}
	}
	for _, sum := range []string{"full_crc32", "crc32"} {
		exec("SET GLOBAL innodb_checksum_algorithm=%s", sum)
		for _, row := range []string{"DYNAMIC", "COMPACT", "REDUNDANT"} {
			table(sum+"_"+row, "ROW_FORMAT="+row)
		}
		for _, a := range algorithms {
			exec("SET GLOBAL innodb_compression_algorithm=%s", a)
			table(sum+"_"+a, "PAGE_COMPRESSED=1")
		}
		exec("SET GLOBAL innodb_compression_algorithm=zlib")
		table(sum+"_crypt", "ENCRYPTED=YES")
		table(sum+"_crypt_compressed", "ENCRYPTED=YES PAGE_COMPRESSED=1")
		exec("CREATE TABLE d.%s_geo (a INT PRIMARY KEY, g POINT NOT NULL, SPATIAL KEY(g)) ENGINE=InnoDB", sum)
		exec("INSERT INTO d.%s_geo SELECT seq, POINT(seq, seq MOD 100) FROM d.seq_1_to_2000", sum)
	}
	for kb := 1; kb <= pageSize>>10 && pageSize <= 16<<10; kb *= 2 {
		// A small key block needs small rows.
		exec("CREATE TABLE d.zip%d (a INT PRIMARY KEY, b VARCHAR(60), KEY(b(20))) ENGINE=InnoDB ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=%d", kb, kb)
		exec("INSERT INTO d.zip%d SELECT seq, MD5(seq) FROM d.seq_1_to_2000", kb)
	}
	if pageSize <= 16<<10 {
		table("zip_crypt", fmt.Sprintf("ENCRYPTED=YES ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=%d", min(4, pageSize>>10)))
	}
}

func innodbFiles(t *testing.T, dir string) []string {
	var files []string
	for _, pattern := range []string{"ibdata*", "undo*", "*/*.ibd"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("no %s in %s (%v)", pattern, dir, err)
		}
		files = append(files, found...)
	}
	return files
}

func readFormat(t *testing.T, path string) innodb.PageFormat {
	t.Helper()
	return parseFormat(t, readFile(t, path))
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func parseFormat(t *testing.T, data []byte) innodb.PageFormat {
	t.Helper()
	f, err := innodb.ParseFlags(innodb.Flags(data))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func checkFile(t *testing.T, path string, tally map[string]int) {
	data := readFile(t, path)
	f := parseFormat(t, data)
	if want := strings.Contains(filepath.Base(path), "crypt"); isEncrypted(f, data) != want {
		t.Errorf("%s: encrypted is %v", path, !want)
	}
	random := rand.New(rand.NewPCG(1, uint64(len(data))))
	skip := doublewrite(t, path, f, data)
	for no := 0; (no+1)*f.Physical <= len(data); no++ {
		page := data[no*f.Physical:][:f.Physical]
		if skip(format.PageNo(no)) {
			continue
		}
		if err := f.Verify(page, format.PageNo(no)); err != nil {
			t.Fatalf("%s (flags %#x): %v", path, innodb.Flags(data), err)
		}
		kind := pageKind(t, f, page)
		tally[kind]++
		checkCompress(t, path, f, page, tally)
		clear(page[f.Used(page):]) // padding
		if err := f.Verify(page, format.PageNo(no)); err != nil {
			t.Fatalf("%s without padding: %v", path, err)
		}
		if random.IntN(20) == 0 && kind != "zero" {
			flipBytes(t, path, f, page, format.PageNo(no), random)
			checkSeal(t, path, f, page, format.PageNo(no), kind)
		}
	}
}

func isEncrypted(f innodb.PageFormat, page0 []byte) bool {
	c, ok := f.CryptData(page0[:f.Physical])
	return ok && c.Encrypted()
}

// doublewrite returns which pages of a file are the doublewrite buffer, and
// checks that the system tablespace says where it is.
func doublewrite(t *testing.T, path string, f innodb.PageFormat, data []byte) func(format.PageNo) bool {
	if filepath.Base(path) != "ibdata1" {
		return func(format.PageNo) bool { return false }
	}
	trx := data[int(innodb.TrxSysPage)*f.Physical:][:f.Physical]
	ranges, ok := f.DoublewriteRange(trx)
	if !ok || ranges[0].First == 0 || ranges[1].First != ranges[0].First+format.PageNo(ranges[0].Count) {
		t.Fatalf("%s: doublewrite areas %v, %v", path, ranges, ok)
	}
	return func(no format.PageNo) bool { return ranges[0].Contains(no) || ranges[1].Contains(no) }
}

func pageKind(t *testing.T, f innodb.PageFormat, page []byte) string {
	age := "full "
	switch {
	case f.Zip:
		age = "zip "
	case !f.FullCRC32:
		age = "old "
	}
	switch compressed, encrypted := f.Compressed(page), f.PageEncrypted(page); {
	case innodb.IsZero(page):
		return "zero"
	case compressed && encrypted:
		return age + "compressed encrypted"
	case encrypted:
		return age + "encrypted"
	case compressed:
		return age + "compressed " + expand(t, f, page)
	}
	return age + "plain"
}

// expand checks that a compressed page expands to a page with the same header
// and returns the name of its algorithm.
func expand(t *testing.T, f innodb.PageFormat, page []byte) string {
	t.Helper()
	dst := make([]byte, f.Logical)
	if err := f.Decompress(dst, page); err != nil {
		t.Fatal(err)
	}
	if innodb.PageNo(dst) != innodb.PageNo(page) || innodb.LSN(dst) != innodb.LSN(page) {
		t.Errorf("page %d lsn %d expands to page %d lsn %d", innodb.PageNo(page), innodb.LSN(page), innodb.PageNo(dst), innodb.LSN(dst))
	}
	plain := f
	plain.Seal(dst)
	if err := f.Verify(dst, innodb.PageNo(page)); err != nil {
		t.Errorf("expanded and sealed: %v", err)
	}
	if f.FullCRC32 {
		return algorithms[f.Algorithm-1]
	}
	return algorithms[page[33]-1]
}

// flipBytes checks that no byte of what the checksum covers can change
// unnoticed.
func flipBytes(t *testing.T, path string, f innodb.PageFormat, page []byte, no format.PageNo, random *rand.Rand) {
	covered := func(i int) bool {
		switch {
		case f.FullCRC32:
			return i < f.Used(page)
		case f.Zip:
			return i >= 4 && i < 16 || i == 24 || i == 25 || i >= 34
		case f.PageEncrypted(page):
			return i >= 4 && i < 26 || i >= 38 && i < f.Physical-8 && i < f.Used(page)
		case f.Compressed(page):
			return i >= 4 && i < 26 || i >= 34 && i < f.Used(page) && i < f.Physical-8
		}
		return i >= 4 && i < 26 || i >= 38 && i < f.Physical-8
	}
	page = slices.Clone(page)
	offsets := []int{0, 3, 4, 7, 16, 23, 24, 26, 33, 34, 37, 38, 40, f.Used(page) - 1, len(page) - 9, len(page) - 8, len(page) - 4, len(page) - 1}
	for range 40 {
		offsets = append(offsets, random.IntN(f.Used(page)))
	}
	for _, i := range offsets {
		if !covered(i) {
			continue
		}
		mask := byte(1 << random.IntN(8))
		page[i] ^= mask
		if f.Verify(page, no) == nil && !expandsAlike(f, page, i, mask) {
			t.Errorf("%s page %d: byte %d ^ %#x goes unnoticed", path, no, i, mask)
		}
		page[i] ^= mask
	}
	if f.Verify(page, no+1) == nil {
		t.Errorf("%s page %d passes for page %d", path, no, no+1)
	}
}

// expandsAlike says whether a page_compressed page before full_crc32 expands to
// the same bytes before and after the flip: the stream has no checksum of the
// page's, and more than one stream may stand for the same page.
func expandsAlike(f innodb.PageFormat, page []byte, i int, mask byte) bool {
	if f.FullCRC32 || !f.Compressed(page) || f.PageEncrypted(page) {
		return false
	}
	flipped, original := make([]byte, f.Logical), make([]byte, f.Logical)
	err := f.Decompress(flipped, page)
	page[i] ^= mask
	defer func() { page[i] ^= mask }()
	if err != nil || f.Decompress(original, page) != nil {
		return false
	}
	for _, p := range [][]byte{flipped, original} {
		clear(p[26:34]) // no checksum covers them
	}
	return slices.Equal(flipped, original)
}

// checkSeal checks that Seal makes the same page of a plain one as the server.
func checkSeal(t *testing.T, path string, f innodb.PageFormat, page []byte, no format.PageNo, kind string) {
	if !strings.HasSuffix(kind, " plain") {
		return
	}
	sealed := slices.Clone(page)
	for _, i := range []int{0, len(page) - 8, len(page) - 4} {
		if !f.Zip && (i != 0 || !f.FullCRC32) || i == 0 && f.Zip {
			copy(sealed[i:], "wipe")
		}
	}
	f.Seal(sealed)
	if !slices.Equal(sealed, page) {
		t.Errorf("%s page %d (%s): Seal makes another page than the server", path, no, strconv.Quote(kind))
	}
}
