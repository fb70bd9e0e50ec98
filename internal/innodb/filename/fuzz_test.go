package filename

import (
	"strings"
	"testing"
)

// FuzzNames: names come from directories and logs, and may be anything.
func FuzzNames(f *testing.F) {
	f.Add("d/t#P#p@0020.ibd")
	f.Add("a@0@00@zz@005c@@")
	f.Add("FTS_00000000000001f4_CONFIG.ibd")
	f.Fuzz(func(t *testing.T, name string) {
		if got := Decode(name); !strings.Contains(name, "@") && got != name {
			t.Errorf("%q became %q, and nothing in it is encoded", name, got)
		}
		if table, part := CutPartition(name); table+part != name || part != "" && table == "" {
			t.Errorf("%q was cut into %q and %q", name, table, part)
		}
		if Internal(name) != Internal("d/"+name) {
			t.Errorf("%q: a directory before it matters", name)
		}
	})
}
