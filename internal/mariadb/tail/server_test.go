package tail

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/format"
	ondisk "github.com/xbstream/xbstream/internal/mariadb/redo"
	"github.com/xbstream/xbstream/redotail"
)

// serverWait bounds every wait for a real server.
const serverWait = 2 * time.Minute

// template is a data directory made once by mariadb-install-db.
var template = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "redotail-template-*")
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), serverWait)
	defer cancel()
	out, err := exec.CommandContext(ctx, "mariadb-install-db", "--no-defaults", "--user=root", "--datadir="+dir,
		"--auth-root-authentication-method=normal", "--skip-test-db", "--innodb-log-file-size=8M", "--tmpdir="+dir).CombinedOutput()
	if err != nil {
		return dir, fmt.Errorf("mariadb-install-db: %w\n%s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if templateUsed {
		if dir, _ := template(); dir != "" {
			if err := os.RemoveAll(dir); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
	}
	os.Exit(code)
}

var templateUsed bool

// server is a running mariadbd on a data directory of its own.
type server struct {
	t      *testing.T
	dir    string // data directory
	logDir string

	errorLog string
	cmd      *exec.Cmd
	exited   chan struct{}
	db       *sql.DB
	// pause is how many nanoseconds each writer rests after a statement.
	pause atomic.Int64
	// reader says how far the test's reader has come, if the writers wait for
	// it. Else a crowded machine can write a log of 4 MiB around before the
	// reader gets the processor at all, and it is then told so, rightly.
	reader atomic.Pointer[func() format.LSN]
}

// unread is how much redo the reader may have before it when a writer goes on.
const unread = 1 << 20

// hold lets no writer begin a statement, until follow or free.
func (s *server) hold() { s.follow(func() format.LSN { return 0 }) }

// follow lets writers wait for a reader that says how far it has come.
func (s *server) follow(reader func() format.LSN) { s.reader.Store(&reader) }

// free lets writers write.
func (s *server) free() { s.reader.Store(nil) }

// turn waits until a writer may write, or ctx ends.
func (s *server) turn(ctx context.Context) error {
	for ctx.Err() == nil {
		reader := s.reader.Load()
		if reader == nil {
			return nil
		}
		lsn, err := s.current()
		if err != nil || lsn < (*reader)()+unread {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

func newDataDir(t *testing.T) string {
	t.Helper()
	templateUsed = true
	from, err := template()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "data")
	copyTree(t, from, dir)
	return dir
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", "--sparse=always", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v\n%s", from, err, out)
	}
}

// startServer starts mariadbd and waits until it answers.
func startServer(t *testing.T, dir string, args ...string) *server {
	t.Helper()
	s := &server{t: t, dir: dir, logDir: dir, exited: make(chan struct{})}
	s.pause.Store(int64(2 * time.Millisecond))
	for _, a := range args {
		if d, ok := strings.CutPrefix(a, "--innodb-log-group-home-dir="); ok {
			s.logDir = d
		}
	}
	s.errorLog = filepath.Join(filepath.Dir(dir), filepath.Base(dir)+".err")
	// A socket path may have 107 bytes, too few for a test's directory.
	sockets, err := os.MkdirTemp("", "rt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(sockets); err != nil {
			t.Error(err)
		}
	})
	socket := filepath.Join(sockets, "s")
	s.cmd = exec.Command("mariadbd", append([]string{
		"--no-defaults", "--user=root", "--datadir=" + dir, "--socket=" + socket, "--skip-networking",
		"--log-error=" + s.errorLog, "--tmpdir=" + sockets, "--pid-file=" + socket + ".pid", "--innodb-buffer-pool-size=64M",
		"--innodb-flush-log-at-trx-commit=2", "--innodb-use-native-aio=0",
		"--key-buffer-size=1M", "--aria-pagecache-buffer-size=8M",
	}, args...)...)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.exited)
		_ = s.cmd.Wait() // killed by us: its state says nothing
	}()
	t.Cleanup(s.kill)
	config := mysql.NewConfig()
	config.User, config.Net, config.Addr, config.DBName = "root", "unix", socket, "mysql"
	config.Logger = &mysql.NopLogger{}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		t.Fatal(err)
	}
	s.db = sql.OpenDB(connector)
	t.Cleanup(s.close)
	s.waitReady()
	return s
}

