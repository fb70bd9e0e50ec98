package backup

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/redotail"
	"github.com/xbstream/xbstream/server"
)

// fake is a server without a process: real files in a directory, and redo that is
// made up. It implements Source, and what Source hands out.
type fake struct {
	t   *testing.T
	dir string

	mu     sync.Mutex
	calls  []string         // steps, in order
	fails  map[string]error // by step
	lost   chan struct{}    // of the locks, closed to lose them
	held   bool             // a lock is held
	locked []server.TableName
	// committed, if set, is called when the position was read.
	committed func()
	advanced  format.LSN     // of the hold on redo
	holds     int            // on redo, that are open
	opened    int            // outlets and logs that are open
	timeouts  map[string]int // by step: how often a lock is not granted
	discarded map[format.SpaceID]bool
	// oneEach is InnoDB.OneFileEach of the layout.
	oneEach bool
	open    map[string]bool           // files the server has open
	unknown map[string]bool           // tables that its dictionary does not have
	use     map[format.SpaceID]string // the file that it uses for a tablespace
	start   format.LSN
	redo    []byte // since start
	records []redotail.FileRecord
	read    int // of redo

	archive bytes.Buffer
	// announced is how often restored has seen a file.
	announced map[string]int
	log       bytes.Buffer
}

const (
	fakeFlags = 0x15 // full_crc32, 16 KiB
	startLSN  = 50_000
)

var pages, _ = innodb.ParseFlags(fakeFlags)

// newFake has ibdata1, two tablespaces, a definition and a table of another engine.
func newFake(t *testing.T) *fake {
	f := &fake{t: t, dir: t.TempDir(), fails: map[string]error{}, lost: make(chan struct{}), timeouts: map[string]int{},
		discarded: map[format.SpaceID]bool{}, open: map[string]bool{}, use: map[format.SpaceID]string{}, start: startLSN}
	f.space("ibdata1", 0, 1000)
	f.space("d/a.ibd", 7, 1000)
	f.space("d/b.ibd", 8, 1000)
	f.write("d/a.frm", "definition")
	f.write("d/m.MYD", "rows")
	return f
}

// space writes a tablespace of two pages with that LSN.
func (f *fake) space(rel string, id format.SpaceID, lsn format.LSN) {
	f.t.Helper()
	var all []byte
	for no := range 2 {
		page := make([]byte, pages.Physical)
		binary.BigEndian.PutUint32(page[4:], uint32(no))
		binary.BigEndian.PutUint32(page[34:], uint32(id))
		if no == 0 {
			binary.BigEndian.PutUint32(page[38:], uint32(id))
			binary.BigEndian.PutUint32(page[46:], 2)
			binary.BigEndian.PutUint32(page[54:], fakeFlags)
		}
		innodb.SetLSN(page, lsn)
		pages.Seal(page)
		all = append(all, page...)
	}
	f.write(rel, string(all))
}

// write puts a new file in the place of another.
func (f *fake) write(rel, content string) {
	f.t.Helper()
	name := filepath.Join(f.dir, rel)
	tmp := name + ".new"
	err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(tmp, []byte(content), 0o600), os.Rename(tmp, name))
	if err != nil {
		f.t.Error(err)
	}
}

// overwrite changes a file in place: it stays the same file.
func (f *fake) overwrite(rel string, do func(tmp string)) {
	f.t.Helper()
	do(rel + ".other")
	b, err := os.ReadFile(filepath.Join(f.dir, rel+".other"))
	if err == nil {
		err = errors.Join(os.WriteFile(filepath.Join(f.dir, rel), b, 0o600), os.Remove(filepath.Join(f.dir, rel+".other")))
	}
	if err != nil {
		f.t.Error(err)
	}
}

func (f *fake) rename(from, to string) {
	f.t.Helper()
	if err := os.Rename(filepath.Join(f.dir, from), filepath.Join(f.dir, to)); err != nil {
		f.t.Error(err)
	}
}

func (f *fake) remove(rel string) {
	f.t.Helper()
	if err := os.Remove(filepath.Join(f.dir, rel)); err != nil {
		f.t.Error(err)
	}
}

// change is redo of n bytes with file records in it.
func (f *fake) change(n int, records ...redotail.FileRecord) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.redo = append(f.redo, bytes.Repeat([]byte{1}, n)...)
	f.records = append(f.records, records...)
}

// step notes a step and says how it ends.
func (f *fake) step(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, name)
	return f.fails[name]
}

// Server.

