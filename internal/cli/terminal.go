package cli

import (
	"io"
	"os"
	"sync"

	"golang.org/x/term"
)

// A terminal has one line that is drawn again and again, ours or that of the
// other program of a pipe, and messages that stay. A message removes that line
// first; if it is ours, the next drawing brings it back below.

// eraseLine goes to the beginning of the line and empties it.
const eraseLine = "\r\x1b[K"

// terminal keeps drawing and messages apart.
type terminal struct {
	mu   sync.Mutex
	line string // what is drawn now
}

// drawn shows text as the line that is drawn again and again, nothing if empty.
func (o *Output) drawn(w io.Writer, text string) {
	o.screen.mu.Lock()
	defer o.screen.mu.Unlock()
	if text == "" && o.screen.line == "" {
		return
	}
	o.screen.line = text
	io.WriteString(w, eraseLine+text)
}

// above returns what writes messages above the line that is drawn.
func (o *Output) above(w io.Writer) io.Writer {
	f, ok := w.(*os.File)
	return &messages{o, w, ok && o.LogFormat != "json" && term.IsTerminal(int(f.Fd()))}
}

type messages struct {
	out *Output
	w   io.Writer
	// shared says that another program may have drawn there.
	shared bool
}

// Write writes one message.
func (m *messages) Write(p []byte) (int, error) {
	s := &m.out.screen
	s.mu.Lock()
	defer s.mu.Unlock()
	erase := ""
	if s.line != "" || m.shared {
		erase, s.line = eraseLine, ""
	}
	if _, err := m.w.Write(append([]byte(erase), p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}
