package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/internal/cli"
)

// said runs a command and returns its exit code and what it wrote.
func said(t *testing.T, args ...string) (code int, out, log string) {
	t.Helper()
	in, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	files := make([]*os.File, 2)
	for i := range files {
		if files[i], err = os.CreateTemp(t.TempDir(), "said"); err != nil {
			t.Fatal(err)
		}
		defer files[i].Close()
	}
	code = run(context.Background(), args, streams{in, files[0], files[1]})
	texts := make([]string, 2)
	for i, f := range files {
		text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		texts[i] = string(text)
	}
	return code, texts[0], texts[1]
}

var commands = []string{"extract", "prepare", "list", "verify", "create", "info"}

// E8: the help of every command fits a terminal and has examples, each after a
// sentence.
func TestHelp(t *testing.T) {
	for _, command := range append([]string{""}, commands...) {
		code, text, log := said(t, strings.Fields(command+" --help")...)
		if code != cli.ExitDone || log != "" {
			t.Errorf("%s --help: exit code %d, %s", command, code, log)
		}
		for line := range strings.Lines(text) {
			if line = strings.TrimSuffix(line, "\n"); len([]rune(line)) > 80 {
				t.Errorf("%s: %d columns: %s", command, len([]rune(line)), line)
			}
		}
		if n := len(regexp.MustCompile(`(?m)^  \S.*:\n    .*\bxbstream\b`).FindAllString(text, -1)); n < 2 {
			t.Errorf("%s: %d examples with a sentence each in\n%s", command, n, text)
		}
	}
}

// E8: defaults are said.
func TestHelpSaysDefaults(t *testing.T) {
	for command, wants := range map[string][]string{
		"extract": {"one per core", "default 512 MiB", "--with-server[=BINARY]", "line every 5s", "default: never", "default .)"},
		"prepare": {"one per core", "default 512 MiB", "--with-server[=BINARY]"},
		"create":  {"one per core", "--compress[=LEVEL]", "fast if left out"},
	} {
		_, text, _ := said(t, command, "--help")
		for _, want := range wants {
			if !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
				t.Errorf("%s: %q is not in\n%s", command, want, text)
			}
		}
	}
}

// E8: every command is in the synopsis, and every flag in the manual page.
func TestManualPage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "doc", "xbstream.1"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(page), `\-`, "-")
	_, synopsis, _ := strings.Cut(text, ".SH SYNOPSIS")
	synopsis, _, _ = strings.Cut(synopsis, ".SH")
	for _, command := range commands {
		if !strings.Contains(synopsis, "xbstream "+command+"\n") {
			t.Errorf("SYNOPSIS lacks %s", command)
		}
		_, help, _ := said(t, command, "--help")
		for _, m := range regexp.MustCompile(`(?m)^  (?:-\w|  ), (--[\w-]+)|^      (--[\w-]+)`).FindAllStringSubmatch(help, -1) {
			if flag := m[1] + m[2]; !regexp.MustCompile(flag + `($|[^\w-])`).MatchString(text) {
				t.Errorf("%s %s is not in xbstream.1", command, flag)
			}
		}
	}
}

// E8: a number that makes no sense is refused, and the flag is named.
func TestSenselessNumbers(t *testing.T) {
	for _, line := range []string{
		"extract --parallel=0", "prepare --parallel=-1 x", "verify --parallel=0", "create --parallel=0 x",
		"prepare --memory=0 x", "extract --idle-timeout=-1",
	} {
		args := strings.Fields(line)
		flag, _, _ := strings.Cut(args[1], "=")
		if code, _, log := said(t, args...); code != cli.ExitUsage || !strings.Contains(log, flag) {
			t.Errorf("%s: exit code %d, %s", line, code, log)
		}
	}
}
