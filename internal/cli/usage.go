package cli

import (
	"regexp"
	"strings"

	"github.com/spf13/pflag"
)

// optional is how pflag shows that a flag's value may be left out.
var optional = regexp.MustCompile(`(\[=[^\]]*\])( *)`)

// FlagUsages is the list of flags for --help, without what pflag adds about
// values that may be left out: the usage text says it where it matters.
func FlagUsages(f *pflag.FlagSet) string {
	return optional.ReplaceAllStringFunc(f.FlagUsages(), func(s string) string {
		return strings.Repeat(" ", len(s))
	})
}
