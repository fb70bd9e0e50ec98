// Package family is the contract with the families of servers: what a backup and a
// restore must be told that only a family knows. It holds no implementation;
// package families lists those there are.
package family

import (
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
)

// Family is one family of servers.
type Family interface {
	// Name is the manifest's word for it.
	Name() string
	// A Sender is all that xbsend needs, and empty where that is not built.
	Sender
	Restorer
}

// Restorer is what a restore needs.
type Restorer interface {
	// ParseFlags reads the flags of a tablespace.
	ParseFlags(flags uint32) (innodb.PageFormat, error)
	// RedoHead returns what stands in front of the joined redo of a backup, up to
	// extract.RedoStart, so that it becomes a log of the family's. An error says
	// that the manifest is damaged, unless it is format.ErrUnsupported.
	RedoHead(b *format.Backup) ([]byte, error)
	// Redo returns what recovery must know of the redo log.
	Redo() redolog.Dialect
}
