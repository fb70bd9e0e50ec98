package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/internal/cli"
	"github.com/xbstream/xbstream/prepare"
)

// F2: what preparing did to tablespaces is shown with --verbose, in a line each.
func TestSettledTablespacesAreShown(t *testing.T) {
	rep := prepare.Report{
		Deleted:    []string{"a/1.ibd", "a/2.ibd", "a/3.ibd", "a/4.ibd", "a/5.ibd", "a/6.ibd", "a/7.ibd"},
		Unfinished: []string{"a/#sql-alter-1-2.ibd"},
		Renamed:    []string{"a/old.ibd -> a/new.ibd"},
		Rebuilt:    []string{"a/redo.ibd"},
		Ignored:    []string{"a/away.ibd"},
	}
	want := []string{
		"xbstream: removed tablespaces that were dropped during the backup (tablespaces 7, names a/1.ibd, a/2.ibd, a/3.ibd, a/4.ibd, a/5.ibd and 2 more)",
		"xbstream: removed the new tables of ALTERs that had not ended (tablespaces 1, names a/#sql-alter-1-2.ibd)",
		"xbstream: renamed tablespaces that were renamed during the backup (tablespaces 1, names a/old.ibd -> a/new.ibd)",
		"xbstream: created tablespaces from redo (tablespaces 1, names a/redo.ibd)",
		"xbstream: skipped redo of tablespaces that are not in the backup (tablespaces 1, names a/away.ibd)",
	}
	var log bytes.Buffer
	logSettled((&cli.Output{Verbose: true}).Logger("xbstream", &log), rep)
	if got := log.String(); got != strings.Join(want, "\n")+"\n" {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	log.Reset()
	logSettled((&cli.Output{Verbose: true, LogFormat: "json"}).Logger("xbstream", &log), rep)
	var first struct {
		Tablespaces int
		Names       []string
	}
	if err := json.NewDecoder(&log).Decode(&first); err != nil || first.Tablespaces != 7 || fmt.Sprint(first.Names) != fmt.Sprint(rep.Deleted[:5]) {
		t.Errorf("%+v, %v", first, err)
	}
	log.Reset()
	logSettled(new(cli.Output).Logger("xbstream", &log), rep)
	logSettled((&cli.Output{Verbose: true}).Logger("xbstream", &log), prepare.Report{})
	if log.Len() > 0 {
		t.Errorf("said without need: %s", &log)
	}
}
