package chunker

import (
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/innodb"
)

// smallestHole is the shortest run of zeros worth a frame of its own, where it
// is not a file system block punched out of a compressed page.
const smallestHole = 16 << 10

// runs sends pieces of one file as data and holes. Holes that touch are sent as
// one; flush sends the last.
type runs struct {
	sink    Sink
	no      format.FileNo
	holeOff int64
	holeLen int64
}

// write sends the bytes of b, which belong at off, and takes b. Zeros are looked
// for in units of grain bytes.
func (r *runs) write(off int64, b *format.Buffer, grain int) error {
	p := b.Bytes()
	end := len(p) - zerosAtEnd(p, grain)
	if end > 0 && dataRun(p[:end], grain) == end {
		// One piece of data, the usual case, goes without a copy.
		rest := len(p) - end
		b.SetLen(end)
		return r.data(off, b, rest)
	}
	defer b.Release()
	for i := 0; i < len(p); {
		if z := zeroRun(p[i:], grain); z > 0 {
			if err := r.hole(off+int64(i), int64(z)); err != nil {
				return err
			}
			i += z
			continue
		}
		n := dataRun(p[i:], grain)
		piece := format.GetBuffer()
		piece.SetLen(copy(piece.Space(), p[i:i+n]))
		if err := r.data(off+int64(i), piece, 0); err != nil {
			return err
		}
		i += n
	}
	return nil
}

// data sends b and remembers a hole of rest bytes behind it.
func (r *runs) data(off int64, b *format.Buffer, rest int) error {
	if err := r.flush(); err != nil {
		b.Release()
		return err
	}
	end := off + int64(len(b.Bytes()))
	if err := r.sink.WriteData(r.no, off, b); err != nil {
		return err
	}
	return r.hole(end, int64(rest))
}

func (r *runs) hole(off, n int64) error {
	if r.holeLen > 0 && off != r.holeOff+r.holeLen {
		if err := r.flush(); err != nil {
			return err
		}
	}
	if r.holeLen == 0 {
		r.holeOff = off
	}
	r.holeLen += n
	return nil
}

// flush sends the remembered hole.
func (r *runs) flush() error {
	if r.holeLen == 0 {
		return nil
	}
	n := r.holeLen
	r.holeLen = 0
	return r.sink.WriteHole(r.no, r.holeOff, n)
}

// shortest returns the length zeros must have to be a hole.
func shortest(grain int) int {
	if grain == punchSize {
		return punchSize
	}
	return smallestHole
}

// zerosAtEnd returns how many bytes at the end of p are a hole.
func zerosAtEnd(p []byte, grain int) int {
	n := 0
	for end := len(p); end > 0; {
		start := (end - 1) / grain * grain
		if !innodb.IsZero(p[start:end]) {
			break
		}
		n, end = len(p)-start, start
	}
	return long(n, len(p), grain)
}

// zeroRun returns how many bytes at the start of p are a hole.
func zeroRun(p []byte, grain int) int {
	n := 0
	for n < len(p) {
		end := min(n+grain, len(p))
		if !innodb.IsZero(p[n:end]) {
			break
		}
		n = end
	}
	return long(n, len(p), grain)
}

// long returns n if so many zeros of all bytes are worth a hole, or 0. All of a
// piece always is.
func long(n, all, grain int) int {
	if n < shortest(grain) && n < all {
		return 0
	}
	return n
}

// dataRun returns how many bytes at the start of p come before a hole.
func dataRun(p []byte, grain int) int {
	zeros := 0
	for n := 0; n < len(p); n += grain {
		if !innodb.IsZero(p[n:min(n+grain, len(p))]) {
			zeros = 0
			continue
		}
		zeros += grain
		if zeros >= shortest(grain) {
			return n + grain - zeros
		}
	}
	return len(p)
}
