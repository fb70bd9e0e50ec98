package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/internal/servertest"
)

// P1 of a replica: a copy of one whose SQL threads never stop, of two sources,
// by GTID and by file and position, goes on in its place.
func TestCopyOfAReplicaGoesOnInItsPlace(t *testing.T) {
	for _, threads := range []int{0, 4} {
		for _, r := range servertest.Releases(t) {
			for n := range repeats(t) {
				t.Run(fmt.Sprintf("%d parallel threads/%s/%d", threads, r, n), func(t *testing.T) { t.Parallel(); inItsPlace(t, r, threads) })
			}
		}
	}
}

func inItsPlace(t *testing.T, release servertest.Release, threads int) {
	ctx := t.Context()
	r := newReplicaOf(t, release, fmt.Sprintf("--slave-parallel-threads=%d", threads))
	stop := write(t, r.sources[:]...)
	for i, source := range r.sources {
		written(t, source, i, 1)
	}
	dir := filepath.Join(t.TempDir(), "copy")
	pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + r.Socket(), "--slave-info"},
		[]string{"xbstream", "-x", "--prepare", "-C", dir})
	copied := servertest.NewOn(t, dir, servertest.Options{Release: release, ServerID: 9})
	check(t, copied.Exec(ctx, r.attach(t, dir)...))
	for i, source := range r.sources {
		written(t, source, i, 300) // so that there is something to go on with
	}
	check(t, stop())
	for _, source := range r.sources {
		check(t, r.WaitCaughtUp(ctx, source))
		check(t, copied.WaitCaughtUp(ctx, source))
	}
	c, err := servertest.Compare(ctx, r.Server, copied)
	check(t, err)
	for _, d := range c.Differences {
		t.Error(d)
	}
	if c.Rows < 500 {
		t.Errorf("only %d rows compared", c.Rows)
	}
}

// replica replicates from the first source by GTID, from the second, over a
// connection with a name, by file and position.
type replica struct {
	*servertest.Server
	sources [2]*servertest.Server
}

const named = "se''cond ü"

func newReplica(t *testing.T, args ...string) *replica {
	return newReplicaOf(t, servertest.Usual(), args...)
}

// newReplicaOf is newReplica with servers of another release.
func newReplicaOf(t *testing.T, release servertest.Release, args ...string) *replica {
	ctx := t.Context()
	r := &replica{}
	for i := range r.sources {
		r.sources[i] = servertest.New(t, servertest.Options{Release: release, LogBin: true, TCP: true, ServerID: uint32(1 + i), Args: []string{fmt.Sprintf("--gtid-domain-id=%d", i)}})
		db := fmt.Sprintf("db%d", i)
		check(t, r.sources[i].Exec(ctx, "CREATE DATABASE "+db, "CREATE TABLE "+db+".t (a INT PRIMARY KEY AUTO_INCREMENT, b VARCHAR(50), KEY (b)) ENGINE=InnoDB"))
	}
	r.Server = servertest.New(t, servertest.Options{Release: release, ServerID: 5, Args: append(args, "--event-scheduler=OFF")})
	check(t, r.Exec(ctx, "DROP USER repl@127.0.0.1", // it comes from the sources
		servertest.ChangeMaster("", r.sources[0], "MASTER_USE_GTID=slave_pos"),
		servertest.ChangeMaster(named, r.sources[1], "MASTER_USE_GTID=no, MASTER_LOG_FILE='binlog.000001', MASTER_LOG_POS=4"),
		"START ALL SLAVES"))
	for _, s := range r.sources {
		check(t, r.WaitCaughtUp(ctx, s))
	}
	return r
}

// write writes to servers, one row a transaction, until stop is called.
func write(t *testing.T, servers ...*servertest.Server) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	var g errgroup.Group
	for i, s := range servers {
		for range 2 {
			g.Go(func() error {
				for ctx.Err() == nil {
					if err := s.Exec(t.Context(), fmt.Sprintf("INSERT INTO db%d.t (b) VALUES (UUID())", i)); err != nil {
						return err
					}
					time.Sleep(3 * time.Millisecond)
				}
				return nil
			})
		}
	}
	return func() error {
		cancel()
		return g.Wait()
	}
}

// written waits until that many rows more are in the table that write writes on
// the i-th server.
func written(t *testing.T, s *servertest.Server, i, rows int) {
	t.Helper()
	count := func() int {
		n, err := s.String(t.Context(), fmt.Sprintf("SELECT COUNT(*) FROM db%d.t", i))
		check(t, err)
		return atoi(t, n)
	}
	from := count()
	await(t, "rows", func() bool { return count() >= from+rows })
}

