package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/format/formattest"
)

// backup is an archive as xbsend writes it, of nearly nothing, and its manifest.
func backup(t *testing.T) ([]byte, *format.Manifest) {
	t.Helper()
	var out bytes.Buffer
	w, err := format.NewWriter(&out, format.WriterOptions{})
	check(t, err)
	m := &format.Manifest{Tool: "test 1", Started: time.Unix(0, 0), Finished: time.Unix(1, 0), Backup: &format.Backup{
		Type: format.TypeFull,
		Server: format.Server{Dialect: "mariadb", Version: "10.11.19-MariaDB", PageSize: 16384,
			DataFilePath: "ibdata1:1M:autoextend", ChecksumAlgorithm: "full_crc32"},
		Redo:   format.Redo{Format: format.RedoMariaDB, CheckpointLSN: 15000, CheckpointEndLSN: 15000, EndLSN: 15010},
		Binlog: &format.BinlogPosition{File: "bin.000001", Position: 42}, GTID: "0-1-7", GTIDReplicated: "0-2-9",
		Replication: []format.ReplicationSource{{Connection: "x", Host: "db1", Port: 3306, GTID: true}},
		Filter:      &format.Filter{Databases: "shop"},
	}}
	const size = 1 << 20
	for _, f := range []format.File{
		{Path: "ibdata1", Kind: format.KindSystem, Size: size, Mode: 0o640, Space: &format.Space{Flags: 0x15, PageSize: 16384}},
		{Path: "db/t.ibd", Kind: format.KindTablespace, Size: size, Mode: 0o640, Space: &format.Space{ID: 7, Flags: 0x15, PageSize: 16384}},
		{Path: "db/db.opt", Kind: format.KindFile, Size: size, Mode: 0o640},
	} {
		f.No, err = w.BeginFile(f)
		check(t, err)
		check(t, w.WriteHole(f.No, 0, size))
		check(t, w.EndFile(f.No, size))
		m.Files = append(m.Files, f)
	}
	check(t, w.WriteRedo(15000, []byte("0123456789")))
	_, err = w.Close(m)
	check(t, err)
	return out.Bytes(), m
}

