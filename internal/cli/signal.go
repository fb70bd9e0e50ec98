package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// EndWithin ends the process if a signal has ended ctx, the context of Main, and
// the command is still there after limit: something waits that cannot be woken,
// like the opening of a FIFO or a file system that does not answer. The system
// then closes the connections, and the server releases the locks.
func EndWithin(ctx context.Context, limit time.Duration, name string, stderr io.Writer) {
	context.AfterFunc(ctx, func() {
		e, ok := errors.AsType[*SignalError](context.Cause(ctx))
		if !ok {
			return
		}
		time.Sleep(limit)
		said := NewMessages(stderr)
		fmt.Fprintf(said, "%s: error: %v; still waiting after %v, gave up\n", name, e, limit)
		said.Close(time.Second)
		os.Exit(exitSignal + int(e.Signal))
	})
}
