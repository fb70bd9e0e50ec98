// Package sparse cuts data into what is written to a file and the runs of zeros
// that become holes in it.
package sparse

import "github.com/xbstream/xbstream/internal/innodb"

// Block is the unit in which zeros become holes, in bytes: the block of the
// usual file systems. A page_compressed page has its zeros in these.
const Block = innodb.PunchSize

// Run is data or zeros.
type Run struct {
	Off, Len int
	Zero     bool
}

// Next returns the run at off, which is a multiple of Block, in p. Fewer zeros
// than shortest, in bytes, count as data.
func Next(p []byte, off, shortest int) Run {
	if n := zeros(p[off:]); isHole(n, len(p)-off, shortest) {
		return Run{off, n, true}
	}
	end := off
	for end < len(p) {
		n := zeros(p[end:])
		if isHole(n, len(p)-end, shortest) {
			break
		}
		end += max(n, min(Block, len(p)-end))
	}
	return Run{off, end - off, false}
}

// zeros returns how many bytes at the start of p are zero, in whole blocks.
func zeros(p []byte) (n int) {
	for n < len(p) {
		end := min(n+Block, len(p))
		if !innodb.IsZero(p[n:end]) {
			break
		}
		n = end
	}
	return n
}

// isHole says whether n zeros are worth a hole. Those before the end of the
// data always are: the next data may go on with zeros.
func isHole(n, rest, shortest int) bool { return n > 0 && (n >= shortest || n == rest) }
