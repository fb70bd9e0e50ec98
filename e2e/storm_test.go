package e2e

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/xbstream/xbstream/internal/servertest"
)

// P1 under DDL: whatever the server was doing, the copy follows and is equal.
func TestCopyTakenInAStormOfDDL(t *testing.T) {
	for n := range 2 * repeats(t) {
		for _, j := range []string{"-j1", "-j4"} {
			t.Run(fmt.Sprintf("%s/%d", j, n), func(t *testing.T) { storm(t, uint64(n), j) })
		}
	}
}

func storm(t *testing.T, seed uint64, j string) {
	ctx := t.Context()
	source := servertest.New(t, servertest.Options{LogFileSize: 24 << 20, LogBin: true, TCP: true})
	options := servertest.LoadOptions{Seed: seed, Rate: 200, BulkBytes: 30 << 20}
	check(t, source.CreateSchema(ctx, options))
	load, err := source.StartLoad(ctx, options)
	check(t, err)
	ddl, err := source.StartStorm(ctx, seed)
	check(t, err)
	time.Sleep(2 * time.Second)

	dir := filepath.Join(t.TempDir(), "copy")
	pipeline(t, []string{"xbsend", "--no-defaults", "--user=root", "--socket=" + source.Socket(), "--rate=30M", j},
		[]string{"xbstream", "-x", "--prepare", "-C", dir, j})
	gtid, err := servertest.RecordedGTID(dir)
	check(t, err)
	copied := startCopy(t, dir)
	check(t, copied.AttachReplica(ctx, source, gtid))
	check(t, ddl.Stop())
	_, err = load.Stop()
	check(t, err)
	compareCopy(t, source, copied, "")
}
