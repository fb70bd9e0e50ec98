package tail

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/mysql/mysqltest"
	ondisk "github.com/xbstream/xbstream/internal/mysql/redo"
	"github.com/xbstream/xbstream/redotail"
)

// Copies of the log of an 8.0.30 server, taken file by file under load, around
// resizes and after crashes, are read as far as another program read them.
func TestReadsLogsOfAnOldServer(t *testing.T) {
	root := mysqltest.Fixtures(t)
	for _, row := range mysqltest.Table(t, filepath.Join(root, "redo", "index.tsv")) {
		if strings.Contains(row["state"], "no directory") {
			continue
		}
		t.Run(row["snapshot"]+" "+row["state"], func(t *testing.T) {
			dir := filepath.Dir(mysqltest.Find(t, mysqltest.Unpack(t, filepath.Join(root, "redo", row["snapshot"]+".tar.zst")), ondisk.Directory))
			l, err := Open(t.Context(), dir)
			check(t, err)
			defer l.Close()
			var checkpoint, end format.LSN
			_, err = fmt.Sscan(row["checkpoint_in_files"]+" "+row["end_of_valid_blocks"], &checkpoint, &end)
			check(t, err)
			at := l.Start().CheckpointLSN
			if l.Checkpoint() != checkpoint || at < checkpoint || at > end {
				t.Errorf("checkpoint %v, redo from %v; want %v", l.Checkpoint(), at, checkpoint)
			}
			for {
				p, err := l.Read(t.Context())
				if errors.Is(err, redotail.ErrTip) {
					break
				}
				check(t, err)
				if p.LSN != at {
					t.Fatalf("a piece at %v, want %v", p.LSN, at)
				}
				at = p.End()
			}
			// What is left is the start of a mini-transaction.
			position, ok := ondisk.PositionOf(at)
			if !ok || at > end || (position+ondisk.Position(len(l.rest))).LSN() < end {
				t.Errorf("read to %v and %d bytes of the next, the blocks end at %v", at, len(l.rest), end)
			}
		})
	}
}