func (s *server) waitReady() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), serverWait)
	defer cancel()
	for {
		err := s.db.PingContext(ctx)
		if err == nil {
			return
		}
		select {
		case <-s.exited:
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
			continue
		}
		text, _ := os.ReadFile(s.errorLog)
		s.t.Fatalf("mariadbd does not answer: %v\n%s", err, text)
	}
}

func (s *server) kill() {
	_ = s.cmd.Process.Kill() // may have exited already
	select {
	case <-s.exited:
	case <-time.After(serverWait):
		s.t.Error("mariadbd does not die")
	}
}

// close closes the connections; it must come before kill, or they complain.
func (s *server) close() {
	if err := s.db.Close(); err != nil {
		s.t.Error(err)
	}
}

func (s *server) exec(query string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), serverWait)
	defer cancel()
	if _, err := s.db.ExecContext(ctx, query); err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
}

func (s *server) lsn() format.LSN {
	s.t.Helper()
	lsn, err := s.current()
	if err != nil {
		s.t.Fatal(err)
	}
	return lsn
}

func (s *server) current() (format.LSN, error) {
	var name string
	var lsn uint64
	err := s.db.QueryRow("SHOW GLOBAL STATUS LIKE 'Innodb_lsn_current'").Scan(&name, &lsn)
	return format.LSN(lsn), err
}

// waitWritten waits until the server has flushed its log up to lsn.
func (s *server) waitWritten(lsn format.LSN) {
	s.t.Helper()
	s.exec("FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS")
	waitFor(s.t, "flush", func() bool {
		var name string
		var written uint64
		if err := s.db.QueryRow("SHOW GLOBAL STATUS LIKE 'Innodb_lsn_flushed'").Scan(&name, &written); err != nil {
			s.t.Fatal(err)
		}
		return format.LSN(written) >= lsn
	})
}

const writers = 3

