package e2e

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/internal/servertest"
)

// This file has the servers of MySQL with encrypted tablespaces.

// keyring is the release with a keyring of its own, which holds the keys of another
// if that is given: so it is on the machine of a copy.
func keyring(t *testing.T, r servertest.Release, of *servertest.Release) servertest.Release {
	t.Helper()
	keys, err := r.WithKeys(t.TempDir())
	check(t, err)
	if of != nil {
		text, err := os.ReadFile(of.KeyFile())
		check(t, err)
		check(t, os.WriteFile(keys.KeyFile(), text, 0o600))
	}
	return keys
}

// withServer are the arguments of xbstream that recover with a server of a release
// WithKeys.
func withServer(keys servertest.Release) []string {
	return []string{"--with-server=" + keys.Command("mysqld"), "--server-option=" + keys.PluginDir()[2:]}
}

// encryptedMySQL starts a server all of whose tablespaces are encrypted that can be,
// but for some of the database shop, under load.
func encryptedMySQL(t *testing.T, r servertest.Release) (source *servertest.Server) {
	t.Helper()
	keys := keyring(t, r, nil)
	source = servertest.New(t, servertest.Options{
		Release: keys, LogFileSize: 96 << 20, LogBin: true, TCP: true, Install: []string{keys.PluginDir()},
		Args: []string{keys.PluginDir()},
	})
	ctx := t.Context()
	check(t, source.Exec(ctx, "CREATE UNDO TABLESPACE more ADD DATAFILE 'more.ibu'"))
	check(t, source.CreateSchema(ctx, cryptLoad))
	encryptTables(t, source)
	check(t, source.Exec(ctx, "CREATE DATABASE shop DEFAULT ENCRYPTION='N'",
		"CREATE TABLESPACE shared ADD DATAFILE 'shared.ibd' ENCRYPTION='N'", "CREATE TABLESPACE hidden ADD DATAFILE 'hidden.ibd' ENCRYPTION='Y'"))
	for table, options := range map[string]string{
		"plain": "", "secret": "ENCRYPTION='Y'", "within": "TABLESPACE shared", "inside": "TABLESPACE hidden ENCRYPTION='Y'",
		"zip": "ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4 ENCRYPTION='Y'", "both": "COMPRESSION='zlib' ENCRYPTION='Y'",
	} {
		check(t, source.Exec(ctx, "CREATE TABLE shop."+table+rows+options, numbered("shop."+table)))
	}
	return source
}

// P1: encrypted tablespaces of every kind are recovered by a server with the keys,
// whatever happens to the encryption while they are backed up.
func TestMySQLEncryptedCopyFollowsSource(t *testing.T) {
	for _, r := range servertest.MySQLReleases(t) {
		source := encryptedMySQL(t, r)
		for _, c := range []struct {
			name, event string
			then        []string
			long        bool // runs with XB_REPEAT only
		}{
			{"turned on early", "tablespaces-listed", append(turn("Y", "ON"), "ALTER INSTANCE ROTATE INNODB MASTER KEY"), true},
			{"as it is", "", nil, true},
			{"off and on again", "stage-flush", append(turn("N", "OFF"), turn("Y", "ON")...), false},
			{"turned off early", "tablespaces-listed", turn("N", "OFF"), true},
			{"turned on late", "stage-flush", turn("Y", "ON"), true},
			{"another master key", "stage-flush", []string{"ALTER INSTANCE ROTATE INNODB MASTER KEY"}, true},
			{"turned off late", "stage-flush", turn("N", "OFF"), true},
		} {
			if c.long && os.Getenv("XB_REPEAT") == "" {
				continue
			}
			t.Run(c.name+"/"+r.String(), func(t *testing.T) { encryptedCopy(t, source, c.event, c.then) })
		}
	}
}

// turn encrypts tablespaces, or decrypts them.
func turn(tables, undo string) []string {
	return []string{
		"ALTER TABLE shop.plain ENCRYPTION='" + tables + "'", "ALTER TABLESPACE shared ENCRYPTION='" + tables + "'",
		"ALTER TABLESPACE mysql ENCRYPTION='" + tables + "'", "SET GLOBAL innodb_undo_log_encrypt=" + undo,
	}
}

