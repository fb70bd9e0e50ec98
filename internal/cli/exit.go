package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime/debug"
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
	ExitForeign  = 11 // not an archive, or one of a newer version
	exitSignal   = 128
)

// CodeHelp is the paragraph on exit codes for --help.
const CodeHelp = `Exit codes: 0 done, 1 other, 2 usage, 3 archive damaged or incomplete,
  4 no key opens it, 5 server, 6 redo lost, 7 damaged page at the source,
  8 I/O or no space, 9 target refused, 10 prepare failed,
  11 not an archive, or one of a newer version, 128+n signal n`

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

// Code returns the exit code for err: what both commands agree on, and between
// that the first case it is one of.
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
	if idle := (*IdleError)(nil); MachineFailed(err) || errors.As(err, &idle) {
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
	if errors.Is(err, format.ErrNotArchive) || errors.Is(err, format.ErrUnsupported) {
		return ExitForeign
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

// signals end a command in good order.
var signals = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}

// Main runs the command called name and ends the process. The first signal ends
// the context, with a SignalError as its cause; a second one kills the process,
// as if nobody had asked for the first. A signal that the process was started to
// ignore, as by nohup, stays ignored.
//
// SIGPIPE does nothing: a write to a pipe nobody reads returns an error instead
// of killing the process before it has released its locks. It is caught and not
// ignored, which the processes that are started here would inherit.
func Main(name string, run func(context.Context) int) {
	ctx, cancel := context.WithCancelCause(context.Background())
	c := make(chan os.Signal, 1)
	for _, s := range signals {
		if !signal.Ignored(s) {
			signal.Notify(c, s)
		}
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	keepSecrets()
	// A panic of another goroutine, which nobody can catch, would end the process
	// with 2, the code of a usage error. So it ends by SIGABRT.
	debug.SetTraceback("crash")
	go func() {
		s := <-c
		signal.Stop(c)
		cancel(&SignalError{s.(syscall.Signal)})
	}()
	os.Exit(guarded(name, os.Stderr, func() int { return run(ctx) }))
}

// guarded makes of a panic, once all that was to be released has been, an exit
// code that says nothing wrong. A panic of another goroutine ends the process on
// the spot, by SIGABRT; the system then closes its connections, and with them the
// locks.
func guarded(name string, stderr io.Writer, run func() int) (code int) {
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(stderr, "%s\n%s: error: internal error: %v; please report it with the lines above\n", debug.Stack(), name, p)
			code = ExitOther
		}
	}()
	return run()
}
