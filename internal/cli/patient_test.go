package cli

import (
	"io"
	"testing"
	"testing/synctest"
)

// A standard error that is full and that nobody reads does not stop a command.
func TestMessagesDoNotWaitForEver(t *testing.T) {
	defer messagesLost.Store(false)
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe() // nobody reads
		for _, format := range []string{"text", "json"} {
			o := Output{LogFormat: format}
			for range 3 {
				o.Logger("test", w).Warn("lost")
			}
		}
		r.Close() // the write that waits ends
	})
	if !messagesLost.Load() {
		t.Error("no message was given up")
	}
}
