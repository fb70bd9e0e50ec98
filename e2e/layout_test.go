package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/internal/servertest"
)

// layout is one way to lay a server out. Functions left nil do nothing; dir is
// the test's own directory, for what lies outside of the data directory.
type layout struct {
	name string
	// release is the server's; the zero value is the usual one.
	release servertest.Release
	// long says that it is tested in make faults only.
	long bool
	// options are those of the source.
	options func(dir string) servertest.Options
	// fill adds what the layout is about.
	fill func(t *testing.T, source *servertest.Server, dir string)
	// busy are statements that are executed again and again during the backup.
	busy []string
	// still says that nothing writes during the backup and that the copy is
	// compared as it is, for a server without binary log.
	still bool
	// ready is called right before the backup.
	ready func(t *testing.T, source *servertest.Server)
	// prepare are further arguments of xbstream, copyArgs those a server
	// needs on the copy besides what its backup-my.cnf says.
	prepare, copyArgs func(dir string) []string
	// except is what may differ: beginnings of lines of the comparison.
	except string
	// look looks at what only this layout has.
	look func(t *testing.T, l *laidOut)

	// refused is what xbsend says instead of making a backup, as a regular
	// expression, and limit the words of the README's list of limits.
	refused, limit string
}

// laidOut is a layout that was backed up and restored.
type laidOut struct {
	source, copied *servertest.Server
	dir, target    string
	sent, received string // what the commands said
}

// P1 and P10 for every layout: the copy lies somewhere else, all of it in one
// directory, and a server that was told what backup-my.cnf says follows the
// source; or the layout is refused by name before anything is copied.
func TestLayouts(t *testing.T) {
	for _, l := range layouts() {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			l.test(t)
		})
	}
}

func layouts() []layout {
	return slices.Concat(directories, []layout{dataDirectories, mappedDirectories, oddNames, lowerCase, imported, leftovers},
		pageFormats, encryptedLayouts, modes)
}

func (l layout) test(t *testing.T) {
	ctx := t.Context()
	at := &laidOut{dir: t.TempDir()}
	at.target = filepath.Join(at.dir, "copy")
	var o servertest.Options
	if l.options != nil {
		o = l.options(at.dir)
	}
	if !l.still {
		o.LogBin, o.TCP = true, true
	}
	if l.release != (servertest.Release{}) {
		o.Release = l.release
	}
	at.source = servertest.New(t, o)
	options := servertest.LoadOptions{Rate: 300}
	check(t, at.source.CreateSchema(ctx, options))
	if l.fill != nil {
		l.fill(t, at.source, at.dir)
	}
	load, err := at.source.StartLoad(ctx, options)
	check(t, err)
	if l.still {
		_, err = load.Stop()
		check(t, err)
		check(t, at.source.StopEvents(ctx))
	}
	if l.ready != nil {
		l.ready(t, at.source)
	}
	rest := keepBusy(t, at.source, l.busy)
	if l.refused != "" {
		l.mustBeRefused(t, at.source)
		return
	}
	at.sent, at.received = pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + at.source.Socket()},
		append([]string{"xbstream", "-x", "--prepare", "-C", at.target}, of(l.prepare, at.dir)...))
	check(t, rest())
	at.copied = startCopyOn(t, at.source.Release(), at.target, of(l.copyArgs, at.dir)...)
	if !l.still {
		_, err = load.Stop()
		check(t, err)
		gtid, err := servertest.RecordedGTID(at.target)
		check(t, err)
		check(t, at.copied.AttachReplica(ctx, at.source, gtid))
	}
	compareCopy(t, at.source, at.copied, l.except)
	if l.look != nil {
		l.look(t, at)
	}
}

// keepBusy executes statements again and again until rest is called, and at least
// once.
func keepBusy(t *testing.T, s *servertest.Server, statements []string) (rest func() error) {
	ctx, stop := context.WithCancel(t.Context())
	var busy errgroup.Group
	if len(statements) > 0 {
		busy.Go(func() error {
			for {
				if err := s.Exec(context.WithoutCancel(ctx), statements...); err != nil || ctx.Err() != nil {
					return err
				}
			}
		})
	}
	rest = func() error {
		stop()
		return busy.Wait()
	}
	t.Cleanup(func() { _ = rest() }) // before the server's own
	return rest
}

