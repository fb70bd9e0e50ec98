package prepare

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/mariadb/redo"
	"github.com/xbstream/xbstream/internal/spaces"
)

// A made backup is a directory with a manifest and a log, small enough to say in
// a few lines what redo does to its files.
type made struct {
	files   []madeFile
	log     []byte // mini-transactions
	filter  *format.Filter
	partial bool
}

// madeFile is a tablespace of the manifest. Without an id page 0 is not written.
type madeFile struct {
	name string
	id   format.SpaceID
}

const (
	madeStart  = 50_000
	madeFlags  = 0x15 // full_crc32, 16 KiB
	madePages  = 4
	sqlBackup  = "d/#sql-backup-46e2-4.ibd"
	fullText   = "d/FTS_00000000000001f4_0000000000000321_INDEX_5.ibd"
	partition  = "d/t#P#p0#TMP#.ibd"
	ordinary   = "d/t.ibd"
	anotherOne = "d/u.ibd"
)

var madeFormat, _ = innodb.ParseFlags(madeFlags)

// listed adds a file to the manifest.
func (m *made) listed(name string, id format.SpaceID) { m.files = append(m.files, madeFile{name, id}) }

func (m *made) mtr(records ...[]byte) { m.log = redo.AppendMTR(m.log, bytes.Join(records, nil), 1) }

func (m *made) record(op redo.FileOp, id format.SpaceID, name, newName string) []byte {
	f := redo.FileRecord{Op: op, Space: id, Name: "./" + name}
	if newName != "" {
		f.NewName = "./" + newName
	}
	return redo.AppendFileRecord(nil, f)
}

// create is what the server writes for a new tablespace: the file and its page 0
// in one mini-transaction.
func (m *made) create(id format.SpaceID, name string) {
	head := make([]byte, 20) // of the space header, from byte 38 of the page
	binary.BigEndian.PutUint32(head, uint32(id))
	binary.BigEndian.PutUint32(head[8:], madePages)
	binary.BigEndian.PutUint32(head[16:], madeFlags)
	m.mtr(m.record(redo.FileCreate, id, name, ""), redo.AppendPageRecord(nil, redo.InitPage, id, 0, nil), redo.AppendSameRecord(nil, redo.Write, append([]byte{38 - 24}, head...)))
}

// change changes page 0 of a tablespace.
func (m *made) change(id format.SpaceID) {
	m.mtr(redo.AppendPageRecord(nil, redo.Write, id, 0, []byte{50, 0, 0, 0, 1}))
}

func (m *made) rename(id format.SpaceID, from, to string) {
	m.mtr(m.record(redo.FileRename, id, from, to))
}
func (m *made) drop(id format.SpaceID, name string) { m.mtr(m.record(redo.FileDelete, id, name, "")) }
func (m *made) modify(id format.SpaceID, name string) {
	m.mtr(m.record(redo.FileModify, id, name, ""))
}

// pageZero is page 0 of a tablespace as it was copied.
func pageZero(id format.SpaceID) []byte {
	page := make([]byte, madeFormat.Physical)
	binary.BigEndian.PutUint32(page[34:], uint32(id))
	binary.BigEndian.PutUint32(page[38:], uint32(id))
	binary.BigEndian.PutUint32(page[46:], madePages)
	binary.BigEndian.PutUint32(page[54:], madeFlags)
	innodb.SetLSN(page, madeStart-1000)
	madeFormat.Seal(page)
	return page
}

// systemTablespace has no rollback segment.
func systemTablespace() []byte {
	all := append(pageZero(0), make([]byte, 7*madeFormat.Physical)...)
	trx := all[int(innodb.TrxSysPage)*madeFormat.Physical:][:madeFormat.Physical]
	binary.BigEndian.PutUint32(trx[4:], uint32(innodb.TrxSysPage))
	binary.BigEndian.PutUint16(trx[24:], 7)
	for at := 56; at < 56+128*8; at++ {
		trx[at] = 0xFF
	}
	innodb.SetLSN(trx, madeStart-1000)
	madeFormat.Seal(trx)
	return all
}

