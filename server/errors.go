package server

import (
	"context"
	"crypto/tls"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/go-sql-driver/mysql"

	"github.com/xbstream/xbstream/format"
)

// What a caller decides on. They are found with errors.Is in an *Error.
var (
	ErrConnect     = errors.New("server: no connection")
	ErrPrivilege   = errors.New("server: privilege missing")
	ErrUnsupported = errors.New("server: not supported")
	ErrLockTimeout = errors.New("server: lock not granted in time")
	ErrLockLost    = errors.New("server: lock lost")
	ErrForeignDir  = errors.New("server: files of another server")
)

// Error is what the server, or the way to it, did not do for us.
type Error struct {
	// Kind is one of the sentinels, or nil.
	Kind error
	// Op names the operation and its place.
	Op string
	// Err is the cause.
	Err error
	// Stages, of an ErrLockTimeout, are the locks that were asked for, up to the
	// one that was not granted.
	Stages []format.Stage
}

// Error is one line; Kind is not part of it.
func (e *Error) Error() string {
	if e.Op == "" {
		return e.Err.Error()
	}
	return e.Op + ": " + e.Err.Error()
}

// Unwrap returns kind and cause.
func (e *Error) Unwrap() []error {
	if e.Kind == nil {
		return []error{e.Err}
	}
	return []error{e.Kind, e.Err}
}

// Unsupported returns an ErrUnsupported.
func Unsupported(format string, args ...any) error {
	return &Error{Kind: ErrUnsupported, Err: fmt.Errorf(format, args...)}
}

// Numbers of server errors, the same in all families (mysqld_error.h).
const (
	erAccessDenied   = 1045
	erDBAccessDenied = 1044
	erTableAccess    = 1142 // a privilege on a table is missing
	erSpecificAccess = 1227 // a global privilege is missing
	erLockWait       = 1205
	erQueryKilled    = 1317
	erConnKilled     = 1927 // MariaDB only
	erServerShutdown = 1053
)

// Fail wraps the error of a statement and finds its kind.
func (s *Session) Fail(op string, err error) error {
	return &Error{Kind: kindOf(err), Op: op, Err: plain(err)}
}

func kindOf(err error) error {
	if n := number(err); n == erSpecificAccess || n == erDBAccessDenied || n == erTableAccess {
		return ErrPrivilege
	}
	if broken(err) {
		return ErrConnect
	}
	return nil
}

// number is the server's error number, 0 for an error that is not the server's.
func number(err error) uint16 {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return e.Number
	}
	return 0
}

// broken says that the connection is gone, not just the statement refused.
func broken(err error) bool {
	if n := number(err); n != 0 {
		return n == erConnKilled || n == erServerShutdown
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return !errors.Is(err, context.Canceled)
	}
	if errors.Is(err, errNonsense) || errors.Is(err, errSilent) {
		return true
	}
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, mysql.ErrInvalidConn) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// plain is the cause in one line of the user's words, without the driver's.
func plain(err error) error {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return &cause{fmt.Sprintf("%s (error %d)", lower(oneLine(e.Message)), e.Number), err}
	}
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, mysql.ErrInvalidConn) || errors.Is(err, io.EOF) {
		return &cause{"the connection broke", err}
	}
	if errors.Is(err, mysql.ErrCleartextPassword) || errors.Is(err, mysql.ErrOldPassword) || errors.Is(err, mysql.ErrUnknownPlugin) {
		return &cause{"the account's method of authentication is not supported: it needs one that does not send the password itself", err}
	}
	if errors.Is(err, mysql.ErrNoTLS) {
		return &cause{"the server does not offer TLS", err}
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return &cause{"the server's certificate is not accepted: " + oneLine(e.Err.Error()), err}
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
		text := oneLine(syscallText(e.Err))
		if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
			text += "; is the server running?"
		}
		return &cause{text, err}
	}
	if strings.Contains(err.Error(), "\n") {
		return &cause{oneLine(err.Error()), err}
	}
	return err
}

// cause says an error in other words and keeps it.
type cause struct {
	text string
	err  error
}

func (c *cause) Error() string { return c.text }
func (c *cause) Unwrap() error { return c.err }

// syscallText leaves out the name of the system call.
func syscallText(err error) string {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return err.Error()
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// lower begins a server's sentence as an error begins; an abbreviation stays.
func lower(s string) string {
	if len(s) > 1 && s[1] >= 'a' && s[1] <= 'z' {
		return strings.ToLower(s[:1]) + s[1:]
	}
	return s
}