func (f *fake) Layout(context.Context) (server.Layout, error) {
	l := server.Layout{Dialect: "mariadb", DataDir: f.dir, Identity: server.Identity{Version: "10.11.0-fake"}}
	l.InnoDB = server.InnoDB{DataHome: f.dir, UndoDir: f.dir, LogDir: f.dir, PageSize: pages.Logical, OneFileEach: f.oneEach, DataFilePath: "ibdata1:1M:autoextend",
		DataFiles: []server.DataFile{{Path: filepath.Join(f.dir, "ibdata1"), Size: 1 << 20, Autoextend: true}}}
	return l, f.step("Layout")
}

func (f *fake) Check(context.Context, server.Wanted) error     { return f.step("Check") }
func (f *fake) CheckDataDir(context.Context, string) error     { return f.step("CheckDataDir") }
func (f *fake) Close() error                                   { return nil }
func (f *fake) LSN(context.Context) (format.LSN, error)        { return f.end(), f.step("LSN") }
func (f *fake) Written(context.Context) (format.LSN, error)    { return f.end(), nil }
func (f *fake) Checkpoint(context.Context) (format.LSN, error) { return f.start, f.step("Checkpoint") }
func (f *fake) OpenFiles(context.Context) (map[string]bool, error) {
	return f.open, f.step("OpenFiles")
}

func (f *fake) EncryptedFiles(context.Context) (map[string]bool, error) { return nil, nil }

func (f *fake) PauseReplication(context.Context, time.Duration) (func(context.Context) error, error) {
	return func(context.Context) error { return f.step("ResumeReplication") }, f.step("PauseReplication")
}

func (f *fake) Discarded(context.Context) (map[format.SpaceID]bool, error) {
	return maps.Clone(f.discarded), f.step("Discarded")
}

func (f *fake) SpaceFile(_ context.Context, id format.SpaceID) (string, error) {
	return f.use[id], f.step("SpaceFile")
}

func (f *fake) TableNames(context.Context, []uint64) (map[uint64]string, error) { return nil, nil }

func (f *fake) KnowsTable(_ context.Context, table string) (bool, error) {
	return !f.unknown[table], nil
}

func (f *fake) Begin(context.Context) (server.Backup, error) {
	err := f.step("Begin")
	if err == nil {
		err = f.granted("Begin")
	}
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = true
	return &fakeLocks{f: f}, nil
}

func (f *fake) HoldRedo(context.Context) (server.RedoHold, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holds++
	return &fakeHold{f: f}, nil
}

type fakeHold struct {
	f      *fake
	closed bool
}

func (h *fakeHold) Advance(_ context.Context, lsn format.LSN) error {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if h.f.holds != 1 || lsn < h.f.advanced {
		return errors.New("no hold, or it goes back")
	}
	h.f.advanced = lsn
	return nil
}

func (h *fakeHold) Close() error {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if !h.closed {
		h.f.holds--
		h.closed = true
	}
	return nil
}

// granted refuses a lock as often as the test wants it.
func (f *fake) granted(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timeouts[name] == 0 {
		return nil
	}
	f.timeouts[name]--
	return &server.Error{Kind: server.ErrLockTimeout, Op: name, Err: errors.New("not granted"), Stages: []format.Stage{{Name: name, GaveUp: true}}}
}

func (f *fake) end() format.LSN {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.start + format.LSN(len(f.redo))
}

// fakeLocks are the locks of one attempt.
type fakeLocks struct {
	f     *fake
	ended bool
}

func (l *fakeLocks) take(name string) error {
	if err := l.still(name); err != nil {
		return err
	}
	if err := l.f.granted(name); err != nil {
		l.Close()
		return err
	}
	return nil
}

// still is a step under the locks, which fails once they are lost.
func (l *fakeLocks) still(name string) error {
	select {
	case <-l.f.lost:
		return errLost
	default:
		return l.f.step(name)
	}
}

func (l *fakeLocks) Flush(context.Context) error    { return l.take("Flush") }
func (l *fakeLocks) BlockDDL(context.Context) error { return l.take("BlockDDL") }

func (l *fakeLocks) BlockCommit(_ context.Context, tables []server.TableName) error {
	l.f.mu.Lock()
	l.f.locked = tables
	l.f.mu.Unlock()
	return l.take("BlockCommit")
}

func (l *fakeLocks) FlushLogs(context.Context) error         { return l.still("FlushLogs") }
func (l *fakeLocks) SettleReplication(context.Context) error { return l.still("SettleReplication") }

func (l *fakeLocks) Galera(context.Context) (*format.GaleraPosition, error) { return nil, nil }

func (l *fakeLocks) Position(context.Context) (server.Position, error) {
	p := server.Position{LSN: l.f.end(), GTID: "0-1-5"}
	if l.f.committed != nil {
		l.f.committed()
	}
	return p, l.still("Position")
}