// load runs writers until stop is called, which waits for them and fails the
// test if one of them failed.
func (s *server) load() (stop func()) {
	s.t.Helper()
	s.exec("CREATE DATABASE IF NOT EXISTS w")
	for i := range writers {
		s.exec(fmt.Sprintf("CREATE TABLE IF NOT EXISTS w.t%d (id INT AUTO_INCREMENT PRIMARY KEY, k INT, s VARCHAR(200), b MEDIUMBLOB, KEY(k), KEY(s))", i))
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	var g errgroup.Group
	for i := range writers {
		g.Go(func() error { return s.writer(ctx, i) })
	}
	return func() {
		s.t.Helper()
		cancel()
		if err := g.Wait(); err != nil {
			s.t.Error(err)
		}
	}
}

func (s *server) writer(ctx context.Context, i int) error {
	for n := 0; ctx.Err() == nil; n++ {
		for _, q := range []string{
			"INSERT INTO w.t%[1]d (k, s, b) SELECT seq * %[2]d %% 997, REPEAT(CHAR(65 + seq %% 26), seq %% 190), REPEAT(MD5(seq + %[2]d), seq * 7 %% 900) FROM seq_1_to_40",
			"UPDATE w.t%[1]d SET k = k + 1, s = REVERSE(s) WHERE id %% 17 = %[2]d %% 17 ORDER BY id DESC LIMIT 50",
			"DELETE FROM w.t%[1]d WHERE id %% 7 = %[2]d %% 7 ORDER BY id LIMIT 40",
		} {
			err := s.turn(ctx)
			if err == nil {
				// Not cancelled half way: the driver would drop the connection
				// and leave open what the server does with the statement.
				_, err = s.db.Exec(fmt.Sprintf(q, i, n))
			}
			if err != nil {
				s.t.Errorf("writer %d: %v", i, err) // at once, for waitFor to see
				return err
			}
			time.Sleep(time.Duration(s.pause.Load()))
		}
	}
	return nil
}

// digest says what the tables hold, in a form that does not depend on order.
func (s *server) digest() string {
	s.t.Helper()
	var all strings.Builder
	for i := range writers {
		var rows, sum uint64
		q := fmt.Sprintf("SELECT COUNT(*), COALESCE(BIT_XOR(CONV(LEFT(MD5(CONCAT_WS('|', id, k, s, b)), 15), 16, 10)), 0) FROM w.t%d FORCE INDEX (PRIMARY)", i)
		if err := s.db.QueryRow(q).Scan(&rows, &sum); err != nil {
			s.t.Fatal(err)
		}
		fmt.Fprintf(&all, "t%d: %d rows, %x\n", i, rows, sum)
	}
	return all.String()
}

// check fails unless every table is sound. Purge has to be through with what
// was deleted: before, CHECK TABLE may warn of delete-marked entries.
func (s *server) check() {
	s.t.Helper()
	s.exec("SET GLOBAL innodb_max_purge_lag_wait=0")
	for i := range writers {
		var table, op, kind, text string
		row := s.db.QueryRow(fmt.Sprintf("CHECK TABLE w.t%d EXTENDED", i))
		if err := row.Scan(&table, &op, &kind, &text); err != nil || text != "OK" {
			s.t.Errorf("check %s: %s %s, %v", table, kind, text, err)
		}
	}
}

// frozenCopy copies the data directory, without the log, while the server
// stands still: as a crash would leave it.
func (s *server) frozenCopy() string {
	s.t.Helper()
	to := filepath.Join(s.t.TempDir(), "copy")
	s.signal(syscall.SIGSTOP)
	defer s.signal(syscall.SIGCONT)
	copyTree(s.t, s.dir, to)
	if err := os.RemoveAll(filepath.Join(to, logName)); err != nil {
		s.t.Fatal(err)
	}
	return to
}

func (s *server) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// tail runs a Tailer into a linear log in dir until stop is called with an
// LSN, which waits for it.
func tail(t *testing.T, s *server, l *Log, dir string, opt redotail.Options) (tailer *redotail.Tailer, stop func(format.LSN)) {
	t.Helper()
	start := l.Start()
	f, err := os.Create(filepath.Join(dir, logName))
	if err != nil {
		t.Fatal(err)
	}
	enc, err := ondisk.ParseEncryption(start.Encryption)
	if err != nil {
		t.Fatal(err)
	}
	head := ondisk.LinearHead(ondisk.BackupCreator(start.Creator), enc,
		ondisk.Checkpoint{LSN: start.CheckpointLSN, EndLSN: start.CheckpointEndLSN})
	if _, err := f.Write(head); err != nil {
		t.Fatal(err)
	}
	opt.FlushWait = serverWait // it runs while the server is asked to flush
	tailer = redotail.New(l, opt)
	g, ctx := errgroup.WithContext(t.Context())
	g.Go(func() error {
		err := tailer.Run(ctx)
		if err != nil {
			t.Errorf("tail: %v", err) // at once, for waitFor to see
		}
		return err
	})
	g.Go(func() error {
		for lsn := start.CheckpointLSN; ; {
			p, err := tailer.Next(ctx)
			if err == io.EOF {
				return f.Close()
			}
			if err != nil {
				return err
			}
			if p.LSN != lsn {
				return fmt.Errorf("piece at %v, want %v", p.LSN, lsn)
			}
			lsn = p.End()
			if _, err := f.Write(p.Data); err != nil {
				return err
			}
		}
	})
	return tailer, func(lsn format.LSN) {
		t.Helper()
		tailer.StopAt(lsn)
		s.waitWritten(lsn)
		tailer.Written(lsn)
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if err := tailer.Close(); err != nil {
			t.Error(err)
		}
	}
}

// checkLinear parses a linear log to its last byte and returns its end.
func checkLinear(t *testing.T, dir string) (mtrs int, end format.LSN) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, logName))
	if err != nil {
		t.Fatal(err)
	}
	h, err := ondisk.ParseHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	at := ondisk.StartOffset
	for ; at < len(b); mtrs++ {
		m, err := ondisk.ScanMTR(b[at:], h.Encrypted())
		if err != nil || m.Marker != 1 {
			t.Fatalf("mtr at offset %d: marker %d, %v", at, m.Marker, err)
		}
		walk := ondisk.NewRecords(m.Records)
		for !h.Encrypted() && walk.Next() {
			if walk.Record().File {
				if _, err := walk.Record().ParseFile(); err != nil {
					t.Fatalf("file record in mtr at offset %d: %v", at, err)
				}
			}
		}
		if err := walk.Err(); err != nil {
			t.Fatalf("records of mtr at offset %d: %v", at, err)
		}
		at += m.Size
	}
	return mtrs, h.FirstLSN + format.LSN(at-ondisk.StartOffset)
}

