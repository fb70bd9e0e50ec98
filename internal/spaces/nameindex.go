package spaces

import "github.com/xbstream/xbstream/format"

// nameIndex finds tablespaces by the names that redo gives them.
type nameIndex struct {
	last map[string]format.SpaceID // of those that are there at the end
	ever map[string]format.SpaceID // the newest that had the name
}

// newNameIndex leaves out tablespaces that are known by their files.
func newNameIndex(histories Histories, known func(format.SpaceID) bool) nameIndex {
	x := nameIndex{map[string]format.SpaceID{}, map[string]format.SpaceID{}}
	newest := func(m map[string]format.SpaceID, name string, id format.SpaceID) {
		if local, ok := localName(name); ok && id > m[local] {
			m[local] = id
		}
	}
	for id, h := range histories {
		if known(id) {
			continue
		}
		if !h.Gone() {
			newest(x.last, h.Name, id)
		}
		newest(x.ever, h.Name, id)
		for _, name := range h.former {
			newest(x.ever, name, id)
		}
	}
	return x
}

// indexUnwritten is the index for those files of a manifest that have no page 0.
func indexUnwritten(files []format.File, histories Histories) nameIndex {
	written := make(map[format.SpaceID]bool, len(files))
	for _, f := range files {
		if f.Space != nil && !f.Space.Rebuild {
			written[f.Space.ID] = true
		}
	}
	return newNameIndex(histories, func(id format.SpaceID) bool { return written[id] })
}

// find returns the tablespace that a file without a page 0 is of: the one that
// has the name at the end, or else the newest one that had it. Ids only grow.
func (x nameIndex) find(rel string) format.SpaceID {
	if id := x.last[rel]; id != 0 {
		return id
	}
	return x.ever[rel]
}