// write writes the backup into a new directory.
func (m *made) write(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	log := redo.LinearHead("Backup 1", redo.Encryption{}, redo.Checkpoint{LSN: madeStart, EndLSN: madeStart})
	log = redo.AppendMTR(log, redo.AppendFileRecord(nil, redo.FileRecord{Op: redo.FileCheckpoint, Checkpoint: madeStart}), 1)
	log = append(log, m.log...)
	end := madeStart + format.LSN(len(log)-redo.StartOffset)
	mf := &format.Manifest{Tool: "test", Partial: m.partial, Backup: &format.Backup{
		Type: "full-backuped", Filter: m.filter, Server: format.Server{Dialect: "mariadb", PageSize: madeFormat.Logical, DataFilePath: "ibdata1:12M:autoextend"},
		Redo: format.Redo{Format: redo.FormatName, CheckpointLSN: madeStart, CheckpointEndLSN: madeStart, EndLSN: end},
	}}
	put := func(f madeFile, kind format.FileKind, content []byte) {
		path := filepath.Join(dir, filepath.FromSlash(f.name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o660)); err != nil {
			t.Fatal(err)
		}
		mf.Files = append(mf.Files, format.File{No: format.FileNo(len(mf.Files) + 1), Path: f.name, Kind: kind, Size: int64(len(content)), Mode: 0o660,
			Space: &format.Space{ID: f.id, Flags: madeFlags, PageSize: madeFormat.Physical, Rebuild: f.id == 0 && kind != format.KindSystem}})
	}
	put(madeFile{"ibdata1", 0}, format.KindSystem, systemTablespace())
	for _, f := range m.files {
		content := make([]byte, madePages*madeFormat.Physical)
		if f.id != 0 {
			copy(content, pageZero(f.id))
		} else {
			content[3*madeFormat.Physical+7] = 9 // of nobody
		}
		put(f, format.KindTablespace, content)
	}
	writeManifest(t, dir, mf)
	if err := os.WriteFile(filepath.Join(dir, redoName), log, 0o660); err != nil {
		t.Fatal(err)
	}
	return dir
}

// tablespacesIn returns the .ibd files of a directory with the ids in their page 0.
func tablespacesIn(t *testing.T, dir string) map[string]format.SpaceID {
	t.Helper()
	tr := spaces.NewTree(dir, madeFormat.Logical)
	found := map[string]format.SpaceID{}
	names, err := filepath.Glob(filepath.Join(dir, "*", "*.ib*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		rel := filepath.Base(filepath.Dir(name)) + "/" + filepath.Base(name)
		id, err := tr.SpaceID(rel)
		if err != nil {
			t.Fatal(err)
		}
		found[rel] = id
	}
	return found
}

// G2: the files are as redo says at the end LSN, whatever the sender saw last,
// also when preparing was interrupted anywhere, and the manifest names them (P1).
func TestFilesFollowRedoToTheEnd(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(m *made)
		want map[string]format.SpaceID
	}{
		{"dropped by a failed ALTER before it was written", func(m *made) {
			m.listed(sqlBackup, 0)
			m.create(7, sqlBackup)
			m.drop(7, sqlBackup)
		}, map[string]format.SpaceID{}},
		{"dropped by a failed ALTER, written, older than the redo", func(m *made) {
			m.listed(sqlBackup, 7)
			m.modify(7, sqlBackup)
			m.change(7)
			m.drop(7, sqlBackup)
		}, map[string]format.SpaceID{}},
		{"a partition that is not to be", func(m *made) {
			m.listed(partition, 7)
			m.create(7, partition)
			m.drop(7, partition)
		}, map[string]format.SpaceID{}},
		{"a full-text index whose ALTER failed", func(m *made) {
			m.listed(fullText, 7)
			m.create(7, fullText)
			m.drop(7, fullText)
		}, map[string]format.SpaceID{}},
		{"made after the last look", func(m *made) {
			m.create(7, fullText)
			m.change(7)
		}, map[string]format.SpaceID{fullText: 7}},
		{"made and dropped after the last look", func(m *made) {
			m.create(7, fullText)
			m.change(7)
			m.drop(7, fullText)
		}, map[string]format.SpaceID{}},
		{"renamed after the last look", func(m *made) {
			m.listed(sqlBackup, 7)
			m.modify(7, sqlBackup)
			m.rename(7, sqlBackup, ordinary)
			m.change(7)
		}, map[string]format.SpaceID{ordinary: 7}},
		{"renamed into another database", func(m *made) {
			m.listed(ordinary, 7)
			m.rename(7, ordinary, "e/x.ibd")
		}, map[string]format.SpaceID{"e/x.ibd": 7}},
		{"a ring of names", func(m *made) {
			m.listed(ordinary, 7)
			m.listed(anotherOne, 8)
			m.listed(sqlBackup, 9)
			m.rename(7, ordinary, "d/spare.ibd")
			m.rename(8, anotherOne, ordinary)
			m.rename(9, sqlBackup, anotherOne)
			m.rename(7, "d/spare.ibd", sqlBackup)
			m.change(7)
			m.change(8)
		}, map[string]format.SpaceID{ordinary: 8, anotherOne: 9, sqlBackup: 7}},
		{"renamed before it was written", func(m *made) {
			m.listed(sqlBackup, 0)
			m.create(7, sqlBackup)
			m.rename(7, sqlBackup, ordinary)
		}, map[string]format.SpaceID{ordinary: 7}},
		{"one name, three tablespaces after one another", func(m *made) {
			m.listed(sqlBackup, 0)
			m.create(7, sqlBackup)
			m.drop(7, sqlBackup)
			m.create(8, sqlBackup)
			m.drop(8, sqlBackup)
			m.create(9, sqlBackup)
		}, map[string]format.SpaceID{sqlBackup: 9}},
		{"dropped, and another one renamed to its name", func(m *made) {
			m.listed(sqlBackup, 7)
			m.listed(anotherOne, 8)
			m.drop(7, sqlBackup)
			m.rename(8, anotherOne, sqlBackup)
		}, map[string]format.SpaceID{sqlBackup: 8}},
		{"an older one has the name last", func(m *made) {
			m.listed(sqlBackup, 0)
			m.listed(anotherOne, 7)
			m.create(8, sqlBackup)
			m.drop(8, sqlBackup)
			m.rename(7, anotherOne, sqlBackup)
		}, map[string]format.SpaceID{sqlBackup: 7}},
		{"imported: DISCARD deletes, IMPORT leaves no trace", func(m *made) {
			m.listed(ordinary, 7)
			m.create(7, ordinary)
			m.drop(7, ordinary)
		}, map[string]format.SpaceID{ordinary: 7}},
		{"imported and renamed since", func(m *made) {
			m.listed(anotherOne, 7)
			m.create(7, ordinary)
			m.drop(7, ordinary)
		}, map[string]format.SpaceID{anotherOne: 7}},
		{"of a partial backup, made by an ALTER", func(m *made) {
			m.filter = &format.Filter{Tables: "^d[.]t$"}
			m.listed(ordinary, 7)
			m.create(8, fullText)
			m.change(8)
			m.change(7)
		}, map[string]format.SpaceID{ordinary: 7}},
		{"of a partial extraction, dropped by an ALTER", func(m *made) {
			m.partial = true
			m.listed(ordinary, 7)
			m.listed(sqlBackup, 8)
			m.drop(8, sqlBackup)
		}, map[string]format.SpaceID{ordinary: 7}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m made
			c.do(&m)
			dir := m.write(t)
			before := copyTree(t, dir)
			prepareMade(t, dir, c.want)
			want := treeOf(t, dir)

			t.Run("again from any point", func(t *testing.T) {
				for _, interrupted := range []func(dir string) error{
					// Files are as they end, the log is not replaced yet.
					func(dir string) error { return restoreFiles(dir, before, redoName) },
					func(dir string) error { return restoreFiles(dir, before, redoName, format.ManifestName) },
				} {
					dir := copyTree(t, dir)
					if err := errors.Join(interrupted(dir), os.Remove(filepath.Join(dir, "xtrabackup_checkpoints"))); err != nil {
						t.Fatal(err)
					}
					prepareMade(t, dir, c.want)
					if got := treeOf(t, dir); !maps.EqualFunc(got, want, bytes.Equal) {
						t.Errorf("the second time there are %q, or they differ; the first time %q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
					}
				}
				testInterruptedFollowing(t, before, c.want)
			})
			t.Run("for a server", func(t *testing.T) { testFollowForServer(t, copyTree(t, before), c.want) })
		})
	}
}

