package mysql

import (
	"context"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/internal/mysql/files"
	"github.com/xbstream/xbstream/internal/mysql/source"
	"github.com/xbstream/xbstream/internal/mysql/tail"
	"github.com/xbstream/xbstream/redotail"
	"github.com/xbstream/xbstream/server"
)

// Recognises says whether a server is of this family.
func (Family) Recognises(i server.Identity) bool { return source.Dialect{}.Recognises(i) }

// Attach returns the server.
func (Family) Attach(ctx context.Context, s *server.Session) (server.Server, error) {
	return source.Dialect{}.Attach(ctx, s)
}

// Files finds the files of a server.
func (Family) Files(l chunker.Layout) chunker.Discoverer { return files.New(l) }

// OpenRedo opens the redo log in dir at its newest checkpoint.
func (Family) OpenRedo(ctx context.Context, dir string) (redotail.Log, error) {
	log, err := tail.Open(ctx, dir)
	if err != nil {
		return nil, err // not log: a nil *tail.Log is no nil redotail.Log
	}
	return log, nil
}