func of(args func(string) []string, dir string) []string {
	if args == nil {
		return nil
	}
	return args(dir)
}

// mustBeRefused makes sure that no byte is sent, and that the reason is where
// users look for it.
func (l layout) mustBeRefused(t *testing.T, source *servertest.Server) {
	xbsend, _ := binaries(t)
	var out, log strings.Builder
	cmd := exec.CommandContext(t.Context(), xbsend, "--no-defaults", "--user=root", "--socket="+source.Socket())
	cmd.Stdout, cmd.Stderr = &out, &log
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 5 || out.Len() != 0 {
		t.Errorf("%v, %d bytes sent; want exit code 5 and nothing\n%s", err, out.Len(), &log)
	}
	if !regexp.MustCompile(l.refused).MatchString(log.String()) {
		t.Errorf("%q does not say %q", &log, l.refused)
	}
	readme, err := os.ReadFile("../README.md")
	check(t, err)
	_, limits, _ := strings.Cut(string(readme), "## What it does not do")
	limits, _, _ = strings.Cut(limits, "\n## ")
	if !strings.Contains(limits, l.limit) {
		t.Errorf("the README's limits do not say %q", l.limit)
	}
}

// execute runs statements on the source.
func execute(statements ...string) func(*testing.T, *servertest.Server, string) {
	return func(t *testing.T, s *servertest.Server, _ string) { check(t, s.Exec(t.Context(), statements...)) }
}

func args(list ...string) func(string) servertest.Options {
	return func(string) servertest.Options { return servertest.Options{Args: list} }
}

// rows are the columns of a table that rowsFrom fills with 1 MB.
const rows = " (a INT PRIMARY KEY, b VARCHAR(500)) "

func rowsFrom(table string) string {
	return "INSERT INTO " + table + " SELECT seq, REPEAT(seq % 9, 300) FROM `load`.seq_1_to_3000"
}

// move moves files of a data directory, by patterns, into other directories,
// which it creates; they may be relative to the data directory.
func move(datadir string, to map[string]string) error {
	for pattern, dir := range to {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(datadir, dir)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		found, err := filepath.Glob(filepath.Join(datadir, pattern))
		if err != nil || len(found) == 0 {
			return fmt.Errorf("move %s: found %v, %v", pattern, found, err)
		}
		for _, f := range found {
			if err := os.Rename(f, filepath.Join(dir, filepath.Base(f))); err != nil {
				return err
			}
		}
	}
	return nil
}

// threeUndo installs a server with undo tablespaces of their own.
var threeUndo = []string{"--innodb-undo-tablespaces=3"}

