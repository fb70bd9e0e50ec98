package filename

import "testing"

func TestCutPartition(t *testing.T) {
	for _, c := range []struct{ name, table, partition string }{
		{"t", "t", ""},
		{"t#P#p0", "t", "#P#p0"},
		{"t#p#p0#sp#s1", "t", "#p#p0#sp#s1"},
		{"db/t#P#p0", "db/t", "#P#p0"},
		{"#P#p0", "#P#p0", ""},
	} {
		if table, partition := CutPartition(c.name); table != c.table || partition != c.partition {
			t.Errorf("%q: got %q and %q, want %q and %q", c.name, table, partition, c.table, c.partition)
		}
	}
}
