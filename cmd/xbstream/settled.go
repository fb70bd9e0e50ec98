package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"

	"github.com/xbstream/xbstream/prepare"
)

// logSettled says, with --verbose, what preparing did to tablespaces that came,
// went or changed their names during the backup.
func logSettled(log *slog.Logger, rep prepare.Report) {
	for _, kind := range []struct {
		what  string
		names []string
	}{
		{"removed tablespaces that were dropped during the backup", rep.Deleted},
		{"removed the new tables of ALTERs that had not ended", rep.Unfinished},
		{"renamed tablespaces that were renamed during the backup", rep.Renamed},
		{"created tablespaces from redo", rep.Rebuilt},
		{"skipped redo of tablespaces that are not in the backup", rep.Ignored},
	} {
		if n := len(kind.names); n > 0 {
			log.Debug(kind.what, "tablespaces", n, "names", names{kind.names[:min(n, fewNames)], max(0, n-fewNames)})
		}
	}
}

// fewNames is how many names a message has.
const fewNames = 5

// names are the first of a list, in JSON an array.
type names struct {
	first []string
	more  int
}

func (n names) String() string {
	text := strings.Join(n.first, ", ")
	if n.more > 0 {
		text += fmt.Sprintf(" and %d more", n.more)
	}
	return text
}

// MarshalJSON gives the first names; the number of all is an attribute of its own.
func (n names) MarshalJSON() ([]byte, error) { return json.Marshal(n.first) }
