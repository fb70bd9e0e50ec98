// Package pages knows the form of the pages of a MySQL tablespace.
package pages

import (
	"fmt"

	"github.com/xbstream/xbstream/internal/innodb"
)

// Bits of FSP_SPACE_FLAGS that only MySQL has, or never has (InnoDB fsp0types.h).
const (
	flagFullCRC32  = 1 << 4 // of MariaDB; here the highest bit of a size that is at most 5
	flagDataDir    = 1 << 10
	flagShared     = 1 << 11 // a general tablespace
	flagTemporary  = 1 << 12
	flagEncryption = 1 << 13
	flagSDI        = 1 << 14

	flagPageCompressed = 1 << 16 // of MariaDB
)

// ParseFlags reads FSP_SPACE_FLAGS as MySQL writes them: what it has in common with
// older InnoDB is the size of the pages.
func ParseFlags(flags uint32) (innodb.PageFormat, error) {
	if flags&(flagPageCompressed|flagFullCRC32) != 0 {
		return innodb.PageFormat{}, fmt.Errorf("tablespace flags %#x: unknown bits: %w", flags, innodb.ErrFormat)
	}
	f, err := innodb.ParseFlags(flags &^ (flagDataDir | flagShared | flagTemporary | flagEncryption | flagSDI))
	f.MySQL, f.Encrypted = true, flags&flagEncryption != 0
	return f, err
}