var directories = []layout{
	{
		name: "directories elsewhere",
		options: func(dir string) servertest.Options {
			return servertest.Options{
				Install: threeUndo,
				Args: []string{"--innodb-undo-tablespaces=3", "--innodb-data-home-dir=" + dir + "/home",
					"--innodb-data-file-path=ibdata1:12M;../sys/ibdata2:5M;ibdata3:4M:autoextend",
					"--innodb-undo-directory=" + dir + "/undo", "--innodb-log-group-home-dir=" + dir + "/redo", "--aria-log-dir-path=" + dir + "/aria"},
				Arrange: func(datadir string) error {
					return errors.Join(os.Mkdir(dir+"/sys", 0o700), move(datadir, map[string]string{
						"ibdata1": dir + "/home", "undo00?": dir + "/undo", "ib_logfile0": dir + "/redo", "aria_log*": dir + "/aria"}))
				},
			}
		},
	},
	{
		name: "absolute data files",
		options: func(dir string) servertest.Options {
			return servertest.Options{
				Args:    []string{"--innodb-data-home-dir=", "--innodb-data-file-path=" + dir + "/sys/ibdata1:12M;" + dir + "/sys/more:5M:autoextend:max:1G"},
				Arrange: func(datadir string) error { return move(datadir, map[string]string{"ibdata1": dir + "/sys"}) },
			}
		},
	},
	{
		name: "directories within, behind a link",
		options: func(string) servertest.Options {
			return servertest.Options{
				Install: threeUndo,
				Args: []string{"--innodb-undo-tablespaces=3", "--innodb-data-file-path=sys/ibdata1:12M:autoextend", "--innodb-data-home-dir=./",
					"--innodb-undo-directory=undo", "--innodb-log-group-home-dir=./redo/x", "--aria-log-dir-path=aria",
					"--ignore-db-dirs=undo", "--ignore-db-dirs=redo", "--ignore-db-dirs=aria"},
				Arrange: func(datadir string) error {
					return errors.Join(
						move(datadir, map[string]string{"ibdata1": "sys", "undo00?": "undo", "ib_logfile0": "redo/x", "aria_log*": "aria"}),
						os.Rename(datadir, datadir+"-1"), os.Symlink(filepath.Base(datadir)+"-1", datadir))
				},
			}
		},
	},
	{
		name:    "relative data directory",
		options: func(string) servertest.Options { return servertest.Options{Relative: true} },
	},
	{
		name: "two data files of one name",
		options: func(dir string) servertest.Options {
			return servertest.Options{
				Args: []string{"--innodb-data-home-dir=", "--innodb-data-file-path=" + dir + "/1/ibdata:12M;" + dir + "/2/ibdata:5M:autoextend"},
				Arrange: func(datadir string) error {
					return errors.Join(move(datadir, map[string]string{"ibdata1": dir + "/1"}), os.Rename(dir+"/1/ibdata1", dir+"/1/ibdata"), os.Mkdir(dir+"/2", 0o700))
				},
			}
		},
		refused: "two files are called ibdata", limit: "`innodb_data_file_path` with two files of one name",
	},
}

var dataDirectories = layout{
	name: "data directories",
	fill: func(t *testing.T, s *servertest.Server, dir string) {
		far := filepath.Join(dir, "far")
		check(t, os.Mkdir(far, 0o700))
		data := "DATA DIRECTORY='" + far + "'"
		check(t, s.Exec(t.Context(),
			"CREATE TABLE `load`.far"+rows+"ENGINE=InnoDB "+data,
			"CREATE TABLE `load`.`far ä`"+rows+"ENGINE=InnoDB PARTITION BY RANGE (a) (PARTITION `p 0` VALUES LESS THAN (1000) "+data+", PARTITION p1 VALUES LESS THAN MAXVALUE)",
			"CREATE TABLE `load`.far_myisam"+rows+"ENGINE=MyISAM "+data+" INDEX DIRECTORY='"+far+"'",
			"CREATE TABLE `load`.far_aria"+rows+"ENGINE=Aria "+data+" INDEX DIRECTORY='"+far+"'",
			rowsFrom("`load`.far"), rowsFrom("`load`.`far ä`"), rowsFrom("`load`.far_myisam"), rowsFrom("`load`.far_aria")))
	},
	except: "tables: ", // it lists DATA DIRECTORY
	look: func(t *testing.T, at *laidOut) {
		for _, name := range []string{"far.ibd", "far@0020@0k#P#p@00200.ibd", "far_myisam.MYD", "far_myisam.MYI", "far_aria.MAD", "far_aria.MAI"} {
			st, err := os.Lstat(filepath.Join(at.target, "load", name))
			if err != nil || !st.Mode().IsRegular() {
				t.Errorf("not restored below the target: %s, %v", name, err)
			}
		}
		if n, err := at.copied.String(t.Context(), "SELECT COUNT(*) FROM information_schema.INNODB_SYS_TABLESPACES WHERE FILENAME LIKE '"+at.dir+"/far%'"); n != "0" || err != nil {
			t.Errorf("the copy uses %s files of the source, %v", n, err)
		}
		if !strings.Contains(at.received, "restored 6 files from outside the data directory into "+at.target) {
			t.Errorf("the report does not say where they are: %s", at.received)
		}
		// A server's recovery would change the files of the source.
		archive, again := filepath.Join(at.dir, "again.xb"), filepath.Join(at.dir, "again")
		sendTo(t, archive, at.source)
		receive(t, "-x", "-C", again, archive)
		_, xbstream := binaries(t)
		out, err := exec.CommandContext(t.Context(), xbstream, "prepare", "--with-server", again).CombinedOutput()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 10 || !strings.Contains(string(out), "DATA DIRECTORY ("+at.dir+"/far") {
			t.Errorf("prepare --with-server: %v\n%s", err, out)
		}
	},
}

