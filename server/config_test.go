package server

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSetAppliesOptions(t *testing.T) {
	type option struct {
		name, value string
		has         bool
	}
	with := func(f func(*Config)) Config {
		var c Config
		f(&c)
		return c
	}
	for name, tt := range map[string]struct {
		options []option
		want    Config
	}{
		"texts": {[]option{{"host", "h", true}, {"socket", "/s", true}, {"user", "u", true}, {"password", "p", true}},
			Config{Host: "h", Socket: "/s", User: "u", Password: "p"}},
		"numbers":          {[]option{{"port", "3307", true}, {"connect-timeout", "5", true}}, Config{Port: 3307, ConnectTimeout: 5 * time.Second}},
		"protocol":         {[]option{{"protocol", "TCP", true}}, Config{Protocol: "tcp"}},
		"password to ask":  {[]option{{"password", "p", true}, {"password", "", false}}, Config{Password: "p"}},
		"empty password":   {[]option{{"password", "p", true}, {"password", "", true}}, Config{}},
		"ssl":              {[]option{{"ssl", "", false}}, with(func(c *Config) { c.TLS.On = true })},
		"ssl=1":            {[]option{{"ssl", "1", true}}, with(func(c *Config) { c.TLS.On = true })},
		"ssl=off":          {[]option{{"ssl", "", false}, {"ssl", "off", true}}, Config{}},
		"skip-ssl":         {[]option{{"ssl-ca", "ca", true}, {"skip-ssl", "", false}}, Config{}},
		"disable-ssl=0":    {[]option{{"disable-ssl", "0", true}}, with(func(c *Config) { c.TLS.On = true })},
		"ssl-mode":         {[]option{{"ssl-mode", "required", true}}, with(func(c *Config) { c.TLS.On = true })},
		"ssl-mode of a CA": {[]option{{"ssl-mode", "VERIFY_CA", true}}, with(func(c *Config) { c.TLS.On, c.TLS.NeedCA = true, true })},
		"ssl-mode of all":  {[]option{{"ssl-mode", "VERIFY_IDENTITY", true}}, with(func(c *Config) { c.TLS.On, c.TLS.VerifyServerCert = true, true })},
		"no ssl-mode":      {[]option{{"ssl", "", false}, {"ssl-mode", "DISABLED", true}, {"ssl-mode", "PREFERRED", true}}, Config{}},
		"files and verify": {[]option{{"ssl-ca", "a", true}, {"ssl-cert", "b", true}, {"ssl-key", "c", true}, {"enable-ssl-verify-server-cert", "TRUE", true}}, Config{TLS: TLS{CA: "a", Cert: "b", Key: "c", VerifyServerCert: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			var c Config
			for _, o := range tt.options {
				if known, err := c.Set(o.name, o.value, o.has); !known || err != nil {
					t.Fatalf("%s: %t, %v", o.name, known, err)
				}
			}
			if c != tt.want {
				t.Errorf("got %+v, want %+v", c, tt.want)
			}
		})
	}
}

func TestSetRefuses(t *testing.T) {
	for _, o := range [][2]string{{"port", "70000"}, {"port", "x"}, {"port", ""}, {"protocol", "pipe"}, {"ssl", "maybe"}, {"ssl-mode", "maybe"}, {"connect-timeout", "-1"}} {
		known, err := new(Config).Set(o[0], o[1], true)
		if !known || err == nil || !strings.Contains(err.Error(), o[0]) {
			t.Errorf("%s=%s: %t, %v", o[0], o[1], known, err)
		}
	}
	if _, err := new(Config).Set("host", "", false); err == nil {
		t.Error("host without value is accepted")
	}
	for _, name := range []string{"default-character-set", "ssl-cipher", "skip-foo", ""} {
		if known, err := new(Config).Set(name, "x", true); known || err != nil {
			t.Errorf("%s: %t, %v", name, known, err)
		}
	}
}

func TestEnvironmentFillsWhatIsEmpty(t *testing.T) {
	env := map[string]string{"MYSQL_HOST": "h", "MYSQL_TCP_PORT": "3307", "MYSQL_UNIX_PORT": "/s", "MYSQL_PWD": "p"}
	var c Config
	if err := c.Environment(func(n string) string { return env[n] }); err != nil {
		t.Fatal(err)
	}
	if want := (Config{Host: "h", Port: 3307, Socket: "/s", Password: "p"}); c != want {
		t.Errorf("got %+v, want %+v", c, want)
	}
	given := Config{Host: "a", Port: 1, Socket: "b", Password: "c"}
	c = given
	if err := c.Environment(func(n string) string { return env[n] }); err != nil || c != given {
		t.Errorf("got %+v, %v", c, err)
	}
	env["MYSQL_TCP_PORT"] = "x"
	if err := new(Config).Environment(func(n string) string { return env[n] }); err == nil {
		t.Error("MYSQL_TCP_PORT=x is accepted")
	}
}

func TestTarget(t *testing.T) {
	for want, c := range map[string]Config{
		"socket /s":      {Socket: "/s"},
		"socket /s ":     {Socket: "/s", Host: "localhost", Port: 3307},
		"socket /s  ":    {Socket: "/s", Host: "remote", Protocol: "socket"},
		"localhost:3306": {Socket: "/s", Protocol: "tcp"},
		"remote:3306":    {Host: "remote", Socket: "/s"},
		"[::1]:3307":     {Host: "::1", Port: 3307},
	} {
		if got := c.target().String(); got != strings.TrimRight(want, " ") {
			t.Errorf("%+v leads to %s, want %s", c, got, want)
		}
	}
	if got := (Config{User: "u"}).target().user; got != "u" {
		t.Errorf("user %q", got)
	}
	if got := (Config{}).target().user; got == "" {
		t.Error("no default user")
	}
}

// P7: no way of printing a Config shows the password.
func TestPasswordDoesNotPrint(t *testing.T) {
	c := Config{User: "u", Password: "hush-hush"}
	var out strings.Builder
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "config", c, "password", c.Password)
	fmt.Fprintf(&out, "%v %+v %#v %s %q", c, c, c, c.Password, c.Password)
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(text)
	if strings.Contains(out.String(), "hush") {
		t.Errorf("the password shows: %s", out.String())
	}
}

