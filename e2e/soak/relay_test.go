package main

import (
	"bytes"
	"io"
	"os"
	"testing"
)

// A fault that does nothing finds nothing.
func TestRelay(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 20000)
	flipped := bytes.Clone(data)
	flipped[100001] ^= 1 << (100001 % 8)
	for _, c := range []struct {
		name  string
		set   func(*relay)
		want  []byte
		taken int64
	}{
		{"whole", func(*relay) {}, data, int64(len(data))},
		{"a bit flipped", func(l *relay) { l.flip = 100001 }, flipped, int64(len(data))},
		{"the rest lost", func(l *relay) { l.cut = 100001 }, data[:100001], int64(len(data))},
		{"nothing arrives", func(l *relay) { l.cut = 0 }, nil, int64(len(data))},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newRelay()
			c.set(l)
			if got, err := through(t, l, data); err != nil || !bytes.Equal(got, c.want) {
				t.Errorf("%d bytes arrived, want %d; the sender's error is %v", len(got), len(c.want), err)
			}
			if l.passed.Load() != c.taken {
				t.Errorf("%d bytes taken, want %d", l.passed.Load(), c.taken)
			}
		})
	}
}

func TestRelayBreaks(t *testing.T) {
	data := make([]byte, 4<<20)
	l := newRelay()
	l.broken = 100000
	got, err := through(t, l, data)
	if len(got) < 100000 || len(got) > 200000 || err == nil {
		t.Errorf("%d bytes arrived, and the sender's error is %v", len(got), err)
	}
}

// through sends data through a relay.
func through(t *testing.T, l *relay, data []byte) (got []byte, sent error) {
	t.Helper()
	in, send, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	receive, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer receive.Close()
	go l.run(in, out)
	failed := make(chan error, 1)
	go func() {
		_, err := send.Write(data)
		send.Close()
		failed <- err
	}()
	got, err = io.ReadAll(receive)
	if err != nil {
		t.Fatal(err)
	}
	sent = <-failed
	<-l.done
	<-l.reached
	return got, sent
}
