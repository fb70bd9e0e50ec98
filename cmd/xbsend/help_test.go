package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
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

// E7: a flag that does not exist is answered with the one that was meant, or with
// what takes the place of a flag of mariabackup and XtraBackup.
func TestUnknownFlags(t *testing.T) {
	for arg, want := range map[string]string{
		"--compres":                "did you mean --compress?",
		"--databse=shop":           "did you mean --databases?",
		"--pasword=x":              "did you mean --password?",
		"--slave_info":             "did you mean --slave-info?",
		"--lock-time=3":            "did you mean --lock-timeout?",
		"--backup":                 "always makes a backup",
		"--stream=xbstream":        "standard output",
		"--target-dir=/srv/x":      "xbsend > FILE",
		"--no-lock":                "--lock-timeout",
		"--prepare":                "xbstream prepare DIR",
		"--apply-log":              "xbstream prepare DIR",
		"--apply-log-only":         "not needed",
		"--copy-back":              "xbstream -x --prepare -C DIR",
		"--move-back":              "xbstream -x --prepare -C DIR",
		"--decompress":             "xbstream -x",
		"--decrypt=AES256":         "xbstream -i",
		"--incremental-basedir=x":  "no incremental backups yet",
		"--throttle=9":             "--rate SIZE",
		"--compress-threads=4":     "-j N",
		"--encrypt=AES256":         "-r KEY",
		"--encrypt-key-file=x":     "-r KEY",
		"--use-memory=1G":          "--memory SIZE",
		"--use_memory=1G":          "--memory SIZE",
		"--rsync":                  "leave it out",
		"--lock-ddl":               "blocks DDL only in the last phase",
		"--backup-locks":           "blocks DDL only in the last phase",
		"--extra-lsndir=x":         "xbstream info",
		"--ftwrl-wait-timeout=100": "--lock-timeout",
		"--tmpdir=/x":              "--spool-dir",
	} {
		_, err := parse(t, arg)
		flag, _, _ := strings.Cut(arg, "=")
		if err == nil || !strings.HasPrefix(err.Error(), "unknown flag "+flag+": ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", arg, err, want)
		}
	}
}

// E7: a flag that nothing is like gets no advice.
func TestUnknownFlagWithoutAdvice(t *testing.T) {
	if _, err := parse(t, "--zzzzzzz"); err == nil || err.Error() != "unknown flag --zzzzzzz (see --help)" {
		t.Error(err)
	}
}

// E7: a value that must follow a "=" but follows a blank.
func TestValueAfterABlank(t *testing.T) {
	if _, err := parse(t, "--compress", "best"); err == nil || !strings.Contains(err.Error(), "--compress=best") {
		t.Error(err)
	}
	if _, err := parse(t, "--password", "tiger"); err == nil || strings.Contains(err.Error(), "tiger") {
		t.Error(err)
	}
}

// E7: so it is in the group [xbsend] of an option file.
func TestUnknownOptionInAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "my.cnf")
	if err := os.WriteFile(file, []byte("[xbsend]\nthrottle=9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	err = new(flags).parse([]string{"--defaults-file=" + file}, streams{null, null, null})
	if err == nil || !strings.Contains(err.Error(), "--rate SIZE") {
		t.Error(err)
	}
}