func waitFor(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for deadline := time.Now().Add(serverWait); !ready(); time.Sleep(5 * time.Millisecond) {
		if t.Failed() || time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// tailAndRecover takes redo off a loaded server, meanwhile does what during
// says, and lets a second server recover a copy from the start with it.
func tailAndRecover(t *testing.T, opt redotail.Options, args []string, during func(*server, *redotail.Tailer)) *redotail.Tailer {
	t.Helper()
	s := startServer(t, newDataDir(t), args...)
	stopLoad := s.load()
	s.hold()
	l := openLive(t, s.logDir)
	dir := s.frozenCopy()
	tailer, stopTail := tail(t, s, l, dir, opt)
	s.follow(tailer.Position)
	during(s, tailer)
	stopLoad()
	wanted, want := s.lsn(), s.digest()
	s.exec("FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS")
	stopTail(wanted)
	end, ok := tailer.EndLSN()
	if !ok || end < wanted {
		t.Fatalf("ended at %v, wanted %v", end, wanted)
	}
	mtrs, reached := checkLinear(t, dir)
	if reached != end {
		t.Fatalf("the log reaches to %v, its end is said to be %v", reached, end)
	}
	laps := float64(end-l.Start().CheckpointLSN) / float64(l.ring.Capacity)
	t.Logf("%d mini-transactions, LSN %v to %v (asked for %v), %.1f laps of %d bytes", mtrs, l.Start().CheckpointLSN, end, wanted, laps, l.ring.Capacity)
	s.close()
	s.kill()
	var keep []string
	for _, a := range args {
		if !strings.HasPrefix(a, "--innodb-log-group-home-dir=") {
			keep = append(keep, a)
		}
	}
	restored := startServer(t, dir, keep...)
	if got := restored.digest(); got != want {
		t.Fatalf("recovered copy holds\n%swant\n%s", got, want)
	}
	restored.check()
	return tailer
}

func TestTenLapsUnderLoadRecover(t *testing.T) {
	tailer := tailAndRecover(t, redotail.Options{}, []string{"--innodb-log-file-size=8M"}, func(s *server, tl *redotail.Tailer) {
		start := tl.Position()
		s.exec("CREATE TABLE w.ddl (id INT PRIMARY KEY) ENGINE=InnoDB")
		s.exec("RENAME TABLE w.ddl TO w.ddl2")
		s.exec("CREATE TABLE w.gone (id INT PRIMARY KEY) ENGINE=InnoDB")
		s.exec("DROP TABLE w.gone")
		waitFor(t, "eleven laps", func() bool { return tl.Position() > start+11*8<<20 })
	})
	got := map[string]redotail.FileChange{}
	for _, f := range tailer.Files() {
		got[f.Name] = f
	}
	if f := got["./w/ddl2.ibd"]; f.Op != redotail.FileRenamed || f.OldName != "./w/ddl.ibd" || f.Created == 0 || f.Created > f.LSN {
		t.Errorf("renamed table: %+v", f)
	}
	if f, ok := got["./w/gone.ibd"]; ok && (f.Op != redotail.FileDeleted || f.Created == 0) {
		t.Errorf("dropped table: %+v", f)
	}
	if tailer.Checkpoint() <= tailer.Position()-8<<20 {
		t.Errorf("newest checkpoint %v, position %v", tailer.Checkpoint(), tailer.Position())
	}
}

func TestSlowConsumerSpillsAndRecovers(t *testing.T) {
	tailer := tailAndRecover(t, redotail.Options{SpoolDir: t.TempDir(), MemoryLimit: 1}, []string{"--innodb-log-file-size=8M"}, func(_ *server, tl *redotail.Tailer) {
		start := tl.Position()
		waitFor(t, "two laps", func() bool { return tl.Position() > start+2*8<<20 })
	})
	if _, _, peak := tailer.Waiting(); peak == 0 {
		t.Error("nothing went through the spool file")
	}
}

func TestResizeUnderLoadRecovers(t *testing.T) {
	// A log may not be smaller than its buffer.
	small := []string{"--innodb-log-file-size=8M", "--innodb-log-buffer-size=2M"}
	tailAndRecover(t, redotail.Options{}, small, func(s *server, tl *redotail.Tailer) {
		s.pause.Store(int64(10 * time.Millisecond))
		for _, mib := range []int{16, 8, 4, 12, 6, 8} {
			s.exec(fmt.Sprintf("SET GLOBAL innodb_log_file_size=%d", mib<<20))
			waitFor(t, "the resize", func() bool {
				info, err := os.Stat(filepath.Join(s.dir, logName))
				if err != nil {
					t.Fatal(err)
				}
				return info.Size() == int64(mib)<<20
			})
			at := tl.Position()
			waitFor(t, "redo after the resize", func() bool { return tl.Position() > at+6<<20 })
		}
	})
}

func TestMemoryMappedLogRecovers(t *testing.T) {
	shm, err := os.MkdirTemp("/dev/shm", "redotail-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(shm); err != nil {
			t.Error(err)
		}
	})
	args := []string{"--innodb-log-file-size=8M", "--innodb-log-group-home-dir=" + shm}
	copyTree(t, filepath.Join(newDataDir(t), logName), filepath.Join(shm, logName))
	tailAndRecover(t, redotail.Options{}, args, func(s *server, tl *redotail.Tailer) {
		start := tl.Position()
		text, err := os.ReadFile(s.errorLog)
		if err != nil || !strings.Contains(strings.ToLower(string(text)), "memory-mapped") {
			t.Fatalf("the log is not memory-mapped: %v\n%s", err, text)
		}
		waitFor(t, "four laps", func() bool { return tl.Position() > start+4*8<<20 })
	})
}