// hostile are manifests of an attacker, each with one thing wrong. B1, B2, B4.
var hostile = map[string]func(m *format.Manifest){
	// B1: what goes to a server.
	"data file elsewhere":        func(m *format.Manifest) { m.Backup.Server.DataFilePath = "ibdata1:1M;/tmp/evil:10M:autoextend" },
	"data file in a directory":   func(m *format.Manifest) { m.Backup.Server.DataFilePath = "ibdata1:1M;db/evil:10M" },
	"data file that is not here": func(m *format.Manifest) { m.Backup.Server.DataFilePath = "ibdata1:1M;evil:10M" },
	"another data file":          func(m *format.Manifest) { m.Backup.Server.DataFilePath = "evil:1M:autoextend" },
	"data file twice":            func(m *format.Manifest) { m.Backup.Server.DataFilePath = "ibdata1:1M;ibdata1:1M" },
	"parent directory":           func(m *format.Manifest) { m.Backup.Server.DataFilePath = "..:1M:autoextend" },
	"newraw":                     func(m *format.Manifest) { m.Backup.Server.DataFilePath = "ibdata1:1Mnewraw" },
	"raw":                        func(m *format.Manifest) { m.Backup.Server.DataFilePath = "ibdata1:1Mraw" },
	"no size":                    func(m *format.Manifest) { m.Backup.Server.DataFilePath = "ibdata1" },
	"system file not named": func(m *format.Manifest) {
		m.Files[1].Kind, m.Files[1].Space = format.KindSystem, &format.Space{Flags: 0x15, PageSize: 16384, FirstPage: 64}
	},
	"page size":          func(m *format.Manifest) { m.Backup.Server.PageSize = 12345 },
	"negative page size": func(m *format.Manifest) { m.Backup.Server.PageSize = -16384 },
	"undo tablespaces":   func(m *format.Manifest) { m.Backup.Server.UndoTablespaces = 128 },
	"log file size":      func(m *format.Manifest) { m.Backup.Server.LogFileSize = -1 },
	"compression level":  func(m *format.Manifest) { m.Backup.Server.CompressionLevel = 10 },
	"lower case":         func(m *format.Manifest) { m.Backup.Server.LowerCaseTableNames = 3 },
	"checksum algorithm": func(m *format.Manifest) { m.Backup.Server.ChecksumAlgorithm = "crc32 --plugin-load-add=x" },
	// B2: control characters.
	"line in the checksum algorithm": func(m *format.Manifest) { m.Backup.Server.ChecksumAlgorithm = "crc32\n[mysqld]\nplugin_load_add=evil" },
	"line in the data files":         func(m *format.Manifest) { m.Backup.Server.DataFilePath = "ibdata1:1M:autoextend\nplugin_load_add=evil" },
	"line in the version":            func(m *format.Manifest) { m.Backup.Server.Version = "10.11\nto_lsn = 7" },
	"line in the tool":               func(m *format.Manifest) { m.Tool = "xbsend 1\nserver_version = 0" },
	"line in the command":            func(m *format.Manifest) { m.Command = "xbsend\n" },
	"escape in the comment":          func(m *format.Manifest) { m.Backup.Server.Comment = "\x1b[2J" },
	"bell in the binary log":         func(m *format.Manifest) { m.Backup.Binlog.File = "bin\a" },
	"tab in the binary log":          func(m *format.Manifest) { m.Backup.Binlog.File = "bin\t4" },
	"C1 in the host":                 func(m *format.Manifest) { m.Backup.Replication[0].Host = "db\u009b1" },
	"DEL in the connection":          func(m *format.Manifest) { m.Backup.Replication[0].Connection = "x\x7f" },
	"line in a filter":               func(m *format.Manifest) { m.Backup.Filter.Tables = "a\rb" },
	"line in a stage":                func(m *format.Manifest) { m.Backup.Stages = []format.Stage{{Name: "END\n"}} },
	"line in a path":                 func(m *format.Manifest) { m.Files[2].Path = "db/x\ny" },
	"escape in a path":               func(m *format.Manifest) { m.Files[2].Path = "db/\x1b[31mx" },
	"C1 in a path":                   func(m *format.Manifest) { m.Files[2].Path = "db/\u009b2J" },
	"line in a source":               func(m *format.Manifest) { m.Files[1].Source = "/far/x\ny/db/t.ibd" },
	// B3: what people paste.
	"SQL in the GTID":      func(m *format.Manifest) { m.Backup.GTID = "0-1-1'; DROP DATABASE mysql; -- " },
	"SQL in the other":     func(m *format.Manifest) { m.Backup.GTIDReplicated = "0-1-1'; DROP DATABASE mysql; -- " },
	"blank GTID":           func(m *format.Manifest) { m.Backup.GTID = " " },
	"shell in the cluster": func(m *format.Manifest) { m.Backup.Galera = &format.GaleraPosition{StateUUID: "$(reboot)"} },
	"port":                 func(m *format.Manifest) { m.Backup.Replication[0].Port = 65536 },
	// B4: what was refused by some commands only.
	"the log":          func(m *format.Manifest) { m.Files[2].Path = "ib_logfile0" },
	"the manifest":     func(m *format.Manifest) { m.Files[2].Path = "xbstream_manifest.json" },
	"the option file":  func(m *format.Manifest) { m.Files[2].Path = "backup-my.cnf" },
	"an info file":     func(m *format.Manifest) { m.Files[2].Path = "xtrabackup_slave_info" },
	"staging":          func(m *format.Manifest) { m.Files[2].Path = ".xbstream-partial-abc/x" },
	"below a file":     func(m *format.Manifest) { m.Files[2].Path = "db/t.ibd/x" },
	"far below a file": func(m *format.Manifest) { m.Files[2].Path = "ibdata1/a/b/c" },
	"directory below one": func(m *format.Manifest) {
		m.Files = append(m.Files, format.File{Path: "db/t.ibd/d", Kind: format.KindDir})
	},
	"link file":            func(m *format.Manifest) { m.Files[2].Path = "db/u.isl" },
	"encryption":           func(m *format.Manifest) { m.Backup.Redo.Encryption = "zz" },
	"short encryption":     func(m *format.Manifest) { m.Backup.Redo.Encryption = "00" },
	"no system tablespace": func(m *format.Manifest) { m.Files[0].Kind = format.KindTablespace; m.Files[0].Space.ID = 9 },
	"path twice":           func(m *format.Manifest) { m.Files[2].Path = m.Files[1].Path },
	"tablespace twice":     func(m *format.Manifest) { m.Files[1].Space.ID = 0 },
	"left out twice":       func(m *format.Manifest) { m.Files = append(m.Files, leftOut("db/t.ibd", 99)) },
	"left out and here":    func(m *format.Manifest) { m.Files = append(m.Files, leftOut("db/u.ibd", 7)) },
	"FILE_CHECKPOINT":      func(m *format.Manifest) { m.Backup.Redo.CheckpointEndLSN = 1 },
}

