package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/spf13/pflag"

	"github.com/xbstream/xbstream/format"
)

// Tool is one of the two commands.
type Tool int

// The commands.
const (
	Send Tool = iota
	Stream
)

// ParseError makes a usage error of what pflag refused. For a flag that does not
// exist it says what takes the place of a flag of mariabackup or XtraBackup, or
// which flag has nearly that name.
func (t Tool) ParseError(err error, set *pflag.FlagSet) error {
	e, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok || e.GetSpecifiedShortnames() != "" {
		return &UsageError{Err: err}
	}
	return t.unknown(e.GetSpecifiedName(), set)
}

func (t Tool) unknown(name string, set *pflag.FlagSet) error {
	text := "unknown flag --" + name
	if advice := t.Advice(name, set); advice != "" {
		text += ": " + advice
	}
	return Usagef("%s", text)
}

// Advice says in a few words what to write instead of the flag called name,
// which set does not have; "" if nobody knows.
func (t Tool) Advice(name string, set *pflag.FlagSet) string {
	name = strings.ReplaceAll(name, "_", "-")
	if advice := t.instead(name); advice != "" {
		return advice
	}
	names := []string{"help"}
	set.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if near := Nearest(name, names); near != "" {
		return "did you mean --" + near + "?"
	}
	return ""
}

// Nearest returns which of names was probably meant by name, "" if none is near:
// one that begins like it, as the servers' clients accept that, or one with few
// letters that differ.
func Nearest(name string, names []string) string {
	if len(name) < 2 {
		return ""
	}
	names = slices.Sorted(slices.Values(names))
	// Two letters that changed places count as two.
	best, least := "", max(2, len(name)/4)+1
	if len(name) < 4 {
		least = 2
	}
	for _, n := range names {
		if d := levenshtein.ComputeDistance(name, n); d < least {
			best, least = n, d
		}
	}
	if best != "" {
		return best
	}
	for _, n := range names {
		if len(name) >= 3 && strings.HasPrefix(n, name) {
			return n
		}
	}
	return ""
}

// BlankValue finds a flag whose value may be left out, so that it must follow a
// "=", with an argument behind it that was probably meant as the value, and says
// what to write. It returns "" if there is none. An argument that is a file, as
// the archive behind --with-server, is not meant.
func BlankValue(args []string, set *pflag.FlagSet) string {
	for i, a := range args[:max(0, len(args)-1)] {
		name, long := strings.CutPrefix(a, "--")
		flag := set.Lookup(name)
		if !long || flag == nil || flag.NoOptDefVal == "" || flag.Value.Type() == "bool" {
			continue
		}
		value := args[i+1]
		if _, err := os.Stat(value); strings.HasPrefix(value, "-") || err == nil {
			continue
		}
		// Behind --compress there may be a path, which -C says where to look for.
		if _, err := format.ParseLevel(value); name == "compress" && err != nil {
			continue
		}
		return fmt.Sprintf("--%s takes its value after a \"=\": --%s=%s", name, name, value)
	}
	return ""
}
