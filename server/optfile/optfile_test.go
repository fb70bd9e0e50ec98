package optfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tricky are files whose reading is compared with the real my_print_defaults;
// DIR stands for the directory they are written to.
var tricky = []struct {
	name  string
	files map[string]string
}{
	{"quotes and escapes", map[string]string{"my.cnf": `
[client]
user = root
password="a # b" # trailing
a='it''s'
b=a\nb\tc\sd\\e\qf\"g\rh\bi
c="a\"b"
d="unterminated
e=a"b#c"d#e
f=x#y
g=  spaced value` + "   \t" + `
h=
i
skip_foo   # comment
  loose_bar_baz=3
 key with = = eq
j='
k=''
l="\#x"
m='a\'b # c'
n=a'b#c
o="a" "b"
p="ab\"
q=\"ab\"
 r="
s= "x y"
t=\
u="a" # "b"
v='a"b'
w='a" # b'
loose-x=C:\new\dir
loose_y
`}},
	{"comments and groups", map[string]string{"my.cnf": `# first
; second
   # third
[mysqld]
a=server
[client]
; a=1
a=1
[ client ]
a=2
[client ]
a=3
[Client]
a=4
[client]garbage
a=5
[cl]ient]
a=6
[client] # comment
a=7
[]
a=8
[xbsend]
a=9
[client-server]
a=10
[clientsuf]
a=11
[xbsendsuf]
a=12
`}},
	{"include", map[string]string{
		"my.cnf": "[client]\na=1\n!include DIR/one.cnf\nb=1\n! include DIR/one.cnf\n!include DIR/missing\n" +
			"!includefoo DIR/one.cnf\n!bogus\n!includedir DIR/d\nc=1\n!include\tDIR/one.cnf\n",
		"one.cnf":     "[client]\nfrom=one\n[other]\nx=1",
		"d/z.cnf":     "[client]\nfrom=z\n",
		"d/a.cnf":     "[client]\nfrom=a\n",
		"d/m.b.cnf":   "[client]\nfrom=mb\n",
		"d/n.ini":     "[client]\nfrom=n\n",
		"d/n.cnf.x":   "[client]\nfrom=x\n",
		"d/.cnf":      "[client]\nfrom=dot\n",
		"d/10.cnf":    "[client]\nfrom=10\n",
		"d/9.cnf":     "[client]\nfrom=9\n",
		"d/B.cnf":     "[client]\nfrom=B\n",
		"d/empty.cnf": "",
	}},
	{"includes itself", map[string]string{"my.cnf": "[client]\na=1\n!include DIR/my.cnf\nb=1\n"}},
	{"lines of windows", map[string]string{"my.cnf": "[client]\r\na=1\r\nb\r\nc=\"x y\"\r\n"}},
	{"no newline at the end", map[string]string{"my.cnf": "[client]\na=1"}},
	{"group not closed", map[string]string{"my.cnf": "[client]\na=1\n[client\nb=1\n"}},
	{"option before a group", map[string]string{"my.cnf": "# x\na=1\n"}},
	{"include without a path", map[string]string{"my.cnf": "[client]\n!include\n"}},
	{"includedir missing", map[string]string{"my.cnf": "[client]\n!includedir DIR/none\n"}},
	{"mistake in an included file", map[string]string{"my.cnf": "[client]\n!include DIR/bad.cnf\na=1\n", "bad.cnf": "[client]\nb=1\n[client\nc=1\n"}},
}

func TestReadsAsMyPrintDefaults(t *testing.T) {
	for _, tt := range tricky {
		for _, suffix := range []string{"", "suf"} {
			t.Run(tt.name+suffix, func(t *testing.T) {
				dir := write(t, tt.files)
				main := filepath.Join(dir, "my.cnf")
				compare(t, Search{File: main, GroupSuffix: suffix}, nil)
			})
		}
	}
}

func TestOrderOfPlaces(t *testing.T) {
	dir := write(t, map[string]string{
		"home/.my.cnf": "[client]\na=home\n",
		"mh/my.cnf":    "[client]\na=mysql-home\n",
		"mm/my.cnf":    "[client]\na=mariadb-home\n",
		"e.cnf":        "[client]\na=extra\n[clientsuf]\na=suffixed\n",
	})
	home := "HOME=" + dir + "/home"
	for name, env := range map[string][]string{
		"mysql home":   {home, "MYSQL_HOME=" + dir + "/mh"},
		"mariadb home": {home, "MYSQL_HOME=" + dir + "/mh", "MARIADB_HOME=" + dir + "/mm"},
		"suffix":       {home, "MYSQL_GROUP_SUFFIX=suf"},
		"nothing":      {"HOME=" + dir + "/none"},
	} {
		t.Run(name, func(t *testing.T) {
			compare(t, Search{ExtraFile: filepath.Join(dir, "e.cnf")}, env)
			compare(t, Search{}, env)
		})
	}
	if r, err := (Search{NoDefaults: true, File: filepath.Join(dir, "e.cnf")}).Read("client"); err != nil || len(r.Options) != 0 {
		t.Errorf("with NoDefaults: %v, %v", r, err)
	}
}

