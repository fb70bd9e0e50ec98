package agekeys

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"filippo.io/age/plugin"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, name, text string) string {
	t.Helper()
	check(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

// keygen makes an ssh key pair and returns the private key's file.
func keygen(t testing.TB, args ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "key")
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", append([]string{"-q", "-f", name, "-C", "a comment"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	return name
}

func public(t testing.TB, private string) string {
	t.Helper()
	text, err := os.ReadFile(private + ".pub")
	check(t, err)
	return strings.TrimSpace(string(text))
}

func x25519(t testing.TB) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	check(t, err)
	return id
}

func hybrid(t testing.TB) *age.HybridIdentity {
	t.Helper()
	id, err := age.GenerateHybridIdentity()
	check(t, err)
	return id
}

// noTerminal fails the test when something is asked.
func noTerminal(t testing.TB) Terminal {
	return Terminal{
		Ask:  func(p string) ([]byte, error) { t.Errorf("asked %q", p); return nil, errors.New("no") },
		Show: func(msg string) { t.Errorf("shown %q", msg) },
	}
}

// typing answers every question with text and counts them.
func typing(text string, asked *int) Terminal {
	return Terminal{Ask: func(string) ([]byte, error) { *asked++; return []byte(text), nil }, Show: func(string) {}}
}

func sealTo(t testing.TB, rs ...age.Recipient) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := age.Encrypt(&out, rs...)
	check(t, err)
	_, err = io.WriteString(w, "hello")
	check(t, err)
	check(t, w.Close())
	return out.Bytes()
}

func opens(sealed []byte, ids ...age.Identity) error {
	r, err := age.Decrypt(bytes.NewReader(sealed), ids...)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(r)
	if err == nil && string(text) != "hello" {
		err = fmt.Errorf("read %q", text)
	}
	return err
}

func TestEveryKindOfKeyOpensWhatItSealed(t *testing.T) {
	dir := t.TempDir()
	x, h := x25519(t), hybrid(t)
	ed, rsa := keygen(t, "-t", "ed25519", "-N", ""), keygen(t, "-t", "rsa", "-b", "2048", "-N", "")
	for name, row := range map[string]struct{ recipient, identity string }{
		"X25519":          {x.Recipient().String(), write(t, dir+"/x", "# created today\n\n"+x.String()+"\n")},
		"hybrid":          {h.Recipient().String(), write(t, dir+"/h", h.String())},
		"windows lines":   {x.Recipient().String(), write(t, dir+"/w", "# a\r\n"+x.String()+"\r\n")},
		"the second line": {x.Recipient().String(), write(t, dir+"/2", h.String()+"\n"+x.String()+"\n")},
		"ssh-ed25519":     {public(t, ed), ed},
		"ssh-rsa":         {public(t, rsa), rsa},
	} {
		for _, from := range []string{"flag", "file"} {
			keys, files := []string{row.recipient}, []string(nil)
			if from == "file" {
				keys, files = nil, []string{write(t, dir+"/rs", "# us\n\n"+row.recipient+"\n")}
			}
			rs, err := Recipients(keys, files, func(m string) { t.Errorf("%s: warned %q", name, m) })
			check(t, err)
			ids, err := Identities([]string{row.identity}, noTerminal(t))
			check(t, err)
			if len(rs) != 1 {
				t.Errorf("%s: %d recipients", name, len(rs))
			}
			if err := opens(sealTo(t, rs...), ids...); err != nil {
				t.Errorf("%s, %s: %v", name, from, err)
			}
			if err := opens(sealTo(t, x25519(t).Recipient()), ids...); !errors.Is(err, age.ErrIncorrectIdentity) {
				t.Errorf("%s opens what is another's: %v", name, err)
			}
		}
	}
}

func TestOtherSSHKeysArePassedOver(t *testing.T) {
	ecdsa, ed := keygen(t, "-t", "ecdsa", "-N", ""), keygen(t, "-t", "ed25519", "-N", "")
	name := write(t, t.TempDir()+"/authorized", public(t, ecdsa)+"\n"+public(t, ed)+"\n")
	var warned []string
	rs, err := Recipients(nil, []string{name}, func(m string) { warned = append(warned, m) })
	check(t, err)
	if len(rs) != 1 || len(warned) != 1 || !strings.Contains(warned[0], "ecdsa-sha2-nistp256") {
		t.Errorf("%d recipients, warned %q", len(rs), warned)
	}
	name = write(t, t.TempDir()+"/only", public(t, ecdsa)+"\n")
	if _, err := Recipients(nil, []string{name}, func(string) {}); err == nil {
		t.Error("a file without one usable recipient is accepted")
	}
}