func TestParseDataFiles(t *testing.T) {
	files, err := ParseDataFiles("a:12M;/x/../b:1G;d:123;c:4096K:autoextend:max:20g;", "/home")
	if err != nil {
		t.Fatal(err)
	}
	want := []DataFile{
		{Path: "/home/a", Size: 12 << 20}, {Path: "/b", Size: 1 << 30},
		{Path: "/home/d", Size: 123}, {Path: "/home/c", Size: 4 << 20, Autoextend: true, Max: 20 << 30},
	}
	if fmt.Sprint(files) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", files, want)
	}
	for _, bad := range []string{"", ";", "a", "a:", "a:M", "a:1T", "a:-1", "a:9999999999G", "/dev/sdb:3Graw", "/dev/sdb:3G:raw", "a:1M:newraw", "a:1M:autoextend:max", "a:1M:autoextend:max:x", "a:1M:autoextend;b:1M"} {
		if _, err := ParseDataFiles(bad, "/home"); err == nil || kind(err) != ErrUnsupported {
			t.Errorf("%q: got %v, want ErrUnsupported", bad, err)
		}
	}
}

func kind(err error) error { return err.(*Error).Kind }

func TestDefaultSocketIsOneThatExists(t *testing.T) {
	old := sockets
	t.Cleanup(func() { sockets = old })
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sockets = []string{filepath.Join(dir, "none"), file}
	if got := (Config{}).socket(); got != sockets[0] {
		t.Errorf("without any socket: %s, want the first", got)
	}
}
