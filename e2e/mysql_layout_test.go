package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

// P1 and P10 for every layout of MySQL: see TestLayouts.
func TestMySQLLayouts(t *testing.T) {
	for _, r := range servertest.MySQLReleases(t) {
		for _, l := range mysqlLayouts {
			if l.long && !longFaults() {
				continue
			}
			l.release = r
			t.Run(fmt.Sprintf("%s/%s", l.name, r), func(t *testing.T) {
				t.Parallel()
				l.test(t)
			})
		}
	}
}

var mysqlLayouts = []layout{
	mysqlElsewhere, mysqlAbsolute, mysqlTables, mysqlLowerCase,
	mysqlPages(4), mysqlPages(8), mysqlPages(32), mysqlPages(64),
}

// numbered is rowsFrom for MySQL, which has no engine of sequences.
func numbered(table string) string {
	return "INSERT INTO " + table + ` SELECT n, REPEAT(n % 9, 300) FROM (SELECT ROW_NUMBER() OVER () n FROM
		information_schema.COLLATIONS x, information_schema.COLLATIONS y LIMIT 3000) numbers`
}

// change makes an UPDATE of some rows of numbered.
func change(table string) string {
	return "UPDATE " + table + " SET b = REPEAT(a % 7, LENGTH(b) % 300 + 10) WHERE a % 17 = FLOOR(RAND() * 17)"
}

// mysqlElsewhere has nothing where it is by default.
var mysqlElsewhere = layout{
	name: "directories elsewhere",
	options: func(dir string) servertest.Options {
		return servertest.Options{
			LogFileSize: 8 << 20,
			Args: []string{
				"--innodb-data-home-dir=" + dir + "/home/", "--innodb-data-file-path=ibdata1:12M;sys/ibdata2:5M;ibdata3:4M:autoextend",
				"--innodb-undo-directory=" + dir + "/undo", "--innodb-log-group-home-dir=" + dir + "/redo", "--log-bin=" + dir + "/logs/changes",
				"--innodb-doublewrite-dir=" + dir + "/twice", "--innodb-temp-tablespaces-dir=" + dir + "/temp",
				"--innodb-directories=" + dir + "/spaces;" + dir + "/far", "--symbolic-links=ON",
			},
			Arrange: func(datadir string) error {
				for _, d := range []string{"home/sys", "logs", "temp", "spaces", "spaces/deep", "far", "twice"} {
					if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
						return err
					}
				}
				return move(datadir, map[string]string{"ibdata1": dir + "/home", "undo_00?": dir + "/undo", "#innodb_redo": dir + "/redo"})
			},
		}
	},
	fill: func(t *testing.T, s *servertest.Server, dir string) {
		spaces, data := dir+"/spaces", "DATA DIRECTORY='"+dir+"/far'"
		// A replica would make them where the source has them.
		list := []string{"SET sql_log_bin = 0",
			"CREATE TABLESPACE near ADD DATAFILE 'near.ibd'",
			"CREATE TABLESPACE `out-side` ADD DATAFILE '" + spaces + "/out-side.ibd'",
			"CREATE TABLESPACE packed ADD DATAFILE '" + spaces + "/deep/packed.ibd' FILE_BLOCK_SIZE=8192",
			"CREATE TABLESPACE `empty` ADD DATAFILE '" + spaces + "/deep/empty.ibd'",
			"CREATE UNDO TABLESPACE more ADD DATAFILE 'more.ibu'",
			"CREATE UNDO TABLESPACE away ADD DATAFILE '" + spaces + "/away.ibu'",
			"ALTER UNDO TABLESPACE innodb_undo_001 SET INACTIVE"}
		for table, options := range elsewhereTables(data) {
			list = append(list, "CREATE TABLE `load`."+table+rows+options, numbered("`load`."+table))
		}
		check(t, s.Exec(t.Context(), list...))
	},
	busy: []string{change("`load`.near1"), change("`load`.out1"), change("`load`.packed1"), change("`load`.far1"), change("`load`.`far ä`"), change("`load`.mixed"), change("`load`.far_myisam")},
	look: func(t *testing.T, at *laidOut) {
		for _, name := range []string{
			"ibdata1", "ibdata2", "ibdata3", "undo_001", "undo_002", "more.ibu", "away.ibu", "near.ibd", "out-side.ibd", "packed.ibd", "empty.ibd", "load/far1.ibd",
			"load/far@0020@0k#p#p@00200.ibd", "load/mixed#p#b#sp#bsp0.ibd", "load/far_myisam.MYD", "load/far_myisam.MYI",
		} {
			st, err := os.Lstat(filepath.Join(at.target, name))
			if err != nil || !st.Mode().IsRegular() {
				t.Errorf("not restored below the target: %s, %v", name, err)
			}
		}
		if n, err := at.copied.String(t.Context(), "SELECT GROUP_CONCAT(FILE_NAME) FROM information_schema.FILES WHERE FILE_NAME LIKE '/%' AND FILE_NAME NOT LIKE ?", at.target+"/%"); n != "" || err != nil {
			t.Errorf("the copy uses %s, %v", n, err)
		}
		if n, err := at.copied.String(t.Context(), "SELECT COUNT(*) FROM information_schema.INNODB_TABLESPACES WHERE SPACE_TYPE = 'Undo'"); n != "4" || err != nil {
			t.Errorf("the copy has %s undo tablespaces, %v", n, err)
		}
	},
}

