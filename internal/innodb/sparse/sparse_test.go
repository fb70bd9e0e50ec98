package sparse

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

const k = 1 << 10

// mixed returns data and zeros in turn, beginning with data.
func mixed(lengths ...int) (p []byte) {
	for i, n := range lengths {
		p = append(p, bytes.Repeat([]byte{byte(1 - i%2)}, n)...)
	}
	return p
}

func TestNext(t *testing.T) {
	for _, c := range []struct {
		name     string
		shortest int
		lengths  []int
		want     string
	}{
		{"nothing", Block, nil, ""},
		{"data", Block, []int{40 * k}, "data 40960 "},
		{"zeros", 16 * k, []int{0, 40 * k}, "zeros 40960 "},
		{"compressed pages", Block, []int{5 * k, 11 * k, 1, 16*k - 1}, "data 8192 zeros 8192 data 4096 zeros 12288 "},
		{"too short", 16 * k, []int{4 * k, 12 * k, 16 * k}, "data 32768 "},
		{"long enough", 16 * k, []int{4 * k, 16 * k, 4 * k}, "data 4096 zeros 16384 data 4096 "},
		{"between blocks", 16 * k, []int{1 * k, 18 * k, 5 * k}, "data 24576 "},
		{"too short in front", 16 * k, []int{0, 8 * k, 8 * k}, "data 16384 "},
		{"short before the end", 16 * k, []int{8 * k, 4 * k}, "data 8192 zeros 4096 "},
		{"a part of a block", 16 * k, []int{4 * k, 100}, "data 4096 zeros 100 "},
		{"data in a part of a block", Block, []int{0, 4 * k, 100}, "zeros 4096 data 100 "},
	} {
		p := mixed(c.lengths...)
		got := ""
		for r := (Run{}); r.Off+r.Len < len(p); {
			r = Next(p, r.Off+r.Len, c.shortest)
			kind := "data"
			if r.Zero {
				kind = "zeros"
			}
			if zero := bytes.Count(p[r.Off:r.Off+r.Len], []byte{0}) == r.Len; r.Zero && !zero {
				t.Errorf("%s: %+v is not all zero", c.name, r)
			}
			got += fmt.Sprint(kind, " ", r.Len, " ")
		}
		if got != c.want {
			t.Errorf("%s: %swanted %s", c.name, got, c.want)
		}
	}
}

func TestPunch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	want := mixed(40 * k)
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// The second reaches behind the end, the third is there.
	for _, hole := range [][2]int64{{8 * k, 12 * k}, {36 * k, 8 * k}, {80 * k, 4 * k}} {
		if err := Punch(f, hole[0], hole[1]); err != nil {
			t.Fatal(err)
		}
	}
	clear(want[8*k : 20*k])
	clear(want[36*k:])
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, %d bytes, not what was to be", err, len(got))
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if got := st.Sys().(*syscall.Stat_t).Blocks * 512; got > 24*k {
		t.Errorf("%d bytes of blocks for %d", got, 24*k)
	}
	if err := writeZeros(f, 2*k, 80*k); err != nil {
		t.Fatal(err)
	}
	clear(want[2*k:])
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("zeros written: %v, %d bytes, not what was to be", err, len(got))
	}
}
