package extract

import (
	"slices"
	"testing"

	"github.com/xbstream/xbstream/format"
)

func TestChoice(t *testing.T) {
	entries := []format.File{
		{Path: "ibdata1", Kind: format.KindSystem}, {Path: "undo001", Kind: format.KindUndo},
		{Path: "aria_log_control", Kind: format.KindFile}, {Path: "aria_log.00000001", Kind: format.KindFile},
		{Path: "a", Kind: format.KindDir}, {Path: "a/t.ibd", Kind: format.KindTablespace}, {Path: "a/t.frm", Kind: format.KindFile},
		{Path: "a/u.ibd", Kind: format.KindTablespace}, {Path: "a/FTS_1_CONFIG.ibd", Kind: format.KindTablespace},
		{Path: "a/r.MAI", Kind: format.KindFile}, {Path: "a/out.ibd", Kind: format.KindLeftOut},
		{Path: "b/FTS_2_CONFIG.ibd", Kind: format.KindTablespace}, {Path: "b/m.MYD", Kind: format.KindFile},
	}
	for _, c := range []struct{ only, want []string }{
		{[]string{"a/t.frm"}, []string{"a/t.frm"}},
		{[]string{"b/m.MYD", "a", "a/out.ibd"}, []string{"b/m.MYD"}},
		{[]string{"a/t.ibd"}, []string{"ibdata1", "undo001", "aria_log_control", "aria_log.00000001", "a/t.ibd", "a/FTS_1_CONFIG.ibd"}},
		{[]string{"undo001"}, []string{"ibdata1", "undo001"}},
		{[]string{"a/r.MAI"}, []string{"aria_log_control", "aria_log.00000001", "a/r.MAI"}},
	} {
		choice := NewChoice(func(path string) bool { return slices.Contains(c.only, path) })
		for i := range entries {
			choice.Survey(&entries[i])
		}
		var got []string
		for i := range entries {
			if choice.Keeps(&entries[i]) {
				got = append(got, entries[i].Path)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("only %q keeps %q, want %q", c.only, got, c.want)
		}
	}
}

// MySQL needs its dictionary, and which tables are in general tablespaces only that
// says.
func TestChoiceOfMySQL(t *testing.T) {
	entries := []format.File{
		{Path: "ibdata1", Kind: format.KindSystem}, {Path: "undo_001", Kind: format.KindUndo}, {Path: "mysql.ibd", Kind: format.KindTablespace},
		{Path: "common.ibd", Kind: format.KindTablespace}, {Path: "a", Kind: format.KindDir}, {Path: "mysql", Kind: format.KindDir},
		{Path: "a/t.ibd", Kind: format.KindTablespace}, {Path: "a/u.ibd", Kind: format.KindTablespace}, {Path: "a/fts_1_config.ibd", Kind: format.KindTablespace},
		{Path: "a/n@00e4me_of_more_letters.MYD", Kind: format.KindFile}, {Path: "a/n@00e4me_of_more_let_390.sdi", Kind: format.KindFile},
		{Path: "a/n@00e4me_of_more_lex_391.sdi", Kind: format.KindFile}, {Path: "b/fts_2_config.ibd", Kind: format.KindTablespace},
	}
	needed := []string{"ibdata1", "undo_001", "mysql.ibd", "common.ibd", "mysql"}
	for _, c := range []struct{ only, want []string }{
		{[]string{"a/t.ibd"}, append(slices.Clone(needed), "a/t.ibd", "a/fts_1_config.ibd")},
		{[]string{"common.ibd"}, needed},
		{[]string{"a/n@00e4me_of_more_letters.MYD"}, []string{"a/n@00e4me_of_more_letters.MYD", "a/n@00e4me_of_more_let_390.sdi"}},
	} {
		choice := NewChoice(func(path string) bool { return slices.Contains(c.only, path) })
		for i := range entries {
			choice.Survey(&entries[i])
		}
		var got []string
		for i := range entries {
			if choice.Keeps(&entries[i]) {
				got = append(got, entries[i].Path)
			}
		}
		slices.Sort(got)
		if want := slices.Sorted(slices.Values(c.want)); !slices.Equal(got, want) {
			t.Errorf("only %q keeps %q, want %q", c.only, got, want)
		}
	}
}
