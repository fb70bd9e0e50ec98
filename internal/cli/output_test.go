package cli

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

// E2: messages in JSON have numbers, with the unit in the key; text is for people.
func TestUnitsInMessages(t *testing.T) {
	attrs := []any{"data", Bytes(60 << 20), "took", 2830 * time.Millisecond, "pause", 30 * time.Second, "files", 7}
	var text, object bytes.Buffer
	(&Output{LogFormat: "text"}).Logger("xbsend", &text).Info("backup complete", attrs...)
	if want := "xbsend: backup complete (data 60 MiB, took 2.83s, pause 30s, files 7)\n"; text.String() != want {
		t.Errorf("%q, want %q", &text, want)
	}
	(&Output{LogFormat: "json"}).Logger("xbsend", &object).Info("backup complete", attrs...)
	var got map[string]any
	if err := json.Unmarshal(object.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]float64{"data_bytes": 60 << 20, "took_seconds": 2.83, "pause_seconds": 30, "files": 7} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v, in %s", key, got[key], want, &object)
		}
	}
}
