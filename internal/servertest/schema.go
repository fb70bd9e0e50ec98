package servertest

import (
	"fmt"
	"strings"
)

// The databases of the load. The second name and some table names need the
// server's file name encoding (@00e4, @0020, …).
const (
	dbPlain = "load"
	dbOdd   = "odd-näme$"
)

// table is one table the writers write to. Every one has the columns
//
//	id INT, a INT, b VARCHAR(200), c BLOB
//
// and what its kind adds to them.
type table struct {
	db, name string
	// extra are more column and index definitions, each with a leading
	// comma.
	extra string
	// tail is what follows the closing parenthesis.
	tail string
	// set are further assignments of an INSERT, with a leading comma; they
	// may use the columns id, a and b.
	set string
	// noKey leaves out the primary key and writes NOT NULL columns, as CSV
	// wants it.
	noKey bool
	// insertOnly is for engines that cannot change a row.
	insertOnly bool
	// single says that the engine has no transactions: a write is a
	// statement of its own, otherwise table and binary log could not agree.
	single bool
}

// ident quotes an identifier.
func ident(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// ref is the table's quoted name.
func (t table) ref() string { return ident(t.db) + "." + ident(t.name) }

func (t table) create() string {
	if t.noKey {
		return fmt.Sprintf("CREATE TABLE %s (id INT NOT NULL, a INT NOT NULL, b VARCHAR(200) NOT NULL, c VARBINARY(2000) NOT NULL%s) %s",
			t.ref(), t.extra, t.tail)
	}
	if t.insertOnly {
		return fmt.Sprintf("CREATE TABLE %s (id INT NOT NULL, a INT, b VARCHAR(200), c MEDIUMBLOB%s) %s",
			t.ref(), t.extra, t.tail)
	}
	return fmt.Sprintf("CREATE TABLE %s (id INT NOT NULL PRIMARY KEY, a INT, b VARCHAR(200), c MEDIUMBLOB%s) %s",
		t.ref(), t.extra, t.tail)
}

// tables are the kinds of tables a server can have.
func tables(o Options) []table {
	all := tablesOfMariaDB(o.PageSize)
	if o.Release.MySQL() {
		all = tablesOfMySQL(all, o.PageSize)
	}
	return all
}

func tablesOfMariaDB(pageSize int) []table {
	innodb := func(name, extra, tail, set string) table {
		return table{db: dbPlain, name: name, extra: extra, tail: "ENGINE=InnoDB " + tail, set: set}
	}
	all := []table{
		innodb("dynamic", ", KEY a (a), UNIQUE KEY ai (a, id)", "ROW_FORMAT=DYNAMIC", ""),
		innodb("compact", ", KEY a (a)", "ROW_FORMAT=COMPACT", ""),
		innodb("redundant", ", KEY a (a), KEY b (b(50))", "ROW_FORMAT=REDUNDANT", ""),
		innodb("page_compressed", ", KEY a (a)", "PAGE_COMPRESSED=1", ""),
		innodb("by_hash", ", KEY a (a)", "PARTITION BY HASH (id) PARTITIONS 4", ""),
		innodb("by_range", ", KEY a (a)", "PARTITION BY RANGE (id) SUBPARTITION BY HASH (id) SUBPARTITIONS 2 "+
			"(PARTITION `low ä` VALUES LESS THAN (100), PARTITION high VALUES LESS THAN MAXVALUE)", ""),
		innodb("full_text", ", FULLTEXT KEY words (b)", "", ""),
		innodb("spatial_index", ", p POINT NOT NULL, SPATIAL KEY p (p)", "", ", p = POINT(id, a)"),
		innodb("virtual_columns", ", v VARCHAR(260) AS (CONCAT(b, '-', a)) VIRTUAL, s INT AS (a % 1000) STORED, KEY v (v(150)), KEY s (s)", "", ""),
		innodb("prefix", ", KEY b (b(10)), KEY c (c(50))", "", ""),
		innodb("versioned", ", KEY a (a)", "WITH SYSTEM VERSIONING", ""),
		innodb("parent", ", KEY a (a)", "", ""),
		innodb("child", ", parent INT, KEY parent (parent), "+
			"CONSTRAINT child_parent FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE ON UPDATE CASCADE", "", ", parent = id"),
		innodb("watched", ", KEY a (a)", "", ""),
		innodb("many_types", ", d DECIMAL(20,5) DEFAULT 1.5, e ENUM('x','y','ä') DEFAULT 'ä', j JSON, "+
			"ts TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), f DOUBLE, g FLOAT, i BIT(9) DEFAULT 5", "", ", j = JSON_OBJECT('a', a), f = a / 7, g = a / 3"),
		{db: dbPlain, name: "tä ble/%", extra: ", KEY a (a)", tail: "ENGINE=InnoDB"},
		{db: dbOdd, name: "odd-näme$", extra: ", KEY a (a)", tail: "ENGINE=InnoDB"},
		{db: dbOdd, name: "tä ble/%", extra: ", KEY a (a)", tail: "ENGINE=MyISAM", single: true},

		{db: dbPlain, name: "myisam", extra: ", KEY a (a), KEY b (b)", tail: "ENGINE=MyISAM", single: true},
		{db: dbPlain, name: "myisam_fixed", extra: ", KEY a (a)", tail: "ENGINE=MyISAM ROW_FORMAT=DYNAMIC CHECKSUM=1", single: true},
		{db: dbPlain, name: "aria_transactional", extra: ", KEY a (a), KEY b (b)", tail: "ENGINE=Aria TRANSACTIONAL=1", single: true},
		{db: dbPlain, name: "aria_page", extra: ", KEY a (a)", tail: "ENGINE=Aria TRANSACTIONAL=0 ROW_FORMAT=PAGE", single: true},
		{db: dbPlain, name: "aria_dynamic", extra: ", KEY a (a)", tail: "ENGINE=Aria TRANSACTIONAL=0 ROW_FORMAT=DYNAMIC", single: true},
		{db: dbPlain, name: "aria_by_hash", tail: "ENGINE=Aria TRANSACTIONAL=0 PARTITION BY HASH (id) PARTITIONS 3", single: true},
		{db: dbPlain, name: "csv", tail: "ENGINE=CSV", noKey: true, single: true},
		{db: dbPlain, name: "archive", tail: "ENGINE=ARCHIVE", insertOnly: true, single: true},
		{db: dbPlain, name: "merge_1", extra: ", KEY a (a)", tail: "ENGINE=MyISAM", single: true},
		{db: dbPlain, name: "merge_2", extra: ", KEY a (a)", tail: "ENGINE=MyISAM", single: true},
	}
	// ROW_FORMAT=COMPRESSED ends at 16 KiB, and a block is no larger than a
	// page.
	for _, kbs := range []int{8, 4} {
		if pageSize <= 16<<10 && kbs<<10 <= pageSize {
			all = append(all, innodb(fmt.Sprintf("compressed_%d", kbs), ", KEY a (a)",
				fmt.Sprintf("ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=%d", kbs), ""))
		}
	}
	return all
}

// surroundings are the objects that are not tables of the writers: what they
// write to on the side, and what must only be there afterwards.
func surroundings(o Options) []string {
	l := ident(dbPlain) + "."
	merge := "CREATE TABLE " + l + "merged (id INT NOT NULL, a INT, b VARCHAR(200), c MEDIUMBLOB, KEY id (id), KEY a (a)) " +
		"ENGINE=MERGE UNION=(" + l + "merge_1, " + l + "merge_2) INSERT_METHOD=LAST"
	var sequences []string
	if !o.Release.MySQL() {
		sequences = []string{
			"CREATE SEQUENCE " + l + "numbers START WITH 100 INCREMENT BY 3 CACHE 20",
			"CREATE SEQUENCE " + l + "aria_numbers ENGINE=Aria",
		}
	}
	return append(sequences,
		"CREATE DATABASE `empty` CHARACTER SET latin1",
		"CREATE TABLE "+l+"audit (k INT NOT NULL PRIMARY KEY, n BIGINT NOT NULL, last INT) ENGINE=InnoDB",
		"CREATE TABLE "+l+"ticks (k INT NOT NULL PRIMARY KEY, n BIGINT NOT NULL) ENGINE=InnoDB",
		merge,
		"CREATE VIEW "+l+"sums AS SELECT a % 10 AS k, COUNT(*) AS n, SUM(a) AS s FROM "+l+"dynamic GROUP BY a % 10",
		"CREATE VIEW "+ident(dbOdd)+".`view ü` AS SELECT id, b FROM "+ident(dbOdd)+".`odd-näme$`",
		"CREATE TRIGGER "+l+"watched_insert AFTER INSERT ON "+l+"watched FOR EACH ROW "+
			"INSERT INTO "+l+"audit VALUES (NEW.id % 64, 1, NEW.a) ON DUPLICATE KEY UPDATE n = n + 1, last = NEW.a",
		"CREATE TRIGGER "+l+"watched_update AFTER UPDATE ON "+l+"watched FOR EACH ROW "+
			"INSERT INTO "+l+"audit VALUES (64 + NEW.id % 64, 1, NEW.a) ON DUPLICATE KEY UPDATE n = n + 1, last = NEW.a",
		"CREATE TRIGGER "+l+"watched_delete BEFORE DELETE ON "+l+"watched FOR EACH ROW "+
			"INSERT INTO "+l+"audit VALUES (128 + OLD.id % 64, 1, OLD.a) ON DUPLICATE KEY UPDATE n = n + 1, last = OLD.a",
		"CREATE PROCEDURE "+l+"bump(IN k INT, IN by_ INT) MODIFIES SQL DATA "+
			"UPDATE "+l+"dynamic SET a = (a + by_) % 100000 WHERE id = k",
		"CREATE FUNCTION "+l+"half(x INT) RETURNS INT DETERMINISTIC RETURN x DIV 2",
		"CREATE EVENT "+l+"tick ON SCHEDULE EVERY 1 SECOND DO "+
			"INSERT INTO "+l+"ticks VALUES (1, 1) ON DUPLICATE KEY UPDATE n = n + 1",
		"CREATE USER 'reader'@'%' IDENTIFIED BY 'x'",
		"CREATE ROLE readers",
		"GRANT SELECT ON "+l+"* TO readers",
		"GRANT readers TO 'reader'@'%'",
		"GRANT SELECT (id, a) ON "+l+"parent TO 'reader'@'%'",
		"GRANT EXECUTE ON PROCEDURE "+l+"bump TO 'reader'@'%'",
	)
}

// schema is everything to be executed on an empty server.
func schema(o Options) []string {
	statements := []string{
		"CREATE DATABASE " + ident(dbPlain) + " CHARACTER SET utf8mb4",
		"CREATE DATABASE " + ident(dbOdd) + " CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
	}
	for _, t := range tables(o) {
		statements = append(statements, t.create())
	}
	return append(statements, surroundings(o)...)
}
