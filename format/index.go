package format

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// indexEvery is how many entries a writer gathers before it writes an INDEX
// frame. The index travels in pieces all through the archive, each naming the
// one before, so that neither side's memory grows with the data.
const indexEvery = 32 << 10

// index gathers entries of the next INDEX frame, encoded.
type index struct {
	buf     []byte
	entries int
	last    uint64 // archive offset of the INDEX frame before
}

func (x *index) add(at uint64, file FileNo) {
	if x.buf == nil {
		x.buf = make([]byte, 0, indexHead+indexEvery*indexEntry)
	}
	if x.entries == 0 {
		x.buf = binary.BigEndian.AppendUint64(x.buf[:0], x.last)
	}
	x.buf = binary.BigEndian.AppendUint64(x.buf, at)
	x.buf = binary.BigEndian.AppendUint32(x.buf, uint32(file))
	x.entries++
}

// indexCheck makes the index a second time, from the frames a reader meets, and
// compares each INDEX frame with it. It keeps no more than one INDEX frame can
// hold.
type indexCheck struct {
	index
	frames int // since the last INDEX frame
}

// frame takes note of a frame at archive offset at.
func (c *indexCheck) frame(h *frameHeader, at int64) {
	if h.typ > FrameRedo {
		return
	}
	if c.frames++; c.frames <= maxIndexEntries {
		c.add(uint64(at), h.file)
	}
}

// compare checks the payload of the INDEX frame at archive offset at against the
// frames before it.
func (c *indexCheck) compare(p []byte, at int64) error {
	defer func() { c.last, c.entries, c.frames = uint64(at), 0, 0 }()
	before, places := parseIndex(p)
	if before != c.last {
		return fmt.Errorf("INDEX frame: names one at %d as the one before, that is at %d", before, c.last)
	}
	if len(places) != c.frames {
		return fmt.Errorf("INDEX frame: %d entries for %d frames", len(places), c.frames)
	}
	if bytes.Equal(p, c.buf) {
		return nil
	}
	_, want := parseIndex(c.buf)
	for i, w := range want {
		if places[i] != w {
			return fmt.Errorf("INDEX frame: entry for file %d at %d, where a frame of file %d at %d was", places[i].file, places[i].at, w.file, w.at)
		}
	}
	return nil
}

// complete says whether an index, if there is one, holds all frames.
func (c *indexCheck) complete() error {
	if c.last != 0 && c.frames != 0 {
		return fmt.Errorf("END frame: the index lacks the last %d frames", c.frames)
	}
	return nil
}

// take copies the payload of the next INDEX frame to dst and returns its size.
func (x *index) take(dst []byte) int {
	x.entries = 0
	return copy(dst, x.buf)
}

// place is an entry of the index: where a frame begins and whose it is.
type place struct {
	at   uint64
	file FileNo
}

// parseIndex reads the payload of an INDEX frame.
func parseIndex(p []byte) (before uint64, places []place) {
	before = binary.BigEndian.Uint64(p)
	for p = p[indexHead:]; len(p) >= indexEntry; p = p[indexEntry:] {
		places = append(places, place{binary.BigEndian.Uint64(p), FileNo(binary.BigEndian.Uint32(p[8:]))})
	}
	return before, places
}