// attach are the statements that let a copy take the replica's place.
func (r *replica) attach(t *testing.T, dir string) []string {
	t.Helper()
	return takePlace(t, dir, map[string]*servertest.Server{"": r.sources[0], named: r.sources[1]})
}

// takePlace are the statements that let a copy take a replica's place: the
// addresses of the sources by connection, which no backup records, then what
// the backup recorded.
func takePlace(t *testing.T, dir string, sources map[string]*servertest.Server) []string {
	t.Helper()
	recorded, err := os.ReadFile(filepath.Join(dir, "xtrabackup_slave_info"))
	check(t, err)
	t.Logf("%s", recorded)
	var statements []string
	for connection, source := range sources {
		statements = append(statements, servertest.ChangeMaster(connection, source, "MASTER_USE_GTID=no"))
	}
	for l := range strings.SplitSeq(strings.TrimSpace(string(recorded)), ";\n") {
		statements = append(statements, strings.TrimSuffix(l, ";"))
	}
	return append(statements, "START ALL SLAVES")
}

// A replica with a temporary table open cannot be copied as a replica: it is
// waited for, with its SQL threads running most of the time, and those are
// stopped under the locks and started again however the backup ends.
func TestSafeSlaveBackup(t *testing.T) {
	ctx := t.Context()
	r := newReplica(t)
	conn, err := r.sources[0].DB().Conn(ctx)
	check(t, err)
	defer conn.Close()
	for _, q := range []string{"SET SESSION binlog_format=STATEMENT", "CREATE TEMPORARY TABLE db0.temporary (a INT)", "INSERT INTO db0.temporary VALUES (1)"} {
		_, err := conn.ExecContext(ctx, q)
		check(t, err)
	}
	check(t, r.WaitCaughtUp(ctx, r.sources[0]))
	running := func() string {
		n, err := r.String(ctx, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE COMMAND='Slave_SQL'")
		check(t, err)
		return n
	}

	xbsend, _ := binaries(t)
	args := []string{"--no-defaults", "--user=root", "--socket=" + r.Socket(), "--slave-info", "--safe-slave-backup"}
	out, err := exec.CommandContext(ctx, xbsend, append(args, "--safe-slave-backup-timeout=2")...).CombinedOutput()
	if code := exitCode(t, err); code != 5 || !strings.Contains(string(out), "temporary tables open for 2s") {
		t.Errorf("exit code %d: %.300q", code, out)
	}
	if n := running(); n != "2" {
		t.Errorf("%s of 2 SQL threads run after a backup that failed", n)
	}

	// They run while files are copied, stand under the locks, and the
	// temporary table is dropped only after the first attempt to stop them.
	var seen []string
	dropped := make(chan error, 1)
	hooked(t, "nothing", func(event, _ string) error {
		seen = append(seen, event+" "+running())
		if event == "tablespaces-listed" {
			time.AfterFunc(1500*time.Millisecond, func() {
				_, err := conn.ExecContext(ctx, "DROP TEMPORARY TABLE db0.temporary")
				dropped <- err
			})
		}
		return nil
	})
	dir := filepath.Join(t.TempDir(), "copy")
	pipeline(t, append([]string{"xbsend"}, args...), []string{"xbstream", "-x", "--prepare", "-C", dir})
	check(t, <-dropped)
	for _, want := range []string{"tablespaces-listed 2", "stage-flush 0", "stage-block-commit 0", "end-lsn 0"} {
		if !slices.Contains(seen, want) {
			t.Errorf("%q is not among the events and SQL threads %q", want, seen)
		}
	}
	if n := running(); n != "2" {
		t.Errorf("%s of 2 SQL threads run after the backup", n)
	}
	copied := servertest.NewOn(t, dir, servertest.Options{ServerID: 9})
	check(t, copied.Exec(ctx, r.attach(t, dir)...))
	for _, source := range r.sources {
		check(t, copied.WaitCaughtUp(ctx, source))
	}
}

// A server that is neither replica nor node says so, and the backup is good.
func TestNoReplica(t *testing.T) {
	source := servertest.New(t, servertest.Options{})
	dir := filepath.Join(t.TempDir(), "copy")
	sent, _ := pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + source.Socket(), "--slave-info", "--safe-slave-backup", "--galera-info"},
		[]string{"xbstream", "-x", "-C", dir})
	for _, flag := range []string{"--slave-info", "--safe-slave-backup", "--galera-info"} {
		if !strings.Contains(sent, flag) {
			t.Errorf("nothing is said about %s: %s", flag, sent)
		}
	}
	mustNotHold(t, dir, "xtrabackup_slave_info")
	mustNotHold(t, dir, "xtrabackup_galera_info")
}

