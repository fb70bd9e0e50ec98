package format

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// openPayload opens p as a compressed payload that claims raw bytes with the
// content's checksum.
func openPayload(p, content []byte, raw int) (*Buffer, error) {
	b := bufferFor(len(p))
	b.SetLen(copy(b.Space(), p))
	h := frameHeader{typ: FrameData, codec: codecZstd, rawLen: uint32(raw), stored: uint32(len(p)),
		sum: crc32.Checksum(p, castagnoli), rawSum: crc32.Checksum(content, castagnoli)}
	return open(&h, b)
}

func compress(t *testing.T, p []byte, opt ...zstd.EOption) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil, opt...)
	check(t, err)
	defer enc.Close()
	return enc.EncodeAll(p, nil)
}

// Payloads that only somebody who means harm, or another program, would write.
func TestHostileZstdPayloads(t *testing.T) {
	content := bytes.Repeat([]byte("content "), 4096)
	good := compress(t, content)
	empty := []byte{0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x50} // window of 1 MiB, no content size
	blocks := append(bytes.Clone(empty), make([]byte, 3*(MaxPayload/3-10))...)
	bomb := compress(t, make([]byte, 512<<20)) // as small as 16 KiB
	unsized := func(window byte) []byte {
		p := append([]byte{0x28, 0xB5, 0x2F, 0xFD, 0x00, window}, 0, 0, 0)
		binary.LittleEndian.PutUint16(p[6:], 1|1<<1|5<<3) // last, a run of five
		return append(p, 'x')
	}
	for what, c := range map[string]struct {
		p, content []byte
		raw        int
	}{
		"half a gigabyte of zeros":  {bomb, nil, MaxPayload},
		"a window of two exabytes":  {unsized(0xFF), []byte("xxxxx"), 5},
		"a window of 2 MiB":         {unsized(0x58), []byte("xxxxx"), 5},
		"empty blocks without end":  {blocks, nil, MaxPayload},
		"empty blocks and an end":   {append(blocks, 1, 0, 0), nil, MaxPayload},
		"more than announced":       {good, content, len(content) - 1},
		"less than announced":       {good, content, len(content) + 1},
		"other content":             {good, content[1:], len(content)},
		"two frames":                {append(bytes.Clone(good), good...), append(bytes.Clone(content), content...), 2 * len(content)},
		"bytes behind":              {append(bytes.Clone(good), 0), content, len(content)},
		"cut":                       {good[:len(good)-1], content, len(content)},
		"a frame to be skipped":     {[]byte("\x50\x2A\x4D\x18\x04\x00\x00\x00skip"), nil, 100},
		"a dictionary":              {compress(t, content, zstd.WithEncoderDictRaw(7, content[:100])), content, len(content)},
		"no zstd":                   {content[:100], content, len(content)},
		"a frame that is not begun": {good[:5], content, len(content)},
	} {
		if len(c.p) > MaxPayload {
			t.Fatalf("%s: %d bytes", what, len(c.p))
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		b, err := openPayload(c.p, c.content, c.raw)
		runtime.ReadMemStats(&after)
		b.Release()
		if err == nil {
			t.Errorf("%s: opened", what)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 32<<20 {
			t.Errorf("%s: %d MiB allocated", what, grown>>20)
		}
	}
	// What is unusual and still right.
	for what, p := range map[string][]byte{
		"the usual":  good,
		"a checksum": compress(t, content, zstd.WithEncoderCRC(true)),
		"no size":    compress(t, content, zstd.WithSingleSegment(false), zstd.WithWindowSize(1<<20)),
	} {
		b, err := openPayload(p, content, len(content))
		if err != nil || !bytes.Equal(b.Bytes(), content) {
			t.Errorf("%s: error %v", what, err)
		}
		b.Release()
	}
}