// names are hard on whoever makes files of them: the server encodes what is no
// ASCII letter, and puts something behind names that Windows keeps for itself.
var names = []string{
	"con", "prn", "aux", "com1", "a@0041b", "@", "@0", "#sql-x", ".", "..", "a.b", "a/b", "/", `a\b`, "a b", " a", "%", "~", "-", "$", "0", "1e1",
	"ä", "Ärger", "ß", "e\u0301", "日本語", "Ωμέγα", "Москва", "שלום", "ﬀ", "１", "€", "\u200b", "\uffee", "a\nb", "a\tb", "a'b", `a"b`, "a``b", "a;b", "a*?[b]",
	"t#P#p0", "t#p#P0#sp#x", "x#sql2", "db.opt", "a.ibd", "a.frm", "a.isl", "xbstream_manifest.json", "lost+found", "FTS_0000000000000012_CONFIG", "x_FTS_y",
	strings.Repeat("n", 64), strings.Repeat("日", 40), "select", "NULL",
}

var oddNames = layout{
	name: "names",
	fill: func(t *testing.T, s *servertest.Server, _ string) {
		engines := []string{"InnoDB", "MyISAM", "Aria", "InnoDB PARTITION BY HASH (a) (PARTITION `p#P#ä`, PARTITION `con`)"}
		if s.Release().MySQL() {
			engines[2] = "MyISAM ROW_FORMAT=DYNAMIC"
		}
		var list []string
		for i, n := range names {
			n = "`" + n + "`"
			for _, table := range []string{n + "." + n, "`load`." + n} {
				list = append(list, "CREATE DATABASE IF NOT EXISTS "+n,
					"CREATE TABLE "+table+rows+"ENGINE="+engines[i%len(engines)], "INSERT INTO "+table+" VALUES (1, 'x'), (2, 'y')")
			}
		}
		check(t, s.Exec(t.Context(), list...))
	},
}

var lowerCase = layout{
	name:    "lower_case_table_names",
	options: args("--lower-case-table-names=1"),
	fill:    execute("CREATE DATABASE Shop", "CREATE TABLE Shop.Orders (a INT PRIMARY KEY, B INT)", "INSERT INTO SHOP.orders VALUES (1, 2)"),
	look: func(t *testing.T, at *laidOut) {
		if n, err := at.copied.String(t.Context(), "SELECT b FROM ShOp.OrDeRs"); n != "2" || err != nil {
			t.Errorf("got %q, %v", n, err)
		}
	},
}

var imported = layout{
	name: "imported tables",
	fill: func(t *testing.T, s *servertest.Server, dir string) {
		ctx := t.Context()
		check(t, s.Exec(ctx, "CREATE TABLE `load`.a"+rows+"ENGINE=InnoDB", rowsFrom("`load`.a"),
			"CREATE TABLE `load`.b LIKE `load`.a", "CREATE TABLE `load`.c LIKE `load`.a",
			"ALTER TABLE `load`.b DISCARD TABLESPACE", "ALTER TABLE `load`.c DISCARD TABLESPACE"))
		conn, err := s.DB().Conn(ctx)
		check(t, err)
		defer conn.Close()
		_, err = conn.ExecContext(ctx, "FLUSH TABLES `load`.a FOR EXPORT")
		check(t, err)
		for _, f := range []string{"b.ibd", "b.cfg", "c.ibd"} {
			in, err := os.ReadFile(filepath.Join(s.Datadir(), "load", "a"+filepath.Ext(f)))
			check(t, err)
			check(t, os.WriteFile(filepath.Join(s.Datadir(), "load", f), in, 0o600))
		}
		_, err = conn.ExecContext(ctx, "UNLOCK TABLES")
		check(t, err)
		check(t, s.Exec(ctx, "SET sql_log_bin=0", "ALTER TABLE `load`.b IMPORT TABLESPACE", "ALTER TABLE `load`.c IMPORT TABLESPACE", "INSERT INTO `load`.b VALUES (100000, 'new')"))
	},
}

