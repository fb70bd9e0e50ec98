package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"

	"filippo.io/age"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/agekeys"
	"github.com/xbstream/xbstream/internal/quote"
)

// keys are the identities that may open an archive.
type keys struct {
	files []string
	ids   []age.Identity // what is in them, once read

	// asking is held while the terminal does not show what is typed.
	asking sync.Mutex
}

func (k *keys) register(f *pflag.FlagSet) {
	f.StringArrayVarP(&k.files, "identity", "i", nil, "`FILE` with the private key that opens the archive, age or ssh; repeatable")
}

// identities reads the key files, once. One that cannot be used is no key.
func (c *command) identities(ctx context.Context) ([]age.Identity, error) {
	if c.keys.ids != nil {
		return c.keys.ids, nil
	}
	ids, err := agekeys.Identities(c.keys.files, agekeys.Terminal{
		Ask:  func(prompt string) ([]byte, error) { return c.keys.ask(ctx, prompt) },
		Show: func(msg string) { c.out.Logger("xbstream", c.s.err).Warn(msg) },
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", format.ErrNoKey, err)
	}
	c.keys.ids = ids
	return ids, nil
}

// unseal finds the key that opens in, if it is encrypted. Reading and asking
// may both wait for ever, and must not keep a cancelled command from ending.
func (c *command) unseal(ctx context.Context, in io.Reader) (io.Reader, error) {
	ids, err := c.identities(ctx)
	if err != nil {
		return nil, err
	}
	type result struct {
		r   io.Reader
		err error
	}
	done := make(chan result, 1)
	go func() {
		r, err := format.Open(in, ids)
		done <- result{r, err}
	}()
	select {
	case res := <-done:
		return res.r, res.err
	case <-ctx.Done():
		c.keys.asking.Lock() // until the terminal is as it was
		return nil, context.Cause(ctx)
	}
}

// ask reads a passphrase from the terminal; standard input may be the archive.
func (k *keys) ask(ctx context.Context, prompt string) ([]byte, error) {
	in, out, err := openTerminal()
	if err != nil {
		return nil, fmt.Errorf("no terminal to ask for it: %w", err)
	}
	k.asking.Lock()
	defer k.asking.Unlock()
	before, err := term.GetState(int(in.Fd()))
	if err != nil {
		return nil, fmt.Errorf("no terminal to ask for it: %w", err)
	}
	defer term.Restore(int(in.Fd()), before)
	fmt.Fprint(out, quote.Line(prompt))
	defer fmt.Fprintln(out)
	type answer struct {
		text []byte
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		text, err := term.ReadPassword(int(in.Fd()))
		got <- answer{text, err}
	}()
	select {
	case a := <-got:
		return a.text, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// openTerminal opens the terminal of the process, whatever its standard files
// are. It stays open: a read that was given up may still wait on it.
func openTerminal() (in, out *os.File, err error) {
	if runtime.GOOS != "windows" {
		in, err = os.OpenFile("/dev/tty", os.O_RDWR, 0)
		return in, in, err
	}
	if in, err = os.OpenFile("CONIN$", os.O_RDWR, 0); err == nil {
		out, err = os.OpenFile("CONOUT$", os.O_WRONLY, 0)
	}
	return in, out, err
}