func TestEncryptedLogRecovers(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("1;770A8A65DA156D24EE2A093277530142770A8A65DA156D24EE2A093277530142\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--innodb-log-file-size=8M", "--plugin-load-add=file_key_management",
		"--file-key-management-filename=" + keys, "--innodb-encrypt-log=ON"}
	tailer := tailAndRecover(t, redotail.Options{}, args, func(_ *server, tl *redotail.Tailer) {
		start := tl.Position()
		waitFor(t, "three laps", func() bool { return tl.Position() > start+3*8<<20 })
	})
	if files := tailer.Files(); len(files) != 0 {
		t.Errorf("names read without a key: %+v", files)
	}
}

// A reader that falls behind by up to more than a lap, again and again, gets
// the bytes a quick one gets, or is told that they are lost.
func TestStragglerReadsTheSameOrIsTold(t *testing.T) {
	s := startServer(t, newDataDir(t), "--innodb-log-file-size=8M")
	stopLoad := s.load()
	dir := t.TempDir()
	s.hold()
	quick := openLive(t, s.logDir)
	tailer, stopTail := tail(t, s, quick, dir, redotail.Options{})
	s.follow(tailer.Position)
	rnd := rand.New(rand.NewPCG(1, 1))
	var slow []redotail.Piece
	behind, lost := 0, 0
	for range 15 {
		l := openLive(t, s.logDir)
		for err := error(nil); err == nil && len(slow) < 400; {
			from := l.lsn
			pause := format.LSN(rnd.IntN(9 << 20))
			waitFor(t, "the server to write", func() bool { return tailer.Position() > from+pause })
			var p redotail.Piece
			p, err = l.Read(t.Context())
			switch {
			case errors.Is(err, redotail.ErrOverrun):
				lost++
				// The guard is the block before the position, and the server
				// writes whole blocks: one more may be gone.
				if at := s.lsn(); at+2*guardSize < from+format.LSN(l.ring.Capacity) {
					t.Fatalf("false alarm: server at %v: %v", at, err)
				}
			case errors.Is(err, redotail.ErrTip):
				t.Fatalf("at %v, but the log was readable beyond %v", from, from+pause)
			case err != nil:
				t.Fatal(err)
			default:
				if l.Checkpoint() > from {
					behind++
				}
				p.Data = bytes.Clone(p.Data)
				slow = append(slow, p)
			}
		}
	}
	stopLoad()
	stopTail(s.lsn())
	ours, err := os.ReadFile(filepath.Join(dir, logName))
	if err != nil {
		t.Fatal(err)
	}
	ours = ours[ondisk.StartOffset:]
	for _, p := range slow {
		at := p.LSN - quick.Start().CheckpointLSN
		if !bytes.Equal(p.Data, ours[at:at+format.LSN(len(p.Data))]) {
			t.Fatalf("piece at %v of %d bytes differs from the quick reader's", p.LSN, len(p.Data))
		}
	}
	if behind == 0 || lost == 0 {
		t.Errorf("%d pieces, %d of them read behind the checkpoint, %d times lost: not all cases met", len(slow), behind, lost)
	}
	t.Logf("%d pieces, %d of them read behind the checkpoint, %d times lost", len(slow), behind, lost)
}