func leftOut(path string, id format.SpaceID) format.File {
	return format.File{Path: path, Kind: format.KindLeftOut, Space: &format.Space{ID: id}}
}

// ofFrames are manifests that do not fit the frames: a directory has none.
var ofFrames = map[string]func(m *format.Manifest){
	"number twice":       func(m *format.Manifest) { m.Files[1].No = 1 },
	"number unknown":     func(m *format.Manifest) { m.Files[1].No = 77 },
	"file not named":     func(m *format.Manifest) { m.Files = m.Files[:2] },
	"too many discarded": func(m *format.Manifest) { m.Discarded = 1 },
	"another archive":    func(m *format.Manifest) { m.ArchiveID = strings.Repeat("0", 32) },
	"redo ends later":    func(m *format.Manifest) { m.Backup.Redo.EndLSN++ },
	"no backup":          func(m *format.Manifest) { m.Backup = nil },
}

// B1, B2, B4: every command refuses the same archives, for the same reason, and
// nothing is left of them.
func TestAllCommandsRefuseTheSameArchives(t *testing.T) {
	good, _ := backup(t)
	restored := filepath.Join(t.TempDir(), "restored")
	if code, _, errs := xbstream(t, bytes.NewReader(good), "extract", "-q", "-C", restored); code != 0 {
		t.Fatalf("the sound archive: %d, %s", code, errs)
	}
	try := func(name string, change func(*format.Manifest), dir bool) {
		_, m := backup(t)
		change(m)
		m.ArchiveID = orID(m.ArchiveID, good)
		text := formattest.Encode(m)
		bad := formattest.Rewrite(good, func([]byte) []byte { return text })
		file := filepath.Join(t.TempDir(), "bad.xb")
		check(t, os.WriteFile(file, bad, 0o600))
		target := filepath.Join(t.TempDir(), "target")
		runs := [][]string{
			{"extract", "-C", target}, {"list"}, {"list", "--json"}, {"verify"}, {"info"}, {"info", "--json"},
			{"extract", "-C", target, file}, {"list", file}, {"verify", file}, {"info", file},
		}
		if dir {
			check(t, os.WriteFile(filepath.Join(restored, "xbstream_manifest.json"), text, 0o600))
			runs = append(runs, []string{"info", restored}, []string{"verify", restored}, []string{"prepare", restored}, []string{"prepare", "--with-server", restored})
		}
		for _, args := range runs {
			code, out, errs := xbstream(t, bytes.NewReader(bad), args...)
			if code != 3 || args[0] != "verify" && out != "" {
				t.Errorf("%s: xbstream %s: exit %d, said %.200q %.300q", name, strings.Join(args, " "), code, out, errs)
			}
			if strings.ContainsAny(out+errs, "\x1b\a\r\x7f\u009b") || strings.Count(errs, "\n") > 1 {
				t.Errorf("%s: xbstream %s says %q %q", name, args, out, errs)
			}
		}
		if _, err := os.Lstat(target); err == nil {
			t.Errorf("%s: left %s", name, target)
		}
	}
	for name, change := range hostile {
		if name == "FILE_CHECKPOINT" { // a directory's redo says where it is
			try(name, change, false)
			continue
		}
		try(name, change, true)
	}
	for name, change := range ofFrames {
		try(name, change, false)
	}
}