// elsewhereTables are tables by name with their options.
func elsewhereTables(data string) map[string]string {
	return map[string]string{
		"near1":      "TABLESPACE near",
		"near2":      "TABLESPACE near ROW_FORMAT=REDUNDANT",
		"out1":       "TABLESPACE `out-side`",
		"packed1":    "TABLESPACE packed ROW_FORMAT=COMPRESSED",
		"system1":    "TABLESPACE innodb_system",
		"far1":       data,
		"`far ä`":    "PARTITION BY RANGE (a) (PARTITION `p 0` VALUES LESS THAN (1000) " + data + ", PARTITION p1 VALUES LESS THAN MAXVALUE)",
		"mixed":      "PARTITION BY RANGE (a) SUBPARTITION BY HASH (a) SUBPARTITIONS 2 (PARTITION b VALUES LESS THAN (1000), PARTITION c VALUES LESS THAN MAXVALUE)",
		"far_myisam": "ENGINE=MyISAM " + data + " INDEX " + strings.TrimPrefix(data, "DATA "),
	}
}

var mysqlAbsolute = layout{
	name: "absolute data files",
	long: true,
	options: func(dir string) servertest.Options {
		return servertest.Options{
			Args:    []string{"--innodb-data-home-dir=", "--innodb-data-file-path=" + dir + "/sys/ibdata1:12M;" + dir + "/sys/more:5M:autoextend:max:1G"},
			Arrange: func(datadir string) error { return move(datadir, map[string]string{"ibdata1": dir + "/sys"}) },
		}
	},
	fill: execute("CREATE TABLE `load`.within"+rows+"TABLESPACE innodb_system", numbered("`load`.within")),
	busy: []string{change("`load`.within")},
}

// mysqlTables has what tables can be, and the names that are hard.
var mysqlTables = layout{
	name: "tables and names",
	fill: func(t *testing.T, s *servertest.Server, dir string) {
		oddNames.fill(t, s, dir)
		list := []string{
			"CREATE TABLE `load`.instant" + rows, numbered("`load`.instant"),
			"ALTER TABLE `load`.instant ADD COLUMN c INT NOT NULL DEFAULT 7 FIRST, ALGORITHM=INSTANT", "UPDATE `load`.instant SET c = 8 WHERE a % 3 = 0",
			"ALTER TABLE `load`.instant DROP COLUMN b, ALGORITHM=INSTANT", "ALTER TABLE `load`.instant ADD COLUMN b VARCHAR(500), ALGORITHM=INSTANT",
			"CREATE TABLE `load`.doc (a INT PRIMARY KEY, b JSON)",
			`INSERT INTO load.doc SELECT a, JSON_OBJECT('n', a, 'text', REPEAT(b, 100)) FROM load.instant_source LIMIT 40`,
			"CREATE TABLE `load`.words" + rows[:len(rows)-2] + ", FULLTEXT (b)) ENGINE=InnoDB", numbered("`load`.words"),
			"CREATE TABLE `load`.rowless (a INT)", "CREATE TABLE `load`.blackhole (a INT) ENGINE=BLACKHOLE", "CREATE TABLE `load`.in_memory (a INT) ENGINE=MEMORY",
		}
		list = slices.Insert(list, 5, "CREATE TABLE `load`.instant_source"+rows, numbered("`load`.instant_source"))
		for _, k := range []int{1, 2, 4, 8, 16} {
			table := fmt.Sprintf("`load`.blocks_%d", k)
			list = append(list, fmt.Sprintf("CREATE TABLE %s%sROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=%d", table, rows, k), numbered(table))
		}
		for _, c := range []string{"zlib", "lz4"} {
			list = append(list, "CREATE TABLE `load`.pages_"+c+rows+"COMPRESSION='"+c+"'", numbered("`load`.pages_"+c))
		}
		check(t, s.Exec(t.Context(), list...))
	},
	busy: append(changes("blocks_1", "blocks_2", "blocks_4", "blocks_8", "blocks_16", "pages_zlib", "pages_lz4", "words"),
		// Less than 100 bytes of a JSON document in pages of its own: a partial update.
		"UPDATE `load`.doc SET b = JSON_SET(b, '$.n', a + 1000)", "UPDATE `load`.doc SET b = JSON_REPLACE(b, '$.n', 1), a = a WHERE a % 2 = 0",
		"UPDATE `load`.instant SET b = REPEAT('b', a % 300), c = c + 1 WHERE a % 5 = 0",
		"ALTER TABLE `load`.instant ADD COLUMN d INT DEFAULT 4 AFTER a, ALGORITHM=INSTANT",
		"UPDATE `load`.instant SET d = NULL WHERE a % 7 = 0",
		"ALTER TABLE `load`.instant DROP COLUMN d, ALGORITHM=INSTANT",
		"ALTER TABLE `load`.instant FORCE", // the number of versions of a row is bounded
	),
}

