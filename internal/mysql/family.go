package mysql

import (
	"fmt"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
	"github.com/xbstream/xbstream/internal/mysql/pages"
	"github.com/xbstream/xbstream/internal/mysql/redo"
)

// Family implements family.Family.
type Family struct{}

// Name is the word of manifests for it.
func (Family) Name() string { return format.DialectMySQL }

// RedoHead makes the head of a linear log.
func (Family) RedoHead(b *format.Backup) ([]byte, error) {
	first := b.Redo.CheckpointLSN
	if _, ok := redo.PositionOf(first); !ok {
		return nil, fmt.Errorf("no redo can begin at LSN %v", first)
	}
	return redo.Linear{First: first, Checkpoint: first, Creator: b.Redo.Creator}.Encode(), nil
}

// ParseFlags reads the flags of a tablespace.
func (Family) ParseFlags(flags uint32) (innodb.PageFormat, error) { return pages.ParseFlags(flags) }

// Redo returns what recovery must know of the redo log.
func (Family) Redo() redolog.Dialect { return Redo() }
