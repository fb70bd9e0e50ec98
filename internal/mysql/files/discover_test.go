package files

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/servertest"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// openFiles is what source asks for.
func openFiles(s *servertest.Server) func(context.Context) (map[string]bool, error) {
	return func(ctx context.Context) (map[string]bool, error) {
		rows, err := s.DB().QueryContext(ctx, "SELECT FILE_NAME FROM information_schema.FILES WHERE ENGINE = 'InnoDB' AND FILE_TYPE IN ('TABLESPACE', 'UNDO LOG')")
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		files := map[string]bool{}
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return nil, err
			}
			files[filepath.Clean(name)] = true
		}
		return files, rows.Err()
	}
}

// found lists what is found, as "kind path" and "path class".
func found(t *testing.T, l chunker.Layout) (spaces, others []string) {
	t.Helper()
	d := New(l)
	inno, err := d.InnoDB(t.Context())
	check(t, err)
	rest, err := d.Others(t.Context())
	check(t, err)
	for _, f := range inno {
		text := string(f.Kind) + " " + f.Rel
		if f.Source != "" {
			text += " from " + f.Source
		}
		if f.LeftOut {
			text += " left out"
		}
		spaces = append(spaces, text)
	}
	for _, f := range rest {
		others = append(others, fmt.Sprintf("%s %d", f.Rel, f.Class))
	}
	for _, f := range slices.Concat(inno, rest) {
		if err := format.CheckName(f.Rel, false); err != nil {
			t.Error(err)
		}
	}
	slices.Sort(spaces)
	slices.Sort(others)
	return spaces, others
}

// One object of every kind: all that a copy needs is found, and nothing else.
func TestFindsEverything(t *testing.T) {
	for _, r := range servertest.MySQLReleases(t) {
		t.Run(r.String(), func(t *testing.T) { findsEverything(t, r) })
	}
}

