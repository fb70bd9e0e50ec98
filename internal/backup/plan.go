package backup

import (
	"context"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
)

// Plan is what a backup would copy.
type Plan struct {
	Layout  PlanLayout
	InnoDB  PlanFiles
	Others  PlanFiles
	LeftOut int // InnoDB files that the filter does not want
	Redo    format.Redo
}

// PlanLayout is where it would read, and from what.
type PlanLayout struct{ Version, DataDir, LogDir string }

// PlanFiles are files, and their bytes.
type PlanFiles struct {
	Files int
	Bytes int64
}

// Look does what Run does before the first byte is copied: it asks the server,
// refuses what cannot be backed up, and looks at the files and the redo log.
func Look(ctx context.Context, source Source, o Options) (*Plan, error) {
	b := newRun(source, o)
	b.planning = true
	if err := b.learn(ctx); err != nil {
		return nil, err
	}
	log, err := b.openRedo(ctx)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	files := b.discoverer()
	found, err := files.InnoDB(ctx)
	if err != nil {
		return nil, err
	}
	found, leftOut := divide(found)
	if found, err = chunker.ReadSpaces(ctx, found); err != nil {
		return nil, err
	}
	others, err := files.Others(ctx)
	if err != nil {
		return nil, err
	}
	if others, err = chunker.ReadSignatures(ctx, others); err != nil {
		return nil, err
	}
	return &Plan{
		Layout:  PlanLayout{b.layout.Version, b.layout.DataDir, b.layout.InnoDB.LogDir},
		InnoDB:  PlanFiles{len(found), totalSize(found)},
		Others:  PlanFiles{len(others), totalSize(others)},
		LeftOut: len(leftOut),
		Redo:    log.Start(),
	}, nil
}
