package outlet

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"
)

// D4: what sha256sum would write.
func TestDigestLine(t *testing.T) {
	for file, want := range map[string]string{
		"monday.xb.sha256":         "abc  monday.xb\n",
		"/srv/monday.xb.sha256sum": "abc  monday.xb\n",
		"digest":                   "abc  -\n",
		".sha256":                  "abc  -\n",
		"a\\b\nc.sha256":           "\\abc  a\\\\b\\nc\n",
	} {
		if got := digestLine(file, "abc"); got != want {
			t.Errorf("%q: %q, want %q", file, got, want)
		}
	}
}

// D4: the digest and the count are those of what was written.
func TestMeter(t *testing.T) {
	var out bytes.Buffer
	m, counts := newMeter(&out, true), newMeter(&out, false)
	for n := range 100 {
		if _, err := m.Write(bytes.Repeat([]byte{byte(n)}, n*n)); err != nil {
			t.Fatal(err)
		}
	}
	m.Close()
	if want := fmt.Sprintf("%x", sha256.Sum256(out.Bytes())); m.digest() != want || m.bytes != int64(out.Len()) {
		t.Errorf("%d bytes, %s; want %d, %s", m.bytes, m.digest(), out.Len(), want)
	}
	if _, err := counts.Write([]byte("abc")); err != nil || counts.bytes != 3 || counts.digest() != "" {
		t.Errorf("%d bytes, %q: %v", counts.bytes, counts.digest(), err)
	}
}

func BenchmarkMeter(b *testing.B) {
	for _, hash := range []bool{false, true} {
		b.Run(fmt.Sprint("hash=", hash), func(b *testing.B) {
			m := newMeter(discard{}, hash)
			defer m.Close()
			piece := make([]byte, 1<<20)
			b.SetBytes(int64(len(piece)))
			for b.Loop() {
				m.Write(piece)
			}
		})
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