// orID is an archive's id where a manifest was made for another one.
func orID(id string, archive []byte) string {
	if id == strings.Repeat("0", 32) {
		return id
	}
	const digits = "0123456789abcdef"
	var b strings.Builder
	for _, c := range archive[12:28] {
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
	return b.String()
}

// B3: what is no control character may be in a name, and moves or hides nothing
// where it is printed.
func TestNamesAreQuotedWhereTheyArePrinted(t *testing.T) {
	good, m := backup(t)
	m.ArchiveID = orID("", good)
	m.Backup.Server.Version = "10.11\u202eMariaDB"
	m.Backup.Replication[0].Connection = "a\u2066b'; DROP DATABASE mysql; -- "
	m.Backup.Binlog.File = "bin\u200b"
	m.Files[1].Path = "größe/北京.ibd"
	m.Files[2].Path = "db/\u200bx\u202ey"
	strange := formattest.Rewrite(good, func([]byte) []byte { return formattest.Encode(m) })
	file := filepath.Join(t.TempDir(), "strange.xb")
	check(t, os.WriteFile(file, strange, 0o600))
	for _, args := range [][]string{{"list"}, {"list", "-v"}, {"list", "--json"}, {"info"}, {"info", "--json"}, {"verify", "--log-format=json"}, {"list", file}} {
		code, out, errs := xbstream(t, bytes.NewReader(strange), args...)
		if code != 0 || strings.ContainsAny(out+errs, "\u202e\u2066\u200b") {
			t.Errorf("xbstream %s: exit %d, said %q %q", args, code, out, errs)
		}
		if args[0] == "list" && (!strings.Contains(out, "größe/北京.ibd") || !strings.Contains(out, `db/\u200bx\u202ey"`)) {
			t.Errorf("xbstream %s: %s", args, out)
		}
		if args[0] == "info" && len(args) == 1 && !strings.Contains(out, `CHANGE MASTER 'a\u2066b''; DROP DATABASE mysql; -- ' TO`) {
			t.Errorf("xbstream info: %s", out)
		}
	}
}

// B4: names in a stream of mariabackup that extraction uses itself, or that have
// control characters.
func TestAllCommandsRefuseTheSameStreams(t *testing.T) {
	chunk := func(name string) []byte {
		head := append([]byte("XBSTCK01\x00E"), byte(len(name)), 0, 0, 0)
		return append(head, name...)
	}
	for name, good := range map[string]bool{"a.txt": true, "db/x.isl": true, ".xbstream-partial-x/a": false, "a\nb": false, "\x1b[2J": false, "a.txt/b": false} {
		stream := bytes.Join([][]byte{chunk("a.txt"), chunk(name), chunk("xtrabackup_checkpoints"), chunk("xtrabackup_info")}, nil)
		if name == "a.txt" {
			stream = stream[len(chunk(name)):]
		}
		for _, command := range []string{"extract", "list", "verify", "info"} {
			args := []string{command}
			if command == "extract" {
				args = append(args, "-C", filepath.Join(t.TempDir(), "target"))
			}
			code, out, errs := xbstream(t, bytes.NewReader(stream), args...)
			if (code == 0) != good || !good && code != 3 || strings.Contains(out+errs, "\x1b") {
				t.Errorf("%q: %s: exit %d, said %q %q", name, command, code, out, errs)
			}
		}
	}
}
