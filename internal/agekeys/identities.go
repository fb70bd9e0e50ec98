package agekeys

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"filippo.io/age/plugin"
	"golang.org/x/crypto/ssh"
)

// Terminal is the user, as far as keys need one. Ask reads a passphrase without
// showing it; Show tells the user something, such as to touch a token.
type Terminal struct {
	Ask  func(prompt string) ([]byte, error)
	Show func(msg string)
}

// Identities reads private keys from files: age identity files, plain or
// protected by a passphrase, and ssh private keys.
func Identities(files []string, t Terminal) ([]age.Identity, error) {
	var all []age.Identity
	for _, name := range files {
		ids, err := identitiesFile(name, t)
		if err != nil {
			return nil, fmt.Errorf("identity file: %w", err)
		}
		all = append(all, ids...)
	}
	return all, nil
}

func identitiesFile(name string, t Terminal) ([]age.Identity, error) {
	f, err := open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const maxSpace = 1024 // before armor, as the age command
	br := bufio.NewReader(f)
	head, _ := br.Peek(maxSpace + len(armor.Header))
	text := bytes.TrimSpace(head)
	switch {
	case bytes.HasPrefix(head, []byte("age-encryption.org/")), bytes.HasPrefix(text, []byte(armor.Header)):
		return protected(name, br, t)
	case bytes.HasPrefix(text, []byte("-----BEGIN")):
		return sshKey(name, br, t)
	}
	return identityLines(name, br, t)
}

// identityLines reads one key a line.
func identityLines(name string, r io.Reader, t Terminal) ([]age.Identity, error) {
	var ids []age.Identity
	err := lines(name, r, func(line string) error {
		id, err := identity(line, t)
		ids = append(ids, id)
		return err
	})
	if err == nil && len(ids) == 0 {
		err = &FileError{File: name, Err: errors.New("no identity in it")}
	}
	if err != nil {
		return nil, err
	}
	return ids, nil
}

// identity reads one private key. The parsers' own errors say which characters
// are wrong, so they are dropped.
func identity(s string, t Terminal) (id age.Identity, err error) {
	switch {
	case strings.HasPrefix(s, "AGE-PLUGIN-"):
		id, err = plugin.NewIdentity(s, pluginUI(t))
	case strings.HasPrefix(s, "AGE-SECRET-KEY-PQ-1"):
		id, err = age.ParseHybridIdentity(s)
	case strings.HasPrefix(s, "AGE-SECRET-KEY-1"):
		id, err = age.ParseX25519Identity(s)
	case strings.HasPrefix(s, "age1"), strings.HasPrefix(s, "ssh-"):
		return nil, errors.New("this is a public key; the private one opens an archive")
	default:
		return nil, errors.New("not an age private key")
	}
	if err != nil {
		return nil, errors.New("malformed private key")
	}
	return id, nil
}

// sshKey reads a private key as ssh-keygen writes it.
func sshKey(name string, r io.Reader, t Terminal) ([]age.Identity, error) {
	pem, err := readLimited(name, r, maxPEM)
	if err != nil {
		return nil, err
	}
	id, err := agessh.ParseIdentity(pem)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		id, err = lockedSSHKey(name, pem, locked.PublicKey, t)
	}
	if err != nil {
		return nil, &FileError{File: name, Err: fmt.Errorf("ssh private key: %w", err)}
	}
	return []age.Identity{id}, nil
}

// lockedSSHKey asks for the passphrase when an archive is for this key. Which
// one it is says its public half; old PEM files do not hold it in the clear.
func lockedSSHKey(name string, pem []byte, public ssh.PublicKey, t Terminal) (age.Identity, error) {
	if public == nil {
		var err error
		if public, err = publicHalf(name + ".pub"); err != nil {
			return nil, fmt.Errorf("its public half is needed beside it: %w", err)
		}
	}
	return agessh.NewEncryptedSSHIdentity(public, pem, func() ([]byte, error) {
		return t.Ask(fmt.Sprintf("Passphrase of %s: ", name))
	})
}

