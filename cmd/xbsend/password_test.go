package main

import (
	"slices"
	"strings"
	"testing"
)

// P7: however a password is spelled, it is found, and what the manifest shows
// of the command line lacks it.
func TestPasswordInArguments(t *testing.T) {
	for arg, want := range map[string]struct {
		spelled []string
		shown   string
	}{
		"-psecret":          {[]string{"--password=secret"}, "-p…"},
		"-p=secret":         {[]string{"--password==secret"}, "-p…"},
		"--password=secret": {[]string{"--password=secret"}, "--password=…"},
		"--password=":       {[]string{"--password="}, "--password=…"},
		"-vqpsecret":        {[]string{"-vq", "--password=secret"}, "-vqp…"},
		"-p":                {[]string{"-p"}, "-p"},
		"--password":        {[]string{"--password"}, "--password"},
		"-upsecret":         {[]string{"-upsecret"}, "-upsecret"}, // a user
		"-vuapple":          {[]string{"-vuapple"}, "-vuapple"},
		"--progress=plain":  {[]string{"--progress=plain"}, "--progress=plain"},
		"-":                 {[]string{"-"}, "-"},
		"plain":             {[]string{"plain"}, "plain"},
	} {
		var f flags
		f.register()
		if got := f.spellPassword([]string{arg}); !slices.Equal(got, want.spelled) {
			t.Errorf("%s is spelled %q, want %q", arg, got, want.spelled)
		}
		if got := f.commandLine([]string{arg}); got != "xbsend "+want.shown {
			t.Errorf("%s is shown as %q, want %q", arg, got, want.shown)
		}
	}
}

// P7: no message about a command line repeats the password.
func TestUsageErrorsHideThePassword(t *testing.T) {
	for _, args := range [][]string{
		{"-p", "secret"}, {"--password", "secret"}, {"-psecret", "--unknown"}, {"-vpsecret", "--port=x"},
		{"--passwd=secret"}, {"--password=secret", "surplus"}, {"-psecret", "-Z"}, {"--pass=secret"},
	} {
		var f flags
		err := f.parse(append([]string{"--no-defaults"}, args...), streams{})
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", args, err)
		}
	}
}
