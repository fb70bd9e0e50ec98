package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// helpWidth is how wide --help is: it fits the narrowest usual terminal.
const helpWidth = 80

// textColumn is where the description of a flag begins. A flag with a longer
// name has its description on the next line.
const textColumn = 27

// FlagUsages is the list of flags for --help, at most helpWidth columns wide,
// with the default of each. pflag's own list makes one column as wide as the
// longest flag, and shows a value that may be left out as LEVEL[="fast"].
func FlagUsages(f *pflag.FlagSet) string {
	var b strings.Builder
	f.VisitAll(func(flag *pflag.Flag) {
		if flag.Hidden {
			return
		}
		left, text := flagColumns(flag)
		lines := wrap(text, helpWidth-textColumn)
		if len(left) > textColumn-2 {
			b.WriteString(left + "\n")
			left = ""
		}
		for i, line := range lines {
			if i > 0 {
				left = ""
			}
			fmt.Fprintf(&b, "%-*s%s\n", textColumn, left, line)
		}
	})
	return b.String()
}

// flagColumns returns how the flag is written and what is said about it.
func flagColumns(f *pflag.Flag) (left, text string) {
	value, text := pflag.UnquoteUsage(f)
	left = "      --" + f.Name
	if f.Shorthand != "" {
		left = "  -" + f.Shorthand + ", --" + f.Name
	}
	switch isSwitch := f.Value.Type() == "bool"; {
	case isSwitch:
	case f.NoOptDefVal != "":
		left += "[=" + value + "]"
	default:
		left += " " + value
	}
	if !slices.Contains([]string{"", "0", "false", "[]", "0s"}, f.DefValue) {
		text += " (default " + f.DefValue + ")"
	}
	return left, text
}

// wrap breaks text at blanks into lines of at most width.
func wrap(text string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len([]rune(line))+1+len([]rune(word)) <= width:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	return append(lines, line)
}
