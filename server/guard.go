package server

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/go-sql-driver/mysql"
)

// Bounds of what a server may send. The driver has none: it allocates what a
// server announces.
const (
	// maxColumns is the most a table can have (MySQL MAX_FIELDS, 4096).
	maxColumns = 4096
	// maxAnswer is the most bytes in answer to one statement: the dictionary of
	// a million tables fits.
	maxAnswer = 256 << 20
	// maxValue is the most of it that may be one packet, which the driver joins
	// in memory from pieces of maxPiece.
	maxValue = 32 << 20
	maxPiece = 1<<24 - 1
)

var (
	// errReadable is for a server that asks for the password in a form that
	// whoever receives it can read.
	errReadable = errors.New("the server asks for the password in a form that it, or whoever answers in its place, can read: " +
		"connect through the socket, or with --ssl-ca or --ssl-verify-server-cert, or give the server's key with --server-public-key-path " +
		"(--get-server-public-key trusts any key)")
	// errNonsense is for what no server sends.
	errNonsense = errors.New("the answer is not one that a server sends")
)

// guard is the connection between the driver and a server that may be another
// than the one that was meant. It reads along what the server sends, and breaks
// the connection before the driver can do what it should not: tell a password,
// or allocate without bound. Where TLS is not verified, the guard also takes the
// place of the driver in setting it up, because it cannot read along otherwise.
//
// It is used by one goroutine, but for Close.
type guard struct {
	net.Conn           // the socket
	stream   io.Writer // the socket, or TLS on it
	in       *bufio.Reader
	tls      *tls.Config // still to be set up; nil if it is not, or by the driver
	readable bool        // the password may be told
	opaque   bool        // the driver sets up TLS: nothing can be read along

	phase  phase
	shift  byte   // how many packets of its own the guard has sent
	ready  []byte // of the packet at hand, to be delivered
	left   int    // bytes of the packet that follow in the stream
	size   int    // bytes of the answer so far
	joined int    // bytes of the packet so far, if it comes in pieces

	mu  sync.Mutex
	err error // why the connection was broken
}

// phase is what the next packet of the server is.
type phase int

const (
	greeting phase = iota
	login
	answerBegins // the first packet, or one after an OK
	answer
)

func newGuard(c net.Conn, readable bool, t *tls.Config) *guard {
	return &guard{Conn: c, stream: c, in: bufio.NewReader(c), tls: t, readable: readable}
}

