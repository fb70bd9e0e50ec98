package cli

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestMessagesArriveInOrder(t *testing.T) {
	var b bytes.Buffer
	m := NewMessages(&b)
	var want strings.Builder
	for n := range 500 {
		fmt.Fprintln(m, n)
		fmt.Fprintln(&want, n)
	}
	m.Close(time.Minute)
	if b.String() != want.String() {
		t.Errorf("got %q", &b)
	}
	if n, err := m.Write([]byte("late")); n != 4 || err != nil || strings.Contains(b.String(), "late") {
		t.Errorf("after Close: %d, %v", n, err)
	}
}

// Nobody reads: no write waits, and Close waits as long as it may.
func TestMessagesNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		m := NewMessages(w)
		began := time.Now()
		for n := range 3 * queued {
			fmt.Fprintln(m, n)
		}
		m.Close(time.Second)
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v", took)
		}
		r.Close()
		<-m.done
	})
}
