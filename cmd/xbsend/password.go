package main

import (
	"os"
	"strconv"
	"strings"
)

// arguments are the process's arguments, copied; a password among them is no
// longer shown by the system afterwards, where it lets a process do that.
func arguments() []string {
	var f flags
	f.register()
	own := make([]string, 0, len(os.Args))
	for _, a := range os.Args[1:] {
		own = append(own, strings.Clone(a))
		if at := f.passwordIn(a); at >= 0 {
			hide(a[at:])
		}
	}
	return own
}

// passwordIn returns where a password begins in an argument, -1 for nowhere: it
// stands behind --password= or, as the clients have it, at once behind -p, which
// may be the last of several letters.
func (f *flags) passwordIn(arg string) int {
	const long = "--password="
	if strings.HasPrefix(arg, long) {
		return len(long)
	}
	if strings.HasPrefix(arg, "--") || !strings.HasPrefix(arg, "-") {
		return -1
	}
	for i := 1; i < len(arg); i++ {
		if arg[i] == 'p' && i+1 < len(arg) {
			return i + 1
		}
		flag := f.set.ShorthandLookup(arg[i : i+1])
		if flag == nil || flag.NoOptDefVal == "" { // what follows is its value
			return -1
		}
	}
	return -1
}

// spellPassword turns -pSECRET, which pflag would read as a row of letters, into
// the long form.
func (f *flags) spellPassword(args []string) []string {
	var out []string
	for i, a := range args {
		if a == "--" {
			return append(out, args[i:]...)
		}
		at := f.passwordIn(a)
		if at < 0 || strings.HasPrefix(a, "--") {
			out = append(out, a)
			continue
		}
		if letters := a[:at-1]; letters != "-" {
			out = append(out, letters)
		}
		out = append(out, "--password="+a[at:])
	}
	return out
}

// commandLine is the command line for the manifest, without the password, and
// without the command of --exec, which may hold the secrets of an uploader.
func (f *flags) commandLine(args []string) string {
	shown := []string{"xbsend"}
	for i, a := range args {
		if at := f.passwordIn(a); at >= 0 {
			a = a[:at] + "…"
		}
		if strings.HasPrefix(a, "--exec=") {
			a = "--exec=…"
		} else if i > 0 && args[i-1] == "--exec" {
			a = "…"
		}
		if strings.ContainsAny(a, " \t\n'\"$\\") {
			a = strconv.Quote(a)
		}
		shown = append(shown, a)
	}
	line := strings.Join(shown, " ")
	if len(line) > maxCommand {
		line = strings.ToValidUTF8(line[:maxCommand], "") + "…"
	}
	return line
}

// maxCommand bounds the command line in the manifest, whose first line has a
// limit.
const maxCommand = 4 << 10
