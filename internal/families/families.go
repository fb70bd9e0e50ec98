// Package families lists the families of servers that this program knows. It is
// the one place where a new one is added.
package families

import (
	"fmt"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/family"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
	"github.com/xbstream/xbstream/internal/mariadb"
	"github.com/xbstream/xbstream/internal/mysql"
)

// All are the families, in the order in which a server is shown to them.
var All = []family.Family{
	mariadb.Family{},
	mysql.Family{},
}

func init() {
	for _, f := range All {
		redolog.Register(f.Redo())
	}
}

// ParseFlags reads the flags of a tablespace of a server of that family; another one
// is format.ErrUnsupported.
func ParseFlags(name string, flags uint32) (innodb.PageFormat, error) {
	f, err := Named(name)
	if err != nil {
		return innodb.PageFormat{}, err
	}
	return f.ParseFlags(flags)
}

// Named returns the family of that name; another one is format.ErrUnsupported.
func Named(name string) (family.Family, error) {
	for _, f := range All {
		if f.Name() == name {
			return f, nil
		}
	}
	return nil, fmt.Errorf("%w: backup of a server of the family %q", format.ErrUnsupported, name)
}
