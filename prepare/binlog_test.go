package prepare

import (
	"errors"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/mariadb/redo"
	"github.com/xbstream/xbstream/internal/spaces"
)

// G4: a log with a WRITE to the binary log in InnoDB is refused by that name.
func TestRedoOfTheBinaryLogInInnoDBIsNamed(t *testing.T) {
	for _, c := range []struct {
		space format.SpaceID
		want  string
	}{
		{0xFFFFFFF0, "binlog_storage_engine=innodb"},
		{0xFFFFFFF1, "binlog_storage_engine=innodb"},
		{0xFFFFFFEF, "neither a file nor redo names"},
	} {
		g := newGatherer(1 << 16)
		records := redo.AppendPageRecord(nil, redo.Write, c.space, 3, []byte("\x64payload"))
		if err := takeRecords(g, 1000, records, true); err != nil {
			t.Fatal(err)
		}
		p := &preparation{redo: g, tree: spaces.NewTree(t.TempDir(), 16384), ignored: map[format.SpaceID]string{}}
		if _, err := p.plan(); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("space %v: %v, want %q", c.space, err, c.want)
		}
	}
}
