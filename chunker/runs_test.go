package chunker

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/xbstream/xbstream/format"
)

// memSink puts one file together again.
type memSink struct {
	data   []byte
	pieces []string
	next   int64
}

func (m *memSink) BeginFile(format.File) (format.FileNo, error) { return 1, nil }

func (m *memSink) put(off int64, p []byte, kind string) error {
	if off != m.next || len(p) == 0 {
		return fmt.Errorf("%d bytes of %s at %d where %d was to come", len(p), kind, off, m.next)
	}
	m.data = append(m.data, p...)
	m.next += int64(len(p))
	m.pieces = append(m.pieces, fmt.Sprint(kind, len(p)))
	return nil
}

func (m *memSink) WriteData(_ format.FileNo, off int64, b *format.Buffer) error {
	defer b.Release()
	return m.put(off, b.Bytes(), "data ")
}

func (m *memSink) WriteHole(_ format.FileNo, off, n int64) error {
	return m.put(off, make([]byte, n), "hole ")
}

func (m *memSink) EndFile(format.FileNo, int64) error { return nil }

func TestRunsSplitZerosFromData(t *testing.T) {
	const k = 1 << 10
	for _, c := range []struct {
		name  string
		grain int
		// zero and data lengths in turn, beginning with data
		lengths []int
		want    []string
	}{
		{"data only", 16 * k, []int{64 * k}, []string{"data 65536"}},
		{"zeros only", 16 * k, []int{0, 64 * k}, []string{"hole 65536"}},
		{"zeros behind", 16 * k, []int{32 * k, 32 * k}, []string{"data 32768", "hole 32768"}},
		{"zeros in front", 16 * k, []int{0, 16 * k, 16 * k}, []string{"hole 16384", "data 16384"}},
		{"zeros between", 16 * k, []int{16 * k, 16 * k, 32 * k}, []string{"data 16384", "hole 16384", "data 32768"}},
		{"less than a page", 16 * k, []int{16*k - 1, 16 * k, 16*k + 1}, []string{"data 49152"}},
		{"too short", 1 * k, []int{4 * k, 8 * k, 4 * k}, []string{"data 16384"}},
		{"long enough", 1 * k, []int{4 * k, 16 * k, 4 * k}, []string{"data 4096", "hole 16384", "data 4096"}},
		{"too short at the end", 1 * k, []int{4 * k, 8 * k}, []string{"data 12288"}},
		{"punched", 4 * k, []int{5 * k, 11 * k, 1 * k, 15 * k}, []string{"data 8192", "hole 8192", "data 4096", "hole 12288"}},
		{"odd length", 16 * k, []int{5, 20 * k}, []string{"data 16384", "hole 4101"}},
		{"short file of zeros", 16 * k, []int{0, 5}, []string{"hole 5"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := format.GetBuffer()
			p := b.Space()[:0]
			for i, n := range c.lengths {
				p = append(p, bytes.Repeat([]byte{byte(1 - i%2)}, n)...)
			}
			b.SetLen(len(p))
			want := bytes.Clone(p)
			got := writeRuns(t, b, c.grain)
			if fmt.Sprint(got.pieces) != fmt.Sprint(c.want) {
				t.Errorf("%v, want %v", got.pieces, c.want)
			}
			if !bytes.Equal(got.data, want) {
				t.Error("other bytes came out")
			}
		})
	}
}

func writeRuns(t *testing.T, b *format.Buffer, grain int) *memSink {
	t.Helper()
	m := &memSink{}
	r := runs{sink: m, no: 1}
	if err := r.write(0, b, grain); err != nil {
		t.Fatal(err)
	}
	if err := r.flush(); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestRunsKeepEveryByte joins random pieces again.
func TestRunsKeepEveryByte(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		b := format.GetBuffer()
		n := 1 + random.IntN(200<<10)
		p := b.Space()[:n]
		clear(p)
		for range random.IntN(6) {
			from := random.IntN(n)
			for i := from; i < min(n, from+random.IntN(30<<10)); i++ {
				p[i] = byte(random.IntN(3))
			}
		}
		b.SetLen(n)
		want := bytes.Clone(p)
		if got := writeRuns(t, b, 1024<<random.IntN(5)); !bytes.Equal(got.data, want) {
			t.Fatal("other bytes came out")
		}
	}
}
