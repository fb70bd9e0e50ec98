package main

import (
	"errors"
	"testing"

	"github.com/xbstream/xbstream/extract"
	"github.com/xbstream/xbstream/internal/cli"
)

func TestParseMappings(t *testing.T) {
	for value, want := range map[string]extract.Mapping{
		"/a=/b":           {Old: "/a", New: "/b"},
		"/a/=/b//":        {Old: "/a", New: "/b"},
		"/a b/c=/d":       {Old: "/a b/c", New: "/d"},
		`/a\=b=/c\=d`:     {Old: "/a=b", New: "/c=d"},
		"/same=/same":     {Old: "/same", New: "/same"},
		"/=/b":            {Old: "/", New: "/b"},
		"/a":              {},
		"":                {},
		"=":               {},
		"/a=":             {},
		"=/b":             {},
		"/a=/b=/c":        {},
		"a=/b":            {},
		"/a=b":            {},
		"/a/../b=/c":      {},
		"/a=/b/..":        {},
		"/a=/b/./c":       {},
		"/a//b=/c":        {},
		`C:\mysql=/b`:     {},
		"/a=/b,/c=/d":     {},
		`/a\=/b`:          {},
		"/a = /b":         {},
		"/a=../b":         {},
		"--prepare=/b":    {},
		"/a/b/../../c=/d": {},
	} {
		got, err := parseMappings([]string{value})
		var usage *cli.UsageError
		if want == (extract.Mapping{}) {
			if !errors.As(err, &usage) {
				t.Errorf("%q: %v, %v; want a usage error", value, got, err)
			}
		} else if err != nil || got[0] != want {
			t.Errorf("%q: %q, %v; want %q", value, got, err, want)
		}
	}
	if got, err := parseMappings([]string{"/a=/b", "/c=/b"}); err != nil || len(got) != 2 {
		t.Errorf("two to one directory: %v, %v", got, err)
	}
	if _, err := parseMappings([]string{"/a=/b", "/a/=/c"}); err == nil {
		t.Error("one directory was mapped twice")
	}
}