// prepareMade prepares and compares the tablespaces there are, and those of the
// manifest.
func prepareMade(t *testing.T, dir string, want map[string]format.SpaceID) {
	t.Helper()
	if _, err := Run(context.Background(), dir, Options{Verify: true}); err != nil {
		t.Fatal(err)
	}
	if got := tablespacesIn(t, dir); !maps.Equal(got, want) {
		t.Errorf("tablespaces %v, want %v", got, want)
	}
	sameListed(t, dir, want)
}

func sameListed(t *testing.T, dir string, want map[string]format.SpaceID) {
	t.Helper()
	state, err := backupdir.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	numbers := map[format.FileNo]bool{}
	var listed []string
	for _, f := range state.Manifest.Files {
		if numbers[f.No] {
			t.Errorf("two files have number %d", f.No)
		}
		if numbers[f.No] = true; f.Kind == format.KindTablespace {
			listed = append(listed, f.Path)
		}
	}
	slices.Sort(listed)
	if paths := slices.Sorted(maps.Keys(want)); !slices.Equal(listed, paths) {
		t.Errorf("the manifest names %q, want %q", listed, paths)
	}
}

// testInterruptedFollowing stops before each change of a name in turn, and goes on.
func testInterruptedFollowing(t *testing.T, before string, want map[string]format.SpaceID) {
	for n := range 8 {
		dir := copyTree(t, before)
		state, err := backupdir.Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		tr := spaces.NewTree(dir, madeFormat.Logical)
		left := n
		tr.BeforeChange = func() error {
			if left--; left < 0 {
				return errors.New("killed")
			}
			return nil
		}
		if err := tr.SettleManifest(state.Manifest, historyOf(t, dir, func(pageKey, bool) {}), 1); err == nil {
			return // it was not that many
		}
		prepareMade(t, dir, want)
	}
	t.Error("more changes of names than expected")
}

