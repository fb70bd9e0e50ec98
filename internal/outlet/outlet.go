// Package outlet is the way of an archive out of xbsend: encryption, count and
// digest, and the pipe or the command that takes it.
//
// Promises:
//
//   - What was not completed has no end: neither that of the encryption, nor the
//     end of its input for the command, nor a digest file.
//   - The command of --exec is killed, with all its processes, unless it got the
//     whole archive, also when this process is killed.
package outlet

import (
	"context"
	"io"
	"log/slog"
	"os"
	"time"

	"filippo.io/age"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/cli"
)

// Options say where an archive goes, and how.
type Options struct {
	// Out is standard output; Exec, if it is not empty, is a command for the shell
	// that gets the archive instead, and Err is where it prints.
	Out, Err *os.File
	Exec     string
	// Idle is how long whoever reads may stand still; 0 is for ever.
	Idle time.Duration
	// DigestFile is the name of a file that gets the digest, empty for none.
	DigestFile string
	// Recipients are those to whom the archive is encrypted.
	Recipients []age.Recipient
	Log        *slog.Logger
}

// Outlet takes one archive.
type Outlet struct {
	io.Writer // the encryption, or left
	seal      io.Closer
	left      *meter      // counts what leaves
	gather    *cli.Gather // in front of the pipe
	to        *target
	digest    *digestFile // nil without
}

// Open opens the way out. If it turns out later that nobody takes the archive any
// more, fail gets the reason.
func Open(ctx context.Context, opt Options, fail func(error)) (_ *Outlet, err error) {
	o := &Outlet{}
	if opt.DigestFile != "" {
		if o.digest, err = createDigest(opt.DigestFile); err != nil {
			return nil, err
		}
	}
	if o.to, err = openTarget(ctx, opt, fail); err != nil {
		o.discardDigest()
		return nil, err
	}
	o.gather = cli.NewGather(o.to.Pipe)
	o.left = newMeter(o.gather, o.digest != nil)
	o.Writer = o.left
	if len(opt.Recipients) > 0 {
		w, err := format.Encrypt(o.left, opt.Recipients...)
		if err != nil {
			o.Close()
			return nil, err
		}
		o.Writer, o.seal = w, w
	}
	return o, nil
}

// Pipe is what the archive goes into.
func (o *Outlet) Pipe() *cli.Pipe { return o.to.Pipe }

// Bytes is the size of what has left, and Digest the SHA-256 of it in hex, empty
// without a digest file.
func (o *Outlet) Bytes() int64   { return o.left.bytes }
func (o *Outlet) Digest() string { return o.left.digest() }

// Complete ends the archive on the outside, after its last byte.
func (o *Outlet) Complete(ctx context.Context) error {
	if o.seal != nil {
		if err := o.seal.Close(); err != nil {
			return err
		}
	}
	if err := o.gather.Flush(); err != nil {
		return err
	}
	if err := o.to.complete(ctx); err != nil {
		return err
	}
	if o.digest != nil {
		return o.digest.publish(o.left.digest())
	}
	return nil
}

// Close gives up what was not completed.
func (o *Outlet) Close() error {
	o.left.Close()
	o.gather.Close()
	o.discardDigest()
	return o.to.Close()
}

func (o *Outlet) discardDigest() {
	if o.digest != nil {
		o.digest.discard()
	}
}