func (l *fakeLocks) End(context.Context) error {
	err := l.still("End")
	if err == nil {
		l.release()
		l.ended = true
	}
	return err
}

func (l *fakeLocks) Close() error {
	l.release()
	return nil
}

func (l *fakeLocks) release() {
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	l.f.held = false
}

func (l *fakeLocks) Lost() <-chan struct{}  { return l.f.lost }
func (l *fakeLocks) Err() error             { return errLost }
func (l *fakeLocks) Stages() []format.Stage { return []format.Stage{{Name: "taken"}} }
func (l *fakeLocks) LockSeconds() float64   { return 1 }

var errLost = errors.New("the locks are gone")

func (f *fake) ParseFlags(flags uint32) (innodb.PageFormat, error) { return innodb.ParseFlags(flags) }

// Redo.

func (f *fake) OpenRedo(context.Context, string) (redotail.Log, error) {
	if err := f.step("OpenRedo"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened++
	return &fakeLog{f: f}, nil
}

type fakeLog struct{ f *fake }

func (l *fakeLog) Start() format.Redo {
	return format.Redo{Format: format.RedoMariaDB, CheckpointLSN: l.f.start, CheckpointEndLSN: l.f.start}
}

func (l *fakeLog) Read(context.Context) (redotail.Piece, error) {
	f := l.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fails["Read"]; err != nil {
		return redotail.Piece{}, err
	}
	if f.read == len(f.redo) {
		return redotail.Piece{}, redotail.ErrTip
	}
	p := redotail.Piece{LSN: f.start + format.LSN(f.read), Data: f.redo[f.read:], Files: f.records}
	f.read, f.records = len(f.redo), nil
	return p, nil
}

func (l *fakeLog) Written(format.LSN)                {}
func (l *fakeLog) StartComplete() (format.LSN, bool) { return l.f.start, true }
func (l *fakeLog) Checkpoint() format.LSN            { return l.f.start }
func (l *fakeLog) Capacity() int64                   { return 1 << 30 }

func (l *fakeLog) Cut(p redotail.Piece, at format.LSN) redotail.Piece {
	p.Data = p.Data[:at-p.LSN]
	return p
}

func (l *fakeLog) Imported(format.LSN) func(format.SpaceID, string, innodb.Age) (format.LSN, bool) {
	return nil
}

func (l *fakeLog) Close() error {
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	l.f.opened--
	return nil
}

// Files.

func (f *fake) Files(l chunker.Layout) chunker.Discoverer { return &fakeFiles{f, l} }

type fakeFiles struct {
	f *fake
	l chunker.Layout
}

func (d *fakeFiles) each(do func(file chunker.File, ext string)) error {
	return filepath.WalkDir(d.f.dir, func(p string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && (e.IsDir() || strings.HasSuffix(p, ".new")) {
			return nil
		}
		rel, _ := filepath.Rel(d.f.dir, p)
		do(chunker.File{Abs: p, Rel: rel, Table: rel}, path.Ext(rel))
		return err
	})
}

func (d *fakeFiles) InnoDB(context.Context) (list []chunker.File, err error) {
	err = d.each(func(file chunker.File, ext string) {
		switch {
		case file.Rel == "ibdata1":
			file.Kind, file.System = format.KindSystem, &chunker.System{Flags: fakeFlags}
		case ext == ".ibd":
			file.Kind = format.KindTablespace
			table, _, _ := strings.Cut(path.Base(file.Rel), ".")
			file.LeftOut = !d.l.Filter.Table(chunker.Names{{Database: path.Dir(file.Rel), Table: table}})
		default:
			return
		}
		list = append(list, file)
	})
	return list, errors.Join(err, d.f.step("InnoDB"))
}

func (d *fakeFiles) Others(context.Context) (list []chunker.File, err error) {
	classes := map[string]chunker.Class{".frm": chunker.ClassSchema, ".MYD": chunker.ClassTable, ".ARZ": chunker.ClassLockedTable, ".CSV": chunker.ClassServerTable, ".txt": chunker.ClassUnknown}
	err = d.each(func(file chunker.File, ext string) {
		if file.Class = classes[ext]; file.Class != 0 {
			file.Kind = format.KindFile
			list = append(list, file)
		}
	})
	return list, errors.Join(err, d.f.step("Others"))
}

func (d *fakeFiles) Dirs(context.Context) ([]format.File, error) {
	return []format.File{{Path: "d", Kind: format.KindDir}}, d.f.step("Dirs")
}

func (d *fakeFiles) Tally(_ context.Context, to ...*chunker.Tally) error {
	for _, t := range to {
		t.Database(chunker.Names{{Database: "d"}})
	}
	return d.each(func(file chunker.File, ext string) {
		table, _, _ := strings.Cut(path.Base(file.Rel), ".")
		for _, t := range to {
			t.Table(chunker.Names{{Database: path.Dir(file.Rel), Table: table}})
		}
	})
}

// Outlet.

func (f *fake) outlet(context.Context, func(error)) (Outlet, error) {
	if err := f.step("Open"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened++
	return &fakeOutlet{f: f}, nil
}

type fakeOutlet struct{ f *fake }

func (o *fakeOutlet) Write(p []byte) (int, error) {
	o.f.mu.Lock()
	defer o.f.mu.Unlock()
	if err := o.f.fails["Write"]; err != nil {
		return 0, err
	}
	return o.f.archive.Write(p)
}

func (o *fakeOutlet) Progress() Progress             { return o }
func (o *fakeOutlet) Stage(string, int64)            {}
func (o *fakeOutlet) Add(int64)                      {}
func (o *fakeOutlet) Complete(context.Context) error { return o.f.step("Complete") }

func (o *fakeOutlet) Close() error {
	o.f.mu.Lock()
	defer o.f.mu.Unlock()
	o.f.opened--
	return nil
}

// run takes a backup.
func (f *fake) run(change func(*Options)) (*Summary, error) {
	f.t.Helper()
	o := Options{Log: slog.New(slog.NewTextHandler(&f.log, nil)), Open: f.outlet, LockTimeout: time.Millisecond, Parallel: 2, SpoolDir: f.t.TempDir(), Tool: "test"}
	if change != nil {
		change(&o)
	}
	s, err := Run(f.t.Context(), f, o)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held || f.opened != 0 {
		f.t.Errorf("afterwards a lock is held (%v) or %d files are open", f.held, f.opened)
	}
	return s, err
}

// at makes something happen at an event, the first time.
func (f *fake) at(event string, do func()) func(*Options) {
	var once sync.Once
	return func(o *Options) {
		o.Event = func(_ context.Context, name, _ string) error {
			if name == event {
				once.Do(do)
			}
			return nil
		}
	}
}

// restored are the files of the archive, by path: what a receiver would make of it.
func (f *fake) restored() (map[string]string, *format.Manifest, error) {
	r, err := format.NewReader(bytes.NewReader(f.archive.Bytes()), format.ReaderOptions{})
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	f.announced = map[string]int{}
	content, manifest := map[format.FileNo][]byte{}, bytes.Buffer{}
	for {
		frame, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		switch frame.Type {
		case format.FrameFile:
			f.announced[frame.Path]++
		case format.FrameData:
			content[frame.File] = put(content[frame.File], int(frame.Pos), frame.Bytes())
		case format.FrameClose:
			content[frame.File] = put(content[frame.File], int(frame.Pos), nil)
		case format.FrameManifest:
			manifest.Write(frame.Bytes())
		}
		frame.Release()
	}
	m, err := format.ReadManifest(&manifest)
	if err != nil {
		return nil, nil, err
	}
	files := map[string]string{}
	for _, e := range m.Files {
		if e.Arrived() && e.Kind != format.KindDir {
			files[e.Path] = string(content[e.No])
		}
	}
	return files, m, nil
}

func put(b []byte, at int, p []byte) []byte {
	if n := at + len(p); n > len(b) {
		b = append(b, make([]byte, n-len(b))...)
	}
	copy(b[at:], p)
	return b
}

// source are the files that the server has now.
func (f *fake) source() map[string]string {
	files := map[string]string{}
	d := fakeFiles{f: f}
	err := d.each(func(file chunker.File, _ string) {
		b, err := os.ReadFile(file.Abs)
		if err != nil {
			f.t.Error(err)
		}
		files[file.Rel] = string(b)
	})
	if err != nil {
		f.t.Error(err)
	}
	return files
}

// same compares the archive with the files that the server has now.
func (f *fake) same() *format.Manifest {
	f.t.Helper()
	got, m, err := f.restored()
	if err != nil {
		f.t.Fatal(err)
	}
	want := f.source()
	for name := range maps.Keys(want) {
		if got[name] != want[name] {
			f.t.Errorf("%s: the archive has %s, the server %s", name, brief(got, name), brief(want, name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			f.t.Errorf("%s is in the archive, and the server has no such file", name)
		}
	}
	return m
}

func brief(files map[string]string, name string) string {
	text, ok := files[name]
	switch {
	case !ok:
		return "no such file"
	case len(text) > 100:
		return fmt.Sprintf("%d bytes, space %d, LSN %v", len(text), binary.BigEndian.Uint32([]byte(text[34:])), innodb.LSN([]byte(text)))
	}
	return fmt.Sprintf("%q", text)
}
