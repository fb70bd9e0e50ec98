package main

import (
	"context"
	"fmt"

	"github.com/dustin/go-humanize"

	"github.com/xbstream/xbstream/chunker"
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
	lines := []string{
		fmt.Sprintf("server %s, data directory %s", b.layout.Version, b.layout.DataDir),
		fmt.Sprintf("%d InnoDB files, %s, checked page by page", len(found), humanize.IBytes(uint64(totalSize(found)))),
		fmt.Sprintf("%d other files, %s", len(others), humanize.IBytes(uint64(totalSize(others)))),
		fmt.Sprintf("redo in %s, format %s, from checkpoint LSN %d", b.layout.InnoDB.LogDir, redo.Format, redo.CheckpointLSN),
	}
	if n := len(leftOut); n > 0 {
		lines = append(lines, fmt.Sprintf("%d InnoDB files are left out", n))
	}
	for _, line := range append(lines, "nothing was copied (--dry-run)") {
		b.log.Info(line)
	}
	return nil
}