func encryptedCopy(t *testing.T, source *servertest.Server, when string, then []string) {
	ctx := t.Context()
	load, err := source.StartLoad(ctx, cryptLoad)
	check(t, err)
	rest := keepBusy(t, source, cryptChanges())
	if when != "" {
		execAt(t, source, when, then...)
	}
	dir := filepath.Join(t.TempDir(), "copy")
	archive := filepath.Join(t.TempDir(), "crypt.xb")
	sendTo(t, archive, source)
	check(t, rest())
	_, err = load.Stop()
	check(t, err)
	of := source.Release()
	keys := keyring(t, servertest.MySQL97, &of)
	receive(t, slices.Concat([]string{"-x", "--prepare", "-C", dir}, withServer(keys), []string{archive})...)
	copied := startCopyOn(t, keys, dir, keys.PluginDir())
	gtid, err := servertest.RecordedGTID(dir)
	check(t, err)
	check(t, copied.AttachReplica(ctx, source, gtid))
	compareCopy(t, source, copied, "")
}

// execAt has statements executed whenever a backup comes to an event of its test seam.
func execAt(t *testing.T, s *servertest.Server, when string, statements ...string) {
	t.Helper()
	hooked(t, "none/none", func(event, _ string) error {
		if event != when {
			return nil
		}
		return s.Exec(t.Context(), statements...)
	})
}

var cryptLoad = servertest.LoadOptions{Rate: 300}

func cryptChanges() (list []string) {
	for _, table := range []string{"plain", "secret", "within", "inside", "zip", "both"} {
		list = append(list, change("shop."+table))
	}
	return list
}

// encryptTables encrypts all tables of InnoDB that have files of their own.
func encryptTables(t *testing.T, s *servertest.Server) {
	t.Helper()
	list, err := s.String(t.Context(), `SELECT JSON_ARRAYAGG(CONCAT('ALTER TABLE ', sys.quote_identifier(TABLE_SCHEMA), '.', sys.quote_identifier(TABLE_NAME), " ENCRYPTION='Y'"))
		FROM information_schema.TABLES WHERE ENGINE = 'InnoDB' AND TABLE_SCHEMA NOT IN ('mysql', 'sys')`)
	check(t, err)
	var statements []string
	check(t, json.Unmarshal([]byte(list), &statements))
	check(t, s.Exec(t.Context(), statements...))
}

// keyed starts a server with a keyring and two encrypted tables, one of them in a general
// tablespace, with further arguments and statements.
func keyed(t *testing.T, r servertest.Release, args []string, more ...string) *servertest.Server {
	t.Helper()
	keys := keyring(t, r, nil)
	source := servertest.New(t, servertest.Options{Release: keys, Args: append(args, keys.PluginDir()), Install: []string{keys.PluginDir()}})
	check(t, source.Exec(t.Context(), slices.Concat([]string{"CREATE DATABASE shop", "CREATE TABLE shop.t" + rows + "ENCRYPTION='Y'", numbered("shop.t"),
		"CREATE TABLESPACE hidden ADD DATAFILE 'hidden.ibd' ENCRYPTION='Y'", "CREATE TABLE shop.inside" + rows + "TABLESPACE hidden ENCRYPTION='Y'", numbered("shop.inside")}, more)...))
	return source
}

// prepareFails runs xbstream, which must fail with a code and say something.
func prepareFails(t *testing.T, code int, want []string, args ...string) {
	t.Helper()
	_, xbstream := binaries(t)
	ctx, cancel := context.WithTimeout(t.Context(), pipelineTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, xbstream, args...).CombinedOutput()
	if got := exitCode(t, err); got != code {
		t.Errorf("xbstream %q: exit code %d, want %d\n%s", args, got, code, out)
	}
	for _, w := range want {
		if !strings.Contains(string(out), w) {
			t.Errorf("xbstream %q does not say %q:\n%s", args, w, out)
		}
	}
	t.Logf("%.1500s", out)
}

// P4, P10: only a server with the keys recovers encrypted tablespaces, and what lacks
// them says so. Then the copy is as it was.
func TestMySQLEncryptedCopyNeedsItsKeys(t *testing.T) {
	onMySQL(t, needsItsKeys)
}

