package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xbstream/xbstream/internal/cli"
	"github.com/xbstream/xbstream/internal/servertest"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// xbstream runs the command with in as its standard input.
func xbstream(t *testing.T, in io.Reader, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	r, w, err := os.Pipe()
	check(t, err)
	go func() {
		io.Copy(w, in) // fails when the command ends before its input
		w.Close()
	}()
	defer r.Close()
	read := func() (*os.File, func() string) {
		f, err := os.CreateTemp(t.TempDir(), "out")
		check(t, err)
		return f, func() string {
			defer f.Close()
			b, err := os.ReadFile(f.Name())
			check(t, err)
			return string(b)
		}
	}
	out, outText := read()
	errs, errText := read()
	code = run(t.Context(), args, streams{r, out, errs})
	return code, outText(), errText()
}

// mariabackup streams a backup; one that fails is taken again.
func mariabackup(t *testing.T, s *servertest.Server, args ...string) []byte {
	t.Helper()
	for try := 1; ; try++ {
		out, err := tryMariabackup(t, s, args...)
		if err == nil {
			return out
		}
		if try == 5 {
			t.Fatalf("mariabackup failed %d times: %v", try, err)
		}
		t.Logf("mariabackup failed, another backup is taken: %v", err)
	}
}

func tryMariabackup(t *testing.T, s *servertest.Server, args ...string) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	args = append([]string{"--no-defaults", "--backup", "--stream=xbstream", "--user=root", "--socket=" + s.Socket(), "--target-dir=" + t.TempDir()}, args...)
	cmd := exec.CommandContext(ctx, "mariabackup", args...)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, &log)
	}
	return out, nil
}

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	check(t, err)
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// A backup of mariabackup, taken under load, goes the whole way: extracted and
// prepared in one pipeline, started, its tables checked.
func TestClassicBackupRestores(t *testing.T) {
	ctx := t.Context()
	s := servertest.New(t, servertest.Options{LogBin: true})
	options := servertest.LoadOptions{Writers: 2, Rate: 300}
	check(t, s.CreateSchema(ctx, options))
	load, err := s.StartLoad(ctx, options)
	check(t, err)
	stream := mariabackup(t, s, "--parallel=2")
	_, err = load.Stop()
	check(t, err)

	dir := filepath.Join(t.TempDir(), "copy")
	code, out, log := xbstream(t, bytes.NewReader(stream), "-x", "--prepare", "-C", dir)
	if code != 0 || out != "" || !strings.Contains(log, "extracted and prepared") {
		t.Fatalf("exit %d: %s%s", code, out, log)
	}
	if names := fmt.Sprint(entries(t, dir)); strings.Contains(names, ".xbstream-partial-") || strings.Contains(names, "xbstream_manifest.json") {
		t.Errorf("target holds %s", names)
	}
	copied := servertest.NewOn(t, dir, servertest.Options{ServerID: 2})
	tables, complaints, err := copied.CheckTables(ctx)
	check(t, err)
	for _, c := range complaints {
		t.Error(c)
	}
	if tables < 40 {
		t.Errorf("only %d tables checked", tables)
	}
	t.Logf("%d tables checked", tables)

	stopped := filepath.Join(t.TempDir(), "stopped")
	code, _, log = xbstream(t, bytes.NewReader(stream), "-x", "-C", stopped)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, log)
	}
	sameTree(t, stopped, peerTree(t, stream))
	damaged(t, stream)
	encrypted(t, stream)
}

// peerTree is what mbstream makes of a stream.
func peerTree(t *testing.T, stream []byte) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "mbstream", "-x", "-C", dir)
	cmd.Stdin = bytes.NewReader(stream)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("mbstream: %v: %s", err, out)
	}
	return dir
}

func sameTree(t *testing.T, got, want string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "diff", "-r", got, want).CombinedOutput()
	if err != nil {
		t.Errorf("extracted, and extracted by mbstream: %v\n%s", err, out)
	}
	check(t, filepath.WalkDir(want, func(p string, e fs.DirEntry, err error) error {
		check(t, err)
		rel, err := filepath.Rel(want, p)
		check(t, err)
		ours, err := os.Stat(filepath.Join(got, rel))
		check(t, err)
		theirs, err := e.Info()
		check(t, err)
		if rel != "." && ours.Mode() != theirs.Mode() {
			t.Errorf("%s: mode %v, mbstream's %v", rel, ours.Mode(), theirs.Mode())
		}
		return nil
	}))
}

