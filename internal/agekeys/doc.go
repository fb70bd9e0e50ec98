// Package agekeys reads the keys the age command reads: recipients, to whom an
// archive is encrypted, and identities, which open it.
//
// It promises:
//
//   - What is written as age's own documentation says works here: native and
//     post-quantum keys, ssh keys, plugins, recipients files, identity files,
//     identity files protected by a passphrase.
//   - Standard input is never read; it belongs to the archive.
//   - An error names the file and the line, and quotes nothing that could be a
//     secret.
//   - A passphrase is asked for only when an archive needs it, and once.
package agekeys

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// Limits of key files, those of the age command.
const (
	maxFile = 16 << 20
	maxLine = 8 << 10
	maxPEM  = 16 << 10
)

// FileError says which key file is wrong, and in which line if one is.
type FileError struct {
	File string
	Line int // from 1; 0 for the whole file
	Err  error
}

func (e *FileError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("%s, line %d: %v", e.File, e.Line, e.Err)
	}
	return fmt.Sprintf("%s: %v", e.File, e.Err)
}

func (e *FileError) Unwrap() error { return e.Err }

// open opens a key file.
func open(name string) (*os.File, error) {
	if name == "-" {
		return nil, errors.New("keys cannot be read from standard input (-): name a file")
	}
	return os.Open(name)
}

// lines calls each for every line of r that is neither empty nor a comment.
func lines(name string, r io.Reader, each func(line string) error) error {
	limited := &io.LimitedReader{R: r, N: maxFile + 1}
	sc := bufio.NewScanner(limited)
	n := 0
	for sc.Scan() {
		n++
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		var err error
		switch {
		case !utf8.ValidString(line):
			err = errors.New("not UTF-8 text")
		case len(line) > maxLine:
			err = errors.New("line is too long")
		default:
			err = each(line)
		}
		if err != nil {
			return &FileError{File: name, Line: n, Err: err}
		}
	}
	if err := sc.Err(); err != nil {
		return &FileError{File: name, Line: n + 1, Err: err}
	}
	if limited.N <= 0 {
		return &FileError{File: name, Err: fmt.Errorf("longer than %d bytes", maxFile)}
	}
	return nil
}

// secret tells whether text holds what looks like a private key.
func secret(text string) bool {
	upper := strings.ToUpper(text)
	return strings.Contains(upper, "AGE-SECRET-KEY-") || strings.Contains(upper, "AGE-PLUGIN-") || strings.Contains(upper, "PRIVATE KEY-----")
}