func changes(tables ...string) (list []string) {
	for _, t := range tables {
		list = append(list, change("`load`."+t))
	}
	return list
}

var mysqlLowerCase = layout{
	long: true,
	name: "lower_case_table_names",
	options: func(string) servertest.Options {
		o := []string{"--lower-case-table-names=1"}
		return servertest.Options{Args: o, Install: o}
	},
	fill: execute("CREATE DATABASE Shop", "CREATE TABLE Shop.Orders (a INT PRIMARY KEY, B INT)", "INSERT INTO SHOP.orders VALUES (1, 2)",
		"CREATE TABLE Shop.Parts (A INT PRIMARY KEY, b INT) PARTITION BY HASH (a) (PARTITION One, PARTITION tWo)", "INSERT INTO shop.parts VALUES (1, 0), (2, 0)",
		"CREATE TABLE Shop.Old (a INT PRIMARY KEY, b INT) ENGINE=MyISAM", "INSERT INTO shop.old VALUES (1, 0)"),
	busy: []string{"UPDATE Shop.Parts SET b = b + 1", "UPDATE Shop.Old SET b = b + 1"},
	look: func(t *testing.T, at *laidOut) {
		if n, err := at.copied.String(t.Context(), "SELECT b FROM ShOp.OrDeRs"); n != "2" || err != nil {
			t.Errorf("got %q, %v", n, err)
		}
	},
}

func mysqlPages(kib int) layout {
	return layout{
		name:    fmt.Sprintf("pages of %d KiB", kib),
		long:    kib != 4,
		options: func(string) servertest.Options { return servertest.Options{PageSize: kib << 10} },
		fill: func(t *testing.T, s *servertest.Server, dir string) {
			check(t, s.Exec(t.Context(), "CREATE TABLESPACE near ADD DATAFILE 'near.ibd'", "CREATE TABLE `load`.within"+rows+"TABLESPACE near", numbered("`load`.within"),
				"CREATE TABLE `load`.parts"+rows+"PARTITION BY HASH (a) PARTITIONS 3", numbered("`load`.parts"), "CREATE UNDO TABLESPACE more ADD DATAFILE 'more.ibu'"))
		},
		busy: changes("within", "parts"),
	}
}

// mysqlUnlocked is unlocked for MySQL: nothing holds a lock, nor redo.
func mysqlUnlocked(ctx context.Context, s *servertest.Server) error {
	if err := s.Exec(ctx, "SET lock_wait_timeout = 60", "LOCK INSTANCE FOR BACKUP", "UNLOCK INSTANCE",
		"CREATE DATABASE IF NOT EXISTS unlocked", "DROP DATABASE IF EXISTS unlocked"); err != nil {
		return fmt.Errorf("the backup left a lock: %w", err)
	}
	for {
		// While it waits for a statement, the transaction that this one waits for
		// cannot go on either: it must give up soon.
		err := s.Exec(ctx, "SET lock_wait_timeout = 1", "FLUSH TABLES WITH READ LOCK", "UNLOCK TABLES")
		if err == nil {
			break
		}
		if !isLockWait(err) || ctx.Err() != nil {
			return fmt.Errorf("the backup left a lock: %w", err)
		}
	}
	conn, err := s.DB().Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	for {
		var refused int
		if err := conn.QueryRowContext(ctx, "SELECT innodb_redo_log_consumer_register()").Scan(&refused); err != nil {
			return fmt.Errorf("the backup left its hold on redo: %w", err)
		}
		if refused == 0 {
			_, err := conn.ExecContext(ctx, "DO innodb_redo_log_consumer_unregister()")
			return err
		}
		time.Sleep(10 * time.Millisecond) // the server may not have seen the end of the session yet
	}
}
