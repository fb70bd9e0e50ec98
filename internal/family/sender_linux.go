package family

import (
	"context"
	"log/slog"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/redotail"
	"github.com/xbstream/xbstream/server"
)

// Sender is what a backup needs of a family.
type Sender interface {
	// A Dialect recognises a server and attaches to it: discovery, checks, locks
	// and position.
	server.Dialect
	// Files finds the files of a server with that layout.
	Files(chunker.Layout) chunker.Discoverer
	// OpenRedo opens the redo log in dir at its newest checkpoint. One that the
	// family cannot read is innodb.ErrUnsupportedLog.
	OpenRedo(ctx context.Context, dir string) (redotail.Log, error)
}

// Source is a live server and what its family knows of its files.
type Source struct {
	server.Server
	family Family
}

// Open connects to a server, and attaches it to the first of the families that
// recognises it. Errors are those of server.Open.
func Open(ctx context.Context, c server.Config, log *slog.Logger, families []Family) (Source, error) {
	dialects := make([]server.Dialect, len(families))
	for i, f := range families {
		dialects[i] = dialect{f}
	}
	s, err := server.Open(ctx, c, log, dialects...)
	if err != nil {
		return Source{}, err
	}
	return s.(Source), nil
}

// dialect keeps the family with the server that it attaches.
type dialect struct{ Family }

func (d dialect) Attach(ctx context.Context, s *server.Session) (server.Server, error) {
	srv, err := d.Family.Attach(ctx, s)
	if err != nil {
		return nil, err
	}
	return Source{srv, d.Family}, nil
}

// Files finds the server's files.
func (s Source) Files(l chunker.Layout) chunker.Discoverer { return s.family.Files(l) }

// ParseFlags reads the flags of a tablespace.
func (s Source) ParseFlags(flags uint32) (innodb.PageFormat, error) {
	return s.family.ParseFlags(flags)
}

// OpenRedo opens the redo log in dir.
func (s Source) OpenRedo(ctx context.Context, dir string) (redotail.Log, error) {
	return s.family.OpenRedo(ctx, dir)
}
