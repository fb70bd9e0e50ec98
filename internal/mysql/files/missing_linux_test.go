package files

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xbstream/xbstream/chunker"
)

// A tablespace outside the data directory that the server has and this process does
// not see ends the backup, unless it is away for a moment only.
func TestTablespacesThatAreNotSeen(t *testing.T) {
	defer func(d time.Duration) { patience = d }(patience)
	patience = 50 * time.Millisecond
	d := New(chunker.Layout{DataDir: t.TempDir()})
	there, missing := filepath.Join(t.TempDir(), "u.ibu"), filepath.Join(t.TempDir(), "shop", "t.ibd")
	if err := errors.Join(os.WriteFile(there, nil, 0o600), os.Mkdir(filepath.Join(d.layout.DataDir, "shop"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		then   string // what the server has when it is asked again
		filter *chunker.Filter
		fails  bool
	}{
		{"missing", missing, nil, true},
		{"renamed", there, nil, false},
		{"not wanted", missing, only(t, "other.t"), false},
		{"wanted", missing, only(t, "shop.t"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d.layout.Filter = c.filter
			d.layout.OpenFiles = func(context.Context) (map[string]bool, error) { return map[string]bool{c.then: true}, nil }
			err := d.mustSee(t.Context(), map[string]bool{there: true, missing: true, "shop/inside.ibd": true})
			if c.fails != (err != nil) || c.fails && !strings.Contains(err.Error(), missing) {
				t.Errorf("%v", err)
			}
		})
	}
}

func only(t *testing.T, name string) *chunker.Filter {
	t.Helper()
	f := &chunker.Filter{}
	if _, err := f.Include.Add(name); err != nil {
		t.Fatal(err)
	}
	return f
}
