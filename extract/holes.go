package extract

import (
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/sparse"
)

// smallestHole is the shortest run of zeros that becomes a hole, as in archives
// of xbsend. In a page_compressed tablespace it is a block: each page ends in
// zeros that take no room at the source.
const smallestHole = 16 << 10

// shortestHole returns from which length zeros in the data of a file become
// holes. The sender of a tablespace has sent those as HOLE frames. Other files
// may come from a classic stream, which has no holes, or from a data directory
// archived as ordinary files.
func shortestHole(kind format.FileKind) int {
	if kind == format.KindFile {
		return smallestHole
	}
	return 0
}

// startsPageCompressed says whether p is the start of a page_compressed
// tablespace.
func startsPageCompressed(p []byte) bool {
	if len(p) < innodb.HeaderSize {
		return false
	}
	f, err := innodb.ParseFlags(innodb.Flags(p))
	if err != nil || !f.PageCompressed || len(p) < f.Physical {
		return false
	}
	return !innodb.IsZero(p[:f.Physical]) && f.Verify(p[:f.Physical], 0) == nil
}

// writeData writes p and leaves out zeros that become holes.
func (o *openFile) writeData(p []byte, off int64) error {
	if off == 0 && o.shortest > 0 && startsPageCompressed(p) {
		o.shortest, o.loose = sparse.Block, true
	}
	if o.shortest == 0 || off%sparse.Block != 0 {
		return o.writeAt(p, off)
	}
	for at := 0; at < len(p); {
		r := sparse.Next(p, at, o.shortest)
		from := off + int64(r.Off)
		if err := o.writeRun(p[r.Off:r.Off+r.Len], from, r.Zero); err != nil {
			return err
		}
		at += r.Len
	}
	return nil
}

func (o *openFile) writeRun(p []byte, off int64, zero bool) error {
	if !zero {
		return o.writeAt(p, off)
	}
	if off < o.end || off < o.reserved { // a classic stream may write again
		return o.free(off, int64(len(p)))
	}
	return nil
}