func needsItsKeys(t *testing.T, r servertest.Release) {
	source := keyed(t, r, nil)
	execAt(t, source, "stage-flush", "UPDATE shop.t SET b = REPEAT('x', 310)", "UPDATE shop.inside SET b = REPEAT('y', 310)") // redo for pages that were copied
	dir := t.TempDir()
	archive, copied, torn := filepath.Join(dir, "crypt.xb"), filepath.Join(dir, "copy"), filepath.Join(dir, "torn")
	sendTo(t, archive, source)
	receive(t, "-x", "-C", copied, archive)
	for _, what := range []string{archive, copied} {
		if said := receive(t, "verify", what); !strings.Contains(said, "encrypted pages not checked") {
			t.Errorf("verify: %s", said)
		}
	}
	of := source.Release()
	keys := keyring(t, r, &of)
	prepareFails(t, exitPrepare, []string{".ibd (space ", "encrypted", "--with-server"}, "prepare", copied)
	prepareFails(t, exitPrepare, []string{"server recovery failed"}, "prepare", "--with-server="+r.Command("mysqld"), copied)
	prepareFails(t, exitPrepare, []string{"server recovery failed"}, slices.Concat([]string{"prepare"}, withServer(keyring(t, r, nil)), []string{copied})...)
	receive(t, slices.Concat([]string{"prepare"}, withServer(keys), []string{copied})...)
	mustAnswer(t, startCopyOn(t, keys, copied, keys.PluginDir()), map[string]string{
		"SELECT COUNT(*) FROM shop.t WHERE b = REPEAT('x', 310)":      "3000",
		"SELECT COUNT(*) FROM shop.inside WHERE b = REPEAT('y', 310)": "3000",
	})

	// A page that was torn when it was copied does not pass.
	receive(t, "-x", "-C", torn, archive)
	tearEncrypted(t, filepath.Join(torn, "shop", "t.ibd"))
	receive(t, "verify", torn)
	prepareFails(t, exitPrepare, []string{"server recovery failed", "it found a damaged page", "page corruption"}, slices.Concat([]string{"prepare"}, withServer(keys), []string{torn})...)

	// What a partial backup needs, makes a server pass over what it has no key for. The
	// directory is not to be taken for a good one afterwards.
	other := slices.Concat([]string{"prepare", "--server-option=innodb-force-recovery=1"}, withServer(keyring(t, r, nil)), []string{torn})
	prepareFails(t, exitPrepare, []string{"right keyring", "extract the backup again"}, other...)
	prepareFails(t, exitPrepare, nil, slices.Concat([]string{"prepare"}, withServer(keys), []string{torn})...)
}

// tearEncrypted replaces the second half of an encrypted page by that of another.
func tearEncrypted(t *testing.T, name string) {
	t.Helper()
	const page = 16 << 10
	b, err := os.ReadFile(name)
	check(t, err)
	var at []int
	for off := 0; off < len(b); off += page {
		if binary.BigEndian.Uint16(b[off+24:]) == 15 {
			at = append(at, off)
		}
	}
	if len(at) < 10 {
		t.Fatalf("%s has %d encrypted pages", name, len(at))
	}
	copy(b[at[8]+page/2:][:page/2], b[at[7]+page/2:])
	check(t, os.WriteFile(name, b, 0o600))
}

// P10: an encrypted redo log is refused: before a byte is sent if it is there, and
// before the end if it comes meanwhile.
func TestMySQLEncryptedRedoIsRefused(t *testing.T) {
	for _, r := range servertest.MySQLReleases(t) {
		t.Run(r.String(), func(t *testing.T) {
			source := keyed(t, r, nil)
			execAt(t, source, "stage-flush", "SET GLOBAL innodb_redo_log_encrypt=ON", "UPDATE shop.t SET b = 'x'")
			for _, sent := range []bool{true, false} { // it is ON the second time
				archive, said, code := xbsendOf(t, "--no-defaults", "--user=root", "--socket="+source.Socket())
				if code != exitServer || !strings.Contains(lastLine(said), "innodb_redo_log_encrypt") || len(archive) > 0 != sent {
					t.Errorf("exit code %d and %d bytes, want %d: %s", code, len(archive), exitServer, said)
				}
				check(t, unlocked(source))
			}
		})
	}
}

// P1: one encrypted table of a backup is restored, and imported elsewhere.
func TestMySQLEncryptedTableIsExported(t *testing.T) {
	onMySQL(t, encryptedExport)
}

