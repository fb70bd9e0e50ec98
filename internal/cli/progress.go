package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Progress shows how far a command is. Its methods may be called from many
// goroutines; a nil Progress shows nothing.
type Progress struct {
	done  atomic.Int64
	total atomic.Int64
	stage atomic.Pointer[string]
	pipe  atomic.Pointer[Pipe]
	stop  chan struct{}
	ended chan struct{}
}

// progressEvery is the pace of plain and json progress; a bar is drawn faster.
const progressEvery = 5 * time.Second

// StartProgress begins to show progress on stderr, as the flags say.
func (o *Output) StartProgress(stderr *os.File) *Progress {
	mode := o.Progress
	if mode == "auto" && !o.Quiet && term.IsTerminal(int(stderr.Fd())) {
		mode = "bar"
	}
	if mode == "auto" || mode == "none" {
		return nil
	}
	p := &Progress{stop: make(chan struct{}), ended: make(chan struct{})}
	p.Stage("start", 0)
	go p.show(mode, stderr)
	return p
}

// Stage begins a new stage with a total of bytes, 0 if unknown.
func (p *Progress) Stage(name string, total int64) {
	if p == nil {
		return
	}
	p.stage.Store(&name)
	p.done.Store(0)
	p.total.Store(total)
}

// Add says that n more bytes of the stage are done.
func (p *Progress) Add(n int64) {
	if p != nil {
		p.done.Add(n)
	}
}

// Set says that done bytes of total are done in the named stage.
func (p *Progress) Set(name string, done, total int64) {
	if p == nil {
		return
	}
	p.stage.Store(&name)
	p.done.Store(done)
	p.total.Store(total)
}

// Watch shows, from now on, when p stalls.
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

// Stop shows the last state and ends the display.
func (p *Progress) Stop() {
	if p != nil {
		close(p.stop)
		<-p.ended
	}
}

func (p *Progress) show(mode string, w io.Writer) {
	defer close(p.ended)
	print, every := p.printer(mode, w)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			print(false)
		case <-p.stop:
			print(true)
			return
		}
	}
}

// bytes returns how many are done, of how many, 0 if unknown. What was to be done
// is more than was thought when tables have grown.
func (p *Progress) bytes() (done, total int64) {
	done, total = p.done.Load(), p.total.Load()
	if total > 0 {
		total = max(total, done)
	}
	return done, total
}

// printer returns what draws the state once, and how often to call it.
func (p *Progress) printer(mode string, w io.Writer) (func(last bool), time.Duration) {
	start := time.Now()
	switch mode {
	case "json":
		enc := json.NewEncoder(w)
		return func(last bool) {
			done, total := p.bytes()
			enc.Encode(map[string]any{
				"stage": *p.stage.Load(), "bytes": done, "total": total,
				"seconds": time.Since(start).Seconds(), "stalled": p.stalled().Seconds(), "done": last,
			})
		}, progressEvery
	case "plain":
		return func(bool) {
			done, total := p.bytes()
			line := fmt.Sprintf("%s: %s", *p.stage.Load(), humanize.IBytes(uint64(done)))
			if total > 0 {
				line += " of " + humanize.IBytes(uint64(total))
			}
			if d := p.stalled(); d > 0 {
				line += fmt.Sprintf(", stalled for %v", d)
			}
			fmt.Fprintln(w, line)
		}, progressEvery
	}
	bar := progressbar.NewOptions64(-1, progressbar.OptionSetWriter(w), progressbar.OptionShowBytes(true),
		progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(true), progressbar.OptionUseANSICodes(true))
	return func(last bool) {
		if last {
			bar.Clear()
			return
		}
		done, total := p.bytes()
		if total > 0 {
			bar.ChangeMax64(max(total, done+1)) // at its end it would finish itself
		}
		about := *p.stage.Load()
		if d := p.stalled(); d > 0 {
			about += fmt.Sprintf(" (stalled for %v)", d)
		}
		bar.Describe(about)
		bar.Set64(done)
	}, 200 * time.Millisecond
}
