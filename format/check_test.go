package format

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode"
)

// B1: names and sizes of data files as the server reads them, and nothing else.
func TestParseDataFiles(t *testing.T) {
	got, err := ParseDataFiles("a:12M;/x/b:1g;c:4096K:autoextend:max:20G;")
	check(t, err)
	want := []DataFile{{Path: "a", Size: 12 << 20}, {Path: "/x/b", Size: 1 << 30}, {Path: "c", Size: 4 << 20, Autoextend: true, Max: 20 << 30}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if text := FormatDataFiles(got); text != "a:12M;b:1024M;c:4M:autoextend:max:20480M" {
		t.Errorf("written again: %s", text)
	}
	for _, good := range []string{"ibdata1:12M:autoextend:autoshrink", "ibdata1:12M:autoextend:max:1024M:autoshrink", "x:1048577"} {
		files, err := ParseDataFiles(good)
		if err != nil || FormatDataFiles(files) != good {
			t.Errorf("%q: %v, written again %q", good, err, FormatDataFiles(files))
		}
	}
	for _, bad := range []string{
		"", ";", "a", "a:", ":1M", "a:M", "a:0", "a:-1", "a:+1", "a:1T", "a:1M ", "a:9999999999G", "a:1Mraw", "a:1Mnewraw", "a:1M:raw", "a:1M:newraw",
		"a:1M:autoextend;b:1M", "a:1M:autoextend:max", "a:1M:autoextend:max:x", "a:1M:max:2M", "a:1M:autoshrink", "a:1M:autoextend:autoextend",
		"a:1M;;b:1M", "a\nb:1M", "a\\b:1M", "a:1M\nplugin_load_add=x", `C:\x:1M`, strings.Repeat("a:1M;", 1001),
	} {
		if files, err := ParseDataFiles(bad); err == nil {
			t.Errorf("%.40q: %v, want an error", bad, files)
		}
	}
}

// B3: GTID positions by their grammar, and no other text.
func TestGTIDGrammar(t *testing.T) {
	const uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
	for dialect, all := range map[string]map[string]bool{
		"mariadb": {"": true, "0-1-7": true, "0-1-7,4294967295-1-18446744073709551615": true, uuid + ":1-5": false,
			"0-1": false, "0-1-7,": false, "0-1-7 ": false, "0-1-7\n": false, "0-1-1'; DROP DATABASE mysql; -- ": false, "٠-1-7": false},
		"mysql": {uuid + ":1-5": true, uuid + ":1-5:7:tag:1," + uuid + ":1": true, uuid: false, "0-1-7": false, uuid + ":1-5'": false},
	} {
		for gtid, good := range all {
			if err := (&Server{Dialect: dialect}).checkGTID(gtid); (err == nil) != good {
				t.Errorf("%s: %q: %v", dialect, gtid, err)
			}
		}
	}
}

// B2: what a user typed or a server says of itself does not make a backup fail: a
// writer makes it readable.
func TestWriterMakesTextReadable(t *testing.T) {
	var out bytes.Buffer
	typed := "xbsend --databases='a\nb' \x1b[2J \u009b ä"
	m := &Manifest{Command: typed, Tool: "x\t1", Backup: &Backup{Redo: Redo{Format: RedoMariaDB, Creator: "a\x00"},
		Server: Server{Comment: "\r"}, Filter: &Filter{Tables: "a\nb"}}}
	check(t, EncodeManifest(&out, m))
	if m.Command != typed || m.Backup.Filter.Tables != "a\nb" {
		t.Error("the caller's manifest was changed")
	}
	got, err := ReadManifest(&out)
	check(t, err)
	b := got.Backup
	if want := `xbsend --databases='a\nb' \x1b[2J \u009b ä`; got.Command != want || got.Tool != `x\t1` || b.Filter.Tables != `a\nb` || b.Redo.Creator != `a\x00` || b.Server.Comment != `\r` {
		t.Errorf("got %q, %+v", got.Command, got)
	}
	m.Backup.Binlog = &BinlogPosition{File: "bin\n"}
	if err := EncodeManifest(&out, m); err == nil {
		t.Error("a binary log with a line end in its name was written")
	}
}

// A directory that many paths lie in is kept once, and their number is bounded.
func TestDirectoriesAreBounded(t *testing.T) {
	e := NewEntries(false)
	for i := range 1 << 19 {
		check(t, e.Add(&File{No: 1, Path: fmt.Sprintf("d%d/x/f%d", i%1000, i), Kind: KindFile}))
	}
	if n := len(e.dirs); n > 1<<17 {
		t.Errorf("%d directories kept of 2000", n)
	}
	var err error
	for i := 0; err == nil && i < 1<<24; i++ {
		err = e.Add(&File{No: 1, Path: fmt.Sprintf("%d%s/f", i, strings.Repeat("/x", 1000)), Kind: KindFile})
	}
	if err == nil || !strings.Contains(err.Error(), "directories") || len(e.dirs) > 4*maxDirs {
		t.Errorf("%d directories kept, error %v", len(e.dirs), err)
	}
}

func FuzzDataFiles(f *testing.F) {
	f.Add("ibdata1:12M;ibdata2:1G:autoextend:max:20G")
	f.Add("/dev/sdb:3Gnewraw")
	f.Add("a:1M:autoextend:autoshrink")
	f.Fuzz(func(t *testing.T, spec string) {
		files, err := ParseDataFiles(spec)
		if err != nil {
			return
		}
		text := FormatDataFiles(files)
		if strings.ContainsFunc(text, unicode.IsControl) || strings.Contains(text, "/") || strings.Contains(text, "raw") && !strings.Contains(spec, "raw") {
			t.Errorf("%q becomes %q", spec, text)
		}
		again, err := ParseDataFiles(text)
		if err != nil || FormatDataFiles(again) != text {
			t.Errorf("%q becomes %q, and then %q: %v", spec, text, FormatDataFiles(again), err)
		}
	})
}

// FuzzManifestStrings puts a string into every place of a manifest: one that is
// read holds no control character, and no GTID or UUID that is none.
func FuzzManifestStrings(f *testing.F) {
	f.Add("0-1-7", uint8(0))
	f.Add("ibdata1:12M:autoextend", uint8(1))
	f.Add("a\nb", uint8(2))
	f.Add("\u009b", uint8(3))
	f.Fuzz(func(t *testing.T, s string, place uint8) {
		m := &Manifest{Backup: &Backup{Redo: Redo{Format: RedoMariaDB}, Binlog: &BinlogPosition{}, Galera: &GaleraPosition{
			StateUUID: "3e11fa47-71ca-11e1-9e33-c80aa9429562"}, Replication: []ReplicationSource{{}}, Filter: &Filter{}, Stages: []Stage{{}}}}
		b := m.Backup
		places := []*string{&b.GTID, &b.Server.DataFilePath, &m.Tool, &m.Command, &b.Type, &b.Server.Version, &b.Server.Comment, &b.Server.Dialect,
			&b.Server.ChecksumAlgorithm, &b.Server.ServerUUID, &b.Redo.Format, &b.Redo.Creator, &b.Redo.Encryption, &b.Binlog.File, &b.GTIDReplicated,
			&b.Galera.StateUUID, &b.Replication[0].Connection, &b.Replication[0].Host, &b.Replication[0].File, &b.Filter.Tables, &b.Stages[0].Name}
		p := places[int(place)%len(places)]
		*p = s
		var out bytes.Buffer
		if EncodeManifest(&out, m) != nil {
			return
		}
		got, err := ReadManifest(&out)
		if err != nil {
			t.Fatalf("written and not read: %v", err)
		}
		var text bytes.Buffer
		fmt.Fprintf(&text, "%s %s %+v %+v %+v", got.Tool, got.Command, *got.Backup, *got.Backup.Binlog, *got.Backup.Filter)
		if bytes.ContainsFunc(text.Bytes(), unicode.IsControl) || strings.Contains(got.Backup.GTID, "'") {
			t.Errorf("read: %q", text.Bytes())
		}
	})
}