// P7: a secret in the wrong place is refused, and appears nowhere.
func TestRecipientsRefuse(t *testing.T) {
	secret := x25519(t).String()
	dir := t.TempDir()
	private, err := os.ReadFile(keygen(t, "-t", "ed25519", "-N", ""))
	check(t, err)
	for name, row := range map[string]struct {
		keys, files []string
		says        string
	}{
		"secret key":               {keys: []string{secret}, says: "private key"},
		"in lower case":            {keys: []string{strings.ToLower(secret)}, says: "private key"},
		"post-quantum secret":      {keys: []string{hybrid(t).String()}, says: "private key"},
		"secret key in a file":     {files: []string{write(t, dir+"/a", "# x\n"+secret+"\n")}, says: "a, line 2: this is a private key"},
		"ssh private key":          {files: []string{write(t, dir+"/b", string(private))}, says: "b, line 1: this is a private key"},
		"something else":           {keys: []string{"hunter2"}, says: "not a public key"},
		"something else in a file": {files: []string{write(t, dir+"/c", "hunter2\n")}, says: "c, line 1: not a public key"},
		"a flipped letter":         {keys: []string{flip(x25519(t).Recipient().String())}, says: "malformed"},
		"empty":                    {keys: []string{""}, says: "not a public key"},
		"empty file":               {files: []string{write(t, dir+"/d", "# nobody\n")}, says: "no recipient"},
		"no file":                  {files: []string{dir + "/none"}, says: "no such file"},
		"standard input":           {files: []string{"-"}, says: "standard input"},
		"not text":                 {files: []string{write(t, dir+"/e", "age1\xff\n")}, says: "e, line 1: not UTF-8"},
		"long line":                {files: []string{write(t, dir+"/f", strings.Repeat("a", 9000))}, says: "f, line 1: line is too long"},
		"very long line":           {files: []string{write(t, dir+"/g", strings.Repeat("a", 90000))}, says: "token too long"},
		"one good, one bad":        {keys: []string{x25519(t).Recipient().String(), "x"}, says: "not a public key"},
	} {
		_, err := Recipients(row.keys, row.files, func(m string) { t.Errorf("%s: warned %q", name, m) })
		text := fmt.Sprint(err)
		if !strings.Contains(text, row.says) {
			t.Errorf("%s: error %q, want %q in it", name, text, row.says)
		}
		if strings.Contains(strings.ToUpper(text), "AGE-SECRET") || strings.Contains(text, "hunter2") {
			t.Errorf("%s: the error quotes: %q", name, text)
		}
	}
}

// flip changes the last letter of a key.
func flip(key string) string {
	last := byte('q')
	if key[len(key)-1] == last {
		last = 'p'
	}
	return key[:len(key)-1] + string(last)
}

