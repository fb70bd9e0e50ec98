package prepare

import (
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/sparse"
	"github.com/xbstream/xbstream/internal/spaces"
)

// compress makes a changed page of a page_compressed tablespace what the server
// would write: otherwise a table of which redo touches each page takes the disk
// space of a table that is not compressed. Before full_crc32 each page has its
// own algorithm: that of the page as it was copied, or zlib, which every server
// reads.
func (w *worker) compress(t *spaces.Tablespace, page []byte) {
	algorithm := t.Pages.Algorithm
	if !t.Pages.FullCRC32 {
		if algorithm = w.algorithm; !innodb.CanCompress(algorithm) {
			algorithm = innodb.AlgorithmZlib
		}
	}
	if dst := w.plain[:len(page)]; t.Pages.Compress(dst, page, algorithm) {
		copy(page, dst)
	}
}

// writeCompressed writes pages of a page_compressed tablespace that lie side by
// side.
func (w *worker) writeCompressed(buf []byte, off int64) error {
	if err := w.slot.keepSparse(w.path, off, buf); err != nil {
		return err
	}
	return writeSparse(w.file, buf, off)
}

// writeSparse writes pages of a page_compressed tablespace at off, with holes for
// blocks of zeros. It may leave out zeros behind the end of the file: finishSizes
// sees to the size.
func writeSparse(f *os.File, pages []byte, off int64) error {
	for at := 0; at < len(pages); {
		r := sparse.Next(pages, at, sparse.Block)
		var err error
		if r.Zero {
			err = sparse.Punch(f, off+int64(r.Off), int64(r.Len))
		} else {
			_, err = f.WriteAt(pages[r.Off:r.Off+r.Len], off+int64(r.Off))
		}
		if err != nil {
			return err
		}
		at += r.Len
	}
	return nil
}

// punchFreed makes holes of the pages of page_compressed tablespaces that the
// batch frees last, as the server does (InnoDB buf0flu.cc, buf_flush_freed_pages).
// Where redo uses such a page again it makes it anew first.
func (p *preparation) punchFreed() error {
	freed := p.freedPages()
	slices.Sort(freed)
	for len(freed) > 0 {
		t := p.tree.Spaces[freed[0].space()]
		n := 1
		for n < len(freed) && freed[n].space() == t.ID {
			n++
		}
		if err := p.punchPages(t, freed[:n]); err != nil {
			return &PageError{Path: t.Files[0].Path, Space: t.ID, Page: freed[0].page(), Cause: err}
		}
		freed = freed[n:]
	}
	return nil
}

// freedPages lists the pages to punch. A tablespace that was discarded in between
// is left alone: its file may be an imported one, which redo does not know.
func (p *preparation) freedPages() (freed []pageKey) {
	compressed := map[format.SpaceID]bool{}
	for id, t := range p.tree.Spaces {
		if h := p.redo.spaces[id]; t.Known && t.Pages.PageCompressed && (h == nil || h.Deleted == 0) {
			compressed[id] = true
		}
	}
	if len(compressed) == 0 {
		return nil
	}
	b := p.redo.batch
	b.pages.all(func(k pageKey, i int) {
		if b.chains[i].first == 0 && compressed[k.space()] {
			freed = append(freed, k)
		}
	})
	return freed
}

func (p *preparation) punchPages(t *spaces.Tablespace, pages []pageKey) error {
	f, err := os.OpenFile(p.tree.Path(t.Files[0].Path), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it comes from redo, and nothing of it was written yet
	}
	if err != nil {
		return err
	}
	t.Touched = true
	for _, k := range pages {
		_, off := t.File(k.page())
		if err := sparse.Punch(f, off, int64(t.Pages.Physical)); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}
