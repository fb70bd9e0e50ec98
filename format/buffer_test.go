package format

import (
	"testing"
	"unsafe"
)

func TestBufferAlignment(t *testing.T) {
	for range 20 {
		b := GetBuffer()
		// Kept, so that the next one is another.
		t.Cleanup(b.Release)
		p := b.Space()
		if len(p) != ChunkSize || cap(p) != ChunkSize {
			t.Errorf("a buffer has room for %d bytes, and %d in all", len(p), cap(p))
		}
		if at := uintptr(unsafe.Pointer(&p[0])); at%BufferAlign != 0 {
			t.Errorf("a payload begins at %#x", at)
		}
	}
}
