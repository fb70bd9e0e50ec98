package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"
)

// Progress shows how far a command is. Its methods may be called from many
// goroutines; a nil Progress shows nothing.
type Progress struct {
	out *Output
	// polite says that the bar leaves the terminal to the program that writes
	// into our pipe, as long as that goes on: it knows more.
	polite bool

	mu      sync.Mutex // guards what follows
	stage   string
	done    int64 // bytes of the stage
	total   int64 // bytes, 0 if unknown
	percent int   // the most that was shown of the stage
	samples []sample

	pipe  atomic.Pointer[Pipe]
	stop  chan string // takes the outcome
	ended chan struct{}
	start time.Time
}

// sample is how much of a stage was done at a time.
type sample struct {
	at   time.Time
	done int64
}

const (
	// progressEvery is the pace of plain and json progress, barEvery that of
	// a bar.
	progressEvery = 5 * time.Second
	barEvery      = 200 * time.Millisecond
	// rateOver is the time over which a rate is measured, rateAfter the least
	// that says anything: the first megabyte comes from a cache.
	rateOver  = 10 * time.Second
	rateAfter = time.Second
)

// Outcomes of a command, in the last object of json progress.
const (
	outcomeDone        = "done"
	outcomeFailed      = "failed"
	outcomeInterrupted = "interrupted"
)

// StartProgress begins to show progress on stderr, as the flags say.
func (o *Output) StartProgress(stderr *os.File) *Progress {
	mode := o.Progress
	auto := mode == "auto"
	if auto && !o.Quiet && term.IsTerminal(int(stderr.Fd())) {
		mode = "bar"
	}
	if mode == "auto" || mode == "none" {
		return nil
	}
	p := newProgress(o, time.Now())
	p.polite = auto
	go p.show(mode, stderr)
	return p
}

func newProgress(o *Output, now time.Time) *Progress {
	p := &Progress{out: o, stop: make(chan string), ended: make(chan struct{}), start: now}
	p.begin("start", 0, now)
	return p
}

// begin begins a stage, under mu or before anybody else knows p.
func (p *Progress) begin(name string, total int64, now time.Time) {
	p.stage, p.done, p.total, p.percent = name, 0, total, 0
	p.samples = append(p.samples[:0], sample{now, 0})
}

// Stage begins a new stage with a total of bytes, 0 if unknown.
func (p *Progress) Stage(name string, total int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begin(name, total, time.Now())
}

// Add says that n more bytes of the stage are done.
func (p *Progress) Add(n int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
}

// Set says that done bytes of total are done in the named stage.
func (p *Progress) Set(name string, done, total int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if name != p.stage || total != p.total {
		p.begin(name, total, time.Now())
	}
	p.done = max(p.done, done) // callers may overtake each other
}

// Watch shows, from now on, when pipe stalls.
func (p *Progress) Watch(pipe *Pipe) {
	if p != nil {
		p.pipe.Store(pipe)
	}
}

// shownStall is the shortest stall worth showing.
const shownStall = 5 * time.Second

// stalled is for how long the pipe has stalled, 0 if that is not worth showing.
func (p *Progress) stalled() time.Duration {
	d := p.pipe.Load().Stalled()
	if d < shownStall {
		return 0
	}
	return d.Round(time.Second)
}

// Stop shows the last state and ends the display. err is how the command ended,
// nil if it did all it had to.
func (p *Progress) Stop(ctx context.Context, err error) {
	if p == nil {
		return
	}
	p.stop <- outcome(ctx, err)
	<-p.ended
}

func outcome(ctx context.Context, err error) string {
	if err == nil {
		return outcomeDone
	}
	// A signal is the reason of whatever else failed because of it.
	for _, e := range []error{context.Cause(ctx), err} {
		if _, ok := errors.AsType[*SignalError](e); ok {
			return outcomeInterrupted
		}
	}
	return outcomeFailed
}

func (p *Progress) show(mode string, stderr *os.File) {
	defer close(p.ended)
	print, every := p.printer(mode, stderr)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			print(now, "")
		case how := <-p.stop:
			print(time.Now(), how)
			return
		}
	}
}

