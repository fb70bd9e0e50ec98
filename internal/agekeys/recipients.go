package agekeys

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/plugin"
	"filippo.io/age/tag"
)

// Recipients reads public keys: those given themselves, and those in files, one
// a line. warn is told of lines that name ssh keys of a kind age cannot use,
// which are passed over as the age command does. No key at all is no error.
func Recipients(keys, files []string, warn func(msg string)) ([]age.Recipient, error) {
	var all []age.Recipient
	for _, k := range keys {
		r, err := recipient(strings.TrimSpace(k))
		if err != nil {
			return nil, fmt.Errorf("recipient: %w", err)
		}
		all = append(all, r)
	}
	for _, name := range files {
		rs, err := recipientsFile(name, warn)
		if err != nil {
			return nil, fmt.Errorf("recipients file: %w", err)
		}
		all = append(all, rs...)
	}
	return all, nil
}

func recipientsFile(name string, warn func(msg string)) ([]age.Recipient, error) {
	f, err := open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var rs []age.Recipient
	err = lines(name, f, func(line string) error {
		if kind := otherSSH(line); kind != "" {
			warn(fmt.Sprintf("%s: an ssh key of type %s is no recipient, age cannot use it", name, kind))
			return nil
		}
		r, err := recipient(line)
		rs = append(rs, r)
		return err
	})
	if err == nil && len(rs) == 0 {
		err = &FileError{File: name, Err: errors.New("no recipient in it")}
	}
	return rs, err
}

// errSecret names no key, for it may be on its way into a log.
var errSecret = errors.New("this is a private key, and the sender needs none: give the public key, which begins with age1 or ssh- (age-keygen -y prints it)")

// recipient reads one public key. What it does not know it does not quote: it
// may be a secret in the wrong place.
func recipient(s string) (age.Recipient, error) {
	switch {
	case secret(s):
		return nil, errSecret
	case strings.HasPrefix(s, "age1tag1"), strings.HasPrefix(s, "age1tagpq1"):
		return known(tag.ParseRecipient(s))
	case strings.HasPrefix(s, "age1pq1"):
		return known(age.ParseHybridRecipient(s))
	case strings.HasPrefix(s, "age1") && strings.Count(s, "1") > 1:
		// No one sits at a sender's terminal: a plugin that wants to ask
		// something is told that it cannot.
		return known(plugin.NewRecipient(s, &plugin.ClientUI{}))
	case strings.HasPrefix(s, "age1"):
		return known(age.ParseX25519Recipient(s))
	case strings.HasPrefix(s, "ssh-"):
		return known(agessh.ParseRecipient(s))
	}
	return nil, errors.New("not a public key; one begins with age1, ssh-ed25519 or ssh-rsa")
}

// known drops the typed nil that a failed parser may return.
func known[R age.Recipient](r R, err error) (age.Recipient, error) {
	if err != nil {
		return nil, err
	}
	return r, nil
}

// otherSSH returns the type of a well-formed ssh public key that age has no use
// for, as ecdsa-sha2-nistp256, and "" for anything else. The blob of a key
// begins with the length of its type and the type (RFC 4253 §6.6).
func otherSSH(line string) string {
	fields := strings.Fields(line)
	if len(fields) < 2 || fields[0] == "ssh-ed25519" || fields[0] == "ssh-rsa" {
		return ""
	}
	blob, err := base64.StdEncoding.DecodeString(fields[1])
	if err != nil || len(blob) < 4 {
		return ""
	}
	n := uint64(binary.BigEndian.Uint32(blob))
	if n == 0 || n > uint64(len(blob)-4) || string(blob[4:4+n]) != fields[0] {
		return ""
	}
	return fields[0]
}