// compare reads with both and wants the same options, or an error from both.
func compare(t *testing.T, s Search, env []string) {
	t.Helper()
	groups := []string{"client", "client-server", "xbsend"}
	var args []string
	if s.File != "" {
		args = append(args, "--defaults-file="+s.File)
	}
	if s.ExtraFile != "" {
		args = append(args, "--defaults-extra-file="+s.ExtraFile)
	}
	if s.GroupSuffix != "" {
		args = append(args, "--defaults-group-suffix="+s.GroupSuffix)
	}
	cmd := exec.CommandContext(t.Context(), "my_print_defaults", append(args, groups...)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	runErr := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](runErr); runErr != nil && !exited {
		t.Fatal(runErr)
	}
	s.Getenv = func(name string) string {
		for _, e := range env {
			if v, ok := strings.CutPrefix(e, name+"="); ok {
				return v
			}
		}
		return ""
	}
	r, err := s.Read(groups...)
	if (err != nil) != (runErr != nil) {
		t.Fatalf("Read says %v, my_print_defaults %v: %s", err, runErr, &stderr)
	}
	if err != nil {
		return
	}
	want := strings.ReplaceAll(out.String(), "_", "-")
	if got := strings.ReplaceAll(printed(r.Options), "_", "-"); got != want {
		t.Errorf("Read:\n%s\nmy_print_defaults:\n%s", got, want)
	}
}

// printed writes options as my_print_defaults does.
func printed(options []Option) string {
	var b strings.Builder
	for _, o := range options {
		b.WriteString("--")
		if o.Loose {
			b.WriteString("loose-")
		}
		b.WriteString(o.Name)
		if o.HasValue {
			b.WriteString("=" + o.Value)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestOptionSaysWhereItStands(t *testing.T) {
	dir := write(t, map[string]string{"my.cnf": "# x\n\n[Client]\nloose_connect_timeout=3\nskip_ssl\n"})
	file := filepath.Join(dir, "my.cnf")
	r, err := Search{File: file}.Read("client")
	if err != nil {
		t.Fatal(err)
	}
	want := []Option{
		{Group: "Client", Name: "connect-timeout", Value: "3", HasValue: true, Loose: true, File: file, Line: 4},
		{Group: "Client", Name: "skip-ssl", File: file, Line: 5},
	}
	if fmt.Sprint(r.Options) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", r.Options, want)
	}
}

func TestErrorsNameFileAndLineAndNoValue(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		line int
	}{
		"before a group": {"\nsecret=secret\n", 2},
		"not closed":     {"[client]\na=secret\n[secret\n", 3},
		"no name":        {"[client]\n=secret\n", 2},
		"no path":        {"[client]\n!includedir\n", 2},
		"too long":       {"[client]\na=" + strings.Repeat("secret", maxLine/6+1) + "\n", 2},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(write(t, map[string]string{"my.cnf": tt.text}), "my.cnf")
			_, err := Search{File: file}.Read("client")
			e, ok := errors.AsType[*Error](err)
			if !ok || e.File != file || e.Line != tt.line {
				t.Fatalf("got %v, want an error at line %d", err, tt.line)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error quotes the file: %v", err)
			}
		})
	}
}

func TestLongLineIsWhole(t *testing.T) {
	value := strings.Repeat("x", 100_000)
	file := filepath.Join(write(t, map[string]string{"my.cnf": "[client]\na=" + value + "\n"}), "my.cnf")
	r, err := Search{File: file}.Read("client")
	if err != nil || len(r.Options) != 1 || r.Options[0].Value != value {
		t.Fatalf("%d options, %v", len(r.Options), err)
	}
}

func TestFilesThatAreNotRead(t *testing.T) {
	dir := write(t, map[string]string{"open.cnf": "[client]\na=1\n"})
	open := filepath.Join(dir, "open.cnf")
	if err := os.Chmod(open, 0o666); err != nil {
		t.Fatal(err)
	}
	r, err := Search{File: open}.Read("client")
	if err != nil || len(r.Options) != 0 || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], open) {
		t.Errorf("file open to everybody: %+v, %v", r, err)
	}
	for _, s := range []Search{{File: dir + "/none"}, {ExtraFile: dir + "/none"}, {File: dir}} {
		if _, err := s.Read("client"); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%+v: got %v, want an error with the path", s, err)
		}
	}
}

func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "DIR", dir)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