// state is what is shown.
type state struct {
	stage       string
	done, total int64
	percent     int           // of total; never less than before in the same stage
	rate        int64         // bytes a second, 0 if not known yet
	left        time.Duration // 0 if unknown
	stalled     time.Duration
}

// look takes the state at the time now. What was to be done is more than was
// thought when tables have grown.
func (p *Progress) look(now time.Time) state {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := state{stage: p.stage, done: p.done, total: p.total, stalled: p.stalled()}
	if s.total > 0 {
		s.total = max(s.total, s.done)
		p.percent = max(p.percent, int(100*float64(s.done)/float64(s.total)))
		s.percent = p.percent
	}
	p.samples = append(p.samples, sample{now, s.done})
	for len(p.samples) > 2 && now.Sub(p.samples[1].at) >= rateOver {
		p.samples = p.samples[1:]
	}
	first := p.samples[0]
	if took := now.Sub(first.at); took >= rateAfter {
		s.rate = int64(float64(s.done-first.done) / took.Seconds())
	}
	if s.rate > 0 && s.total > s.done {
		s.left = time.Duration(float64(s.total-s.done) / float64(s.rate) * float64(time.Second)).Round(time.Second)
	}
	return s
}

// progressObject is one line of json progress, described in the manual pages.
type progressObject struct {
	Stage          string  `json:"stage"`
	Bytes          int64   `json:"bytes"`
	BytesTotal     int64   `json:"bytes_total"`
	BytesPerSecond int64   `json:"bytes_per_second"`
	Seconds        float64 `json:"seconds"`
	StalledSeconds float64 `json:"stalled_seconds"`
	Outcome        string  `json:"outcome,omitempty"`
}

// printer returns what draws the state once, and how often to call it. outcome
// is empty but for the last time.
func (p *Progress) printer(mode string, w io.Writer) (print func(now time.Time, outcome string), every time.Duration) {
	switch mode {
	case "json":
		enc := json.NewEncoder(w)
		return func(now time.Time, outcome string) {
			s := p.look(now)
			enc.Encode(progressObject{
				s.stage, s.done, s.total, s.rate, now.Sub(p.start).Round(time.Millisecond).Seconds(), s.stalled.Seconds(), outcome,
			})
		}, progressEvery
	case "plain":
		return func(now time.Time, _ string) { fmt.Fprintln(w, p.look(now).line()) }, progressEvery
	}
	return func(now time.Time, outcome string) {
		if outcome != "" {
			p.out.drawn(w, "")
			return
		}
		if !p.polite || !p.pipe.Load().fed() {
			p.out.drawn(w, p.look(now).bar(columns(w)))
		}
	}, barEvery
}

// line is the state in words.
func (s state) line() string {
	text := fmt.Sprintf("%s: %s", s.stage, humanize.IBytes(uint64(s.done)))
	if s.total > 0 {
		text += " of " + humanize.IBytes(uint64(s.total))
	}
	if s.rate > 0 {
		text += fmt.Sprintf(", %s/s", humanize.IBytes(uint64(s.rate)))
	}
	if s.left > 0 {
		text += fmt.Sprintf(", %v left", s.left)
	}
	if s.stalled > 0 {
		text += fmt.Sprintf(", stalled for %v", s.stalled)
	}
	return text
}

// The bar itself is not wider than widest, and left out if not as wide as
// narrowest.
const (
	widest    = 30
	narrowest = 8
)

// bar is the state in less than width columns, with a bar where there is room.
func (s state) bar(width int) string {
	name, rest, _ := strings.Cut(s.line(), ": ")
	text := name
	if s.total > 0 {
		text += fmt.Sprintf(" %3d%%", s.percent)
		// "[] " and two blanks, and the last column, where some terminals
		// begin a new line.
		if room := min(widest, width-1-len(text)-len(rest)-5); room >= narrowest {
			full := room * s.percent / 100
			text += " [" + strings.Repeat("=", full) + strings.Repeat(" ", room-full) + "]"
		}
	}
	text += "  " + rest
	return text[:min(len(text), max(0, width-1))]
}

// columns is the width of the terminal.
func columns(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return 80
}