// What is recorded is what mariabackup records of the same replica.
func TestSlaveInfoIsMariabackups(t *testing.T) {
	ctx := t.Context()
	r := newReplica(t)
	check(t, r.Exec(ctx, "STOP ALL SLAVES"))
	for _, more := range []string{
		"DO 1",
		servertest.ChangeMaster(named, r.sources[1], "MASTER_USE_GTID=slave_pos"),
		"SET GLOBAL gtid_slave_pos=''",
		servertest.ChangeMaster("", r.sources[0], "MASTER_LOG_FILE='binlog.000007', MASTER_LOG_POS=815"),
	} {
		check(t, r.Exec(ctx, more))
		dir := t.TempDir()
		pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + r.Socket(), "--slave-info"},
			[]string{"xbstream", "-x", "-C", filepath.Join(dir, "ours")})
		out, err := exec.CommandContext(ctx, "mariabackup", "--no-defaults", "--backup", "--user=root", "--socket="+r.Socket(), "--slave-info", "--target-dir="+filepath.Join(dir, "theirs")).CombinedOutput()
		if err != nil {
			t.Fatalf("mariabackup: %v\n%s", err, out)
		}
		ours, err := os.ReadFile(filepath.Join(dir, "ours", "xtrabackup_slave_info"))
		check(t, err)
		// xtrabackup_slave_info, or mariadb_backup_slave_info of later releases.
		name, err := filepath.Glob(filepath.Join(dir, "theirs", "*_slave_info"))
		check(t, err)
		theirs, err := os.ReadFile(name[0])
		check(t, err)
		// A name with a quote it writes as it is, which no server reads.
		if want := strings.ReplaceAll(string(theirs), "'se'cond", "'se''cond"); string(ours) != want {
			t.Errorf("after %.40s:\n%swant\n%s", more, ours, want)
		}
		t.Logf("%s", ours)
	}
}

const galeraProvider = "/usr/lib/galera/libgalera_smm.so" // of Debian's galera-4

// A node of a Galera cluster is copied while it writes; its position is the one
// that the cluster's own recovery finds in the copy.
func TestGaleraNode(t *testing.T) {
	ctx := t.Context()
	node := servertest.New(t, servertest.Options{LogBin: true, Args: []string{"--innodb-autoinc-lock-mode=2", "--wsrep-on=ON", "--wsrep-provider=" + galeraProvider,
		"--wsrep-cluster-address=gcomm://", "--wsrep-node-address=127.0.0.1", "--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:0;gcache.size=8M"}})
	check(t, node.Exec(ctx, "CREATE DATABASE db0", "CREATE TABLE db0.t (a INT PRIMARY KEY AUTO_INCREMENT, b VARCHAR(50), KEY (b)) ENGINE=InnoDB"))
	stop := write(t, node)
	written(t, node, 0, 1)
	dir := filepath.Join(t.TempDir(), "copy")
	pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + node.Socket(), "--galera-info"},
		[]string{"xbstream", "-x", "--prepare", "-C", dir})
	check(t, stop())
	info, err := os.ReadFile(filepath.Join(dir, "xtrabackup_galera_info"))
	check(t, err)
	position, domain, _ := strings.Cut(strings.TrimSpace(string(info)), " ")
	id, number, _ := strings.Cut(position, ":")
	if want, err := node.String(ctx, "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME='wsrep_local_state_uuid'"); err != nil || id != want || domain != "0" {
		t.Errorf("recorded %q; the cluster is %s, %v", info, want, err)
	}
	log := filepath.Join(t.TempDir(), "recover.log")
	recover := exec.CommandContext(ctx, "mariadbd", "--no-defaults", "--user=root", "--datadir="+dir, "--lc-messages-dir=/usr/share/mysql", "--log-error="+log, "--wsrep-on=ON", "--wsrep-provider="+galeraProvider, "--binlog-format=ROW", "--wsrep-cluster-address=gcomm://", "--wsrep-recover",
		"--skip-networking", "--socket="+log+".sock", "--pid-file="+log+".pid")
	if out, err := recover.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(log)
	check(t, err)
	if !strings.Contains(string(text), "Recovered position: "+position) {
		t.Errorf("%s is recorded; recovery says\n%s", position, text)
	}
	// One write set created the database, one the table, each row one more.
	copied := servertest.NewOn(t, dir, servertest.Options{ServerID: 9})
	if n, err := copied.String(ctx, "SELECT COUNT(*) FROM db0.t"); err != nil || n == "0" {
		t.Errorf("%s rows in the copy, %v", n, err)
	} else {
		t.Logf("%s rows at number %s", n, number)
	}
}