// damaged: exit 3 and nothing left, for every command that reads.
func damaged(t *testing.T, stream []byte) {
	cutBetween := bytes.LastIndex(stream, []byte("XBSTCK01"))
	flipped := bytes.Clone(stream)
	flipped[len(flipped)/2] ^= 4
	for name, s := range map[string][]byte{
		"cut between chunks": stream[:cutBetween], "cut within a chunk": stream[:len(stream)/3], "cut in the magic": stream[:5],
		"empty": nil, "flipped": flipped, "joined": append(bytes.Clone(stream), stream...),
	} {
		for _, args := range [][]string{{"-x", "-C"}, {"-x", "--prepare", "-C"}, {"list"}, {"verify"}, {"info"}} {
			dir := filepath.Join(t.TempDir(), "new")
			if args[0] == "-x" {
				args = append(args, dir)
			}
			code, out, log := xbstream(t, bytes.NewReader(s), args...)
			if code != cli.ExitDamaged || out != "" || log == "" {
				t.Errorf("%s, %s: exit %d, output %q: %s", name, args, code, out, log)
			}
			if _, err := os.Stat(dir); err == nil {
				t.Errorf("%s, %s: left %s", name, args, entries(t, dir))
			}
		}
	}
	code, out, log := xbstream(t, bytes.NewReader(stream[:cutBetween]), "list", "--allow-incomplete")
	if code != 0 || !strings.Contains(out, "\nibdata1\n") || !strings.Contains(log, "accepted although incomplete") {
		t.Errorf("list --allow-incomplete: exit %d, %d bytes: %s", code, len(out), log)
	}
	dir := filepath.Join(t.TempDir(), "new")
	code, _, log = xbstream(t, bytes.NewReader(stream[:cutBetween]), "extract", "--allow-incomplete", "-C", dir)
	if code != 0 || !strings.Contains(log, "accepted although incomplete") {
		t.Errorf("extract --allow-incomplete: exit %d: %s", code, log)
	}
	sameTree(t, dir, peerTree(t, stream[:cutBetween]))
}

// encrypted: around a classic stream as around any other, in a pipe and in a
// file.
func encrypted(t *testing.T, stream []byte) {
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	out, err := exec.CommandContext(t.Context(), "age-keygen", "-o", key).CombinedOutput()
	if err != nil {
		t.Fatalf("age-keygen: %v: %s", err, out)
	}
	public, err := exec.CommandContext(t.Context(), "age-keygen", "-y", key).Output()
	check(t, err)
	sealed := filepath.Join(dir, "sealed")
	cmd := exec.CommandContext(t.Context(), "age", "-r", strings.TrimSpace(string(public)), "-o", sealed)
	cmd.Stdin = bytes.NewReader(stream)
	check(t, cmd.Run())
	f, err := os.Open(sealed)
	check(t, err)
	defer f.Close()
	_, want, _ := xbstream(t, bytes.NewReader(stream), "list")
	for name, run := range map[string]func() (int, string, string){
		"pipe": func() (int, string, string) { return xbstream(t, f, "list", "-i", key) },
		"file": func() (int, string, string) { return xbstream(t, strings.NewReader(""), "list", "-i", key, sealed) },
	} {
		if code, got, log := run(); code != 0 || got != want || strings.Count(got, "\n") < 100 {
			t.Errorf("sealed, from a %s: exit %d, %d bytes, want %d: %s", name, code, len(got), len(want), log)
		}
	}
	if code, _, log := xbstream(t, strings.NewReader(""), "list", sealed); code != cli.ExitNoKey {
		t.Errorf("sealed, without a key: exit %d: %s", code, log)
	}
	target := filepath.Join(dir, "only")
	code, _, log := xbstream(t, strings.NewReader(""), "extract", "-i", key, "--only", "mysql/db.*", "-C", target, sealed)
	if names := fmt.Sprint(entries(t, target)); code != 0 || names != "[mysql]" {
		t.Errorf("extract --only: exit %d, %s: %s", code, names, log)
	}
}

// A stream of mbstream itself holds any files, and has no end that could be
// told.
func TestStreamOfOrdinaryFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"one", "xbstream_manifest.json"} {
		check(t, os.WriteFile(filepath.Join(dir, name), []byte("content of "+name), 0o600))
	}
	cmd := exec.CommandContext(t.Context(), "mbstream", "-c", "one", "xbstream_manifest.json")
	cmd.Dir = dir
	stream, err := cmd.Output()
	check(t, err)
	target := filepath.Join(t.TempDir(), "new")
	if code, _, log := xbstream(t, bytes.NewReader(stream), "-x", "-C", target); code != cli.ExitDamaged || !strings.Contains(log, "--allow-incomplete") {
		t.Errorf("exit %d: %s", code, log)
	}
	if code, _, log := xbstream(t, bytes.NewReader(stream), "-x", "--allow-incomplete", "-C", target); code != 0 {
		t.Errorf("exit %d: %s", code, log)
	}
	sameTree(t, target, peerTree(t, stream))
}

// The commands refuse what leads out of the target, and touch nothing there.
func TestHostileClassicStream(t *testing.T) {
	for _, path := range []string{"../out", "/tmp/xbstream-test-out", "a/../../out", ".xbstream-partial-x/a"} {
		head := func(typ byte) string {
			return "XBSTCK01\x00" + string(typ) + string([]byte{byte(len(path)), 0, 0, 0}) + path
		}
		parent := t.TempDir()
		stream := head('P') + strings.Repeat("\x00", 20) + head('E')
		code, _, log := xbstream(t, strings.NewReader(stream), "-x", "--allow-incomplete", "-C", filepath.Join(parent, "new"))
		if names := entries(t, parent); code != cli.ExitDamaged || len(names) != 0 {
			t.Errorf("%q: exit %d, made %s: %s", path, code, names, log)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%q is there", path)
		}
	}
}
