package format

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"filippo.io/age/armor"
)

// NotArchiveError says what an input is that is no archive, and what to do with
// it. It wraps ErrNotArchive.
type NotArchiveError struct {
	What string
	Hint string
}

func (e *NotArchiveError) Error() string {
	return fmt.Sprintf("%v: the input is %s; %s", ErrNotArchive, e.What, e.Hint)
}

func (e *NotArchiveError) Unwrap() error { return ErrNotArchive }

// known are the beginnings of what is often given in the place of an archive.
var known = []struct{ magic, what, hint string }{
	{"\x1f\x8b", "compressed with gzip", "decompress it first: gzip -dc FILE | xbstream …"},
	{"\x28\xb5\x2f\xfd", "compressed with zstd", "decompress it first: zstd -dc FILE | xbstream …"},
	{"\x04\x22\x4d\x18", "compressed with lz4", "decompress it first: lz4 -dc FILE | xbstream …"},
	{"\xfd7zXZ\x00", "compressed with xz", "decompress it first: xz -dc FILE | xbstream …"},
	{"BZh", "compressed with bzip2", "decompress it first: bzip2 -dc FILE | xbstream …"},
	{"PK\x03\x04", "a zip file", "unpack it first"},
	{"7z\xbc\xaf\x27\x1c", "a 7z file", "unpack it first"},
	{"XBCRYP", "encrypted with xbcrypt", "decrypt it first, with the xbcrypt of Percona XtraBackup"},
	{"Salted__", "encrypted with openssl", "decrypt it first: openssl enc -d …"},
	{"-----BEGIN PGP", "encrypted with GnuPG", "decrypt it first: gpg -d FILE | xbstream …"},
	{"age-encryption.org/", "encrypted with age, more than once", "decrypt it once first: age -d -i KEY FILE | xbstream -i KEY …"},
	{"-- MariaDB dump", "an SQL dump", "load it with the mariadb client"},
	{"-- MySQL dump", "an SQL dump", "load it with the mysql client"},
	{"/*!", "an SQL dump", "load it with the mariadb client"},
	{"/*M!", "an SQL dump", "load it with the mariadb client"},
	{"-- ", "SQL statements, or text", "an SQL dump is loaded with the mariadb client"},
	{"<", "an XML or HTML document", "it may be the error of a web server or of object storage: read it"},
	{"{", "a JSON document", "it may be the error of a service: read it"},
}

// tarMagic stands at tarMagicAt in a tar archive.
const (
	tarMagic   = "ustar"
	tarMagicAt = 257
)

// notArchive says what begins with p, which is no archive.
func notArchive(p []byte) error {
	for _, k := range known {
		if bytes.HasPrefix(p, []byte(k.magic)) {
			return &NotArchiveError{k.what, k.hint}
		}
	}
	switch at := bytes.Index(p, Magic[:]); {
	case at > 0:
		return &NotArchiveError{fmt.Sprintf("an archive with %d bytes in front of it: %s", at, beginning(p[:at])),
			"keep programs and logins from printing anything to the standard output of xbsend"}
	case len(p) > tarMagicAt && bytes.HasPrefix(p[tarMagicAt:], []byte(tarMagic)):
		return &NotArchiveError{"a tar archive", "unpack it with tar"}
	case len(bytes.Trim(p, "\x00")) == 0:
		return &NotArchiveError{"zeros", "the file was allocated and never written, or it is on a damaged disk"}
	case isText(p):
		return &NotArchiveError{"text: " + beginning(p), "it may be a login banner, or the message of a program on the sender's side"}
	}
	return &NotArchiveError{fmt.Sprintf("something else: it begins with the bytes % x", p[:min(len(p), 8)]),
		"xbstream reads archives of xbsend and streams of mariabackup and xtrabackup"}
}

// classicMagic begins a classic stream (package classic).
const classicMagic = "XBSTCK01"

// cutMagic says whether p may be the beginning of a classic stream, or of an
// encrypted archive, and is less than what these begin with.
func cutMagic(p []byte) bool {
	for _, magic := range []string{classicMagic, ageIntro, armor.Header} {
		if strings.HasPrefix(magic, string(p)) {
			return true
		}
	}
	return false
}

// damagedBeginning says whether p, which does not begin as an archive or an
// encrypted one, once did.
func damagedBeginning(p []byte) bool {
	if len(p) >= archiveHeaderSize {
		head := append(bytes.Clone(Magic[:]), p[len(Magic):archiveHeaderSize]...)
		if _, err := decodeArchiveHeader(head); err == nil {
			return true
		}
	}
	return len(p) > 4 && string(p[1:4]) == string(Magic[1:4]) || bytes.HasPrefix(p, Magic[1:]) ||
		bytes.HasPrefix(p, frameMagic[:]) || nearly(p, ageIntro)
}

// nearly says whether p begins with magic but for two bytes.
func nearly(p []byte, magic string) bool {
	differ := 0
	for i := range min(len(p), len(magic)) {
		if p[i] != magic[i] {
			differ++
		}
	}
	return len(p) >= len(magic) && differ <= 2
}

// beginning quotes the first line of a text.
func beginning(p []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(p)), "\n")
	if r := []rune(line); len(r) > 60 {
		line = string(r[:60]) + "…"
	}
	return fmt.Sprintf("%q", line)
}

func isText(p []byte) bool {
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		if r == utf8.RuneError && len(p) >= utf8.UTFMax || r != utf8.RuneError && !unicode.IsPrint(r) && !unicode.IsSpace(r) && r != 0x1B {
			return false
		}
		p = p[n:]
	}
	return true
}

// humanSize prints a number of bytes for people.
func humanSize(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	v, unit := float64(n), 0
	for v >= 1<<10 && unit < 6 {
		v, unit = v/(1<<10), unit+1
	}
	if v < 10 {
		return fmt.Sprintf("%.1f %ciB", v, "KMGTPE"[unit-1])
	}
	return fmt.Sprintf("%.0f %ciB", v, "KMGTPE"[unit-1])
}
