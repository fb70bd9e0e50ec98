// Package mariadb is the family of MariaDB servers, from 10.8 on. Its rooms are
// source (discovery, checks, locks, position), files (where they are and when they
// stand still), tail (the redo log of a running server), redo (that log on disk)
// and apply (what its records do to pages). This package puts them together.
package mariadb

import (
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/mariadb/redo"
)

// Family implements family.Family.
type Family struct{}

// Name is the word of manifests for it.
func (Family) Name() string { return format.DialectMariaDB }

// ParseFlags reads the flags of a tablespace.
func (Family) ParseFlags(flags uint32) (innodb.PageFormat, error) { return innodb.ParseFlags(flags) }

// RedoHead makes the head of a log from which a server starts as from a backup.
func (Family) RedoHead(b *format.Backup) ([]byte, error) { return redo.BackupHead(b) }