// leftovers are what crashes and people leave in a data directory.
var leftovers = layout{
	name: "leftovers",
	fill: func(t *testing.T, s *servertest.Server, _ string) {
		check(t, s.Exec(t.Context(), "CREATE DATABASE nothing", "CREATE TABLE `load`.gone"+rows+"ENGINE=InnoDB", rowsFrom("`load`.gone"),
			"FLUSH TABLES `load`.gone FOR EXPORT", "UNLOCK TABLES"))
		db := filepath.Join(s.Datadir(), "load")
		gone, err := os.ReadFile(filepath.Join(db, "gone.ibd"))
		check(t, err)
		check(t, s.Exec(t.Context(), "DROP TABLE `load`.gone", "CREATE TABLE `load`.twice"+rows+"ENGINE=InnoDB", rowsFrom("`load`.twice"),
			"FLUSH TABLES `load`.twice FOR EXPORT", "UNLOCK TABLES"))
		twice, err := os.ReadFile(filepath.Join(db, "twice.ibd"))
		check(t, err)
		for name, content := range map[string][]byte{
			"load/#sql-ib4711.ibd": gone, "load/twice_copy.ibd": twice, "load/empty.ibd": nil, "load/zero.ibd": make([]byte, 64<<10),
			"load/#sql-alter-1234-5.frm": {1}, "load/#sql-alter-1234-5.ibd": nil, "load/#sql-1234_5.MYD": {1}, "load/t.TMD": {1},
			"load/notes.txt": []byte("x"), "load/old.MYD.bak": {1}, "load/.hidden": {1},
			"ib_logfile101": {1}, "notes.txt": {1}, "undo_trunc.log": {1},
		} {
			check(t, os.WriteFile(filepath.Join(s.Datadir(), name), content, 0o600))
		}
		check(t, errors.Join(os.Mkdir(filepath.Join(s.Datadir(), "lost+found"), 0o000), os.Mkdir(filepath.Join(db, "sub"), 0o700),
			os.WriteFile(filepath.Join(db, "sub", "x.ibd"), nil, 0o600)))
	},
	except: "databases: ", // lost+found is one for the server
	look: func(t *testing.T, at *laidOut) {
		for name, want := range map[string]bool{
			"load/notes.txt": true, "load/twice_copy.ibd": true, "load/.hidden": true,
			"load/empty.ibd": false, "load/zero.ibd": false, "load/#sql-alter-1234-5.ibd": false, "load/#sql-alter-1234-5.frm": false, "load/#sql-1234_5.MYD": false, "load/t.TMD": false,
			"load/sub": false, "lost+found": false, "notes.txt": false, "ib_logfile101": false,
		} {
			if _, err := os.Lstat(filepath.Join(at.target, name)); (err == nil) != want {
				t.Errorf("%s: %v, want it there: %v", name, err, want)
			}
		}
		for _, name := range []string{"empty.ibd", "zero.ibd", "#sql-alter-1234-5.ibd"} {
			if !strings.Contains(at.sent, filepath.Join(at.source.Datadir(), "load", name)) {
				t.Errorf("xbsend does not say that it leaves %s out", name)
			}
		}
	},
}

func pageSize(kib int) layout {
	return layout{
		name:    fmt.Sprintf("pages of %d KiB", kib),
		options: func(string) servertest.Options { return servertest.Options{PageSize: kib << 10} },
	}
}

var algorithms = []string{"lz4", "lzo", "lzma", "bzip2", "snappy"} // zlib is in every schema

func providers(string) (args []string) {
	for _, a := range algorithms {
		args = append(args, "--plugin-load-add=provider_"+a)
	}
	return args
}

