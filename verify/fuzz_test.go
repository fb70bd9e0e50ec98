package verify

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/xbstream/xbstream/format"
)

// FuzzArchive: whatever the input, verification ends, and what it calls sound
// every reader takes to its end.
func FuzzArchive(f *testing.F) {
	names, err := filepath.Glob(vectors + "v1-*.xb")
	check(f, err)
	for _, name := range names {
		a, err := os.ReadFile(name)
		check(f, err)
		f.Add(a, uint32(0), uint8(0))
		f.Add(a, uint32(len(a)/2), uint8(4))
	}
	f.Fuzz(func(t *testing.T, a []byte, at uint32, flip uint8) {
		a = bytes.Clone(a)
		if len(a) > 0 {
			a[int(at)%len(a)] ^= flip
		}
		mend(a)
		err := readThrough(a)
		if got := problems(t, a); got == "" && err != nil {
			t.Errorf("verified, but reading it: %v", err)
		}
	})
}

// mend gives the frame headers the checksums they should have, so that the
// fuzzer gets past them.
func mend(a []byte) {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	for off := 32; off+48 <= len(a); {
		sum := crc32.Update(crc32.Checksum(a[12:28], castagnoli), castagnoli, a[off:off+44])
		binary.BigEndian.PutUint32(a[off+44:], sum)
		off += 48 + int(binary.BigEndian.Uint32(a[off+32:]))
	}
}

func readThrough(a []byte) error {
	r, err := format.NewReader(bytes.NewReader(a), format.ReaderOptions{Parallel: 1})
	if err != nil {
		return err
	}
	defer r.Close()
	var manifest bytes.Buffer
	for {
		f, err := r.Next()
		if err == io.EOF {
			_, err := format.ReadManifest(&manifest)
			return err
		}
		if err != nil {
			return err
		}
		if f.Type == format.FrameManifest {
			manifest.Write(f.Bytes())
		}
		f.Release()
	}
}