func publicHalf(name string) (ssh.PublicKey, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := readLimited(name, f, maxPEM)
	if err != nil {
		return nil, err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	return key, err
}

// protected reads an identity file that is itself encrypted with a passphrase.
func protected(name string, r io.Reader, t Terminal) ([]age.Identity, error) {
	text, err := readLimited(name, r, maxFile)
	if err != nil {
		return nil, err
	}
	return []age.Identity{&protectedFile{name: name, sealed: text, t: t}}, nil
}

func readLimited(name string, r io.Reader, most int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("longer than %d bytes", most)
	}
	if err != nil {
		return nil, &FileError{File: name, Err: err}
	}
	return text, nil
}

// protectedFile is the identities of one protected file. It is opened, and the
// passphrase asked for, when the first archive is to be opened with it.
type protectedFile struct {
	name   string
	sealed []byte
	t      Terminal

	once sync.Once
	ids  []age.Identity
	err  error
}

// Unwrap tries the identities in the file.
func (p *protectedFile) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	p.once.Do(func() { p.ids, p.err = p.open() })
	if p.err != nil {
		return nil, p.err
	}
	for _, id := range p.ids {
		key, err := id.Unwrap(stanzas)
		if !errors.Is(err, age.ErrIncorrectIdentity) {
			return key, err
		}
	}
	return nil, age.ErrIncorrectIdentity
}

func (p *protectedFile) open() ([]age.Identity, error) {
	var r io.Reader = bytes.NewReader(p.sealed)
	if !bytes.HasPrefix(p.sealed, []byte("age-encryption.org/")) {
		r = armor.NewReader(r)
	}
	pass := &passphrase{ask: func() ([]byte, error) { return p.t.Ask(fmt.Sprintf("Passphrase of %s: ", p.name)) }}
	text, err := age.Decrypt(r, pass)
	if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
		err = errors.New("encrypted, but not with a passphrase")
	}
	if err != nil {
		// Not wrapped: that a passphrase does not open this file must not
		// look as if it were another key's turn.
		return nil, &FileError{File: p.name, Err: errors.New(err.Error())}
	}
	return identityLines(p.name, text, p.t)
}

// passphrase is an identity that asks for the passphrase once it knows that one
// is needed.
type passphrase struct{ ask func() ([]byte, error) }

func (p *passphrase) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if len(stanzas) != 1 || stanzas[0].Type != "scrypt" {
		return nil, age.ErrIncorrectIdentity
	}
	text, err := p.ask()
	if err != nil {
		return nil, fmt.Errorf("ask for the passphrase: %w", err)
	}
	id, err := age.NewScryptIdentity(string(text))
	if err != nil {
		return nil, err
	}
	key, err := id.Unwrap(stanzas)
	if errors.Is(err, age.ErrIncorrectIdentity) {
		err = errors.New("wrong passphrase")
	}
	return key, err
}

// pluginUI lets a plugin speak to the user. Answers that are no secret are read
// like one: there is one way to ask.
func pluginUI(t Terminal) *plugin.ClientUI {
	return &plugin.ClientUI{
		DisplayMessage: func(name, msg string) error {
			t.Show(fmt.Sprintf("age-plugin-%s: %s", name, msg))
			return nil
		},
		RequestValue: func(name, prompt string, _ bool) (string, error) {
			text, err := t.Ask(fmt.Sprintf("age-plugin-%s: %s: ", name, prompt))
			return string(text), err
		},
		Confirm: func(name, prompt, yes, no string) (bool, error) {
			return confirm(t, fmt.Sprintf("age-plugin-%s: %s", name, prompt), yes, no)
		},
		WaitTimer: func(name string) { t.Show(fmt.Sprintf("waiting for age-plugin-%s", name)) },
	}
}

func confirm(t Terminal, prompt, yes, no string) (bool, error) {
	if no == "" {
		_, err := t.Ask(fmt.Sprintf("%s (enter: %s) ", prompt, yes))
		return err == nil, err
	}
	for {
		text, err := t.Ask(fmt.Sprintf("%s (1: %s, 2: %s) ", prompt, yes, no))
		switch {
		case err != nil:
			return false, err
		case string(text) == "1":
			return true, nil
		case string(text) == "2":
			return false, nil
		}
	}
}
