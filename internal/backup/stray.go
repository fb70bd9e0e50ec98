package backup

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

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
	open, err := p.source.OpenFiles(ctx)
	if err != nil {
		return err
	}
	p.late = slices.DeleteFunc(p.late, func(r chunker.Result) bool {
		if !unwritten(r) || open[r.Entry.Path] || open[r.Entry.Source] {
			return false
		}
		p.Log.Warn("a file that no table uses is left out: it has no tablespace header", "file", r.File.Abs, "size", humanize.IBytes(uint64(r.File.Signature.Size)))
		return true
	})
	return nil
}

// unused says whether InnoDB's dictionary has no table of a file's name, and the
// server has not got it open: it does not have the names of all files.
func (b *run) unused(ctx context.Context, f chunker.File) (bool, error) {
	known, err := b.source.KnowsTable(ctx, strings.TrimSuffix(f.Rel, ".ibd"))
	if err != nil || known {
		return false, err
	}
	open, err := b.source.OpenFiles(ctx)
	return err == nil && !open[f.Rel] && !open[f.Source], err
}

// warnUnused names the files that are no tablespaces, as they are once DDL is
// blocked.
func (p *phases) warnUnused(results []chunker.Result) {
	for _, r := range results {
		if r.Unused {
			p.Log.Warn("a file that no table uses is left out: it is not a tablespace", "file", r.File.Abs, "size", humanize.IBytes(uint64(r.File.Signature.Size)))
		}
	}
}

const (
	// bigFile is the size from which on a file that no engine uses is told of.
	bigFile = 1 << 20
	// mostBig is how many of them are named.
	mostBig = 5
)

// warnBig names, in one line, large files among the tables that no engine uses:
// they are part of the backup, and of all that come.
func (p *phases) warnBig() {
	var big []chunker.Result
	var total uint64
	for _, r := range p.others {
		if r.File.Class == chunker.ClassUnknown && !r.Gone && r.Entry.Size >= bigFile {
			big = append(big, r)
			total += uint64(r.Entry.Size)
		}
	}
	if len(big) == 0 {
		return
	}
	slices.SortFunc(big, func(a, b chunker.Result) int { return cmp.Compare(b.Entry.Size, a.Entry.Size) })
	var names []string
	for _, r := range big[:min(len(big), mostBig)] {
		names = append(names, fmt.Sprintf("%s (%s)", r.File.Abs, humanize.IBytes(uint64(r.Entry.Size))))
	}
	p.Log.Warn("the backup includes files that no storage engine uses", "files", len(big), "size", humanize.IBytes(total), "largest", strings.Join(names, ", "))
}

// settleStrays deals with files that bear the space id of another table: a copy
// somebody put beside it, or one that waits for IMPORT TABLESPACE. They are kept
// as ordinary files, as recovery must not take one for the tablespace, or left out if
// the server would not start beside them.
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
		file, err := p.source.SpaceFile(ctx, k.id)
		if err != nil {
			return err
		}
		leave := p.layout.InnoDB.OneFileEach
		if err := demote(all, file, leave); err != nil {
			return fmt.Errorf("space %v: %w", k.id, err)
		}
		what := "kept as ordinary files"
		if leave {
			what = "left out: the server does not start with two files of one tablespace"
		}
		p.Log.Warn("files bear the space id of another table and are "+what, "space", k.id, "table", file, "files", len(all)-1)
	}
	return nil
}

// demote makes ordinary files of all but the one the server uses, or leaves them out.
func demote(all []*chunker.Result, file string, leave bool) error {
	found := false
	for _, r := range all {
		if path.Clean(file) == r.Entry.Path || file == r.Entry.Source && file != "" {
			found = true
			continue
		}
		r.Entry.Space = nil
		r.Gone = leave
		if r.Entry.Arrived() {
			r.Entry.Kind = format.KindFile
		}
	}
	if !found {
		return fmt.Errorf("files %q and %q both bear it, and the server says it uses %q: move the wrong one away", all[0].File.Abs, all[1].File.Abs, file)
	}
	return nil
}