func TestIdentitiesRefuse(t *testing.T) {
	dir := t.TempDir()
	secret := x25519(t).String()
	for name, row := range map[string]struct{ file, says string }{
		"a flipped letter": {write(t, dir+"/a", "# x\n"+flip(secret)+"\n"), "a, line 2: malformed private key"},
		"public key":       {write(t, dir+"/b", x25519(t).Recipient().String()), "b, line 1: this is a public key"},
		"something else":   {write(t, dir+"/c", "hunter2"), "c, line 1: not an age private key"},
		"empty":            {write(t, dir+"/d", ""), "no identity"},
		"no file":          {dir + "/none", "no such file"},
		"a directory":      {dir, "is a directory"},
		"standard input":   {"-", "standard input"},
		"broken PEM":       {write(t, dir+"/e", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"), "ssh private key"},
		"ecdsa":            {keygen(t, "-t", "ecdsa", "-N", ""), "ssh private key"},
	} {
		_, err := Identities([]string{row.file}, noTerminal(t))
		text := fmt.Sprint(err)
		if !strings.Contains(text, row.says) {
			t.Errorf("%s: error %q, want %q in it", name, text, row.says)
		}
		if strings.Contains(text, "AGE-SECRET") || strings.Contains(text, secret[20:30]) || strings.Contains(text, "hunter2") {
			t.Errorf("%s: the error quotes: %q", name, text)
		}
	}
}

func TestProtectedSSHKeyAsksWhenItIsItsTurn(t *testing.T) {
	for name, args := range map[string][]string{
		"openssh": {"-t", "ed25519", "-N", "open sesame"},
		"old PEM": {"-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "open sesame"},
	} {
		key := keygen(t, args...)
		rs, err := Recipients([]string{public(t, key)}, nil, nil)
		check(t, err)
		sealed := sealTo(t, rs...)

		asked := 0
		ids, err := Identities([]string{key}, typing("open sesame", &asked))
		check(t, err)
		if err := opens(sealTo(t, x25519(t).Recipient()), ids...); !errors.Is(err, age.ErrIncorrectIdentity) || asked != 0 {
			t.Errorf("%s: asked %d times for what is another's: %v", name, asked, err)
		}
		for range 2 {
			check(t, opens(sealed, ids...))
		}
		if asked != 1 {
			t.Errorf("%s: asked %d times", name, asked)
		}
		ids, err = Identities([]string{key}, typing("wrong", &asked))
		check(t, err)
		if err := opens(sealed, ids...); err == nil || errors.Is(err, age.ErrIncorrectIdentity) {
			t.Errorf("%s: wrong passphrase: %v", name, err)
		}
		check(t, os.Remove(key+".pub"))
		_, err = Identities([]string{key}, noTerminal(t))
		if name == "old PEM" && (err == nil || !strings.Contains(err.Error(), ".pub")) {
			t.Errorf("%s without its public half: %v", name, err)
		}
		if name == "openssh" {
			check(t, err)
		}
	}
}

func TestProtectedIdentityFileIsOpenedOnce(t *testing.T) {
	a, b := x25519(t), hybrid(t)
	dir := t.TempDir()
	pass, err := age.NewScryptRecipient("open sesame")
	check(t, err)
	pass.SetWorkFactor(10)
	var binary, armored bytes.Buffer
	w, err := age.Encrypt(&binary, pass)
	check(t, err)
	fmt.Fprintf(w, "# two\n%s\n%s\n", a, b)
	check(t, w.Close())
	aw := armor.NewWriter(&armored)
	_, err = aw.Write(binary.Bytes())
	check(t, err)
	check(t, aw.Close())

	for name, file := range map[string]string{
		"binary": write(t, dir+"/binary", binary.String()), "armored": write(t, dir+"/armored", "\n"+armored.String()),
	} {
		asked := 0
		ids, err := Identities([]string{file}, typing("open sesame", &asked))
		check(t, err)
		if asked != 0 {
			t.Errorf("%s: asked before an archive needs it", name)
		}
		check(t, opens(sealTo(t, a.Recipient()), ids...))
		check(t, opens(sealTo(t, b.Recipient()), ids...))
		if err := opens(sealTo(t, x25519(t).Recipient()), ids...); !errors.Is(err, age.ErrIncorrectIdentity) {
			t.Errorf("%s: opens what is another's: %v", name, err)
		}
		if asked != 1 {
			t.Errorf("%s: asked %d times", name, asked)
		}
		ids, err = Identities([]string{file}, typing("wrong", &asked))
		check(t, err)
		if err := opens(sealTo(t, a.Recipient()), ids...); err == nil || errors.Is(err, age.ErrIncorrectIdentity) || !strings.Contains(err.Error(), name+": wrong passphrase") {
			t.Errorf("%s: wrong passphrase: %v", name, err)
		}
	}
	other := write(t, dir+"/other", string(sealTo(t, a.Recipient())))
	ids, err := Identities([]string{other}, noTerminal(t))
	check(t, err)
	if err := opens(sealTo(t, a.Recipient()), ids...); err == nil || !strings.Contains(err.Error(), "not with a passphrase") {
		t.Errorf("encrypted to a key: %v", err)
	}
}

// TestMain is a plugin when the test binary is called by a plugin's name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "age-plugin-ours" {
		os.Exit(ourPlugin())
	}
	os.Exit(m.Run())
}

// ourPlugin keeps an age key in what looks like a plugin's, and opens nothing
// without a word.
func ourPlugin() int {
	p, err := plugin.New("ours")
	if err != nil {
		return 1
	}
	p.HandleRecipient(func(data []byte) (age.Recipient, error) { return age.ParseX25519Recipient(string(data)) })
	p.HandleIdentity(func(data []byte) (age.Identity, error) {
		id, err := age.ParseX25519Identity(string(data))
		return asking{p, id}, err
	})
	return p.Main()
}

type asking struct {
	p  *plugin.Plugin
	id age.Identity
}

func (a asking) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if err := a.p.DisplayMessage("touch the token"); err != nil {
		return nil, err
	}
	word, err := a.p.RequestValue("the word", true)
	if err == nil && word != "please" {
		err = errors.New("not the word")
	}
	if err == nil {
		var yes bool
		if yes, err = a.p.Confirm("sure?", "yes", "no"); err == nil && !yes {
			err = errors.New("not sure")
		}
	}
	if err != nil {
		return nil, err
	}
	return a.id.Unwrap(stanzas)
}

func TestPluginsAreCalled(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	check(t, err)
	check(t, os.Symlink(self, dir+"/age-plugin-ours"))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	x := x25519(t)
	rs, err := Recipients([]string{plugin.EncodeRecipient("ours", []byte(x.Recipient().String()))}, nil, nil)
	check(t, err)
	sealed := sealTo(t, rs...)
	check(t, opens(sealed, x))

	key := plugin.EncodeIdentity("ours", []byte(x.String()))
	file := write(t, dir+"/id", key+"\n")
	for answers, good := range map[string]bool{"please 1": true, "please 3 1": true, "please 2": false, "now 1": false} {
		var shown []string
		words := strings.Fields(answers)
		ids, err := Identities([]string{file}, Terminal{
			Ask: func(string) (text []byte, err error) {
				text, words = []byte(words[0]), words[1:]
				return text, nil
			},
			Show: func(m string) { shown = append(shown, m) },
		})
		check(t, err)
		if err := opens(sealed, ids...); (err == nil) != good {
			t.Errorf("answers %q: error %v", answers, err)
		}
		if len(shown) != 1 || shown[0] != "age-plugin-ours: touch the token" {
			t.Errorf("answers %q: shown %q", answers, shown)
		}
	}
	if _, err := Identities([]string{write(t, dir+"/bad", flip(key)+"\n")}, noTerminal(t)); err == nil || strings.Contains(err.Error(), key[20:30]) {
		t.Errorf("a wrong checksum: error %v", err)
	}
}