// SyscallConn lets the driver look whether an idle connection still lives.
func (g *guard) SyscallConn() (syscall.RawConn, error) {
	if c, ok := g.Conn.(syscall.Conn); ok {
		return c.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// broken is why the guard broke the connection, or nil.
func (g *guard) broken() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

func (g *guard) fail(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		g.err = err
	}
	return g.err
}

func (g *guard) Read(p []byte) (int, error) {
	if g.opaque || len(p) == 0 {
		return g.Conn.Read(p)
	}
	if len(g.ready) == 0 && g.left == 0 {
		if err := g.next(); err != nil {
			return 0, err
		}
	}
	if len(g.ready) > 0 {
		n := copy(p, g.ready)
		g.ready = g.ready[n:]
		return n, nil
	}
	n, err := g.in.Read(p[:min(len(p), g.left)])
	g.left -= n
	return n, err
}

const (
	packetHeader = 4
	// lookAhead is how much of a packet is looked at: all of a greeting, which
	// is the longest.
	lookAhead = 1 << 10
)

// next reads the beginning of a packet and judges it.
func (g *guard) next() error {
	buf := make([]byte, packetHeader, packetHeader+lookAhead)
	if _, err := io.ReadFull(g.in, buf); err != nil {
		return err
	}
	length := int(buf[0]) | int(buf[1])<<8 | int(buf[2])<<16
	head := buf[packetHeader : packetHeader+min(length, lookAhead)]
	if _, err := io.ReadFull(g.in, head); err != nil {
		return err
	}
	if err := g.judge(head, length); err != nil {
		return g.fail(err)
	}
	if g.phase <= login {
		buf[3] -= g.shift
	}
	g.ready, g.left = buf[:packetHeader+len(head)], length-len(head)
	if g.phase == greeting {
		g.phase = login
	}
	return nil
}

// First bytes of packets, and the capability of TLS (mysql_com.h).
const (
	packetOK       = 0x00
	packetMoreAuth = 0x01
	packetInFile   = 0xfb
	packetErr      = 0xff
	fastAuthDone   = 3
	capabilitySSL  = 1 << 11
)

// judge looks at the first bytes of a packet of so many bytes.
func (g *guard) judge(head []byte, length int) error {
	if g.size += length; g.size > maxAnswer {
		return fmt.Errorf("%w: more than %d MiB", errNonsense, maxAnswer>>20)
	}
	if g.joined += length; g.joined > maxValue {
		return fmt.Errorf("%w: more than %d MiB in one piece", errNonsense, maxValue>>20)
	}
	if length < maxPiece {
		g.joined = 0
	}
	if len(head) == 0 {
		return nil
	}
	switch g.phase {
	case greeting:
		if g.tls != nil && head[0] != packetErr && !offersTLS(head) {
			return mysql.ErrNoTLS
		}
	case login:
		// All that can follow within a method of authentication is the key of
		// the server, a request for the password, or that none is needed.
		if !g.readable && head[0] == packetMoreAuth && !(length == 2 && head[1] == fastAuthDone) {
			return errReadable
		}
	case answerBegins:
		if head[0] == packetOK {
			return nil // another may follow
		}
		g.phase = answer
		if n := columns(head); n > maxColumns {
			return fmt.Errorf("%w: it has %d columns", errNonsense, n)
		}
	}
	return nil
}

// columns is the number of columns that the first packet of an answer announces:
// a length-encoded integer; 0 for an answer without rows.
func columns(head []byte) uint64 {
	wide := func(n int) uint64 {
		var b [8]byte
		copy(b[:n], head[1:])
		return binary.LittleEndian.Uint64(b[:])
	}
	switch c := head[0]; c {
	case packetErr, packetInFile:
		return 0
	case 0xfc:
		return wide(2)
	case 0xfd:
		return wide(3)
	case 0xfe:
		return wide(8)
	default:
		return uint64(c)
	}
}

// offersTLS reads the capabilities in a greeting: protocol, version as a string
// with NUL, connection, eight bytes, NUL, capabilities.
func offersTLS(head []byte) bool {
	for i, c := range head {
		if c == 0 && i > 0 {
			at := i + 1 + 4 + 8 + 1
			return len(head) >= at+2 && binary.LittleEndian.Uint16(head[at:])&capabilitySSL != 0
		}
	}
	return false
}

// Write passes packets of the driver on, each in one piece as the driver has it.
func (g *guard) Write(p []byte) (int, error) {
	if g.opaque || len(p) < packetHeader {
		return g.stream.Write(p)
	}
	if p[3] == 0 { // the first packet of a statement
		g.phase, g.size = answerBegins, 0
		return g.stream.Write(p)
	}
	if g.phase > login {
		return g.stream.Write(p)
	}
	own := append([]byte(nil), p...) // the driver's buffer stays as it is
	if g.tls != nil {
		if err := g.startTLS(own); err != nil {
			return 0, g.fail(err)
		}
	}
	own[3] += g.shift
	return g.stream.Write(own)
}

// sslRequest is how much of the answer to a greeting a request for TLS repeats.
const sslRequest = 32

// startTLS asks for TLS with the first part of the answer to the greeting, and
// sets it up; the whole answer then says so as well.
func (g *guard) startTLS(response []byte) error {
	if len(response) < packetHeader+sslRequest {
		return errNonsense
	}
	body := response[packetHeader:]
	binary.LittleEndian.PutUint32(body, binary.LittleEndian.Uint32(body)|capabilitySSL)
	request := append([]byte{sslRequest, 0, 0, response[3]}, body[:sslRequest]...)
	if _, err := g.Conn.Write(request); err != nil {
		return err
	}
	if g.in.Buffered() > 0 { // it would count as sent under TLS
		return errNonsense
	}
	c := tls.Client(g.Conn, g.tls)
	if err := c.Handshake(); err != nil { // Close ends it
		return err
	}
	g.stream, g.in, g.tls, g.shift = c, bufio.NewReader(c), nil, 1
	return nil
}
