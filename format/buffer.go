package format

import (
	"sync"
	"unsafe"
)

// ChunkSize is the payload size writers use for file data: large enough that
// the cost of a frame vanishes, small enough that a slow pipe still interleaves
// redo promptly. Readers accept up to MaxPayload.
const ChunkSize = 1 << 20

// BufferAlign divides the address of a payload in a Buffer of GetBuffer, and in
// a frame of more than smallBuffer bytes: a file takes such memory past the page
// cache (open(2), O_DIRECT).
const BufferAlign = 4096

// Buffer carries up to ChunkSize bytes of payload, with room in front for the
// frame header, so that header and payload leave in one write.
//
// A Buffer has one owner at a time. GetBuffer makes the caller the owner; a
// method documented as taking the buffer passes ownership on; the last owner
// calls Release and does not touch it again.
type Buffer struct {
	mem []byte
	n   int
}

// smallBuffer is the payload size of the buffers of the second pool: most
// frames of small tables, manifests and closing fit.
const smallBuffer = 16 << 10

var (
	largeBuffers = sync.Pool{New: func() any { return &Buffer{mem: aligned(ChunkSize)} }}
	smallBuffers = sync.Pool{New: func() any { return &Buffer{mem: make([]byte, frameHeaderSize+smallBuffer)} }}
)

// GetBuffer returns an empty buffer from the pool, with room for ChunkSize
// bytes.
func GetBuffer() *Buffer { return bufferFor(ChunkSize) }

// aligned returns memory for a header and n bytes of payload, which begins at an
// address that BufferAlign divides.
func aligned(n int) []byte {
	mem := make([]byte, 2*BufferAlign+n)
	at := 2*BufferAlign - int(uintptr(unsafe.Pointer(&mem[0]))%BufferAlign)
	return mem[at-frameHeaderSize : at+n : at+n]
}

// bufferFor returns an empty buffer with room for at least n bytes.
func bufferFor(n int) *Buffer {
	pool := &largeBuffers
	if n <= smallBuffer {
		pool = &smallBuffers
	}
	b := pool.Get().(*Buffer)
	b.n = 0
	return b
}

// Space returns the whole payload area to be filled before SetLen.
func (b *Buffer) Space() []byte { return b.mem[frameHeaderSize:] }

// SetLen says that the first n bytes of Space are the payload.
func (b *Buffer) SetLen(n int) { b.n = n }

// Bytes returns the payload.
func (b *Buffer) Bytes() []byte { return b.mem[frameHeaderSize : frameHeaderSize+b.n] }

// Release gives the buffer back to the pool; a nil one is none.
func (b *Buffer) Release() {
	if b == nil {
		return
	}
	mangle(b)
	if len(b.mem) == frameHeaderSize+smallBuffer {
		smallBuffers.Put(b)
		return
	}
	largeBuffers.Put(b)
}