func encryptedExport(t *testing.T, r servertest.Release) {
	source := keyed(t, r, nil, "CREATE TABLE shop.other"+rows+"ENCRYPTION='Y'", numbered("shop.other"))
	execAt(t, source, "stage-flush", "UPDATE shop.t SET b = REPEAT('x', 310)", "UPDATE shop.other SET b = REPEAT('y', 310)") // redo for pages that were copied
	dir := t.TempDir()
	archive, one := filepath.Join(dir, "crypt.xb"), filepath.Join(dir, "one")
	sendTo(t, archive, source)
	of := source.Release()
	export := slices.Concat([]string{"-x", "--only=shop.t", "--prepare", "--export", "-C", one, archive}, withServer(keyring(t, r, &of)))
	prepareFails(t, exitPrepare, []string{"--server-option=innodb-force-recovery=1"}, export...)
	receive(t, append(export, "--server-option=innodb-force-recovery=1")...)
	check(t, source.Exec(t.Context(), "TRUNCATE TABLE shop.t", "ALTER TABLE shop.t DISCARD TABLESPACE"))
	for _, end := range []string{".ibd", ".cfg", ".cfp"} {
		text, err := os.ReadFile(filepath.Join(one, "shop", "t"+end))
		check(t, err)
		check(t, os.WriteFile(filepath.Join(source.Datadir(), "shop", "t"+end), text, 0o660))
	}
	check(t, source.Exec(t.Context(), "ALTER TABLE shop.t IMPORT TABLESPACE"))
	mustAnswer(t, source, map[string]string{"SELECT COUNT(*) FROM shop.t WHERE b = REPEAT('x', 310)": "3000"})
}

// P10: the server that recovers encrypted tablespaces would look for a table with a
// DATA DIRECTORY where it is at the source.
func TestMySQLEncryptionElsewhereIsRefused(t *testing.T) {
	onMySQL(t, encryptionElsewhere)
}

func encryptionElsewhere(t *testing.T, r servertest.Release) {
	ctx := t.Context()
	far := t.TempDir()
	source := keyed(t, r, []string{"--innodb-directories=" + far})
	check(t, source.Exec(ctx, "CREATE TABLESPACE shared ADD DATAFILE 'shared.ibd' ENCRYPTION='N'", "CREATE TABLE shop.within"+rows+"TABLESPACE shared", numbered("shop.within"), "CREATE TABLE shop.far"+rows+"DATA DIRECTORY='"+far+"'"))
	refused := func(early bool) {
		t.Helper()
		archive, said, code := xbsendOf(t, "--no-defaults", "--user=root", "--socket="+source.Socket())
		if code != exitServer || !strings.Contains(lastLine(said), "DATA DIRECTORY ("+far) || !strings.Contains(lastLine(said), "is encrypted") || early != (len(archive) == 0) {
			t.Errorf("exit code %d and %d bytes, want %d: %s", code, len(archive), exitServer, said)
		}
		check(t, unlocked(source))
	}
	refused(true)
	check(t, source.Exec(ctx, "ALTER TABLE shop.t ENCRYPTION='N'", "ALTER TABLESPACE hidden ENCRYPTION='N'"))
	execAt(t, source, "tablespaces-listed", "ALTER TABLE shop.t ENCRYPTION='Y'")
	refused(false)
	check(t, source.Exec(ctx, "ALTER TABLE shop.t ENCRYPTION='N'"))

	// What is encrypted in place after it was copied needs no server: the redo has the
	// pages as they were. The copy needs the key.
	execAt(t, source, "stage-flush", "ALTER TABLESPACE shared ENCRYPTION='Y'", "UPDATE shop.within SET b = REPEAT('z', 310) WHERE a % 5 = 0")
	archive, dir := filepath.Join(t.TempDir(), "far.xb"), filepath.Join(t.TempDir(), "copy")
	sendTo(t, archive, source)
	xbstreamOf(t, "-x", "--prepare", "--verify", "-C", dir, archive)
	of := source.Release()
	keys := keyring(t, r, &of)
	mustAnswer(t, startCopyOn(t, keys, dir, keys.PluginDir()), map[string]string{
		"SELECT COUNT(*) FROM shop.within WHERE b = REPEAT('z', 310)":                                      "600",
		"SELECT COUNT(*) FROM shop.within WHERE b < 'z'":                                                   "2400",
		"SELECT COUNT(*) FROM shop.far":                                                                    "0",
		"SELECT GROUP_CONCAT(ENCRYPTION) FROM information_schema.INNODB_TABLESPACES WHERE NAME = 'shared'": "Y",
	})
}
