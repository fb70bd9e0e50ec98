package innodb

import (
	"bytes"
	"testing"
)

// In the old format a split sequence number from before the server's start would
// make searches in a spatial index count entries twice.
func TestSealClearsSplitNumberInOldFormat(t *testing.T) {
	for _, c := range []struct {
		name    string
		flags   uint32
		pageTyp uint16
		cleared bool
	}{
		{"old format, R-tree", 0x21, TypeRTree, true},
		{"old format, compressed, R-tree", 0x29, TypeRTree, true},
		{"old format, B-tree", 0x21, TypeIndex, false},
		{"full_crc32, R-tree", 0x15, TypeRTree, false},
	} {
		f, err := ParseFlags(c.flags)
		if err != nil {
			t.Fatal(err)
		}
		page := bytes.Repeat([]byte{7}, f.Physical)
		putU32(page, 4, 3)
		page[24], page[25] = byte(c.pageTyp>>8), byte(c.pageTyp)
		f.Seal(page)
		if got := IsZero(page[offKeyVersion:OffSpaceID]); got != c.cleared {
			t.Errorf("%s: cleared: %v, want %v", c.name, got, c.cleared)
		}
		if page[offKeyVersion-1] == 0 && page[OffSpaceID] == 0 {
			t.Errorf("%s: more than the number was cleared", c.name)
		}
	}
}
