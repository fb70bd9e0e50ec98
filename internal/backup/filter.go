package backup

import (
	"context"
	"path"
	"strings"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
)

// divide separates what is wanted from what is not.
func divide(files []chunker.File) (wanted, leftOut []chunker.File) {
	for _, f := range files {
		if f.LeftOut {
			leftOut = append(leftOut, f)
		} else {
			wanted = append(wanted, f)
		}
	}
	return wanted, leftOut
}

// leaveOut makes the manifest's entries of tablespaces that are not wanted:
// recovery is to pass over their redo, and over no other's. DDL is blocked, so
// that the name decides that a file has for good.
func leaveOut(ctx context.Context, unwanted []chunker.File) ([]chunker.Result, error) {
	files, err := chunker.ReadSpaces(ctx, unwanted)
	if err != nil {
		return nil, err
	}
	out := make([]chunker.Result, len(files))
	for i, f := range files {
		out[i] = chunker.Result{File: f, Entry: format.File{
			Path: f.Rel, Kind: format.KindLeftOut, Source: f.Source,
			Space: &format.Space{ID: f.SpaceID, Rebuild: f.Unwritten},
		}}
	}
	return out, nil
}

// ofTable says whether a file that was backed up is one of a database.
func ofTable(f format.File) bool {
	return f.Arrived() && f.Kind != format.KindDir && strings.Contains(f.Path, "/") && path.Base(f.Path) != "db.opt"
}
