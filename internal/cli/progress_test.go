package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// Tables that grow while they are copied must not look like a fault.
func TestProgressNeverPassesItsTotal(t *testing.T) {
	p := newProgress(new(Output), time.Now())
	p.Stage("copy", 10<<20)
	p.Add(12 << 20)
	for mode, want := range map[string]string{"plain": "copy: 12 MiB of 12 MiB\n", "json": `"bytes_total":12582912`} {
		var out bytes.Buffer
		print, _ := p.printer(mode, &out)
		print(time.Now(), "")
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s: %q, want %q in it", mode, &out, want)
		}
	}
}

// E1: the share that is done never goes back, whoever is slow to say what it did.
func TestProgressDoesNotGoBack(t *testing.T) {
	now := time.Now()
	p := newProgress(new(Output), now)
	p.Set("apply redo", 97, 100)
	p.Set("apply redo", 95, 100)
	if s := p.look(now); s.percent != 97 || s.done != 97 {
		t.Errorf("%d %%, %d bytes, after 97", s.percent, s.done)
	}
	p.Stage("copy", 100)
	p.Add(100)
	p.look(now)
	p.Add(100) // more than was thought
	if s := p.look(now); s.percent != 100 {
		t.Errorf("%d %% after 100", s.percent)
	}
	p.Set("apply redo", 1, 50) // a batch of its own
	if s := p.look(now); s.percent != 2 {
		t.Errorf("%d %% of a new stage", s.percent)
	}
}

// E1: a rate is that of the last seconds, and not said before there are some.
func TestProgressRate(t *testing.T) {
	start := time.Now()
	p := newProgress(new(Output), start)
	p.begin("copy", 1<<40, start)
	p.Add(1 << 30) // at once, from a cache
	if s := p.look(start.Add(20 * time.Millisecond)); s.rate != 0 || s.left != 0 {
		t.Errorf("after 20ms: %d bytes a second, %v left", s.rate, s.left)
	}
	for second := 1; second <= 60; second++ {
		p.Add(10 << 20)
		s := p.look(start.Add(time.Duration(second) * time.Second))
		if second > 11 && s.rate != 10<<20 {
			t.Fatalf("after %ds: %d bytes a second", second, s.rate)
		}
		if second > 11 && s.left.Seconds() < float64(s.total-s.done)/(10<<20)-1 {
			t.Fatalf("after %ds: %v left", second, s.left)
		}
	}
	if len(p.samples) > 20 {
		t.Errorf("%d samples are kept", len(p.samples))
	}
}

// E1: the line fits the terminal, however narrow.
func TestBarFits(t *testing.T) {
	s := state{stage: "data files", done: 1 << 30, total: 3 << 30, percent: 33, rate: 200 << 20, left: time.Hour, stalled: time.Minute}
	for width := range 200 {
		if text := s.bar(width); len(text) >= max(1, width) || strings.ContainsAny(text, "\r\n") {
			t.Errorf("width %d: %q", width, text)
		}
	}
	if text := s.bar(120); text != "data files  33% [=========                     ]  1.0 GiB of 3.0 GiB, 200 MiB/s, 1h0m0s left, stalled for 1m0s" {
		t.Error(text)
	}
}

// E1: a message stands on its own line, whatever is drawn.
func TestMessageAboveTheBar(t *testing.T) {
	var o Output
	var screen bytes.Buffer
	o.drawn(&screen, "copy  97% ")
	o.Logger("xbsend", &screen).Info("backup complete")
	o.drawn(&screen, "copy  98% ")
	o.drawn(&screen, "")
	if want := eraseLine + "copy  97% " + eraseLine + "xbsend: backup complete\n" + eraseLine + "copy  98% " + eraseLine; screen.String() != want {
		t.Errorf("%q, want %q", &screen, want)
	}
	// Without a bar, and not on a terminal, it is the message and nothing else.
	screen.Reset()
	o.Logger("xbsend", &screen).Info("backup complete")
	if screen.String() != "xbsend: backup complete\n" {
		t.Errorf("%q", &screen)
	}
}

// E1: while another program writes into the pipe, that one draws.
func TestBarWaitsForThePipe(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	p := newProgress(new(Output), time.Now())
	p.polite = true
	pipe := OpenInput(t.Context(), in, PipeOptions{})
	defer pipe.Close()
	p.Watch(pipe)
	var screen bytes.Buffer
	print, _ := p.printer("bar", &screen)
	print(time.Now(), "")
	if screen.Len() > 0 {
		t.Errorf("drawn while the sender is there: %q", &screen)
	}
	out.Close()
	if _, err := pipe.Read(make([]byte, 1)); err == nil {
		t.Fatal("no end")
	}
	print(time.Now(), "")
	if screen.Len() == 0 {
		t.Error("not drawn after the sender has ended")
	}
}

// E2: every object has the same keys, with units, and only the last an outcome.
func TestJSONProgress(t *testing.T) {
	start := time.Now()
	p := newProgress(new(Output), start)
	p.begin("data files", 100, start)
	p.Add(50)
	var out bytes.Buffer
	print, every := p.printer("json", &out)
	print(start.Add(every), "")
	print(start.Add(2*every), outcomeFailed)
	var got []map[string]any
	for dec := json.NewDecoder(&out); dec.More(); {
		var o map[string]any
		if err := dec.Decode(&o); err != nil {
			t.Fatal(err)
		}
		got = append(got, o)
	}
	want := []map[string]any{
		{"stage": "data files", "bytes": 50.0, "bytes_total": 100.0, "bytes_per_second": 10.0, "seconds": 5.0, "stalled_seconds": 0.0},
		{"stage": "data files", "bytes": 50.0, "bytes_total": 100.0, "bytes_per_second": 5.0, "seconds": 10.0, "stalled_seconds": 0.0, "outcome": "failed"},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// E2: the outcome is what became of the command.
func TestOutcome(t *testing.T) {
	killed, kill := context.WithCancelCause(context.Background())
	kill(&SignalError{15})
	failed := errors.New("no space")
	for _, tt := range []struct {
		ctx  context.Context
		err  error
		want string
	}{
		{t.Context(), nil, "done"},
		{t.Context(), failed, "failed"},
		{killed, failed, "interrupted"},
		{killed, nil, "done"}, // the signal came too late
		{t.Context(), fmt.Errorf("read: %w", &SignalError{15}), "interrupted"},
	} {
		if got := outcome(tt.ctx, tt.err); got != tt.want {
			t.Errorf("%v, %v: %q, want %q", context.Cause(tt.ctx), tt.err, got, tt.want)
		}
	}
}
