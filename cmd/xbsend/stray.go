package main

import (
	"context"
	"fmt"
	"path"
	"slices"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
)

// settleUnwritten leaves out tablespace files that have no page 0 and that the
// server does not have open: leftovers of a crash, which hold nothing and which
// no redo will fill. Those of a table made just now the server has open.
func (p *phases) settleUnwritten(ctx context.Context) error {
	unwritten := func(r chunker.Result) bool {
		return !r.Gone && r.Entry.Kind == format.KindTablespace && r.Entry.Space.Rebuild
	}
	if !slices.ContainsFunc(p.late, unwritten) {
		return nil
	}
	open, err := p.server.OpenFiles(ctx)
	if err != nil {
		return err
	}
	p.late = slices.DeleteFunc(p.late, func(r chunker.Result) bool {
		if !unwritten(r) || open[r.Entry.Path] || open[r.Entry.Source] {
			return false
		}
		p.log.Warn("an empty file that no table uses is left out", "file", r.File.Abs)
		return true
	})
	return nil
}

// settleStrays deals with files that bear the space id of another table: a copy
// somebody put beside it, or one that waits for IMPORT TABLESPACE. They are kept
// as ordinary files; recovery must not take one for the tablespace.
func (p *phases) settleStrays(ctx context.Context) error {
	type space struct {
		id    format.SpaceID
		first format.PageNo
	}
	owners := map[space][]*chunker.Result{}
	for _, list := range [][]chunker.Result{p.plan.Keep, p.late, p.leftOut} {
		for i := range list {
			r := &list[i]
			if r.Gone || r.Entry.Space == nil || r.Entry.Space.Rebuild {
				continue
			}
			k := space{r.Entry.Space.ID, r.Entry.Space.FirstPage}
			owners[k] = append(owners[k], r)
		}
	}
	for k, all := range owners {
		if len(all) == 1 {
			continue
		}
		if !slices.ContainsFunc(all, func(r *chunker.Result) bool { return r.Entry.Arrived() }) {
			// None is in the backup; one of them has the redo.
			for _, r := range all[1:] {
				r.Entry.Space = nil
			}
			continue
		}
		file, err := p.server.SpaceFile(ctx, k.id)
		if err != nil {
			return err
		}
		if err := demote(all, file); err != nil {
			return fmt.Errorf("space %v: %w", k.id, err)
		}
		p.log.Warn("files bear the space id of another table and are kept as ordinary files", "space", k.id, "table", file, "files", len(all)-1)
	}
	return nil
}

// demote makes ordinary files of all but the one the server uses.
func demote(all []*chunker.Result, file string) error {
	found := false
	for _, r := range all {
		if path.Clean(file) == r.Entry.Path || file == r.Entry.Source && file != "" {
			found = true
			continue
		}
		r.Entry.Space = nil
		if r.Entry.Arrived() {
			r.Entry.Kind = format.KindFile
		}
	}
	if !found {
		return fmt.Errorf("files %q and %q both bear it, and the server says it uses %q: move the wrong one away", all[0].File.Abs, all[1].File.Abs, file)
	}
	return nil
}
