package main

import "testing"

// A2: plain --compress means fast.
func TestPlainCompressIsFast(t *testing.T) {
	for arg, want := range map[string]string{"--compress": "fast", "--compress=default": "default"} {
		var f flags
		f.register()
		if err := f.set.Parse([]string{arg}); err != nil || f.compress != want {
			t.Errorf("%s: level %q, want %q (%v)", arg, f.compress, want, err)
		}
	}
}
