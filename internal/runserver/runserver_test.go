package runserver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// wait bounds what takes no time.
const wait = time.Minute

// script writes a program that stands for a server.
func script(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// start starts one, which is killed at the latest when the test ends.
func start(t *testing.T, text string, args ...string) *Server {
	t.Helper()
	r, err := New(script(t, filepath.Join(t.TempDir(), "server"), text), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.Start(args)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.Stop(false) // says that it was killed
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(r.private); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the private directory is still there (%v)", err)
		}
	})
	return s
}

func none(context.Context, *sql.DB) error { return nil }

func TestFind(t *testing.T) {
	dir := t.TempDir()
	want := script(t, filepath.Join(dir, "mariadbd"), "")
	t.Setenv("PATH", dir)
	for _, binary := range []string{"", "mariadbd", want} {
		if got, err := Find(binary, "mariadbd", "mysqld"); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %s", binary, got, err, want)
		}
	}
	if _, err := Find("mysqld-of-nobody"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("%v, want exec.ErrNotFound", err)
	}
}

// The server's own arguments come first: --no-defaults only counts there, and the
// caller's have the last word.
func TestArguments(t *testing.T) {
	s := start(t, `printf '%s\n' "$@"`, "--mine", "--socket=other")
	<-s.done
	text, err := s.Log()
	if err != nil {
		t.Fatal(err)
	}
	args := strings.Fields(string(text))
	if n := len(args); n < 4 || args[0] != "--no-defaults" || args[n-2] != "--mine" || args[n-1] != "--socket=other" {
		t.Errorf("arguments %q", args)
	}
	for _, want := range []string{"--skip-networking", "--socket=" + s.socket} {
		if !strings.Contains(string(text), want+"\n") {
			t.Errorf("%s is missing in %q", want, args)
		}
	}
}

func TestUse(t *testing.T) {
	t.Run("asks until the server answers", func(t *testing.T) {
		s := start(t, "exec sleep 600")
		asked, worked := 0, errors.New("worked")
		err := s.Use(t.Context(), wait, func(context.Context, *sql.DB) error {
			if asked++; asked < 3 {
				return errors.New("not yet")
			}
			return nil
		}, func(ctx context.Context, _ *sql.DB) error {
			if _, bounded := ctx.Deadline(); !bounded {
				t.Error("work may take for ever")
			}
			return worked
		})
		if asked != 3 || err != worked || s.Ended() {
			t.Errorf("asked %d times, %v; want 3 and the error of the work", asked, err)
		}
	})
	never := func(context.Context, *sql.DB) error { return errors.New("not yet") }
	t.Run("server ends", func(t *testing.T) {
		for text, want := range map[string]string{"exit 3": "exit status 3", "exit 0": "exit status 0"} {
			s := start(t, text)
			err := s.Use(t.Context(), wait, never, none)
			if err == nil || err.Error() != "server ended during recovery: "+want || !s.Ended() {
				t.Errorf("%q: %v", text, err)
			}
		}
	})
	t.Run("hopeless", func(t *testing.T) {
		s := start(t, "exec sleep 600")
		err := s.Use(t.Context(), wait, func(context.Context, *sql.DB) error { return fmt.Errorf("damaged: %w", ErrHopeless) }, none)
		if !errors.Is(err, ErrHopeless) || errors.Is(err, context.DeadlineExceeded) || s.Ended() {
			t.Errorf("%v", err)
		}
	})
	t.Run("too slow", func(t *testing.T) {
		err := start(t, "exec sleep 600").Use(t.Context(), time.Millisecond, never, none)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "not yet") {
			t.Errorf("%v, want the deadline and the last answer", err)
		}
	})
}

func TestStop(t *testing.T) {
	const clean = "trap 'kill $!; exit 0' TERM; sleep 600 & echo up; wait"
	for _, c := range []struct {
		name, server string
		clean        bool
		want         string
	}{
		{"clean", clean, true, ""},
		{"not clean", "echo up; exec sleep 600", true, "server shutdown: signal: terminated"},
		{"at once", "echo up; exec sleep 600", false, "server was killed: it did not stop by itself"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, c.server)
			err := s.Use(t.Context(), wait, func(context.Context, *sql.DB) error {
				if text, err := s.Log(); err != nil || len(text) == 0 {
					return errors.Join(errors.New("not up"), err)
				}
				return nil
			}, none)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if err := s.Stop(c.clean); err != nil {
				got = err.Error()
			}
			if got != c.want || !s.Ended() {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestLastWords(t *testing.T) {
	for text, want := range map[string]string{
		"exit 1":                     "",
		"echo one; echo two; exit 1": "\nserver log: one\nserver log: two",
		"echo '[Note] a'; echo '[ERROR] b'; echo '[Note] c'; exit 1":                            "\nserver log: [ERROR] b",
		`printf ' len 4; hex 00ff\0012026-11-30T19:27:19.897795Z 0 [ERROR] [MY-1] a\n'; exit 1`: "\nserver log: 2026-11-30T19:27:19.897795Z 0 [ERROR] [MY-1] a",
		"seq 100": "\nserver log: " + strings.Join(strings.Fields("93 94 95 96 97 98 99 100"), "\nserver log: "),
	} {
		s := start(t, text)
		<-s.done
		if got := s.LastWords(); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