var pageFormats = []layout{
	pageSize(4), pageSize(8), pageSize(32), pageSize(64),
	{
		name:    "crc32 and full_crc32",
		options: args("--innodb-checksum-algorithm=crc32"),
		fill: execute("SET GLOBAL innodb_checksum_algorithm=full_crc32",
			"CREATE TABLE `load`.full"+rows+"ENGINE=InnoDB", "CREATE TABLE `load`.full_compressed"+rows+"ENGINE=InnoDB PAGE_COMPRESSED=1",
			rowsFrom("`load`.full"), rowsFrom("`load`.full_compressed"), "SET GLOBAL innodb_checksum_algorithm=crc32"),
	},
	{
		name:    "compressed pages",
		options: func(string) servertest.Options { return servertest.Options{Args: providers("")} },
		fill: func(t *testing.T, s *servertest.Server, _ string) {
			for _, a := range algorithms {
				table := "`load`.pages_" + a
				check(t, s.Exec(t.Context(), "SET GLOBAL innodb_compression_algorithm="+a, "CREATE TABLE "+table+rows+"ENGINE=InnoDB PAGE_COMPRESSED=1", rowsFrom(table)))
			}
		},
		ready: func(t *testing.T, s *servertest.Server) {
			// Compressed pages in the files, and redo for them.
			check(t, s.Exec(t.Context(), "SET GLOBAL innodb_log_checkpoint_now=1"))
			for _, a := range algorithms {
				check(t, s.Exec(t.Context(), "UPDATE `load`.pages_"+a+" SET b = REVERSE(b) WHERE a % 3 = 0"))
			}
		},
		copyArgs: providers,
	},
	{
		name:    "tables in the system tablespace",
		options: args("--innodb-undo-tablespaces=0"),
		fill:    execute("SET GLOBAL innodb_file_per_table=0", "CREATE TABLE `load`.within"+rows+"ENGINE=InnoDB", rowsFrom("`load`.within")),
	},
	{
		name: "undo tablespaces truncated",
		options: func(string) servertest.Options {
			return servertest.Options{Install: threeUndo, Args: []string{"--innodb-undo-tablespaces=3", "--innodb-undo-log-truncate=ON",
				"--innodb-max-undo-log-size=10M", "--innodb-purge-rseg-truncate-frequency=1"}, LogFileSize: 64 << 20}
		},
		fill: func(t *testing.T, s *servertest.Server, _ string) {
			ctx := t.Context()
			check(t, s.Exec(ctx, "CREATE TABLE `load`.much (a INT PRIMARY KEY, b VARCHAR(255)) ENGINE=InnoDB", "INSERT INTO `load`.much SELECT seq, REPEAT('b', 250) FROM `load`.seq_1_to_20000"))
			for is := "0"; is == "0"; {
				// One transaction with some 20 MB of undo, all of it in one
				// tablespace, which purge gives back.
				bounded, cancel := context.WithTimeout(ctx, patience)
				err := s.Exec(bounded, "BEGIN", "UPDATE `load`.much SET b = REPEAT(a % 7, 250)", "UPDATE `load`.much SET b = REPEAT(a % 5, 250)",
					"UPDATE `load`.much SET b = REPEAT(a % 7, 250)", "UPDATE `load`.much SET b = REPEAT(a % 5, 250)", "COMMIT", "SET GLOBAL innodb_max_purge_lag_wait=0")
				cancel()
				if errors.Is(err, context.DeadlineExceeded) {
					t.Logf("the server hangs while it truncates, as 10.11.19 may, and is killed: %s", s.ErrorLog())
					s.Kill()
					check(t, s.Restart(ctx))
					continue
				}
				check(t, err)
				is, err = s.String(ctx, truncations)
				check(t, err)
			}
			// It is not to hang later.
			check(t, s.Exec(ctx, "SET GLOBAL innodb_undo_log_truncate=OFF"))
		},
	},
}

const truncations = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME='innodb_undo_truncations'"

