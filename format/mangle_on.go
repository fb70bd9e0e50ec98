//go:build race

package format

// mangle overwrites a released buffer in race builds, so that a late reader
// sees nonsense at once instead of somebody else's data now and then.
func mangle(b *Buffer) {
	for i := range b.mem[:frameHeaderSize+b.n] {
		b.mem[i] = 0xDB
	}
}
