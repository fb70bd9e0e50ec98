package spaces

import "testing"

// Names in redo are those of the source, and of whoever wrote the log.
func TestLocalName(t *testing.T) {
	for name, want := range map[string]string{
		"./d/t.ibd":            "d/t.ibd",
		"d/t.ibd":              "d/t.ibd",
		`.\d\t.ibd`:            "d/t.ibd",
		"/elsewhere/d/t.ibd":   "d/t.ibd",
		"../../d/t.ibd":        "d/t.ibd",
		"./d/t#P#p@0020.ibd":   "d/t#P#p@0020.ibd",
		"../t.ibd":             "",
		"./t.ibd":              "",
		"/t.ibd":               "",
		"t.ibd":                "",
		"d/..":                 "",
		"d/t.frm":              "",
		"":                     "",
		"d\n/t.ibd":            "",
		"d/t\x00.ibd":          "",
		"d/\x1b[2Jt.ibd":       "",
		"d/t\xff.ibd":          "",
		"d//////////////t.ibd": "d/t.ibd",
	} {
		if got, ok := localName(name); ok != (want != "") || ok && got != want {
			t.Errorf("%q became %q, %v; want %q", name, got, ok, want)
		}
	}
}