// testFollowForServer: a server is given the files that its recovery looks for,
// those that redo alone has as empty ones.
func testFollowForServer(t *testing.T, dir string, want map[string]format.SpaceID) {
	state, err := backupdir.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing left to do
		if err := readyRedo(context.Background(), dir, state, Options{}.withDefaults(), &Report{}); err != nil {
			t.Fatal(err)
		}
		got := tablespacesIn(t, dir)
		if !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))) {
			t.Errorf("tablespaces %v, want %v", got, want)
		}
		for name, id := range got {
			if id != 0 && id != want[name] {
				t.Errorf("%s is space %v, want %v", name, id, want[name])
			}
		}
		sameListed(t, dir, want)
	}
}

// P1: what an ALTER was making when the backup ended is not left for the server,
// which may not be able to drop it; also when preparing was interrupted where the
// log is replaced and the manifest still names the files.
func TestNewTablesOfOpenAlters(t *testing.T) {
	const inManifest, inRedo = "d/#sql-alter-46e2-4.ibd", "d/#sql-alter-46e2-5#P#p0.ibd"
	var m made
	m.listed(ordinary, 7)
	m.listed(inManifest, 8)
	m.modify(8, inManifest)
	m.change(8)
	m.create(9, inRedo)
	m.change(7)
	want := map[string]format.SpaceID{ordinary: 7}
	before := m.write(t)
	dir := copyTree(t, before)
	rep, err := Run(t.Context(), dir, Options{Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(rep.Unfinished, []string{inManifest, inRedo}) || len(rep.Deleted) > 0 {
		t.Errorf("removed %q, deleted %q", rep.Unfinished, rep.Deleted)
	}
	prepareMade(t, dir, want)
	for name, back := range map[string][]string{
		"before the file went": {format.ManifestName, inManifest},
		"after the file went":  {format.ManifestName},
		"after the manifest":   nil,
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyTree(t, dir)
			if err := errors.Join(restoreFiles(dir, before, back...), os.Remove(filepath.Join(dir, "xtrabackup_checkpoints"))); err != nil {
				t.Fatal(err)
			}
			prepareMade(t, dir, want)
		})
	}
}

// G2: what nothing explains stays an error.
func TestFilesThatRedoDoesNotExplain(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(m *made)
		want error
		says string
	}{
		{"listed, not written, not made by redo", func(m *made) { m.listed(sqlBackup, 0) }, ErrIncomplete, "page 0 was never written and redo does not create it"},
		{"changed, not made by redo", func(m *made) {
			m.modify(7, fullText)
			m.change(7)
		}, ErrIncomplete, "the file is missing"},
		{"an ordinary table of a partial backup", func(m *made) {
			m.filter = &format.Filter{Tables: "^d[.]u$"}
			m.create(7, ordinary)
			m.change(7)
		}, ErrIncomplete, "the file is missing"},
		{"two with one name at the end", func(m *made) {
			m.listed(ordinary, 7)
			m.create(8, ordinary)
		}, ErrDamaged, ordinary},
		{"made under a name that leads nowhere", func(m *made) { m.create(7, "../../x.ibd") }, ErrDamaged, "x.ibd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m made
			c.do(&m)
			_, err := Run(context.Background(), m.write(t), Options{})
			if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) {
				t.Errorf("%v; want %v that says %q", err, c.want, c.says)
			}
		})
	}
}

// G2: an inner file of a table with a DATA DIRECTORY goes where it is, and its
// link file with it.
func TestDroppedFileElsewhere(t *testing.T) {
	var m made
	m.listed(sqlBackup, 7)
	m.drop(7, sqlBackup)
	dir, far := m.write(t), t.TempDir()
	to := filepath.Join(far, sqlBackup)
	link := filepath.Join(dir, strings.TrimSuffix(sqlBackup, ".ibd")+".isl")
	if err := errors.Join(os.Mkdir(filepath.Dir(to), 0o700), os.Rename(filepath.Join(dir, sqlBackup), to), os.WriteFile(link, []byte(to), 0o660)); err != nil {
		t.Fatal(err)
	}
	state, err := backupdir.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	state.Manifest.Files[1].Source = "/source/" + sqlBackup
	writeManifest(t, dir, state.Manifest)
	if _, err := Run(context.Background(), dir, Options{}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{to, link} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there (%v)", path, err)
		}
	}
}

// restoreFiles copies files of one directory over those of another.
func restoreFiles(dir, from string, names ...string) error {
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o660)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// treeOf reads all files of a directory.
func treeOf(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err == nil {
			all[rel], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