// encrypted is a server with keys in a file. Neither the backup nor the check of
// its pages needs them; recovery does, and has to be told by name.
func encrypted(name, refused string, more ...string) layout {
	plugin := func(dir string) []string {
		return append([]string{"--plugin-load-add=file_key_management", "--file-key-management-filename=" + dir + "/keys"}, more...)
	}
	return layout{
		name: name,
		options: func(dir string) servertest.Options {
			return servertest.Options{
				Args: plugin(dir),
				Arrange: func(string) error {
					return os.WriteFile(dir+"/keys", []byte("1;"+strings.Repeat("a7", 32)+"\n"), 0o600)
				},
			}
		},
		fill: execute("CREATE TABLE `load`.secret"+rows+"ENGINE=InnoDB ENCRYPTED=YES", rowsFrom("`load`.secret"),
			"CREATE TABLE `load`.secret_compressed"+rows+"ENGINE=InnoDB ENCRYPTED=YES PAGE_COMPRESSED=1", rowsFrom("`load`.secret_compressed")),
		prepare: func(dir string) []string {
			list := []string{"--with-server"}
			for _, a := range plugin(dir) {
				list = append(list, "--server-option="+a)
			}
			return list
		},
		copyArgs: plugin,
		look:     func(t *testing.T, at *laidOut) { at.mustNeedKeys(t, refused) },
	}
}

// mustNeedKeys makes another backup, which is sound without keys, and which
// nothing but a server with keys recovers.
func (at *laidOut) mustNeedKeys(t *testing.T, refused string) {
	archive, plain := filepath.Join(at.dir, "again.xb"), filepath.Join(at.dir, "plain")
	sendTo(t, archive, at.source)
	receive(t, "verify", archive)
	receive(t, "-x", "-C", plain, archive)
	receive(t, "verify", plain)
	_, xbstream := binaries(t)
	out, err := exec.CommandContext(t.Context(), xbstream, "prepare", plain).CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 10 {
		t.Errorf("prepare: %v\n%s", err, out)
	}
	if !regexp.MustCompile(refused).Match(out) || !strings.Contains(string(out), "--with-server") {
		t.Errorf("%q does not say %q and --with-server", out, refused)
	}
}

var encryptedLayouts = []layout{
	encrypted("encrypted tables", `load/\S+\.ibd \(space \d+\): .*encrypted`),
	encrypted("encrypted redo log", `ib_logfile0: encrypted`, "--innodb-encrypt-log=ON", "--innodb-encrypt-tables=FORCE", "--aria-encrypt-tables=ON", "--encrypt-tmp-files=ON"),
	encryptedElsewhere("encrypted tables and data directories", "load[.]secret.* is encrypted"),
	encryptedElsewhere("encrypted redo log and data directories", "the redo log is encrypted", "--innodb-encrypt-log=ON"),
}

// encryptedElsewhere has a table outside of the data directory, which a server
// with keys would look for there.
func encryptedElsewhere(name, refused string, more ...string) layout {
	l := encrypted(name, "", more...)
	fill := l.fill
	l.still, l.look = true, nil
	l.ready = func(t *testing.T, s *servertest.Server) { // page 0 comes into the files
		check(t, s.Exec(t.Context(), "SET GLOBAL innodb_log_checkpoint_now=1"))
	}
	l.fill = func(t *testing.T, s *servertest.Server, dir string) {
		fill(t, s, dir)
		check(t, os.Mkdir(dir+"/far", 0o700))
		execute("CREATE TABLE `load`.far"+rows+"ENGINE=InnoDB DATA DIRECTORY='"+dir+"/far'")(t, s, dir)
	}
	l.refused, l.limit = "load[.]far has a DATA DIRECTORY .*"+refused, "encryption together with tables that have a `DATA DIRECTORY`"
	return l
}

var modes = []layout{
	{name: "no binary log", still: true},
	{name: "read_only", fill: execute("SET GLOBAL read_only=1")},
	{
		name: "innodb_read_only", still: true,
		ready:   func(t *testing.T, s *servertest.Server) { check(t, s.RestartWith(t.Context(), "--innodb-read-only=1")) },
		refused: "innodb_read_only=ON is not supported", limit: "`innodb_read_only=ON`",
	},
}
