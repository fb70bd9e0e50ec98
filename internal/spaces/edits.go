package spaces

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
)

// edits are what following redo changes about the files of the manifest.
type edits struct {
	removed map[string]bool
	renamed map[string]string
	created []format.SpaceID
}

func (e *edits) remove(rel string) {
	if e.removed == nil {
		e.removed = map[string]bool{}
	}
	e.removed[rel] = true
}

func (e *edits) rename(from, to string) {
	if e.renamed == nil {
		e.renamed = map[string]string{}
	}
	e.renamed[from] = to
}

func (e *edits) none() bool {
	return len(e.removed) == 0 && len(e.renamed) == 0 && len(e.created) == 0
}

// UpdateManifest lets the manifest name the files that the directory has now
// (SPEC.md §5.2). That is done before the log is replaced: without its redo
// nothing explains that a file is not there, but for those of RemoveUnfinished.
func (tr *Tree) UpdateManifest(m *format.Manifest) error {
	if m == nil || tr.edits.none() {
		return nil
	}
	name := filepath.Join(tr.dir, format.ManifestName)
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	err = backupdir.ReplaceWith(name, func(out io.Writer) error {
		w := bufio.NewWriter(out)
		if err := tr.editManifest(w, in, m); err != nil {
			return err
		}
		return w.Flush()
	})
	if err == nil {
		tr.edits = edits{}
	}
	return err
}

// editManifest copies a manifest, of which m is all but the files, with the edits.
func (tr *Tree) editManifest(w io.Writer, in io.Reader, m *format.Manifest) error {
	enc, err := format.NewManifestEncoder(w, m)
	if err != nil {
		return err
	}
	e := &tr.edits
	var last format.FileNo
	_, err = format.DecodeManifest(in, func(f *format.File) error {
		last = max(last, f.No)
		if e.removed[f.Path] {
			return nil
		}
		if to, ok := e.renamed[f.Path]; ok {
			f.Path = to
		}
		return enc.Add(f)
	})
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(slices.Values(e.created)) {
		f, err := tr.createdEntry(id)
		if err != nil {
			return err
		}
		last++
		f.No = last
		if err := enc.Add(f); err != nil {
			return err
		}
	}
	return enc.Close()
}

// createdEntry describes a file that came from redo alone.
func (tr *Tree) createdEntry(id format.SpaceID) (*format.File, error) {
	rel := tr.Spaces[id].Files[0].Path
	p, err := tr.readFirstPage(rel)
	encrypted := errors.Is(err, backupdir.ErrEncrypted)
	if err != nil && !encrypted {
		return nil, err
	}
	return &format.File{
		Path: rel, Kind: format.KindTablespace, Size: p.size, Mode: 0o660,
		Space: &format.Space{ID: id, PageSize: p.pages.Physical, Encrypted: encrypted, Rebuild: true},
	}, nil
}
