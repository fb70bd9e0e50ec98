package optfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever stands in an option file, reading it ends, errors name the place and
// never quote the file, and options have a name and belong to a group asked for.
func FuzzOptionFile(f *testing.F) {
	for _, tt := range tricky {
		f.Add(tt.files["my.cnf"])
	}
	f.Add("[client]\npassword=\"a#b\\\"c\" # x\n!includedir DIR\n!include DIR/my.cnf\n")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "!") { // others' files are not this test's
			text = strings.ReplaceAll(text, "/", "")
		}
		dir := t.TempDir()
		t.Chdir(dir)
		file := filepath.Join(dir, "my.cnf")
		const secret = "hush-hush"
		if err := os.WriteFile(file, []byte("[client]\npassword="+secret+"\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Search{File: file}.Read("client")
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || e.File != file || e.Line < 1 || strings.Contains(err.Error(), secret) {
				t.Fatalf("%v", err)
			}
			return
		}
		if len(r.Options) == 0 || r.Options[0].Value != secret {
			t.Fatalf("the first option is lost: %v", r.Options)
		}
		for _, o := range r.Options {
			if o.Name == "" || !strings.EqualFold(o.Group, "client") || o.Line < 1 || strings.Contains(o.Name, "_") {
				t.Fatalf("%+v", o)
			}
		}
	})
}
