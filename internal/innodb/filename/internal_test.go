package filename

import "testing"

// Names that no user gives, and those that look like them.
func TestInternal(t *testing.T) {
	for path, want := range map[string]bool{
		"d/#sql-alter-46e2-4.ibd": true, "d/#sql-ib55.ibd": true, "d/#sql-alter-1-2#P#p0.ibd": true,
		"d/#sql-alter-46e2-4.frm": true, "#sql-temptable-1-2.MAD": true,
		"d/t#P#p0#TMP#.ibd": true, "d/t#P#p0#SP#s0#REN#.ibd": true, "d/t#p#p0#tmp#.ibd": true,
		"d/FTS_00000000000001f4_0000000000000321_INDEX_5.ibd": true, "d/FTS_00000000000001f4_CONFIG.ibd": true,
		"d/FTS_00000000000001f4_BEING_DELETED_CACHE.ibd": true,
		"d/t.ibd": false, "d/t#P#p0.ibd": false, "d/FTS_orders.ibd": false, "d/FTS_00000000000001f4.ibd": false,
		"d/FTS_00000000000001f4_0000000000000321_INDEX_7.ibd": false, "d/t@0023sql.ibd": false, "#sql/t.ibd": false,
	} {
		if got := Internal(path); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}

func TestUnfinished(t *testing.T) {
	for path, want := range map[string]bool{
		"d/#sql-alter-46e2-4.ibd": true, "d/#sql-alter-1-2#P#p0.ibd": true, "#sql-alter-1-2.ibd": true,
		"d/#sql-backup-46e2-4.ibd": false, "d/#sql-ib55.ibd": false, "d/t.ibd": false, "#sql-alter-1-2/t.ibd": false,
		"d/t#P#p0#TMP#.ibd": false, "d/@0023sql@002dalter@002d1.ibd": false,
	} {
		if got := Unfinished(path); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}
