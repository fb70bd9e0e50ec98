package format

import (
	"encoding/binary"
	"math"
)

// Estimate is what a writer expects of the files that follow (SPEC.md §4.9). It is
// advice: files may grow, come and go while they are copied.
type Estimate struct {
	// Size is the sum of the files' sizes in bytes, Allocated that of the
	// bytes that they take on the source's disk, without holes.
	Size, Allocated int64
}

// estimateLen is the length of an ESTIMATE payload.
const estimateLen = 16

// WriteEstimate tells the reader early how much there will be.
func (w *Writer) WriteEstimate(e Estimate) error {
	b := GetBuffer()
	defer b.Release()
	p := b.Space()[:estimateLen]
	binary.BigEndian.PutUint64(p, uint64(e.Size))
	binary.BigEndian.PutUint64(p[8:], uint64(e.Allocated))
	b.SetLen(estimateLen)
	h := frameHeader{typ: FrameEstimate, flags: flagSkippable}
	sealed := w.seal(&h, b)
	if sealed != b {
		defer sealed.Release()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.write(&h, sealed, "")
}

// ParseEstimate reads the payload of an ESTIMATE frame. Of one that says nothing useful
// it reports false: then the reader knows as little as without the frame.
func ParseEstimate(p []byte) (e Estimate, ok bool) {
	if len(p) != estimateLen {
		return e, false
	}
	size, allocated := binary.BigEndian.Uint64(p), binary.BigEndian.Uint64(p[8:])
	if size > math.MaxInt64 || allocated > math.MaxInt64 {
		return e, false
	}
	return Estimate{int64(size), int64(allocated)}, true
}
