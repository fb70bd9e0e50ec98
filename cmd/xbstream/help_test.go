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

// E8: every command is in the synopsis of the manual page.
func TestSynopsis(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "doc", "xbstream.1"))
	if err != nil {
		t.Fatal(err)
	}
	_, synopsis, _ := strings.Cut(strings.ReplaceAll(string(page), `\-`, "-"), ".SH SYNOPSIS")
	synopsis, _, _ = strings.Cut(synopsis, ".SH")
	for _, command := range commands {
		if !strings.Contains(synopsis, "xbstream "+command+"\n") {
			t.Errorf("SYNOPSIS lacks %s", command)
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

// E7: a flag or command that does not exist is answered with the one that was
// meant, or with what takes the place of a flag of mariabackup and XtraBackup.
func TestUnknownFlags(t *testing.T) {
	for line, want := range map[string]string{
		"extract --onyl=x":                   "did you mean --only?",
		"-x --into_non_empty":                "did you mean --into-non-empty?",
		"-x --decompress":                    "decompresses by itself",
		"-x --decrypt=AES256":                "use -i FILE",
		"-x --target-dir=/x":                 "use -C DIR",
		"-x --parallel=2 --compress-threads": "use -j N",
		"prepare --use-memory=1G x":          "use --memory SIZE",
		"prepare --apply-log-only x":         "rolls nothing back",
		"prepare --incremental-dir=y x":      "no incremental backups yet",
		"prepare --defaults-file=my.cnf x":   "in the archive",
		"--prepare --target-dir=/x":          "xbstream prepare DIR",
		"--apply-log /x":                     "xbstream prepare DIR",
		"--copy-back":                        "-x --prepare -C DIR",
		"--move-back":                        "-x --prepare -C DIR",
		"--backup":                           "xbsend makes backups",
		"--decompress -x":                    "decompresses by itself",
		"-C dir -x":                          "command comes first",
		"extrct":                             "did you mean extract?",
		"restore":                            "did you mean extract?",
		"create --compress best x":           "--compress=best",
		"prepare --with-server mariadbd x":   "--with-server=mariadbd",
		"-x --prepare --with-server mysqld":  "--with-server=mysqld",
	} {
		code, _, log := said(t, strings.Fields(line)...)
		if code != cli.ExitUsage || !strings.Contains(log, want) {
			t.Errorf("%s: exit code %d, %swant %q in it", line, code, log, want)
		}
	}
}
