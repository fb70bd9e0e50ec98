package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"

	"github.com/spf13/pflag"

	"github.com/xbstream/xbstream/internal/quote"
)

// Output holds the flags both commands have for what they say.
type Output struct {
	Verbose   bool
	Quiet     bool
	LogFormat string
	Progress  string

	screen terminal
}

// Flags registers the flags of Output.
func (o *Output) Flags(f *pflag.FlagSet) {
	f.BoolVarP(&o.Verbose, "verbose", "v", false, "more messages")
	f.BoolVarP(&o.Quiet, "quiet", "q", false, "only errors")
	f.StringVar(&o.LogFormat, "log-format", "text", "`FORMAT` of messages: text or json, one object per line")
	f.StringVar(&o.Progress, "progress", "auto", "show progress as `KIND`: auto (a bar on a terminal), bar, plain, json or none; plain and json print a line every 5s")
}

// Check refuses values that mean nothing.
func (o *Output) Check() error {
	if o.LogFormat != "text" && o.LogFormat != "json" {
		return Usagef("--log-format %q: must be text or json", o.LogFormat)
	}
	switch o.Progress {
	case "auto", "bar", "plain", "json", "none":
		return nil
	}
	return Usagef("--progress %q: must be auto, bar, plain, json or none", o.Progress)
}

// Logger returns the logger of the command called name.
func (o *Output) Logger(name string, stderr io.Writer) *slog.Logger {
	stderr = o.above(stderr)
	level := slog.LevelInfo
	if o.Verbose {
		level = slog.LevelDebug
	}
	if o.Quiet {
		level = slog.LevelError
	}
	stderr = patient{stderr}
	if o.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(quote.JSON(stderr), &slog.HandlerOptions{Level: level, ReplaceAttr: unitInKey}))
	}
	return slog.New(&lines{name: name, level: level, w: stderr, mu: new(sync.Mutex)})
}

// lines is a slog handler that writes for people: command, level unless it is
// the usual one, message, and the attributes in brackets.
type lines struct {
	name  string
	level slog.Level
	attrs string
	mu    *sync.Mutex
	w     io.Writer
}

func (h *lines) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *lines) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(h.name + ": ")
	switch {
	case r.Level >= slog.LevelError:
		b.WriteString("error: ")
	case r.Level >= slog.LevelWarn:
		b.WriteString("warning: ")
	}
	b.WriteString(r.Message)
	attrs := h.attrs
	r.Attrs(func(a slog.Attr) bool { attrs += attrText(a); return true })
	if attrs != "" {
		b.WriteString(" (" + strings.TrimPrefix(attrs, ", ") + ")")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	// A message may quote a server, an archive or a file name.
	_, err := io.WriteString(h.w, quote.Line(b.String())+"\n")
	return err
}

func attrText(a slog.Attr) string {
	return fmt.Sprintf(", %s %s", strings.ReplaceAll(a.Key, "_", " "), forPeople(a.Value.Resolve()))
}

func (h *lines) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	for _, a := range attrs {
		c.attrs += attrText(a)
	}
	return &c
}

func (h *lines) WithGroup(string) slog.Handler { return h }
