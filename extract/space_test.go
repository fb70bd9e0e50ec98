package extract

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"github.com/xbstream/xbstream/format"
)

// estimated is an archive of one small file that says how much there will be.
func estimated(t *testing.T, e format.Estimate) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := format.NewWriter(&out, format.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f := format.File{Path: "small", Kind: format.KindFile, Size: 3, Mode: 0o600}
	if err := w.WriteEstimate(e); err != nil {
		t.Fatal(err)
	}
	if f.No, err = w.BeginFile(f); err != nil {
		t.Fatal(err)
	}
	b := format.GetBuffer()
	copy(b.Space(), "abc")
	b.SetLen(3)
	if err := errors.Join(w.WriteData(f.No, 0, b), w.EndFile(f.No, 3)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(&format.Manifest{Files: []format.File{f}}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// E6: an archive that says that it will not fit is refused before it is written,
// one that may fit is not.
func TestTargetTooSmall(t *testing.T) {
	free, known := freeSpace(t.TempDir())
	if !known {
		t.Fatal("the tests' directory does not say how much space it has")
	}
	for _, tt := range []struct {
		name           string
		estimate       format.Estimate
		only           bool
		refused, warns bool
	}{
		{name: "fits", estimate: format.Estimate{Size: 3, Allocated: 4096}},
		{name: "far too large", estimate: format.Estimate{Size: 3 * free, Allocated: 3 * free}, refused: true},
		{name: "full of holes", estimate: format.Estimate{Size: 3 * free, Allocated: 4096}},
		{name: "a little too large", estimate: format.Estimate{Size: free + free/10, Allocated: free + free/10}, warns: true},
		{name: "a part of it", estimate: format.Estimate{Size: 3 * free, Allocated: 3 * free}, only: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			archive := estimated(t, tt.estimate)
			var log strings.Builder
			dir := t.TempDir() + "/target"
			opt := Options{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))}
			if tt.only {
				opt.Only = func(string) bool { return true }
			}
			open := func() (Frames, error) { return format.NewReader(bytes.NewReader(archive), format.ReaderOptions{}) }
			_, err := Extract(t.Context(), open, opt)
			if errors.Is(err, syscall.ENOSPC) != tt.refused || (err == nil) == tt.refused {
				t.Errorf("got %v, refused: want %v", err, tt.refused)
			}
			if tt.refused && (!strings.Contains(err.Error(), " free, and the files of the backup take about ") || !strings.Contains(err.Error(), dir)) {
				t.Errorf("got %v", err)
			}
			if got := strings.Contains(log.String(), "it may not fit"); got != tt.warns {
				t.Errorf("warned: %v, want %v: %s", got, tt.warns, &log)
			}
		})
	}
}
