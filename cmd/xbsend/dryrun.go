package main

import (
	"context"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/internal/cli"
)

// plan says what a backup would do, and does nothing. Connection, privileges,
// paths and formats have been checked before; the redo log is looked at here.
func (b *backup) plan(ctx context.Context) error {
	log, err := b.openRedo(ctx)
	if err != nil {
		return err
	}
	defer log.Close()
	files := b.discoverer()
	found, err := files.InnoDB(ctx)
	if err != nil {
		return err
	}
	found, leftOut := divide(found)
	if found, err = chunker.ReadSpaces(ctx, found); err != nil {
		return err
	}
	others, err := files.Others(ctx)
	if err != nil {
		return err
	}
	if others, err = chunker.ReadSignatures(ctx, others); err != nil {
		return err
	}
	redo := log.Start()
	b.log.Info("server "+b.layout.Version, "data_directory", b.layout.DataDir)
	b.log.Info("InnoDB files, checked page by page", "files", len(found), "data", cli.Bytes(totalSize(found)))
	b.log.Info("other files", "files", len(others), "data", cli.Bytes(totalSize(others)))
	b.log.Info("redo in "+b.layout.InnoDB.LogDir, "format", redo.Format, "checkpoint_lsn", redo.CheckpointLSN)
	if n := len(leftOut); n > 0 {
		b.log.Info("InnoDB files are left out", "files", n)
	}
	b.log.Info("nothing was copied (--dry-run)")
	return nil
}
