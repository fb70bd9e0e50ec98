package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/xbstream/xbstream/format"
)

// Exit codes of both commands, documented in --help and the manual pages.
const (
	ExitDone     = 0
	ExitOther    = 1
	ExitUsage    = 2
	ExitDamaged  = 3  // archive damaged or incomplete
	ExitNoKey    = 4  // no key opens the archive
	ExitServer   = 5  // server: connection, privileges, lock budget
	ExitRedoLost = 6  // redo was overwritten before it was copied
	ExitPage     = 7  // damaged page at the source
	ExitIO       = 8  // I/O error or no space
	ExitTarget   = 9  // target refused
	ExitPrepare  = 10 // prepare failed
	exitSignal   = 128
)

// CodeHelp is the paragraph on exit codes for --help.
const CodeHelp = `Exit codes: 0 done, 1 other, 2 usage, 3 archive damaged or incomplete,
  4 no key opens it, 5 server, 6 redo lost, 7 damaged page at the source,
  8 I/O or no space, 9 target refused, 10 prepare failed, 128+n signal n`

// UsageError is an error in the command line.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() + " (see --help)" }
func (e *UsageError) Unwrap() error { return e.Err }

// Usagef returns a UsageError.
func Usagef(msg string, args ...any) error { return &UsageError{fmt.Errorf(msg, args...)} }

// SignalError is the cause of a context that a signal ended.
type SignalError struct{ Signal syscall.Signal }

func (e *SignalError) Error() string { return "ended by signal: " + e.Signal.String() }

// Case maps errors to an exit code.
type Case struct {
	Err  error
	Code int
}

// Code returns the exit code for err: that of the first case it is one of, then
// what both commands agree on.
func Code(err error, cases []Case) int {
	var sig *SignalError
	var usage *UsageError
	if err == nil {
		return ExitDone
	}
	if errors.As(err, &sig) {
		return exitSignal + int(sig.Signal)
	}
	if errors.As(err, &usage) {
		return ExitUsage
	}
	if idle := (*IdleError)(nil); errors.As(err, &idle) {
		return ExitIO
	}
	for _, c := range cases {
		if errors.Is(err, c.Err) {
			return c.Code
		}
	}
	if errors.Is(err, format.ErrDamaged) {
		return ExitDamaged
	}
	var path *fs.PathError
	var link *os.LinkError
	var sys *os.SyscallError
	var no syscall.Errno
	if errors.As(err, &path) || errors.As(err, &link) || errors.As(err, &sys) || errors.As(err, &no) {
		return ExitIO
	}
	return ExitOther
}

// signals end a command in good order. SIGPIPE is among them so that a write to
// a pipe nobody reads returns an error instead of killing the process before it
// has released its locks.
var signals = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}

// Context returns a context that the first signal ends, with a SignalError as
// its cause. A second signal kills the process, as if nobody had asked for the
// first.
func Context() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.Background())
	c := make(chan os.Signal, 1)
	signal.Notify(c, signals...)
	signal.Ignore(syscall.SIGPIPE)
	go func() {
		s := <-c
		signal.Reset(signals...)
		cancel(&SignalError{s.(syscall.Signal)})
	}()
	return ctx, func() { cancel(context.Canceled) }
}