// A paused reader is one that does not call Read.
func TestPausedReaderIsToldWhatItLost(t *testing.T) {
	s := startServer(t, newDataDir(t), "--innodb-log-file-size=8M")
	stopLoad := s.load()
	for _, laps := range []format.LSN{1, 2, 3} {
		s.hold()
		l := openLive(t, s.logDir)
		if _, err := l.Read(t.Context()); err != nil && !errors.Is(err, redotail.ErrTip) {
			t.Fatal(err)
		}
		s.free()
		lost := l.lsn
		waitFor(t, "laps", func() bool { return s.lsn() > lost+laps*8<<20+1<<20 })
		_, err := l.Read(t.Context())
		var overrun *redotail.OverrunError
		if !errors.As(err, &overrun) || overrun.Lost != lost || overrun.Checkpoint <= lost {
			t.Fatalf("%v laps: %v, want redo lost at %v", laps, err, lost)
		}
		t.Log(err)
	}
	stopLoad()
}

// peerBackup returns a backup of mariabackup; one that fails is taken again.
func peerBackup(t *testing.T, s *server) string {
	t.Helper()
	socket := ""
	if err := s.db.QueryRow("SELECT @@socket").Scan(&socket); err != nil {
		t.Fatal(err)
	}
	for try := 1; ; try++ {
		target := filepath.Join(t.TempDir(), "peer")
		ctx, cancel := context.WithTimeout(t.Context(), serverWait)
		out, err := exec.CommandContext(ctx, "mariabackup", "--no-defaults", "--backup", "--user=root",
			"--socket="+socket, "--datadir="+s.dir, "--target-dir="+target).CombinedOutput()
		cancel()
		if err == nil {
			return target
		}
		if try == 5 {
			t.Fatalf("mariabackup failed %d times: %v\n%s", try, err, out)
		}
		t.Logf("mariabackup failed, another backup is taken: %v\n%s", err, out)
	}
}

// What mariabackup reads off the same server must be the same bytes.
func TestSameBytesAsThePeer(t *testing.T) {
	s := startServer(t, newDataDir(t), "--innodb-log-file-size=96M")
	stopLoad := s.load()
	s.hold()
	l := openLive(t, s.logDir)
	dir := t.TempDir()
	tailer, stopTail := tail(t, s, l, dir, redotail.Options{})
	s.follow(tailer.Position)
	target := peerBackup(t, s)
	stopLoad()
	stopTail(s.lsn())
	theirs, err := os.ReadFile(filepath.Join(target, logName))
	if err != nil {
		t.Fatal(err)
	}
	ours, err := os.ReadFile(filepath.Join(dir, logName))
	if err != nil {
		t.Fatal(err)
	}
	h, err := ondisk.ParseHeader(theirs)
	if err != nil {
		t.Fatal(err)
	}
	theirs, ours = theirs[ondisk.StartOffset:], ours[ondisk.StartOffset:]
	skip := int(h.FirstLSN - l.Start().CheckpointLSN)
	if h.FirstLSN < l.Start().CheckpointLSN || skip+len(theirs) > len(ours) {
		t.Fatalf("theirs from %v, %d bytes; ours from %v, %d bytes", h.FirstLSN, len(theirs), l.Start().CheckpointLSN, len(ours))
	}
	if !bytes.Equal(theirs, ours[skip:skip+len(theirs)]) {
		t.Fatal("the bytes differ")
	}
	t.Logf("%d bytes alike, of %d tailed up to %v", len(theirs), len(ours), tailer.Position())
}
