package cli

import (
	"bytes"
	"strings"
	"testing"
)

// Tables that grow while they are copied must not look like a fault.
func TestProgressNeverPassesItsTotal(t *testing.T) {
	p := &Progress{}
	p.Stage("copy", 10<<20)
	p.Add(12 << 20)
	for mode, want := range map[string]string{"plain": "copy: 12 MiB of 12 MiB\n", "json": `"total":12582912`} {
		var out bytes.Buffer
		print, _ := p.printer(mode, &out)
		print(false)
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s: %q, want %q in it", mode, &out, want)
		}
	}
}
