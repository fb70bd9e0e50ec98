package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// parse returns what xbsend makes of a command line, before it connects.
func parse(t *testing.T, args ...string) (*flags, error) {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	f := new(flags)
	return f, f.parse(append([]string{"--no-defaults"}, args...), streams{null, null, null})
}

// E8: help fits a terminal, has examples, each after a sentence, and says the
// defaults.
func TestHelp(t *testing.T) {
	var f flags
	f.register()
	text := help(f.set)
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); len([]rune(line)) > 80 {
			t.Errorf("%d columns: %s", len([]rune(line)), line)
		}
	}
	examples := regexp.MustCompile(`(?m)^  \S.*:\n    .*\bxbsend\b`).FindAllString(text, -1)
	if len(examples) < 4 {
		t.Errorf("%d examples with a sentence each in\n%s", len(examples), text)
	}
	for _, want := range []string{"--compress[=LEVEL]", "default 8 GiB", "default 1m", "default 10m", "default 5m", "line every 5s", "one per core"} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

// E8: every flag is in the manual page.
func TestManualPageHasEveryFlag(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "doc", "xbsend.1"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(page), `\-`, "-")
	var f flags
	f.register()
	f.set.VisitAll(func(flag *pflag.Flag) {
		if !regexp.MustCompile(`--` + flag.Name + `($|[^\w-])`).MatchString(text) {
			t.Errorf("--%s is not in xbsend.1", flag.Name)
		}
	})
}

// E8: a number that makes no sense is refused, and the flag is named.
func TestSenselessNumbers(t *testing.T) {
	for _, arg := range []string{
		"-j0", "-j=-1", "--parallel=0", "--rate=0", "--spool-limit=0", "--lock-timeout=0", "--lock-timeout=-1s",
		"--lock-retries=-1", "--idle-timeout=-5", "--safe-slave-backup-timeout=-1",
	} {
		_, err := parse(t, arg)
		name, _, _ := strings.Cut(strings.Replace(arg, "-j", "--parallel=", 1), "=")
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", arg, err)
		}
	}
}

// E8: times are seconds, as mariabackup takes them, or have a unit.
func TestTimes(t *testing.T) {
	for _, arg := range []string{"--lock-timeout=30", "--lock-timeout=30s", "--lock-timeout=0.5m"} {
		if f, err := parse(t, arg); err != nil || f.server.LockTimeout.Seconds() != 30 {
			t.Errorf("%s: %v, %v", arg, f.server.LockTimeout, err)
		}
	}
}

// E8: a version is a number, and not only a commit.
func TestVersion(t *testing.T) {
	if !regexp.MustCompile(`^\d+\.\d+\.\d+`).MatchString(version) {
		t.Errorf("version %q", version)
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "Makefile"))
	if err != nil || !strings.Contains(string(text), version) {
		t.Errorf("the Makefile does not know version %q (%v)", version, err)
	}
}
