package format

import (
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Level says how hard payloads are compressed.
type Level string

// The levels, from none to smallest.
const (
	Store   Level = ""
	Fast    Level = "fast"
	Default Level = "default"
	Better  Level = "better"
	Best    Level = "best"
)

// Plain is the level of --compress without a value. Against Default, Fast was
// measured to take half the time and to be 5 to 8 % larger on text; on hexadecimal
// keys Default was slower and larger.
const Plain = Fast

// ParseLevel reads the name of a level.
func ParseLevel(s string) (Level, error) {
	switch l := Level(s); l {
	case Fast, Default, Better, Best:
		return l, nil
	}
	return Store, fmt.Errorf("compression %q: must be fast, default, better or best", s)
}

var zstdLevels = map[Level]zstd.EncoderLevel{
	Fast:    zstd.SpeedFastest,
	Default: zstd.SpeedDefault,
	Better:  zstd.SpeedBetterCompression,
	Best:    zstd.SpeedBestCompression,
}

func newEncoder(opt WriterOptions) (*zstd.Encoder, error) {
	if opt.Compress == Store {
		return nil, nil
	}
	level, ok := zstdLevels[opt.Compress]
	if !ok {
		return nil, fmt.Errorf("unknown compression level %q", opt.Compress)
	}
	if opt.Parallel <= 0 {
		opt.Parallel = runtime.GOMAXPROCS(0)
	}
	// The frame has checksums of its own. A window as large as the payload
	// is all that can be used.
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(opt.Parallel),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(MaxPayload))
}

// seal fills in the lengths, checksums and codec of h for the payload of b. It
// returns the buffer that is to be written: b itself, or a new one with the
// compressed payload when that is shorter.
func (w *Writer) seal(h *frameHeader, b *Buffer) *Buffer {
	raw := b.Bytes()
	h.rawLen, h.stored = uint32(len(raw)), uint32(len(raw))
	h.sum = crc32.Checksum(raw, castagnoli)
	if w.enc == nil || len(raw) < smallestSealed {
		return b
	}
	out := bufferFor(len(raw))
	sealed := w.enc.EncodeAll(raw, out.Space()[:0])
	if len(sealed) > len(raw)-len(raw)/worthwhile {
		out.Release()
		return b
	}
	if &sealed[0] != &out.Space()[0] {
		copy(out.Space(), sealed) // the encoder wanted more room on its way
	}
	out.SetLen(len(sealed))
	sealed = out.Bytes()
	h.codec, h.stored, h.rawSum = codecZstd, uint32(len(sealed)), h.sum
	h.sum = crc32.Checksum(sealed, castagnoli)
	return out
}

const (
	// smallestSealed is the shortest payload compression is tried on.
	smallestSealed = 64
	// worthwhile: a payload is stored compressed when that saves one part in
	// so many; less is not worth the reader's time.
	worthwhile = 32
)

// decoder opens the payloads of all readers; it keeps no state between them.
var decoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0),
		zstd.WithDecoderMaxMemory(MaxPayload), zstd.WithDecoderMaxWindow(MaxPayload),
		zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderLowmem(true), zstd.IgnoreChecksum(true))
})

// oneZstdFrame walks over the blocks of p (RFC 8878 §3.1.1) and makes sure that
// p is one frame and nothing else: the decoder would take several, and any
// number of frames to be skipped between them.
func oneZstdFrame(p []byte) error {
	var h zstd.Header
	if err := h.Decode(p); err != nil {
		return err
	}
	if h.Skippable || h.DictionaryID != 0 {
		return errors.New("a zstd frame to be skipped, or one with a dictionary")
	}
	at := h.HeaderSize
	for last := false; !last; {
		if len(p)-at < 3 {
			return errors.New("cut within a zstd block")
		}
		block := int(p[at]) | int(p[at+1])<<8 | int(p[at+2])<<16
		const rle = 1
		size := block >> 3
		if block>>1&3 == rle {
			size = 1
		}
		at, last = at+3+size, block&1 != 0
	}
	if h.HasCheckSum {
		at += 4
	}
	if at != len(p) {
		return fmt.Errorf("a zstd frame of %d bytes in a payload of %d", at, len(p))
	}
	return nil
}

// open checks the stored payload in b and returns the buffer with the raw one:
// b itself, or a new one and b is released. On an error b is still the
// caller's.
func open(h *frameHeader, b *Buffer) (*Buffer, error) {
	if got := crc32.Checksum(b.Bytes(), castagnoli); got != h.sum {
		return b, fmt.Errorf("%s frame: payload checksum is %08x, computed %08x", h.typ, h.sum, got)
	}
	if h.codec == codecStored {
		return b, nil
	}
	dec, err := decoder()
	if err != nil {
		return b, err
	}
	if err := oneZstdFrame(b.Bytes()); err != nil {
		return b, fmt.Errorf("%s frame: decompress: %w", h.typ, err)
	}
	out := bufferFor(int(h.rawLen))
	raw, err := dec.DecodeAll(b.Bytes(), out.Space()[:0:h.rawLen])
	if err == nil && len(raw) != int(h.rawLen) {
		err = fmt.Errorf("%d bytes came out, %d announced", len(raw), h.rawLen)
	}
	if err == nil {
		if got := crc32.Checksum(raw, castagnoli); got != h.rawSum {
			err = fmt.Errorf("checksum is %08x, computed %08x", h.rawSum, got)
		}
	}
	if err != nil {
		out.Release()
		return b, fmt.Errorf("%s frame: decompress: %w", h.typ, err)
	}
	out.SetLen(len(raw))
	b.Release()
	return out, nil
}