func findsEverything(t *testing.T, r servertest.Release) {
	outside := t.TempDir()
	s := servertest.New(t, servertest.Options{Release: r, LogBin: true, Args: []string{"--innodb-directories=" + outside, "--general-log=ON", "--log-output=TABLE", "--innodb-data-file-path=ibdata1:12M;other:8M:autoextend"},
		Install: []string{"--innodb-data-file-path=ibdata1:12M;other:8M:autoextend"}})
	check(t, s.Exec(t.Context(), "CREATE DATABASE `größe-1`", "USE `größe-1`",
		"CREATE TABLE inno (a INT PRIMARY KEY, b TEXT, FULLTEXT (b))",
		"CREATE TABLE far (a INT) DATA DIRECTORY='"+outside+"'",
		"CREATE TABLE parts (a INT) PARTITION BY RANGE (a) SUBPARTITION BY HASH (a) SUBPARTITIONS 1 (PARTITION p0 VALUES LESS THAN (9), PARTITION p1 VALUES LESS THAN MAXVALUE DATA DIRECTORY='"+outside+"')",
		"CREATE TABLESPACE ts ADD DATAFILE 'ts.ibd'", "CREATE TABLE in_ts (a INT) TABLESPACE ts",
		"CREATE TABLESPACE far_ts ADD DATAFILE '"+outside+"/far_ts.ibd'",
		"CREATE UNDO TABLESPACE u ADD DATAFILE 'u.ibu'", "CREATE UNDO TABLESPACE far_u ADD DATAFILE '"+outside+"/far_u.ibu'",
		"CREATE TABLE a_name_of_more_than_sixteen_letters (a INT) ENGINE=MyISAM", "CREATE TABLE cs (a INT NOT NULL) ENGINE=CSV", "CREATE TABLE ar (a INT) ENGINE=ARCHIVE",
		"CREATE TABLE mem (a INT) ENGINE=MEMORY", "CREATE TABLE mrg (a INT) ENGINE=MERGE UNION=(a_name_of_more_than_sixteen_letters)", "CREATE TEMPORARY TABLE tmp (a INT)",
		"CREATE VIEW v AS SELECT 1", "CREATE DATABASE `empty`", "CREATE DATABASE gone", "CREATE TABLE gone.dis (a INT)", "ALTER TABLE gone.dis DISCARD TABLESPACE"))
	dir := s.Datadir()
	for name, content := range map[string]string{"gr@1i@1je@002d1/notes.txt": "x", "gr@1i@1je@002d1/#sql-left.MYD": "x"} {
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	check(t, os.MkdirAll(filepath.Join(dir, "lost+found"), 0o700))
	l := chunker.Layout{DataDir: dir, PageSize: 16 << 10, DataFiles: []chunker.DataFile{{Name: filepath.Join(dir, "ibdata1")}, {Name: filepath.Join(dir, "other")}}, OpenFiles: openFiles(s)}
	spaces, others := found(t, l)

	const db = "gr@1i@1je@002d1/"
	has := func(list []string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !slices.Contains(list, w) {
				t.Errorf("%s is missing", w)
			}
		}
	}
	far := filepath.Join(outside, db)
	has(spaces, "system ibdata1", "system other", "tablespace mysql.ibd", "undo undo_001", "undo undo_002", "undo u.ibu", "undo far_u.ibu from "+outside+"/far_u.ibu",
		"tablespace ts.ibd", "tablespace far_ts.ibd from "+outside+"/far_ts.ibd", "tablespace "+db+"inno.ibd", "tablespace "+db+"far.ibd from "+far+"/far.ibd",
		"tablespace "+db+"parts#p#p0#sp#p0sp0.ibd", "tablespace "+db+"parts#p#p1#sp#p1sp0.ibd from "+far+"/parts#p#p1#sp#p1sp0.ibd", "tablespace sys/sys_config.ibd")
	locked := fmt.Sprint(int(chunker.ClassLockedTable))
	has(others, db+"a_name_of_more_than_sixteen_letters.MYD "+locked, db+"cs.CSV "+locked, db+"ar.ARZ "+locked, db+fmt.Sprintf("mrg.MRG %d", chunker.ClassSchema),
		fmt.Sprintf("mysql/general_log.CSV %d", chunker.ClassServerTable), fmt.Sprintf("ib_buffer_pool %d", chunker.ClassUnknown), db+fmt.Sprintf("notes.txt %d", chunker.ClassUnknown))
	for _, name := range slices.Concat(spaces, others) {
		name, _, _ = strings.Cut(name, " from ")
		for _, not := range []string{"auto.cnf", ".pem", "redo", "dblwr", "ibtmp1", ".ibt", "binlog", "#sql", "lost", "dis.ibd", "in_ts", "tmp"} {
			if strings.Contains(name, not) {
				t.Errorf("%s is no part of a backup", name)
			}
		}
	}
	// As many as the server knows of, no more and no fewer.
	known, err := openFiles(s)(t.Context())
	if err != nil || len(spaces) != len(known) {
		t.Errorf("%d tablespaces, the server has %d (%v)\n%s", len(spaces), len(known), err, strings.Join(spaces, "\n"))
	}
	dirs, err := New(l).Dirs(t.Context())
	check(t, err)
	var names []string
	for _, f := range dirs {
		names = append(names, f.Path)
	}
	// A database with nothing but a discarded tablespace is an empty directory.
	if want := []string{"empty", "gone", "gr@1i@1je@002d1", "mysql", "performance_schema", "sys"}; !slices.Equal(names, want) {
		t.Errorf("directories %v, want %v", names, want)
	}

	t.Run("one table", func(t *testing.T) {
		l := l
		l.Filter = &chunker.Filter{}
		for _, name := range []string{"`größe-1`.a_name_of_more_than_sixteen_letters", "`größe-1`.inno"} {
			_, err := l.Filter.Include.Add(name)
			check(t, err)
		}
		l.TableNames = func(ctx context.Context, ids []uint64) (map[uint64]string, error) {
			names := map[uint64]string{}
			for _, id := range ids {
				name, err := s.String(ctx, "SELECT NAME FROM information_schema.INNODB_TABLES WHERE TABLE_ID = ?", id)
				if err != nil {
					return nil, err
				}
				names[id] = name
			}
			return names, nil
		}
		spaces, others := found(t, l)
		has(spaces, "system ibdata1", "tablespace mysql.ibd", "tablespace ts.ibd", "undo u.ibu", "tablespace "+db+"inno.ibd", "tablespace "+db+"parts#p#p0#sp#p0sp0.ibd left out")
		for _, name := range spaces {
			if strings.Contains(name, "fts_") && strings.Contains(name, "left out") {
				t.Errorf("%s: the full-text index of a table that is wanted", name)
			}
		}
		kinds := map[string]int{}
		for _, name := range others {
			kinds[filepath.Ext(strings.Fields(name)[0])]++
		}
		if kinds[".MYD"] != 1 || kinds[".MYI"] != 1 || kinds[".sdi"] != 1 || kinds[".CSV"] != 0 {
			t.Errorf("%v", others)
		}
	})
}

// A name that is not one of the server's, or that two files would have.
func TestNames(t *testing.T) {
	for name, want := range map[string]format.FileKind{
		"undo_001": format.KindUndo, "undo001": format.KindUndo, "x.ibu": format.KindUndo, "t.ibd": format.KindTablespace,
		"undo_1": "", ".ibu": "", "ibdata1": "", "undo_001_trunc.log": "", "undo_1_trunc.log": "", "#ib_16384_0.dblwr": "", "ibtmp1": "",
	} {
		if got := kindOf(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	list := &spaces{byPath: map[string]bool{}, byName: map[string]string{}}
	check(t, list.add(chunker.File{Abs: "/a/ts.ibd", Rel: "ts.ibd"}))
	check(t, list.add(chunker.File{Abs: "/a/ts.ibd", Rel: "ts.ibd"}))
	if err := list.add(chunker.File{Abs: "/b/ts.ibd", Rel: "ts.ibd"}); err == nil || !strings.Contains(err.Error(), "/a/ts.ibd") {
		t.Errorf("two files of one name: %v", err)
	}
}
